package stage_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// halfDamaged stages 40 insights, of which a session has sent all, and of which the control plane has stored 20 although that is not
// on the disk here; then it damages 10 that are stored and 10 that are not, and leaves the directory as a kill does.
func halfDamaged(t *testing.T) stage.Settings {
	t.Helper()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	inChildren(&s)
	stage.JournalBytes(&s, -1)
	st := open(t, s)
	if _, err := st.Reconcile(t.Context(), 0, nil); err != nil {
		t.Fatal(err)
	}
	all := payloads(40, "unsure")
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: all})
	if got := readAll(t, st, 0); len(got) != 40 {
		t.Fatalf("%d are there", len(got))
	}
	to := killed(t, s)
	path, _ := segmentWith(t, to.Dir, string(all[0]))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range all {
		if i/10 == 1 || i/10 == 2 {
			b = bytes.ReplaceAll(b, p, bytes.ToUpper(p))
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil { //nolint:gosec // a file of the test
		t.Fatal(err)
	}
	return to
}

func wantLost(t *testing.T, st *stage.Stage, when string, lost, unsure uint64) {
	t.Helper()
	if got := st.Stats(); got.Lost != lost || got.LostUnsure != unsure {
		t.Errorf("%s: %d are lost, of which %d are unsure, want %d and %d", when, got.Lost, got.LostUnsure, lost, unsure)
	}
}

// TestWhatIsStoredIsNotLost damages insights that the control plane has and insights that it does not have. Until a session says
// which those are, over restarts and another kill, it is unsure.
func TestWhatIsStoredIsNotLost(t *testing.T) {
	t.Parallel()
	s := halfDamaged(t)
	st := open(t, s)
	wantLost(t, st, "before a session", 20, 20)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 2, Insights: payloads(1, "later")})
	st = reopen(t, st, s)
	wantLost(t, st, "after a restart", 20, 20)
	s = killed(t, s)
	st = open(t, s)
	wantLost(t, st, "after a kill", 20, 20)
	if after, err := st.Reconcile(t.Context(), 20, nil); err != nil || after != 20 {
		t.Fatalf("it agrees on %d, %v", after, err)
	}
	wantLost(t, st, "once a session has agreed", 10, 0)
	told := 0
	for _, r := range readAll(t, st, 20) {
		if r.Gone == stage.GoneDamaged {
			told += int(r.Count) //nolint:gosec // a few
		}
	}
	if told != 10 {
		t.Errorf("%d are told as damaged, want 10", told)
	}
	// The receipts are stored, and the agent is killed before it is told.
	st = open(t, killed(t, s))
	wantLost(t, st, "after the receipts", 10, 0)
	if _, err := st.Reconcile(t.Context(), 41, nil); err != nil {
		t.Fatal(err)
	}
	wantLost(t, st, "in the end", 10, 0)
}

// TestTheReceiptsCountWhateverHappensToTheFiles lets a session tell what is lost while nothing can be written, kills the agent, and
// damages more. What the control plane has receipts for is what is lost.
func TestTheReceiptsCountWhateverHappensToTheFiles(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(t *testing.T, dir string){
		"nothing else":                   withoutFiles(),
		"the state is removed":           withoutFiles("state.db"),
		"all is removed but the segment": withoutFiles("state.db", "RUNNING", "LOCK"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := halfDamaged(t)
			st := open(t, s)
			stage.FailAt(st, func(string) error { return syscall.EIO })
			if err := st.PutRunReport(t.Context(), "run", []byte("x")); err == nil {
				t.Fatal("the commit does not fail")
			}
			var lost uint64
			if _, err := st.Reconcile(t.Context(), 20, &lost); err != nil {
				t.Fatal(err)
			}
			readAll(t, st, 20)
			if err := st.Acknowledge(t.Context(), 40); err != nil {
				t.Fatal(err)
			}
			wantLost(t, st, "once it is told", 10, 0)
			s = killed(t, s)
			stage.FailAt(st, nil)
			harm(t, s.Dir)
			st = open(t, s)
			wantLost(t, st, "before a session", 20, 20)
			lost = 10
			for _, when := range []string{"once a session has agreed", "after the next kill"} {
				if _, err := st.Reconcile(t.Context(), 40, &lost); err != nil {
					t.Fatal(err)
				}
				wantLost(t, st, when, 10, 0)
				s = killed(t, s)
				st = open(t, s)
				wantLost(t, st, when+", after a start", 10, 0)
			}
		})
	}
}

