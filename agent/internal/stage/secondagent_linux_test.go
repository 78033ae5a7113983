package stage_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// TestASecondAgentIsRefusedWithoutLOCK removes the lock of a running process, and what a person may think to belong to it.
// Windows lets nobody remove a file that is open.
func TestASecondAgentIsRefusedWithoutLOCK(t *testing.T) {
	t.Parallel()
	for _, gone := range [][]string{{"LOCK"}, {"LOCK", "RUNNING"}, {"LOCK", "RUNNING", "JOURNAL"}} {
		t.Run(strings.Join(gone, " and "), func(t *testing.T) {
			t.Parallel()
			s := faultSettings(filepath.Join(t.TempDir(), "stage"), nil)
			s.LockWait = 0 // the usual one
			c := startFaultChild(t, s.Dir)
			c.begin(t)
			for _, name := range gone {
				if err := os.Remove(filepath.Join(s.Dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // the second time it finds the LOCK that the first has made
				begun := time.Now()
				_, err := stage.Open(t.Context(), s)
				if took := time.Since(begun); !errors.Is(err, stage.ErrLocked) || !strings.Contains(err.Error(), "another agent") || !strings.Contains(err.Error(), s.Dir) || took > 5*time.Second {
					t.Errorf("after %s Open gives %v", took, err)
				}
			}
			c.commits(t, 20)
			c.end(t, false)
			if len(gone) < 3 {
				c.checkAfter(t, s.Dir)
			}
		})
	}
}

// TestASecondAgentIsRefusedWithoutLOCKWhileTheFirstWaits removes LOCK while an agent waits for room, without which it could not
// even make RUNNING.
func TestASecondAgentIsRefusedWithoutLOCKWhileTheFirstWaits(t *testing.T) {
	t.Parallel()
	s, disk := onFullDisk(t, withoutState)
	st, err := stage.OpenOrWait(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.Dir, "RUNNING")); err == nil {
		t.Error("it has made RUNNING, so that this tests nothing")
	}
	removeAll(t, filepath.Join(s.Dir, "LOCK"))
	for range 2 {
		if _, err := stage.OpenOrWait(t.Context(), s); !errors.Is(err, stage.ErrLocked) || !strings.Contains(err.Error(), "another agent") {
			t.Errorf("a second agent gets %v", err)
		}
	}
	empty(t, disk, "fill")
	if _, err := stage.Open(t.Context(), s); !errors.Is(err, stage.ErrLocked) {
		t.Errorf("with room a second agent gets %v", err)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	if err := openOnDisk(t, s).Close(); err != nil {
		t.Error(err)
	}
}
