package stage_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

func TestLateRowsAreCountedOnceAndKept(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	c := stage.Checkpoint{Flow: "f", Number: 1, Insights: payloads(2, "a"), Late: 3}
	commit(t, st, c)
	commit(t, st, c)
	commit(t, st, stage.Checkpoint{Flow: "f", Number: 2, Late: 4})
	if n := st.Stats().Late; n != 7 {
		t.Errorf("%d late rows are counted, want 7", n)
	}
	st = reopen(t, st, s)
	if n := st.Stats().Late; n != 7 {
		t.Errorf("%d late rows are counted after a restart, want 7", n)
	}
}

func TestRoomAndRunway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := settings(t, t.TempDir())
		s.MaxBytes = 1_000_000 // a thousand records and a little less
		st, err := stage.Open(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Stats(); got.RoomBytes != s.MaxBytes || got.Runway != stage.RunwayUnknown {
			t.Errorf("room %d and runway %s when empty", got.RoomBytes, got.Runway)
		}
		last := uint64(0)
		for n := range uint64(30) {
			last = commit(t, st, stage.Checkpoint{Flow: "f", Number: n + 1, Insights: [][]byte{make([]byte, 992)}})
			time.Sleep(stage.GrowthSample)
		}
		// 30 records are there, and one comes per sample.
		got := st.Stats()
		record := got.WaitingBytes / 30
		if got.RoomBytes != s.MaxBytes-30*record {
			t.Errorf("room %d, want %d", got.RoomBytes, s.MaxBytes-30*record)
		}
		want := time.Duration(got.RoomBytes/record) * stage.GrowthSample //nolint:gosec // about a thousand
		if got.Runway < want*9/10 || got.Runway > want*11/10 {
			t.Errorf("runway %s, want %s", got.Runway, want)
		}
		if err := st.Acknowledge(t.Context(), last); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			time.Sleep(stage.GrowthSample)
			st.Stats()
		}
		if got := st.Stats(); got.RoomBytes != s.MaxBytes || got.Runway != stage.RunwayUnknown {
			t.Errorf("room %d and runway %s when what waited has left", got.RoomBytes, got.Runway)
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
