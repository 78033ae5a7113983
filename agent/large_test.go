package agent_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent"
)

// TestRunFlowGoesOnBehindAnInsightThatIsTooLarge stages what it prints, so that an insight must fit into the outbox.
func TestRunFlowGoesOnBehindAnInsightThatIsTooLarge(t *testing.T) {
	t.Parallel()
	dir, data := t.TempDir(), t.TempDir()
	write(t, dir, "a.csv", "machine,count\nA,1\nB,1000000\nC,2\n")
	d := definition(t, dir)
	d.Flow = []byte(`flow: large
steps:
  - read: here
    with: {path: "*.csv", format: csv}
    schema: {machine: string, count: int}
  - map: {a: 'repeat("x", count)', b: 'repeat("x", count)', c: 'repeat("x", count)', d: 'repeat("x", count)', e: 'repeat("x", count)'}
  - id: out
    insight: all
    key: [machine]
`)
	var insights, log bytes.Buffer
	s, err := agent.RunFlow(t.Context(), agent.FlowRun{Definition: d, DataDir: data, Out: &insights, Log: &log})
	if err != nil {
		t.Fatal(err)
	}
	if out := insights.String(); strings.Count(out, "\n") != 2 || !strings.Contains(out, `"A"`) || !strings.Contains(out, `"C"`) {
		t.Errorf("it prints %.500s", out)
	}
	if s.Failed != 1 || len(s.Sample) != 1 || s.Sample[0].Step != "out" || !strings.Contains(s.Sample[0].Reason, "an insight all has 5000") {
		t.Errorf("the summary is %+v", s)
	}
	if !strings.Contains(log.String(), "insights are too large to be sent") {
		t.Errorf("the log has %s", log.String())
	}
	if out, again := run(t, d, data); out != "" || again.Read != 0 {
		t.Errorf("the second run read %d records and printed %.100q", again.Read, out)
	}
}
