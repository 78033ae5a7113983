package stage_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// killed gives a copy of what is on the disk while the stage still runs, as a killed process would leave it.
func killed(t *testing.T, s stage.Settings) stage.Settings {
	t.Helper()
	to := s
	to.Dir = filepath.Join(fastDir(t), "stage")
	if err := os.CopyFS(to.Dir, os.DirFS(s.Dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// changeJournal changes the journal of a directory.
func changeJournal(t *testing.T, dir string, fn func(b []byte) []byte) {
	t.Helper()
	path := filepath.Join(dir, "JOURNAL")
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, fn(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// inJournal says whether the journal has a text, and the outbox's files do not.
func inJournal(t *testing.T, dir, text string) bool {
	t.Helper()
	there := false
	for name, content := range contents(t, dir) {
		if strings.Contains(content, text) {
			if name != "JOURNAL" {
				return false
			}
			there = true
		}
	}
	return there
}

func flowAt(t *testing.T, st *stage.Stage, flow string) stage.FlowState {
	t.Helper()
	state, err := st.LoadFlow(t.Context(), flow)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// What is in the journal alone is read, acknowledged and loaded as if it were in the files, and is there after a kill.
func TestWhatTheJournalHasCounts(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	for n := range uint64(3) {
		commit(t, st, stage.Checkpoint{
			Flow: "a", Number: n + 1, Cursors: map[string][]byte{"r": fmt.Append(nil, n)}, Late: 2,
			Changes:  []stage.Change{{Step: "s", Key: fmt.Sprint("k", n), Value: fmt.Append(nil, n)}, {Step: "s", Key: "k0", Value: []byte{}}, {Step: "t", Key: "gone"}},
			Insights: payloads(5, fmt.Sprint("a", n)),
		})
	}
	commit(t, st, stage.Checkpoint{Flow: "b", Number: 1, Changes: []stage.Change{{Step: "s", Key: "k", Value: []byte("b")}}})
	if !inJournal(t, s.Dir, "a1-3") {
		t.Error("the insights are not in the journal alone")
	}
	check := func(st *stage.Stage, acked uint64) {
		t.Helper()
		if got := texts(readAll(t, st, 0)); !slices.Equal(got, texts(readAll(t, st, 0))) || len(got) != 15-int(acked) || got[len(got)-1] != "a2-4" { //nolint:gosec // small
			t.Errorf("the outbox has %q", got)
		}
		a, b := flowAt(t, st, "a"), flowAt(t, st, "b")
		if a.Number != 3 || string(a.Cursors["r"]) != "2" || len(a.Operators) != 1 || len(a.Operators["s"]) != 3 || a.Operators["s"]["k0"] == nil || string(a.Operators["s"]["k2"]) != "2" {
			t.Errorf("flow a is at %+v", a)
		}
		if b.Number != 1 || string(b.Operators["s"]["k"]) != "b" {
			t.Errorf("flow b is at %+v", b)
		}
		got := st.Stats()
		if got.Produced != 15 || got.Acknowledged != acked || got.WaitingRecords != 15-acked || got.WaitingBytes != 20*(15-acked) || got.Late != 6 || got.Lost != 0 || got.SetAside != 0 {
			t.Errorf("stats: %+v", got)
		}
	}
	readAll(t, st, 0)
	check(open(t, killed(t, s)), 0)
	if got := readAll(t, st, 7); len(got) != 8 || got[0].Seq != 8 || string(got[0].Payload) != "a1-2" {
		t.Errorf("behind 7 are %q", texts(got))
	}
	check(st, 0)
	again := open(t, killed(t, s))
	commit(t, again, stage.Checkpoint{Flow: "a", Number: 4, Insights: payloads(1, "more")})
	if err := st.Acknowledge(t.Context(), 15); err != nil {
		t.Fatal(err)
	}
	if got := st.Stats(); got.WaitingBytes != 0 || got.WaitingRecords != 0 || got.Lost != 0 {
		t.Errorf("when all is acknowledged the stats are %+v", got)
	}
	st = reopen(t, st, s)
	if a := flowAt(t, st, "a"); a.Number != 3 || len(a.Operators["s"]) != 3 {
		t.Errorf("after a stop flow a is at %+v", a)
	}
	if got := st.Stats(); got.Produced != 15 || got.Acknowledged != 15 || got.Late != 6 {
		t.Errorf("after a stop the stats are %+v", got)
	}
}

func TestWhatIsInTheJournalDoesNotGrowOldThere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := settings(t, t.TempDir())
		st := open(t, s)
		for n := range uint64(2) {
			text := fmt.Sprint("needle", n)
			commit(t, st, stage.Checkpoint{Flow: "a", Number: n + 1, Insights: payloads(1, text)})
			if !inJournal(t, s.Dir, text) {
				t.Error("it is not in the journal alone")
			}
			time.Sleep(stage.FoldAfter + time.Second)
			if inJournal(t, s.Dir, text) {
				t.Error("it is still in the journal alone")
			}
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A dropped flow begins anew although the journal still has its commits.
func TestADroppedFlowDoesNotComeBackFromTheJournal(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Cursors: map[string][]byte{"r": []byte("1")}})
	if err := st.DropFlow(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	commit(t, st, stage.Checkpoint{Flow: "b", Number: 1})
	again := open(t, killed(t, s))
	if a, b := flowAt(t, again, "a"), flowAt(t, again, "b"); a.Number != 0 || len(a.Cursors) != 0 || b.Number != 1 {
		t.Errorf("after a kill flow a is at %+v and b at %+v", a, b)
	}
}

func TestAJournalOfANewerAgentIsRefused(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	commit(t, open(t, s), stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(1, "a")})
	to := killed(t, s)
	changeJournal(t, to.Dir, func(b []byte) []byte {
		binary.LittleEndian.PutUint32(b[16:], 9)
		binary.LittleEndian.PutUint32(b[36:], crc32.Checksum(b[:36], crc32.MakeTable(crc32.Castagnoli)))
		return b
	})
	before := contents(t, to.Dir)
	if _, err := stage.Open(t.Context(), to); !errors.Is(err, stage.ErrNewerFormat) {
		t.Errorf("Open gave %v", err)
	}
	after := contents(t, to.Dir)
	for name := range before {
		if name != "LOCK" && before[name] != after[name] {
			t.Errorf("%s was changed", name)
		}
	}
}

// TestFaultADamagedJournalIsTold damages the journal of a killed process: what can be proven counts, and the rest is told.
func TestFaultADamagedJournalIsTold(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	for n := range uint64(4) {
		for _, flow := range []string{"a", "b"} {
			if n < 2 || flow == "a" {
				commit(t, st, stage.Checkpoint{
					Flow: flow, Number: n + 1, Cursors: map[string][]byte{"r": fmt.Append(nil, n+1)}, Insights: payloads(10, fmt.Sprint("insight-", flow, "-", n)),
				})
			}
		}
	}
	// The frames are, by blocks: a0 b0 a1 b1 a2 a3, behind the head.
	const block = 4096
	const unknown = "(a flow whose name could not be read)"
	for name, c := range map[string]struct {
		harm     func(b []byte) []byte
		lost     int
		numbers  [2]uint64
		setBack  []string
		setAside uint64
	}{
		"nothing":             {harm: func(b []byte) []byte { return b }, numbers: [2]uint64{4, 2}},
		"a record":            {harm: func(b []byte) []byte { return bytes.Replace(b, []byte("insight-a-1-4"), []byte("insight-a-1-5"), 1) }, lost: 1, numbers: [2]uint64{4, 2}, setAside: 1},
		"the head of a frame": {harm: func(b []byte) []byte { b[4*block] ^= 1; return b }, numbers: [2]uint64{4, 1}, setBack: []string{unknown}, setAside: 1},
		"a frame":             {harm: func(b []byte) []byte { clear(b[3*block : 4*block]); return b }, lost: 10, numbers: [2]uint64{1, 2}, setBack: []string{"a", unknown}, setAside: 1},
		"the last frame":      {harm: func(b []byte) []byte { b[6*block+200] ^= 1; return b }, lost: 1, numbers: [2]uint64{4, 2}, setAside: 1},
		"the head":            {harm: func(b []byte) []byte { clear(b[:16]); return b }, numbers: [2]uint64{4, 2}, setAside: 1},
		"the end":             {harm: func(b []byte) []byte { return b[:len(b)-100] }, numbers: [2]uint64{4, 2}, setBack: []string{unknown}, setAside: 1},
		"all":                 {harm: func([]byte) []byte { return nil }, lost: 60, numbers: [2]uint64{0, 0}, setBack: []string{unknown}, setAside: 1},
	} {
		t.Run(name, func(t *testing.T) {
			to := killed(t, s)
			changeJournal(t, to.Dir, c.harm)
			for range 2 { // the second start finds it mended
				st := open(t, to)
				if a, b := flowAt(t, st, "a"), flowAt(t, st, "b"); a.Number != c.numbers[0] || b.Number != c.numbers[1] {
					t.Errorf("the flows are at %d and %d, want %v", a.Number, b.Number, c.numbers)
				}
				got := st.Stats()
				if got.SetAside != c.setAside || got.Lost != uint64(c.lost) || got.Degraded != "" { //nolint:gosec // small
					t.Errorf("stats: %+v", got)
				}
				if c.setAside > 0 && !slices.Equal(got.Damaged[0].SetBack, c.setBack) {
					t.Errorf("set back are %q, want %q", got.Damaged[0].SetBack, c.setBack)
				}
				gone := 0
				for _, r := range readAll(t, st, 0) {
					if r.Gone != "" {
						gone++
					}
				}
				if gone != c.lost {
					t.Errorf("%d records are gone, want %d", gone, c.lost)
				}
				number := flowAt(t, st, "c").Number
				commit(t, st, stage.Checkpoint{Flow: "c", Number: number + 1, Cursors: map[string][]byte{"r": {1}}})
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestFaultAMissingJournalIsTold(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(3, "a")})
	for name, stop := range map[string]func() stage.Settings{
		"after a kill": func() stage.Settings { return killed(t, s) },
		"after a stop": func() stage.Settings {
			to := killed(t, s)
			if err := open(t, to).Close(); err != nil {
				t.Fatal(err)
			}
			return to
		},
	} {
		to := stop()
		if err := os.Remove(filepath.Join(to.Dir, "JOURNAL")); err != nil {
			t.Fatal(err)
		}
		st := open(t, to)
		want := uint64(0)
		if name == "after a kill" {
			want = 1
		}
		if got := st.Stats(); got.SetAside != want || len(got.Damaged) != int(want) || got.Lost != 3*want {
			t.Errorf("%s the stats are %+v", name, got)
		}
		commit(t, st, stage.Checkpoint{Flow: "b", Number: 1, Insights: payloads(1, "b")})
		if !inJournal(t, to.Dir, "b-0") {
			t.Errorf("%s there is no journal again", name)
		}
	}
}

// TestFaultAStateThatIsDamagedUnderTheJournal destroys state.db of a running stage while the journal has commits on top of it:
// they cannot be put on top of anything else, and their insights stay.
func TestFaultAStateThatIsDamagedUnderTheJournal(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(t *testing.T, path string){
		"all of it": func(t *testing.T, path string) {
			t.Helper()
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			overwrite(t, path, 0, bytes.Repeat([]byte{0xff}, int(info.Size())))
		},
		"cut short": func(t *testing.T, path string) {
			t.Helper()
			if err := os.Truncate(path, 8192); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := settings(t, filepath.Join(fastDir(t), "stage"))
			inChildren(&s)
			st := open(t, s)
			commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Cursors: map[string][]byte{"r": []byte("1")}, Insights: payloads(5, "one")})
			// It folds.
			if err := st.PutDesired(t.Context(), []byte("desired"), 1); err != nil {
				t.Fatal(err)
			}
			commit(t, st, stage.Checkpoint{Flow: "a", Number: 2, Cursors: map[string][]byte{"r": []byte("2")}, Insights: payloads(5, "two")})
			commit(t, st, stage.Checkpoint{Flow: "b", Number: 1, Cursors: map[string][]byte{"r": []byte("1")}, Insights: payloads(5, "three")})
			if !inJournal(t, s.Dir, "two-3") {
				t.Error("the second commit is not in the journal alone")
			}
			harm(t, filepath.Join(s.Dir, "state.db"))
			// What the next reader finds out, and how the flows go on.
			a, b := flowAt(t, st, "a"), flowAt(t, st, "b")
			if a.Number != 0 || len(a.Cursors) != 0 || b.Number > 1 {
				t.Errorf("the flows are at %+v and %+v", a, b)
			}
			commitAfterDamage(t, st)
			check := func(st *stage.Stage) {
				t.Helper()
				got := texts(readAll(t, st, 0))
				if len(got) != 16 || got[0] != "one-0" || got[8] != "two-3" || got[14] != "three-4" || got[15] != "after-0" {
					t.Errorf("the outbox has %q", got)
				}
				stats := st.Stats()
				if stats.SetAside != 1 || stats.Lost != 0 || stats.Degraded != "" || len(slices.Concat(stats.Damaged[0].SetBack, stats.Damaged[0].StartedAnew)) == 0 {
					t.Errorf("stats: %+v", stats)
				}
			}
			check(st)
			check(open(t, killed(t, s)))
			check(reopen(t, st, s))
		})
	}
}

// TestAFoldThatFailsLosesAndDoublesNothing lets a fold fail at each of its points: what had landed in the journal is served and
// loaded all the while, and is there once, whether the stage goes on, is stopped or is killed.
func TestAFoldThatFailsLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"outbox", "outbox landed", "state", "state landed"} {
		for _, then := range []string{"goes on", "is stopped", "is killed"} {
			t.Run(point+", "+then, func(t *testing.T) {
				t.Parallel()
				s := settings(t, filepath.Join(t.TempDir(), "stage"))
				st := open(t, s)
				for n := range uint64(3) {
					commit(t, st, stage.Checkpoint{Flow: "a", Number: n + 1, Cursors: map[string][]byte{"r": fmt.Append(nil, n+1)}, Insights: payloads(2, strconv.FormatUint(n, 10))})
				}
				broken := errors.New("input/output error")
				stage.FailAt(st, func(at string) error {
					if at == point {
						return broken
					}
					return nil
				})
				if err := st.PutDesired(t.Context(), []byte("desired"), 1); !errors.Is(err, broken) {
					t.Fatalf("PutDesired gave %v", err)
				}
				want := []string{"0-0", "0-1", "1-0", "1-1", "2-0", "2-1"}
				check := func(st *stage.Stage, number uint64) {
					t.Helper()
					if got := texts(readAll(t, st, 0)); !slices.Equal(got, want) {
						t.Errorf("the outbox has %q", got)
					}
					if a := flowAt(t, st, "a"); a.Number != number || string(a.Cursors["r"]) != strconv.FormatUint(number, 10) {
						t.Errorf("the flow is at %+v", a)
					}
					if got := st.Stats(); got.Produced != uint64(len(want)) || got.Lost != 0 || got.SetAside != 0 {
						t.Errorf("stats: %+v", got)
					}
				}
				check(st, 3)
				switch then {
				case "is killed":
					check(open(t, killed(t, s)), 3)
					stage.FailAt(st, nil)
				case "is stopped":
					st = reopen(t, st, s)
				default:
					stage.FailAt(st, nil)
				}
				commit(t, st, stage.Checkpoint{Flow: "a", Number: 4, Cursors: map[string][]byte{"r": []byte("4")}, Insights: payloads(1, "last")})
				want = append(want, "last-0")
				check(st, 4)
				check(open(t, killed(t, s)), 4)
				if got := st.Stats(); got.Degraded != "" {
					t.Errorf("it is still degraded: %s", got.Degraded)
				}
				check(reopen(t, st, s), 4)
			})
		}
	}
}

// TestAFoldOfManyFlowsThatFailsBetweenTwoTransactions lets a fold fail behind some of the transactions that it takes.
func TestAFoldOfManyFlowsThatFailsBetweenTwoTransactions(t *testing.T) {
	t.Parallel()
	const flows = 40
	for _, point := range []string{"fold", "fold landed"} {
		for _, then := range []string{"goes on", "is stopped", "is killed"} {
			t.Run(point+", "+then, func(t *testing.T) {
				t.Parallel()
				s := settings(t, filepath.Join(t.TempDir(), "stage"))
				st := open(t, s)
				numbers, insights := make([]uint64, flows), uint64(0)
				next := func(st *stage.Stage) {
					t.Helper()
					for i := range numbers {
						numbers[i]++
						insights += 2
						commit(t, st, stage.Checkpoint{
							Flow: fmt.Sprint("flow", i), Number: numbers[i], Cursors: map[string][]byte{"r": fmt.Append(nil, numbers[i])}, Late: 1,
							Changes:  []stage.Change{{Step: "s", Key: "k", Value: fmt.Append(nil, i, " ", numbers[i])}, {Step: "s", Key: strconv.FormatUint(numbers[i]%2, 10)}},
							Insights: payloads(2, fmt.Sprint(i, "-", numbers[i])),
						})
					}
				}
				check := func(st *stage.Stage) {
					t.Helper()
					for i, number := range numbers {
						f := flowAt(t, st, fmt.Sprint("flow", i))
						if f.Number != number || string(f.Cursors["r"]) != strconv.FormatUint(number, 10) || string(f.Operators["s"]["k"]) != fmt.Sprint(i, " ", number) {
							t.Fatalf("flow %d is at %+v, want %d", i, f, number)
						}
					}
					got := readAll(t, st, 0)
					seen := map[string]bool{}
					for _, text := range texts(got) {
						seen[text] = true
					}
					if stats := st.Stats(); uint64(len(got)) != insights || uint64(len(seen)) != insights || stats.Late != insights/2 || stats.Lost != 0 || stats.SetAside != 0 {
						t.Fatalf("%d of %d insights, %d different; stats: %+v", len(got), insights, len(seen), stats)
					}
				}
				next(st)
				next(st)
				broken, passed := errors.New("input/output error"), 0
				stage.FailAt(st, func(at string) error {
					if at == point {
						if passed++; passed == 2 {
							return broken
						}
					}
					return nil
				})
				if err := st.PutDesired(t.Context(), []byte("desired"), 1); !errors.Is(err, broken) {
					t.Fatalf("PutDesired gave %v", err)
				}
				check(st)
				check(open(t, killed(t, s)))
				switch then {
				case "is killed":
					s = killed(t, s)
					st = open(t, s)
				case "is stopped":
					st = reopen(t, st, s)
				}
				stage.FailAt(st, nil)
				check(st)
				next(st)
				check(st)
				check(open(t, killed(t, s)))
				check(reopen(t, st, s))
			})
		}
	}
}

// TestAFrameThatWasMovedHidesNoOther swaps the block of a small frame with one in the middle of the next, which is larger.
func TestAFrameThatWasMovedHidesNoOther(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(t.TempDir(), "stage"))
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "f", Number: 1, Insights: payloads(1, "first")})
	commit(t, st, stage.Checkpoint{Flow: "f", Number: 2, Insights: payloads(1, "moved")})
	commit(t, st, stage.Checkpoint{Flow: "f", Number: 3, Insights: payloads(100, strings.Repeat("x", 600))})
	commit(t, st, stage.Checkpoint{Flow: "f", Number: 4, Insights: payloads(1, "last")})
	s = killed(t, s)
	changeJournal(t, s.Dir, func(b []byte) []byte {
		const block = 4096
		moved := bytes.Clone(b[2*block : 3*block])
		copy(b[2*block:], b[8*block:9*block])
		copy(b[8*block:], moved)
		return b
	})
	st = open(t, s)
	served := 0
	for _, r := range readAll(t, st, 0) {
		if r.Gone == "" {
			served++
		}
	}
	// A block has at most seven of them, and parts of two more.
	if got := st.Stats(); served < 103-9 || got.Lost != uint64(103-served) || got.Lost == 0 {
		t.Errorf("%d are served: %+v", served, got)
	}
}
