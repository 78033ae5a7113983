package stage_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

const (
	unknownFlow = "(a flow whose name could not be read)"
	blockBytes  = 4096
)

// acknowledgedSix stages six commits of ten insights: by blocks of the journal a1 b1 a2 b2 a3 a4, behind the head. between is called
// behind the third. It gives a copy of the directory as a kill leaves it.
func acknowledgedSix(t *testing.T, s stage.Settings, between func(st *stage.Stage)) (killedThen stage.Settings) {
	t.Helper()
	st := open(t, s)
	numbers := map[string]uint64{}
	for i, flow := range []string{"a", "b", "a", "b", "a", "a"} {
		numbers[flow]++
		n := numbers[flow]
		commit(t, st, stage.Checkpoint{
			Flow: flow, Number: n, Cursors: map[string][]byte{"r": fmt.Append(nil, n)}, Insights: payloads(10, fmt.Sprint("insight-", flow, "-", n)),
		})
		if i == 2 && between != nil {
			between(st)
		}
	}
	// Before it is folded because of its age.
	return killed(t, s)
}

// journalEnd is what was done to the journal of acknowledgedSix, and what must come of it.
type journalEnd struct {
	of      stage.Settings
	harm    func(b []byte) []byte
	lost    []int
	numbers [2]uint64
	setBack []string
}

