package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// keptTextFlow makes several megabytes of texts of each short line, and an insight of all of them, transientFlow as much
// that only passes through a function.
const (
	keptTextFlow = `flow: kept
trigger: continuous
steps:
  - read: files
    with: {path: "many.csv", format: csv, follow: true}
    schema: {k: int, a: string}
  - map: {t1: 'repeat(concat(a, string(k)), 20000)'}
  - map: {t2: 'concat(t1, "x")', t3: 'concat(t1, "y")', t4: 'replace(t1, "p", "qq")'}
  - map: {t5: 'upper(t4)', t6: 'pad_left(t1, 1000000)', t7: 'pad_right(t2, 1000000)'}
  - filter: 'length(t6) > 0'
  - insight: kept
`
	transientFlow = `flow: passing
trigger: continuous
steps:
  - read: files
    with: {path: "many.csv", format: csv, follow: true}
    schema: {k: int, a: string}
  - map: {l: 'length(sha256(repeat(concat(a, string(k)), 80000))) + length(sha256(repeat(concat(a, string(k), "1"), 80000)))'}
  - filter: 'l < 0'
  - insight: passing
`
)

// TestFaultsOfFlowsThatMakeLongTexts has two flows make texts of almost a megabyte of every line of a long file, beside one
// that works as always. The system gives the agent six times its memory_limit of 128 MB, and it needs far less.
func TestFaultsOfFlowsThatMakeLongTexts(t *testing.T) {
	s, folder := fileSite(t)
	var many strings.Builder
	many.WriteString("k,a\n")
	for i := range 200_000 {
		fmt.Fprintf(&many, "%d,part\n", i)
	}
	if err := os.WriteFile(filepath.Join(folder, "many.csv"), []byte(many.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	pid := s.agent.cmd.Process.Pid
	if out, err := exec.CommandContext(t.Context(), "prlimit", fmt.Sprintf("--pid=%d", pid), "--data=838860800").CombinedOutput(); err != nil { //nolint:gosec // the agent's own number
		t.Fatalf("prlimit, of the package util-linux: %v: %s", err, out)
	}
	s.apply(countFlow)
	s.line(folder, 1)
	s.apply(keptTextFlow)
	s.apply(transientFlow)
	const lines, most = 12, 256 << 20
	for n := 2; n <= lines; n++ {
		s.line(folder, n)
		s.agent.mustLive()
	}
	s.waitSeen("all flows are there, and the one that does no harm is as it was", func(v statusSeen) bool {
		well := 0
		for i := range v.Flows {
			if f := &v.Flows[i]; f.State == "running" && f.Error == "" {
				well++
			}
		}
		return well > 0 && len(v.Flows) == 3
	})
	took := s.agent.mostResident()
	t.Logf("%d insights of the third flow, and the agent took %d MiB at most", lines, took>>20)
	if took > most {
		t.Errorf("the agent took %d MiB with a memory_limit of 128 MB", took>>20)
	}
}
