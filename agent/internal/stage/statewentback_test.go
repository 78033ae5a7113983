package stage_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// TestFaultFilesOfDifferentMomentsAreTold puts single files of an earlier moment into a killed directory: what flows repeat is
// told, what is not there any more is counted, and nothing wrong is served.
func TestFaultFilesOfDifferentMomentsAreTold(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	before, after := stage.Settings{}, stage.Settings{}
	six := acknowledgedSix(t, s, func(st *stage.Stage) {
		before = killed(t, s)
		if err := st.PutDesired(t.Context(), []byte("desired"), 1); err != nil { // it folds
			t.Error(err)
		}
		after = killed(t, s)
	})
	for name, c := range map[string]struct {
		// older are the files that are put back as they were before the fold, or right after it, and gone those that are removed.
		older, later, gone []string
		lost               []int
		numbers            [2]uint64
		quiet              bool
	}{
		"nothing":                                  {numbers: [2]uint64{4, 2}, quiet: true},
		"the state":                                {older: []string{"state.db"}},
		"the state, RUNNING is gone":               {older: []string{"state.db"}, gone: []string{"RUNNING"}},
		"the state, and no mark":                   {older: []string{"state.db"}, gone: []string{"RUNNING", "LOCK"}},
		"the state, and no journal":                {older: []string{"state.db"}, gone: []string{"JOURNAL"}, lost: from(31)},
		"the state and the journal":                {older: []string{"state.db", "JOURNAL"}, lost: from(31), numbers: [2]uint64{2, 1}},
		"the state, the journal and RUNNING":       {older: []string{"state.db", "JOURNAL", "RUNNING"}, lost: from(31), numbers: [2]uint64{2, 1}},
		"the journal":                              {older: []string{"JOURNAL"}, lost: from(31), numbers: [2]uint64{2, 1}},
		"the journal and RUNNING":                  {older: []string{"JOURNAL", "RUNNING"}, lost: from(31), numbers: [2]uint64{2, 1}},
		"the journal after the fold":               {later: []string{"JOURNAL"}, lost: from(31), numbers: [2]uint64{2, 1}},
		"the state after the fold":                 {later: []string{"state.db"}, numbers: [2]uint64{4, 2}, quiet: true}, // the journal has it all
		"RUNNING":                                  {older: []string{"RUNNING"}, numbers: [2]uint64{4, 2}, quiet: true},
		"RUNNING and LOCK":                         {older: []string{"RUNNING", "LOCK"}, numbers: [2]uint64{4, 2}, quiet: true},
		"RUNNING, and the journal after the fold":  {older: []string{"RUNNING"}, later: []string{"JOURNAL"}, lost: from(31), numbers: [2]uint64{2, 1}},
		"the outbox is gone, and the state before": {older: []string{"state.db"}, gone: []string{"outbox"}, lost: upTo(30)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := killed(t, six)
			for from, names := range map[string][]string{before.Dir: c.older, after.Dir: c.later} {
				for _, name := range names {
					b, err := os.ReadFile(filepath.Join(from, name))
					if err == nil {
						err = os.WriteFile(filepath.Join(to.Dir, name), b, 0o600) //nolint:gosec // a file of the test
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, name := range c.gone {
				paths, err := filepath.Glob(filepath.Join(to.Dir, name+"*"))
				if err != nil || len(paths) != 1 {
					t.Fatal(paths, err)
				}
				if err := os.Remove(paths[0]); err != nil {
					t.Fatal(err)
				}
			}
			for start := range 2 {
				st := open(t, to)
				got := st.Stats()
				if a, b := flowAt(t, st, "a"), flowAt(t, st, "b"); a.Number != c.numbers[0] || b.Number != c.numbers[1] {
					t.Errorf("start %d: the flows are at %d and %d, want %v", start+1, a.Number, b.Number, c.numbers)
				}
				told := slices.ContainsFunc(got.Damaged, func(d stage.DamagedFile) bool { return len(d.SetBack)+len(d.StartedAnew) > 0 })
				if told == c.quiet || got.Lost != uint64(len(c.lost)) || got.Produced != 60 || (got.SetAside == 0) != c.quiet {
					t.Errorf("start %d: %+v", start+1, got)
				}
				checkSix(t, st, c.lost)
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// upTo is the sequences up to a last one.
func upTo(last int) (list []int) {
	for n := 1; n <= last; n++ {
		list = append(list, n)
	}
	return list
}

// TestFaultAnOlderStateAfterACleanStopIsTold puts state.db back as it was while the agent ran, after it has stopped cleanly.
func TestFaultAnOlderStateAfterACleanStopIsTold(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	commits := func(from, to uint64) {
		t.Helper()
		for n := from; n <= to; n++ {
			commit(t, st, stage.Checkpoint{Flow: "a", Number: n, Cursors: map[string][]byte{"r": fmt.Append(nil, n)}, Insights: payloads(10, "insight")})
		}
	}
	commits(1, 3)
	st = reopen(t, st, s)
	older, err := os.ReadFile(filepath.Join(s.Dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, journal := range []bool{true, false} {
		commits(flowAt(t, st, "a").Number+1, flowAt(t, st, "a").Number+2)
		st = reopen(t, st, s) // what it has staged is in the segments
		commits(flowAt(t, st, "a").Number+1, flowAt(t, st, "a").Number+2)
		produced := st.Stats().Produced
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		err := os.WriteFile(filepath.Join(s.Dir, "state.db"), older, 0o600) //nolint:gosec // a file of the test
		if !journal {
			err = errors.Join(err, os.Remove(filepath.Join(s.Dir, "JOURNAL")), os.Remove(filepath.Join(s.Dir, "LOCK")))
		}
		if err != nil {
			t.Fatal(err)
		}
		st = open(t, s)
		got := st.Stats()
		if got.SetAside == 0 || len(got.Damaged) == 0 || len(got.Damaged[0].SetBack) == 0 {
			t.Errorf("with a journal (%t): nothing is told: %+v", journal, got)
		}
		gone := uint64(0)
		for _, r := range readAll(t, st, 0) {
			if r.Gone != "" {
				gone++
			}
		}
		if got.Lost != gone || got.Produced > produced {
			t.Errorf("with a journal (%t): of %d, %d are gone and it says %+v", journal, produced, gone, got)
		}
	}
}

// TestFaultASegmentWithoutItsNewestHeadIsSalvagedWithoutAState takes away all that says where the outbox ends but the journal, or
// its mark: the state, and the head of the last segment that leads to its newest records.
func TestFaultASegmentWithoutItsNewestHeadIsSalvagedWithoutAState(t *testing.T) {
	t.Parallel()
	six := acknowledgedSix(t, settings(t, t.TempDir()), func(st *stage.Stage) {
		if err := st.PutDesired(t.Context(), []byte("desired"), 1); err != nil { // it folds
			t.Error(err)
		}
	})
	for name, c := range map[string]struct {
		harm func(t *testing.T, dir string)
		lost []int
		end  uint64 // 60 for 0
	}{
		"the journal is whole": {harm: func(*testing.T, string) {}},
		"the journal is zeroed": {harm: func(t *testing.T, dir string) {
			t.Helper()
			changeJournal(t, dir, func(b []byte) []byte { clear(b[blockBytes : len(b)-blockBytes]); return b })
		}, lost: from(31)},
		"nothing is left but the outbox": {harm: func(t *testing.T, dir string) {
			t.Helper()
			for _, name := range []string{"JOURNAL", "RUNNING", "LOCK"} {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}, end: 30},
		"the journal's first frame is gone": {harm: func(t *testing.T, dir string) {
			t.Helper()
			changeJournal(t, dir, func(b []byte) []byte { clear(b[blockBytes : 2*blockBytes]); return b })
		}, lost: []int{31, 32, 33, 34, 35, 36, 37, 38, 39, 40}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := killed(t, six)
			c.harm(t, to.Dir)
			overwrite(t, filepath.Join(to.Dir, "state.db"), 0, make([]byte, 1<<15))
			path := databases(t, to.Dir)[0]
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			newest := int64(0)
			if txid := func(page int) uint64 { return binary.LittleEndian.Uint64(b[page*4096+64:]) }; txid(1) > txid(0) {
				newest = 4096
			}
			overwrite(t, path, newest, make([]byte, 512))
			for start := range 2 {
				st := open(t, to)
				if got := st.Stats(); got.Produced != cmp.Or(c.end, 60) || got.Lost != uint64(len(c.lost)) || got.SetAside < 2 || len(got.Damaged) < 2 {
					t.Errorf("start %d: %+v", start+1, got)
				}
				if c.end == 0 {
					checkSix(t, st, c.lost)
				} else if got := texts(readAll(t, st, 0)); !slices.Equal(got, sixTexts()[:c.end]) {
					t.Errorf("start %d: the outbox has %q", start+1, got)
				}
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestFaultADamagedStateWithoutRUNNINGIsNoCrashLoop lets the start that looks whether the last stop was clean come by damage that
// makes bbolt give up with its locks held.
func TestFaultADamagedStateWithoutRUNNINGIsNoCrashLoop(t *testing.T) {
	t.Parallel()
	six := acknowledgedSix(t, settings(t, t.TempDir()), func(st *stage.Stage) {
		if err := st.PutDesired(t.Context(), []byte("desired"), 1); err != nil { // it folds
			t.Error(err)
		}
	})
	path := filepath.Join(six.Dir, "state.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for page := 2; page < len(whole)/4096 && page < 12; page++ {
		t.Run(fmt.Sprint("page ", page), func(t *testing.T) {
			t.Parallel()
			to := killed(t, six)
			inChildren(&to)
			overwrite(t, filepath.Join(to.Dir, "state.db"), int64(page)*4096, bytes.Repeat([]byte{0xff}, 4096))
			if err := os.Remove(filepath.Join(to.Dir, "RUNNING")); err != nil {
				t.Fatal(err)
			}
			for start := range 2 {
				st := open(t, to)
				if got := st.Stats(); got.Produced != 60 || got.Lost != 0 {
					t.Errorf("start %d: %+v", start+1, got)
				}
				checkSix(t, st, nil)
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestFaultADamagedSegmentAfterACleanStopIsSalvaged damages what no start verifies, because the last stop was clean.
func TestFaultADamagedSegmentAfterACleanStopIsSalvaged(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(fastDir(t), "stage"))
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(200, strings.Repeat("insight", 100))})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(databases(t, s.Dir)[0])
	if err != nil {
		t.Fatal(err)
	}
	for page := range min(info.Size()/4096, 12) {
		t.Run(fmt.Sprint("page ", page), func(t *testing.T) {
			t.Parallel()
			to := killed(t, s)
			inChildren(&to)
			path := databases(t, to.Dir)[0]
			overwrite(t, path, page*4096, bytes.Repeat([]byte{0xff}, 4096))
			// It may have a head less than it should, which bbolt's own check would mind.
			st, err := stage.Open(t.Context(), to)
			if err != nil {
				t.Fatal(err)
			}
			gone := uint64(0)
			for i, r := range readAll(t, st, 0) {
				if r.Gone != "" {
					gone++
				} else if !bytes.Equal(r.Payload, payloads(200, strings.Repeat("insight", 100))[i]) {
					t.Errorf("record %d is wrong", r.Seq)
				}
			}
			if got := st.Stats(); got.Produced != 200 || got.Lost != gone || gone > 12 {
				t.Errorf("%d are gone: %+v", gone, got)
			}
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
