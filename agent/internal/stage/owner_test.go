package stage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// leave lets an owner stage three insights, a desired state and a run report, and acknowledges one insight.
func leave(t *testing.T, s stage.Settings) {
	t.Helper()
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(3, "a")})
	if err := errors.Join(st.Acknowledge(t.Context(), 1), st.PutDesired(t.Context(), []byte("flows of a"), 7), st.PutRunReport(t.Context(), "r", []byte("report of a"))); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWhatAnotherOwnerStagedIsSetAside(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	a := settings(t, filepath.Join(t.TempDir(), "stage"))
	a.Owner, a.Logger = "agent-a", slog.New(slog.NewTextHandler(&log, nil))
	leave(t, a)
	before := contents(t, a.Dir)

	b := a
	b.Owner = "agent-b"
	for range 2 { // the second start finds its own
		st := open(t, b)
		got := st.Stats()
		if got.Produced != 0 || got.WaitingRecords != 0 {
			t.Errorf("a fresh staging has %+v", got)
		}
		if len(got.Formers) != 1 || got.Formers[0].Owner != "agent-a" || got.Formers[0].Waiting != 2 {
			t.Fatalf("set aside: %+v", got.Formers)
		}
		reports, err := st.RunReports(t.Context(), 10)
		if err != nil || len(reports) != 0 {
			t.Errorf("run reports: %v, %v", reports, err)
		}
		if err := st.PutDesired(t.Context(), []byte("flows of b"), 1); err != nil {
			t.Errorf("a lower serial of another owner is refused: %v", err)
		}
		former := got.Formers[0].Dir
		if !strings.HasPrefix(former, a.Dir+".of-agent-a-") {
			t.Errorf("it was set aside as %s", former)
		}
		after := contents(t, former)
		if after["WAITING"] != "2\n" {
			t.Errorf("WAITING is %q", after["WAITING"])
		}
		delete(after, "WAITING")
		if !maps.Equal(before, after) {
			t.Error("what was set aside is not what there was")
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "waiting_insights=2"); n != 1 {
		t.Errorf("%d messages: %s", n, log.String())
	}
}

// TestADirectoryThatHoldsNothingIsClaimed begins where a first start was stopped before it had an owner.
func TestADirectoryThatHoldsNothingIsClaimed(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	for _, name := range []string{"LOCK", "OWNER.new", "lost+found"} {
		if err := errors.Join(os.MkdirAll(s.Dir, 0o700), os.WriteFile(filepath.Join(s.Dir, name), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	s.Owner = "agent-a"
	if got := open(t, s).Stats(); got.Produced != 0 || len(got.Formers) != 0 || got.SetAside != 0 {
		t.Errorf("the claimed staging has %+v", got)
	}
	if owner, err := stage.Owner(s.Dir); owner != "agent-a" || err != nil {
		t.Errorf("the owner is %q, %v", owner, err)
	}
}

func TestADamagedStateIsSetAsideWithItsOwner(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	s.Owner = "../a b"
	leave(t, s)
	if err := os.WriteFile(filepath.Join(s.Dir, "RUNNING"), nil, 0o600); err != nil { // it was not a clean stop
		t.Fatal(err)
	}
	s.Owner = "agent-b"
	s.Verify = func(_ context.Context, path string) error { return fmt.Errorf("%w: %s", stage.ErrDamaged, path) }
	got := open(t, s).Stats().Formers
	if len(got) != 1 || got[0].Owner != "../a b" || got[0].Waiting != -1 || filepath.Dir(got[0].Dir) != filepath.Dir(s.Dir) {
		t.Errorf("set aside: %+v", got)
	}
}

func TestWhatIsInUseOrNewerIsNotSetAside(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	s.Owner = "agent-a"
	st := open(t, s)
	other := s
	other.Owner = "agent-b"
	if _, err := stage.Open(t.Context(), other); !errors.Is(err, stage.ErrLocked) {
		t.Errorf("Open of what is in use gave %v", err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	// A process that another test has just forked holds a copy of the lock until it becomes another program.
	other.LockWait = 10 * time.Second
	for file, text := range map[string]string{"FORMAT": "outfeed-stage 3\n", "OWNER": "agent-"} {
		if err := os.WriteFile(filepath.Join(s.Dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := stage.Open(t.Context(), other); !errors.Is(err, stage.ErrNewerFormat) && !errors.Is(err, stage.ErrDamaged) {
			t.Errorf("Open with the %s %q gave %v", file, text, err)
		}
		if err := os.WriteFile(filepath.Join(s.Dir, "FORMAT"), []byte("outfeed-stage 2\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := filepath.Glob(s.Dir + ".of-*")
	if err != nil || len(list) != 0 {
		t.Errorf("set aside: %v, %v", list, err)
	}
}
