package agent_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent"
)

const copyFlow = `flow: copy
steps:
  - read: here
    with: {path: "*.csv", format: csv}
    schema: {machine: string, count: int}
  - id: out
    write: there
    with: {path: "out/copy.jsonl"}
`

func copying(t *testing.T) (d agent.Definition, target string) {
	t.Helper()
	from, to := t.TempDir(), t.TempDir()
	write(t, from, "a.csv", "machine,count\nA,1\nB,2\n")
	return agent.Definition{
		File: "copy.yaml", Flow: []byte(copyFlow), ConnectionsFile: "conn.yaml",
		Connections: fmt.Appendf(nil, "here: {kind: file, root: %q}\nthere: {kind: file, root: %q}\n", from, to),
	}, filepath.Join(to, "out", "copy.jsonl")
}

func TestWritesAreDeniedUnlessAllowed(t *testing.T) {
	t.Parallel()
	d, target := copying(t)
	_, err := agent.RunFlow(t.Context(), agent.FlowRun{Definition: d, Out: &bytes.Buffer{}, Log: &bytes.Buffer{}})
	if err == nil || !strings.Contains(err.Error(), "step out: the flow writes into connection there") || !strings.Contains(err.Error(), "--allow-writes") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(target); err == nil {
		t.Error("the refused flow wrote")
	}
	if _, err := agent.RunFlow(t.Context(), agent.FlowRun{Definition: d, Out: &bytes.Buffer{}, Log: &bytes.Buffer{}, Writes: agent.WritesAllowed}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(target)
	if want := `{"machine":"A","count":1}` + "\n" + `{"machine":"B","count":2}` + "\n"; err != nil || string(got) != want {
		t.Errorf("written %q, %v, want %q", got, err, want)
	}
}

func TestCheckFlowListsWrites(t *testing.T) {
	t.Parallel()
	d, _ := copying(t)
	checked, err := agent.CheckFlow(d)
	if err != nil {
		t.Fatal(err)
	}
	if len(checked.Egress.Columns) != 0 || len(checked.Writes) != 1 || checked.Writes[0].Connection != "there" || len(checked.Writes[0].Columns) != 2 {
		t.Errorf("got %+v", checked)
	}
	d.Flow = bytes.Replace(d.Flow, []byte("out/copy.jsonl"), []byte("../copy.jsonl"), 1)
	if _, err := agent.CheckFlow(d); err == nil || !strings.Contains(err.Error(), "step out") {
		t.Errorf("a path out of the root gives %v", err)
	}
}
