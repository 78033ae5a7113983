package stage_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// fillBy commits one record after the other: each names its number and has the size.
func fillBy(t *testing.T, st *stage.Stage, from, to uint64, size int) {
	t.Helper()
	for n := from; n <= to; n++ {
		text := fmt.Sprintf("%d ", n)
		commit(t, st, stage.Checkpoint{Flow: "f", Number: n, Insights: [][]byte{[]byte(text + strings.Repeat("x", size-len(text)))}})
	}
}

func TestNothingExpiresByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		st := open(t, settings(t, t.TempDir()))
		fillBy(t, st, 1, 3, 100)
		time.Sleep(20 * 365 * 24 * time.Hour)
		if got := st.Stats(); got.WaitingRecords != 3 || len(got.Expired) != 0 {
			t.Errorf("stats: %+v", got)
		}
	})
}

func TestTheOldestMakeRoomWhereTheRuleSaysSo(t *testing.T) {
	t.Parallel()
	const records, size = 400, 10_000
	s := settings(t, t.TempDir())
	s.MaxBytes, s.WhenFull = 1<<20, stage.DropOldest
	st := open(t, s)
	fillBy(t, st, 1, records, size)
	check := func() {
		t.Helper()
		got := st.Stats()
		expired := got.Expired[stage.GoneExpiredBytes]
		if got.WaitingBytes > s.MaxBytes || got.WaitingBytes < s.MaxBytes*8/10 || got.Produced != records || got.Blocked != 0 || got.Lost != 0 {
			t.Errorf("stats: %+v", got)
		}
		if expired+got.WaitingRecords != records || len(got.Expired) != 1 {
			t.Errorf("%d insights expired and %d wait, of %d: %v", expired, got.WaitingRecords, records, got.Expired)
		}
		for i, r := range readAll(t, st, 0) {
			switch seq := uint64(i) + 1; {
			case r.Seq != seq:
				t.Fatalf("record %d is in place %d", r.Seq, seq)
			case seq <= expired && r.Gone != stage.GoneExpiredBytes, seq > expired && !strings.HasPrefix(string(r.Payload), fmt.Sprint(seq, " ")):
				t.Fatalf("record %d is gone by %q and has %.10q; %d expired", seq, r.Gone, r.Payload, expired)
			}
		}
	}
	check()
	st = reopen(t, st, s)
	check()
	first, err := st.ReadOutbox(t.Context(), 0, 1, 1)
	if err != nil || len(first) != 1 || first[0].Count != st.Stats().Expired[stage.GoneExpiredBytes] {
		t.Errorf("what expired is told as %+v, %v", first, err)
	}
	before := st.Stats()
	if err := st.Acknowledge(t.Context(), records); err != nil {
		t.Fatal(err)
	}
	if got := st.Stats(); got.WaitingRecords != 0 || got.Lost != 0 || got.Expired[stage.GoneExpiredBytes] != before.Expired[stage.GoneExpiredBytes] {
		t.Errorf("stats: %+v", got)
	}
}

// TestExpiredSegmentsLeaveTheDisk stages four times what a segment holds with room for less than one.
func TestExpiredSegmentsLeaveTheDisk(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	s.MaxBytes, s.WhenFull = 30<<20, stage.DropOldest
	st := open(t, s)
	for n := range uint64(128) {
		commit(t, st, stage.Checkpoint{Flow: "f", Number: n + 1, Insights: [][]byte{make([]byte, 1<<20), make([]byte, 1<<20)}})
	}
	total := int64(0)
	for _, path := range databases(t, s.Dir) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 140<<20 {
		t.Errorf("the files have %d MiB with at most 30 MiB waiting", total>>20)
	}
	if got := st.Stats(); got.Expired[stage.GoneExpiredBytes] < 256-30 || got.Lost != 0 {
		t.Errorf("stats: %+v", got)
	}
}

func TestDamagedRecordsDoNotExpire(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	for n := range uint64(6) {
		commit(t, st, stage.Checkpoint{Flow: "f", Number: n + 1, Insights: [][]byte{[]byte(fmt.Sprint("needle-", n, "-", strings.Repeat("y", 1000)))}})
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range databases(t, s.Dir) {
		if !strings.HasPrefix(filepath.Base(path), "outbox-") {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "needle-2", "noodle-2")), 0o600); err != nil { //nolint:gosec // a file of the test
			t.Fatal(err)
		}
	}
	s.MaxBytes, s.WhenFull = 3000, stage.DropOldest
	st = open(t, s)
	if got := readAll(t, st, 0); len(got) != 6 || got[2].Gone != stage.GoneDamaged {
		t.Fatalf("the outbox has %d records", len(got))
	}
	// What is left of the damaged segment are two chunks, of which each goes as a whole.
	commit(t, st, stage.Checkpoint{Flow: "f", Number: 7, Insights: payloads(1, "last")})
	got := st.Stats()
	if got.Lost != 1 || got.Expired[stage.GoneExpiredBytes] != 5 || got.WaitingRecords != 2 {
		t.Errorf("stats: %+v", got)
	}
	var reasons []string
	for _, r := range readAll(t, st, 0) {
		reasons = append(reasons, r.Gone)
	}
	if text := strings.Join(reasons, " "); text != "expired_bytes expired_bytes damaged expired_bytes expired_bytes expired_bytes " {
		t.Errorf("the places are gone by %s", text)
	}
	if err := st.Acknowledge(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	if got := st.Stats(); got.Lost != 1 || got.Expired[stage.GoneExpiredBytes] != 5 || got.WaitingRecords != 0 {
		t.Errorf("stats after the acknowledgement: %+v", got)
	}
}

func TestAgeIsTheTimeThatTheAgentRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := settings(t, t.TempDir())
		s.MaxAge = 24 * time.Hour
		start := func() *stage.Stage {
			st, err := stage.Open(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			return st
		}
		stop := func(st *stage.Stage) {
			if err := st.Close(); err != nil {
				t.Fatal(err)
			}
		}
		st := start()
		fillBy(t, st, 1, 5, 100)
		time.Sleep(10 * time.Hour)
		fillBy(t, st, 6, 10, 100)
		time.Sleep(10 * time.Hour)
		stop(st)
		// While it does not run, nothing gets older.
		time.Sleep(1000 * time.Hour)
		st = start()
		time.Sleep(3*time.Hour + 50*time.Minute)
		if got := st.Stats(); got.WaitingRecords != 10 {
			t.Errorf("10 min before the first are a day old %d wait", got.WaitingRecords)
		}
		time.Sleep(20 * time.Minute)
		if got := st.Stats(); got.WaitingRecords != 5 || got.Expired[stage.GoneExpiredAge] != 5 || got.Lost != 0 {
			t.Errorf("stats when the first are a day old: %+v", got)
		}
		records := readAll(t, st, 0)
		if len(records) != 10 || records[4].Gone != stage.GoneExpiredAge || !strings.HasPrefix(string(records[5].Payload), "6 ") {
			t.Errorf("the outbox: %v", texts(records))
		}
		stop(st)
		st = start()
		time.Sleep(10 * time.Hour)
		fillBy(t, st, 11, 11, 100)
		if got := st.Stats(); got.WaitingRecords != 1 || got.Expired[stage.GoneExpiredAge] != 10 {
			t.Errorf("stats when all of them are a day old: %+v", got)
		}
		stop(st)
	})
}
