package stage_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/protocol/wire"
)

// shape says what lies at each place of the sequence: the size of an insight, or why it is gone.
func shape(t *testing.T, st *stage.Stage) (out []string) {
	t.Helper()
	for after := st.Stats().Acknowledged; ; {
		records, err := st.ReadOutbox(t.Context(), after, 100, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 0 {
			return out
		}
		for _, r := range records {
			after = r.Last()
			for range r.Count {
				if r.Gone != "" {
					out = append(out, r.Gone)
				} else {
					out = append(out, strconv.Itoa(len(r.Payload)))
				}
			}
		}
	}
}

func TestAnInsightThatIsTooLargeIsSetAsideAndTheFlowGoesOn(t *testing.T) {
	t.Parallel()
	if stage.MaxRecordBytes > wire.MaxMessage-1<<10 {
		t.Error("what may be staged does not fit into a message")
	}
	s, log := logged(t, settings(t, t.TempDir()))
	st := open(t, s)
	huge := make([]byte, stage.MaxRecordBytes+1)
	both := stage.Checkpoint{Flow: "f", Number: 1, Cursors: map[string][]byte{"r": []byte("1")}, Earlier: func(yield func([]byte, error) bool) {
		for _, p := range [][]byte{[]byte("abc"), huge, []byte("de")} {
			if !yield(p, nil) {
				return
			}
		}
	}, Insights: [][]byte{make([]byte, stage.MaxRecordBytes), huge, huge, []byte("x")}}
	for range 2 { // the same checkpoint, as after an error
		if last := commit(t, st, both); last != 7 {
			t.Fatalf("the last insight is %d, want 7", last)
		}
	}
	if got := st.Stats().Lost; got != 3 {
		t.Errorf("%d are lost before anybody has read them, want 3", got)
	}
	// A batch of which nothing else is left.
	commit(t, st, stage.Checkpoint{Flow: "f", Number: 2, Insights: [][]byte{huge}})
	if len(both.Insights[1]) != len(huge) {
		t.Error("the caller's insights were changed")
	}
	want := fmt.Sprint([]string{"3", "unsendable", "2", strconv.Itoa(stage.MaxRecordBytes), "unsendable", "unsendable", "1", "unsendable"})
	if got := fmt.Sprint(shape(t, st)); got != want {
		t.Errorf("the outbox has %s, want %s", got, want)
	}
	st = reopen(t, st, s)
	if got := fmt.Sprint(shape(t, st)); got != want {
		t.Errorf("after a restart the outbox has %s, want %s", got, want)
	}
	if got := st.Stats(); got.Lost != 4 || got.WaitingRecords != 8 || got.SetAside != 0 {
		t.Errorf("stats: %+v", got)
	}
	if n := strings.Count(log.String(), "level=ERROR"); n < 2 || !strings.Contains(log.String(), "flow=f insights=3 first_seq=2 largest_bytes=4194305 limit_bytes=4194304") {
		t.Errorf("the log has %d errors: %s", n, log)
	}
	// What has to be numbered anew, because no session has ever sent it, leaves them behind.
	if _, err := st.Reconcile(t.Context(), 100, nil); err != nil {
		t.Fatal(err)
	}
	if got := st.Stats(); got.Lost != 4 || got.WaitingRecords != 4 || got.Produced != 104 {
		t.Errorf("numbered anew: %+v", got)
	}
	commit(t, st, stage.Checkpoint{Flow: "f", Number: 3, Insights: [][]byte{huge}})
	if err := st.Acknowledge(t.Context(), 105); err != nil {
		t.Fatal(err)
	}
	if got := reopen(t, st, s).Stats(); got.Lost != 5 || got.WaitingRecords != 0 {
		t.Errorf("at the end: %+v", got)
	}
}

// TestAnInsightThatIsTooLargeIsToldAsThatAmongWhatIsDropped lets a rule drop what is around it, in the process that has staged it
// and in the next.
func TestAnInsightThatIsTooLargeIsToldAsThatAmongWhatIsDropped(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		s := settings(t, t.TempDir())
		s.MaxBytes, s.WhenFull = 300_000, stage.DropOldest
		st := open(t, s)
		huge := make([]byte, stage.MaxRecordBytes+1)
		some := func(n int) (list [][]byte) {
			for range n {
				list = append(list, make([]byte, 10_000))
			}
			return list
		}
		commit(t, st, stage.Checkpoint{Flow: "f", Number: 1, Insights: append(append(some(3), huge, huge), some(10)...)})
		if restart {
			st = reopen(t, st, s)
		}
		commit(t, st, stage.Checkpoint{Flow: "f", Number: 2, Insights: some(25)})
		check := func() {
			t.Helper()
			got := st.Stats()
			expired := got.Expired[stage.GoneExpiredBytes]
			if got.Lost != 2 || expired < 5 || len(got.Expired) != 1 || got.WaitingRecords+expired != 40 {
				t.Errorf("stats: %+v", got)
			}
			for i, what := range shape(t, st) {
				want := "10000"
				switch seq := uint64(i) + 1; {
				case seq == 4 || seq == 5:
					want = "unsendable"
				case seq <= expired+2:
					want = "expired_bytes"
				}
				if what != want {
					t.Errorf("place %d is %s, want %s", i+1, what, want)
				}
			}
		}
		check()
		st = reopen(t, st, s)
		check()
		before := st.Stats()
		if err := st.Acknowledge(t.Context(), 40); err != nil {
			t.Fatal(err)
		}
		if got := reopen(t, st, s).Stats(); got.Lost != 2 || got.WaitingRecords != 0 || got.Expired[stage.GoneExpiredBytes] != before.Expired[stage.GoneExpiredBytes] {
			t.Errorf("at the end: %+v", got)
		}
	}
}
