package supervisor_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/outfeed/outfeed/agent/internal/supervisor"
)

// TestAReportOfBytesThatAreNoTextArrives reads a file whose name and content are in another encoding than UTF-8, as many
// old machines write them.
func TestAReportOfBytesThatAreNoTextArrives(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.write("Halle M\xfcller.jsonl", line(1)+"St\xf6rung an der Presse\n"+strings.Repeat("ä", 300)+"\n"+line(2))
	p.sup.Apply([]supervisor.Deployment{p.lines("a", "{every: 1s}", 1, once)})
	p.awaitInsights(seen(1, 1), seen(1, 2))
	p.await("the run has ended", func() bool { r := p.reports("a"); return len(r) >= 1 && r[0].GetStatus() == "ok" })
	first := p.reports("a")[0]
	if first.GetRecordsFailed() != 2 || len(first.GetFailedSample()) != 2 {
		t.Fatalf("the report is %v", first)
	}
	for i, record := range []string{"St\ufffdrung an der Presse", strings.Repeat("ä", 126) + "…"} {
		s := first.GetFailedSample()[i]
		if s.GetRecord() != record || !strings.Contains(s.GetWhere(), "Halle M\ufffdller.jsonl") || !utf8.ValidString(s.GetReason()) {
			t.Errorf("it says %v", s)
		}
	}
}
