package stage_test

import (
	"os"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// What can never be sent is lost once, however often that is said, and stays so over a restart.
func TestWhatIsGivenUpIsLostOnce(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "f", Number: 1, Insights: payloads(5, "a")})
	for range 2 {
		st.GiveUp(2)
		st.GiveUp(4)
		st.GiveUp(99)
	}
	if n := st.Stats().Lost; n != 2 {
		t.Errorf("%d are lost while they wait, want 2", n)
	}
	if err := st.Acknowledge(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	st.GiveUp(2)
	if n := st.Stats().Lost; n != 2 {
		t.Errorf("%d are lost when one of them is acknowledged, want 2", n)
	}
	if err := st.Acknowledge(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	commit(t, st, stage.Checkpoint{Flow: "f", Number: 2, Insights: payloads(1, "b")})
	st = reopen(t, st, s)
	if got := st.Stats(); got.Lost != 2 || got.WaitingRecords != 1 {
		t.Errorf("after a restart %d are lost and %d wait, want 2 and 1", got.Lost, got.WaitingRecords)
	}
}

// What an acknowledgement counts as lost is on the disk at once: after a crash nobody would look at it again.
func TestALossIsStoredWithItsAcknowledgement(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "f", Number: 1, Insights: payloads(5, "a")})
	st.GiveUp(2)
	if err := st.Acknowledge(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	copied := settings(t, t.TempDir())
	if err := os.CopyFS(copied.Dir, os.DirFS(s.Dir)); err != nil {
		t.Fatal(err)
	}
	if got := open(t, copied).Stats(); got.Lost != 1 || got.Acknowledged != 3 {
		t.Errorf("a copy of the files has %d lost and %d acknowledged, want 1 and 3", got.Lost, got.Acknowledged)
	}
}
