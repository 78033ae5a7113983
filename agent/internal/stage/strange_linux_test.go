package stage_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// TestANamedPipeInPlaceOfAFileHoldsNoStartUp puts one in the place of each file: opening it to read would wait for a writer.
func TestANamedPipeInPlaceOfAFileHoldsNoStartUp(t *testing.T) {
	t.Parallel()
	for _, names := range [][]string{{"OWNER"}, {"FORMAT"}, {"LOCK"}, {"RUNNING"}, {"state.db"}, {"OWNER", "FORMAT", "LOCK"}} {
		t.Run(strings.Join(names, " and "), func(t *testing.T) {
			t.Parallel()
			s := settings(t, filepath.Join(fastDir(t), "stage"))
			s.Owner = "agent-a"
			commit(t, open(t, s), stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(20, "in-the-journal")})
			to := killed(t, s)
			for _, name := range names {
				path := filepath.Join(to.Dir, name)
				if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)); err != nil {
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
