package stage_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// TestANamedPipeInPlaceOfAFileHoldsNoStartUp puts one in the place of each file: opening it to read would wait for a writer.
func TestANamedPipeInPlaceOfAFileHoldsNoStartUp(t *testing.T) {
	t.Parallel()
	for _, names := range [][]string{{"OWNER"}, {"FORMAT"}, {"LOCK"}, {"RUNNING"}, {"state.db"}, {stage.ScratchName}, {"OWNER", "FORMAT", "LOCK"}} {
		t.Run(strings.Join(names, " and "), func(t *testing.T) {
			t.Parallel()
			s := settings(t, filepath.Join(fastDir(t), "stage"))
			s.Owner = "agent-a"
			commit(t, open(t, s), stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(20, "in-the-journal")})
			to := killed(t, s)
			for _, name := range names {
				path := filepath.Join(to.Dir, name)
				if err := errors.Join(os.RemoveAll(path), unix.Mkfifo(path, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			checkStrange(t, to, names[0], 0)
		})
	}
}

// TestAStrangeLockLetsNoSecondAgentIn replaces LOCK by a folder while an agent runs.
func TestAStrangeLockLetsNoSecondAgentIn(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(fastDir(t), "stage"))
	s.Owner = "agent-a"
	st := open(t, s)
	lock := filepath.Join(s.Dir, "LOCK")
	if err := errors.Join(os.Remove(lock), os.Mkdir(lock, 0o700)); err != nil {
		t.Fatal(err)
	}
	if _, err := stage.Open(t.Context(), s); !errors.Is(err, stage.ErrLocked) {
		t.Errorf("Open of what is in use gave %v", err)
	}
	if info, err := os.Stat(lock); err != nil || !info.IsDir() {
		t.Errorf("the folder was moved: %v", err)
	}
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(1, "x")})
}

// TestANamedPipeBesideANewerLayoutIsLeftAlone touches nothing that a newer agent has.
func TestANamedPipeBesideANewerLayoutIsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"OWNER", "FORMAT"} {
		s := settings(t, filepath.Join(t.TempDir(), "stage"))
		s.Owner = "agent-a"
		leave(t, s)
		path := filepath.Join(s.Dir, name)
		err := errors.Join(stage.PutOrigin(filepath.Join(s.Dir, "state.db"), "agent-a", 3),
			os.WriteFile(filepath.Join(s.Dir, "FORMAT"), []byte("outfeed-stage 3\n"), 0o600), os.Remove(path), unix.Mkfifo(path, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stage.Open(t.Context(), s); !errors.Is(err, stage.ErrNewerFormat) {
			t.Errorf("Open gave %v", err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
			t.Errorf("%s was touched: %v", name, err)
		}
	}
}

// peakMemory is the most that a process has had in memory, in bytes.
func peakMemory(t *testing.T, pid int) uint64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kib, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// TestFilesThatHaveGrownTakeNoMemory makes files of a killed process 3 GiB long, without content behind what they have, and with
// nothing else in them.
func TestFilesThatHaveGrownTakeNoMemory(t *testing.T) {
	t.Parallel()
	const most = 320 << 20
	for _, name := range []string{"LOCK", "RUNNING", "OWNER", "FORMAT", "SPARE", "JOURNAL", "state.db", "outbox-*.db"} {
		for _, from := range []int64{-1, 0} {
			if !*long && from == 0 && name != "JOURNAL" && name != "outbox-*.db" {
				continue
			}
			t.Run(fmt.Sprintf("%s, from %d", name, from), func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "stage")
				c := startFaultChild(t, dir)
				c.begin(t)
				c.commits(t, 20)
				c.end(t, false)
				next := startFaultChild(t, dir)
				next.done = c.done
				c = next
				c.begin(t)
				c.commits(t, 5)
				c.end(t, true)
				path := oneOf(t, dir, name)
				if from == 0 {
					if err := os.Truncate(path, 0); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.Truncate(path, 3<<30); err != nil {
					t.Fatal(err)
				}
				next = startFaultChild(t, dir)
				next.begin(t)
				if peak := peakMemory(t, next.cmd.Process.Pid); peak > most {
					t.Errorf("it takes %d MiB", peak>>20)
				}
				next.end(t, false)
			})
		}
	}
}