// TestWhatTheControlPlaneHasLostStaysCounted lets the control plane go back behind receipts, and forward again.
func TestWhatTheControlPlaneHasLostStaysCounted(t *testing.T) {
	t.Parallel()
	s := halfDamaged(t)
	st := open(t, s)
	for _, c := range []struct{ stored, receipts, lost uint64 }{
		{20, 0, 10}, {40, 10, 10}, {15, 0, 10}, {40, 0, 10}, {40, 0, 10},
	} {
		if _, err := st.Reconcile(t.Context(), c.stored, &c.receipts); err != nil {
			t.Fatal(err)
		}
		wantLost(t, st, fmt.Sprint(c), c.lost, 0)
		s = killed(t, s)
		st = open(t, s)
		wantLost(t, st, fmt.Sprint(c, " after a kill"), c.lost, 0)
	}
}

// TestWhatIsDamagedDuringASessionAndStoredIsNotLost damages what was sent while the session goes on.
func TestWhatIsDamagedDuringASessionAndStoredIsNotLost(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	stage.JournalBytes(&s, -1)
	st := open(t, s)
	if _, err := st.Reconcile(t.Context(), 0, nil); err != nil {
		t.Fatal(err)
	}
	all := payloads(40, "unsure")
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: all})
	if got, err := st.ReadOutbox(t.Context(), 0, 20, 1<<20); err != nil || len(got) != 20 {
		t.Fatalf("%d were read: %v", len(got), err)
	}
	path, _ := segmentWith(t, s.Dir, string(all[0]))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{5, 25} {
		overwrite(t, path, int64(bytes.LastIndex(b, all[i])), bytes.ToUpper(all[i]))
	}
	readAll(t, st, 20)
	wantLost(t, st, "once it is found", 2, 1)
	if err := st.Acknowledge(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	wantLost(t, st, "once the first is stored", 1, 0)
	if err := st.Acknowledge(t.Context(), 40); err != nil {
		t.Fatal(err)
	}
	wantLost(t, st, "in the end", 1, 0)
}

// TestWhatIsTooLargeStaysCounted kills a stage, with the insight in the journal alone, in state.db alone, and after another commit.
func TestWhatIsTooLargeStaysCounted(t *testing.T) {
	t.Parallel()
	huge := make([]byte, stage.MaxRecordBytes+1)
	for name, journal := range map[string]int{"with a journal": 0, "without": -1} {
		s := settings(t, filepath.Join(t.TempDir(), "stage"))
		inChildren(&s)
		if journal != 0 {
			stage.JournalBytes(&s, journal)
		}
		st := open(t, s)
		commit(t, st, stage.Checkpoint{Flow: "f", Number: 1, Insights: [][]byte{[]byte("a"), huge, []byte("b")}})
		for number := uint64(2); number < 5; number++ {
			s = killed(t, s)
			st = open(t, s)
			wantLost(t, st, name, number-1, 0)
			commit(t, st, stage.Checkpoint{Flow: "f", Number: number, Insights: [][]byte{huge}})
		}
		st = reopen(t, st, s)
		wantLost(t, st, name+", stopped", 4, 0)
		if err := st.Acknowledge(t.Context(), 6); err != nil {
			t.Fatal(err)
		}
		wantLost(t, open(t, killed(t, s)), name+", in the end", 4, 0)
	}
}

func FuzzSpans(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		if again, ok := stage.SpansAgain(b); ok && !bytes.Equal(again, b) {
			t.Errorf("%x becomes %x", b, again)
		}
	})
}