// journalEnds damage or take away what of the journal was acknowledged last. older is RUNNING as it was half way.
func journalEnds(t *testing.T) (ends map[string]journalEnd, older []byte) {
	t.Helper()
	s, folded := settings(t, t.TempDir()), settings(t, t.TempDir())
	var fewer, earlier []byte
	read := func(dir, name string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	six := acknowledgedSix(t, s, func(*stage.Stage) { fewer, older = read(s.Dir, "JOURNAL"), read(s.Dir, "RUNNING") })
	foldedSix := acknowledgedSix(t, folded, func(st *stage.Stage) {
		earlier = read(folded.Dir, "JOURNAL")
		if err := st.PutDesired(t.Context(), []byte("desired"), 1); err != nil { // it folds
			t.Error(err)
		}
	})
	return map[string]journalEnd{
		"a record of the newest frame": {of: six, harm: func(b []byte) []byte { return bytes.Replace(b, []byte("insight-a-4-4"), []byte("insight-a-4-5"), 1) }, lost: []int{55}, numbers: [2]uint64{4, 2}},
		"the state in the newest frame": {of: six, harm: func(b []byte) []byte {
			at := 6*blockBytes + bytes.Index(b[6*blockBytes:7*blockBytes], []byte("\x01r\x014"))
			b[at+3] ^= 1
			return b
		}, numbers: [2]uint64{3, 2}, setBack: []string{"a"}},
		"the newest head": {of: six, harm: func(b []byte) []byte { b[6*blockBytes+20] ^= 1; return b }, numbers: [2]uint64{3, 2}, setBack: []string{unknownFlow}},
		"the newest three heads": {of: six, harm: func(b []byte) []byte {
			for i := 4; i <= 6; i++ {
				clear(b[i*blockBytes : i*blockBytes+40])
			}
			return b
		}, numbers: [2]uint64{2, 1}, setBack: []string{unknownFlow}},
		"zeros to the end":                  {of: six, harm: func(b []byte) []byte { clear(b[5*blockBytes:]); return b }, lost: from(41), numbers: [2]uint64{2, 2}, setBack: []string{unknownFlow}},
		"emptied":                           {of: six, harm: func([]byte) []byte { return []byte{} }, lost: from(1), setBack: []string{unknownFlow}},
		"cut short":                         {of: six, harm: func(b []byte) []byte { return b[:3*blockBytes] }, lost: from(21), numbers: [2]uint64{1, 1}, setBack: []string{unknownFlow}},
		"deleted":                           {of: six, lost: from(1), setBack: []string{unknownFlow}},
		"a copy with fewer frames":          {of: six, harm: func([]byte) []byte { return fewer }, lost: from(31), numbers: [2]uint64{2, 1}, setBack: []string{unknownFlow}},
		"a copy of an earlier epoch":        {of: foldedSix, harm: func([]byte) []byte { return earlier }, lost: from(31), numbers: [2]uint64{2, 1}, setBack: []string{unknownFlow}},
		"deleted, with a part in the files": {of: foldedSix, lost: from(31), numbers: [2]uint64{2, 1}, setBack: []string{unknownFlow}},
	}, older
}

// do gives a copy of the directory to which it was done.
func (e *journalEnd) do(t *testing.T) stage.Settings {
	t.Helper()
	to := killed(t, e.of)
	if e.harm != nil {
		changeJournal(t, to.Dir, func(b []byte) []byte { return slices.Clone(e.harm(b)) })
	} else if err := os.Remove(filepath.Join(to.Dir, "JOURNAL")); err != nil {
		t.Fatal(err)
	}
	return to
}

// marksOff damages the marks in a file.
func marksOff(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		for at := 512 + 20; at < len(b); at += 512 {
			b[at] ^= 4
		}
		err = os.WriteFile(path, b, 0o600) //nolint:gosec // a file of the test
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestFaultDamageToTheEndOfTheJournalIsTold damages it with both copies of the mark, and with one.
func TestFaultDamageToTheEndOfTheJournalIsTold(t *testing.T) {
	t.Parallel()
	ends, older := journalEnds(t)
	remove := func(t *testing.T, path string) {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for mark, harm := range map[string]func(t *testing.T, dir string){
		"both marks":             func(*testing.T, string) {},
		"RUNNING is missing":     func(t *testing.T, dir string) { t.Helper(); remove(t, filepath.Join(dir, "RUNNING")) },
		"RUNNING is damaged":     func(t *testing.T, dir string) { t.Helper(); marksOff(t, filepath.Join(dir, "RUNNING")) },
		"LOCK is missing":        func(t *testing.T, dir string) { t.Helper(); remove(t, filepath.Join(dir, "LOCK")) },
		"LOCK has damaged marks": func(t *testing.T, dir string) { t.Helper(); marksOff(t, filepath.Join(dir, "LOCK")) },
		"RUNNING is an older one": func(t *testing.T, dir string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, "RUNNING"), older, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for name, c := range ends {
			t.Run(mark+", "+name, func(t *testing.T) {
				to := c.do(t)
				harm(t, to.Dir)
				c.check(t, to)
			})
		}
	}
}

// check starts twice; the second start finds it mended.
func (e *journalEnd) check(t *testing.T, to stage.Settings) {
	t.Helper()
	to, log := logged(t, to)
	for start := range 2 {
		st := open(t, to)
		got := st.Stats()
		if a, b := flowAt(t, st, "a"), flowAt(t, st, "b"); a.Number != e.numbers[0] || b.Number != e.numbers[1] {
			t.Errorf("start %d: the flows are at %d and %d, want %v", start+1, a.Number, b.Number, e.numbers)
		}
		if got.SetAside != 1 || got.Lost != uint64(len(e.lost)) || got.Degraded != "" || got.Produced != 60 || len(got.Damaged) != 1 {
			t.Fatalf("start %d: %+v", start+1, got)
		}
		if d := got.Damaged[0]; !slices.Equal(d.SetBack, e.setBack) || d.Lost != uint64(len(e.lost)) {
			t.Errorf("start %d: %+v, want set back %q", start+1, d, e.setBack)
		}
		checkSix(t, st, e.lost)
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), fmt.Sprint("records_lost=", len(e.lost))) {
		t.Errorf("%d errors are logged: %s", n, log.String())
	}
}

// TestFaultDamageWithoutAnyMarkIsTold removes RUNNING and LOCK as well: what can be told then is that something may be missing.
func TestFaultDamageWithoutAnyMarkIsTold(t *testing.T) {
	t.Parallel()
	ends, _ := journalEnds(t)
	ends["nothing else"] = journalEnd{of: ends["emptied"].of, harm: func(b []byte) []byte { return b }}
	for name, c := range ends {
		if name == "emptied" || name == "deleted" || name == "a copy of an earlier epoch" || name == "deleted, with a part in the files" {
			continue // nothing of the present epoch is left that would show the last stop not to have been clean
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := c.do(t)
			for _, name := range []string{"RUNNING", "LOCK"} {
				if err := os.Remove(filepath.Join(to.Dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			st := open(t, to)
			got := st.Stats()
			if got.SetAside != 1 || len(got.Damaged) != 1 || !slices.Contains(got.Damaged[0].SetBack, unknownFlow) {
				t.Errorf("it does not tell of it: %+v", got)
			}
			gone := uint64(0)
			for i, r := range readAll(t, st, 0) {
				if r.Gone != "" {
					gone++
				} else if want := sixTexts()[i]; string(r.Payload) != want {
					t.Errorf("record %d is %q, want %q", r.Seq, r.Payload, want)
				}
			}
			if got.Lost != gone {
				t.Errorf("%d are gone and %d counted as lost", gone, got.Lost)
			}
		})
	}
}

// from is the sequences of the sample from first on.
func from(first int) (list []int) {
	for ; first <= 60; first++ {
		list = append(list, first)
	}
	return list
}

// sixTexts are the insights of acknowledgedSix.
func sixTexts() (want []string) {
	for _, text := range []string{"a-1", "b-1", "a-2", "b-2", "a-3", "a-4"} {
		for _, p := range payloads(10, "insight-"+text) {
			want = append(want, string(p))
		}
	}
	return want
}

// checkSix looks for wrong insights, and for others missing than those.
func checkSix(t *testing.T, st *stage.Stage, lost []int) {
	t.Helper()
	want := sixTexts()
	var gone []int
	records := readAll(t, st, 0)
	if len(records) != len(want) {
		t.Errorf("the outbox has %d records", len(records))
	}
	for i, r := range records {
		switch {
		case r.Gone != "":
			gone = append(gone, int(r.Seq)) //nolint:gosec // small
		case string(r.Payload) != want[i]:
			t.Errorf("record %d is %q", r.Seq, r.Payload)
		}
	}
	if !slices.Equal(gone, lost) {
		t.Errorf("gone are %v, want %v", gone, lost)
	}
}

// A killed stage without damage shows none, whatever is in the mark; and without the file it is still known to have been killed.
func TestAKilledStageWithoutDamageTellsOfNone(t *testing.T) {
	t.Parallel()
	s := settings(t, t.TempDir())
	s = acknowledgedSix(t, s, nil)
	running := func(t *testing.T, dir string, fn func(b []byte) []byte) {
		t.Helper()
		path := filepath.Join(dir, "RUNNING")
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, fn(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, harm := range map[string]func(t *testing.T, dir string){
		"nothing": func(*testing.T, string) {},
		"the newest mark": func(t *testing.T, dir string) {
			t.Helper()
			running(t, dir, func(b []byte) []byte { b[530] ^= 1; return b })
		},
		"both marks": func(t *testing.T, dir string) {
			t.Helper()
			running(t, dir, func(b []byte) []byte { clear(b[512:]); return b })
		},
		"that of an older agent": func(t *testing.T, dir string) { t.Helper(); running(t, dir, func(b []byte) []byte { return b[:24] }) },
		"RUNNING is missing": func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Remove(filepath.Join(dir, "RUNNING")); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			to := killed(t, s)
			harm(t, to.Dir)
			var log bytes.Buffer
			to.Logger = slog.New(slog.NewTextHandler(&log, nil))
			for start := range 3 {
				st := open(t, to)
				if got := st.Stats(); got.SetAside != 0 || got.Lost != 0 || len(got.Damaged) != 0 || got.Produced != 60 {
					t.Errorf("start %d: %+v", start+1, got)
				}
				if a, b := flowAt(t, st, "a"), flowAt(t, st, "b"); a.Number != 4 || b.Number != 2 {
					t.Errorf("start %d: the flows are at %d and %d", start+1, a.Number, b.Number)
				}
				checkSix(t, st, nil)
				c := flowAt(t, st, "c").Number
				commit(t, st, stage.Checkpoint{Flow: "c", Number: c + 1, Cursors: map[string][]byte{"r": {1}}})
				if start == 0 {
					to = killed(t, to) // of the first start, with a mark of its own
				}
				if err := st.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "so the staged files are verified") {
				t.Errorf("the log says %s", log.String())
			}
			if missing := strings.Contains(log.String(), "marks an unclean stop is missing"); missing != (name == "RUNNING is missing") {
				t.Errorf("the log says %s", log.String())
			}
		})
	}
}
