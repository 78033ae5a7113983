package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent"
)

const flow = `flow: totals
steps:
  - read: here
    with: {path: "*.csv", format: csv}
    schema: {machine: string, count: int}
  - aggregate: {made: sum(count)}
    by: [machine]
  - insight: totals
    key: [machine]
tests:
  - name: two machines
    given: {read_1: [{machine: A, count: 1}, {machine: B, count: 2}, {machine: A, count: 3}]}
    expect: {totals: [{machine: A, made: 4}, {machine: B, made: 2}]}
  - name: a wrong expectation
    given: {read_1: [{machine: A, count: 1}]}
    expect: {totals: [{machine: A, made: 2}]}
`

func definition(t *testing.T, dir string) agent.Definition {
	t.Helper()
	return agent.Definition{
		File: "totals.yaml", Flow: []byte(flow),
		ConnectionsFile: "conn.yaml", Connections: fmt.Appendf(nil, "here: {kind: file, root: %q}\n", dir),
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, d agent.Definition, dataDir string) (out string, s agent.RunSummary) {
	t.Helper()
	var insights, log bytes.Buffer
	s, err := agent.RunFlow(t.Context(), agent.FlowRun{Definition: d, DataDir: dataDir, Out: &insights, Log: &log})
	if err != nil {
		t.Fatalf("%v: %s", err, log.String())
	}
	return insights.String(), s
}

func TestRunFlowPrintsAndStartsAnew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "a.csv", "machine,count\nA,1\nB,2\nA,x\nA,3\n")
	for range 2 {
		out, s := run(t, definition(t, dir), "")
		if strings.Count(out, "\n") != 2 || !strings.Contains(out, `"key":{"machine":"A"},"values":{"made":4}}`) {
			t.Errorf("got %s", out)
		}
		if s.Read != 4 || s.Failed != 1 || s.Insights != 2 {
			t.Errorf("the summary is %+v", s)
		}
	}
}

// A name from a plant cannot steer the terminal that a run prints on, and still says the same.
func TestRunFlowPrintsNothingThatSteersATerminal(t *testing.T) {
	t.Parallel()
	const hostile = "\x1b[2JÖfen\u009b31m\u202e\x7f"
	dir := t.TempDir()
	write(t, dir, "a.csv", "machine,count\n"+hostile+",1\n")
	for _, dataDir := range []string{"", t.TempDir()} {
		out, _ := run(t, definition(t, dir), dataDir)
		if !strings.Contains(out, `"machine":"\u001b[2JÖfen\u009b31m\u202e\u007f"`) {
			t.Errorf("with the data directory %q it prints %q", dataDir, out)
		}
		var line struct{ Key map[string]string }
		if err := json.Unmarshal([]byte(out), &line); err != nil || line.Key["machine"] != hostile {
			t.Errorf("it prints %q, which says %q, %v", out, line.Key, err)
		}
	}
}

func TestRunFlowWithADataDirReadsEachFileOnce(t *testing.T) {
	t.Parallel()
	dir, data := t.TempDir(), t.TempDir()
	d := definition(t, dir)
	write(t, dir, "a.csv", "machine,count\nA,1\n")
	if out, _ := run(t, d, data); !strings.Contains(out, `"made":1`) {
		t.Errorf("the first run printed %q", out)
	}
	if out, s := run(t, d, data); out != "" || s.Read != 0 {
		t.Errorf("the second run read %d records and printed %q", s.Read, out)
	}
	write(t, dir, "b.csv", "machine,count\nA,5\n")
	if out, _ := run(t, d, data); !strings.Contains(out, `"made":5`) {
		t.Errorf("the third run printed %q", out)
	}
}

// failing is an output that is full.
type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestAnOutputThatIsFullEndsTheRunAndLosesNothing(t *testing.T) {
	t.Parallel()
	dir, data := t.TempDir(), t.TempDir()
	d := definition(t, dir)
	write(t, dir, "a.csv", "machine,count\nA,1\n")
	_, err := agent.RunFlow(t.Context(), agent.FlowRun{Definition: d, DataDir: data, Out: failing{}, Log: &bytes.Buffer{}})
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("got %v", err)
	}
	if out, _ := run(t, d, data); strings.Count(out, `"made":1`) != 1 {
		t.Errorf("the next run printed %q, want what could not be printed before", out)
	}
}

func TestTestFlowShowsTheDifference(t *testing.T) {
	t.Parallel()
	results, err := agent.TestFlow(t.Context(), definition(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 2 || !results[0].Passed || results[1].Passed || !strings.Contains(results[1].Difference, "2") {
		t.Errorf("got %+v", results)
	}
}

func TestCheckFlowNamesFileLineAndColumn(t *testing.T) {
	t.Parallel()
	d := definition(t, t.TempDir())
	d.Flow = bytes.Replace(d.Flow, []byte("sum(count)"), []byte("sum(cuont)"), 1)
	_, err := agent.CheckFlow(d)
	wrong, ok := errors.AsType[*agent.DefinitionError](err)
	if !ok || !strings.HasPrefix(wrong.Error(), `totals.yaml:6:27: step "aggregate_2": `) || !strings.Contains(wrong.Error(), `"count"`) {
		t.Errorf("got %v", err)
	}
	d = definition(t, t.TempDir())
	d.Connections = []byte("here: {kind: fiel, root: /x}\n")
	if _, err := agent.CheckFlow(d); err == nil || !strings.HasPrefix(err.Error(), "conn.yaml:1:8: ") {
		t.Errorf("got %v", err)
	}
}

func TestCheckFlowHoldsTheSettingsOfEachReadAgainstItsConnector(t *testing.T) {
	t.Parallel()
	d := definition(t, t.TempDir())
	d.Flow = bytes.Replace(d.Flow, []byte("format: csv"), []byte(`format: csv, delimiter: ";;"`), 1)
	if _, err := agent.CheckFlow(d); err == nil || !strings.Contains(err.Error(), "delimiter") || !strings.Contains(err.Error(), "read_1") {
		t.Errorf("got %v", err)
	}
}

func TestARunThatEndsWithAFailingSourceSaysWhy(t *testing.T) {
	t.Parallel()
	d := definition(t, filepath.Join(t.TempDir(), "missing"))
	ctx, cancel := context.WithCancel(t.Context())
	log := &watched{found: cancel, text: "missing"}
	_, err := agent.RunFlow(ctx, agent.FlowRun{Definition: d, Out: &bytes.Buffer{}, Log: log})
	if err == nil || !strings.Contains(err.Error(), "step read_1: connection here: ") || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

// watched is a log that calls found when it holds a text.
type watched struct {
	text  string
	found func()
}

func (w *watched) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.text)) {
		w.found()
	}
	return len(p), nil
}
