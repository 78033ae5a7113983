package stage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// overwrite puts bytes into a file that somebody has mapped.
func overwrite(t *testing.T, path string, at int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(b, at)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// segmentWith gives the segment file that has a record, and where in it.
func segmentWith(t *testing.T, dir, payload string) (path string, at int64) {
	t.Helper()
	for _, path := range databases(t, dir) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if i := bytes.LastIndex(b, []byte(payload)); i >= 0 && filepath.Base(path) != "state.db" {
			return path, int64(i)
		}
	}
	t.Fatalf("no segment has %q", payload)
	return "", 0
}

// TestFaultDamageWhileItRunsIsHealed damages the files under a running stage, whose memory maps then fault or show what is not
// there any more.
func TestFaultDamageWhileItRunsIsHealed(t *testing.T) {
	t.Parallel()
	const n = 400
	all := payloads(n, "wide-enough-to-fill-some-pages-"+strings.Repeat("x", 900))
	for name, harm := range map[string]struct {
		do func(t *testing.T, dir string)
		// lost is how many records are gone, -1 for some; anew says that the flow starts anew.
		lost int
		anew bool
	}{
		"a record is overwritten": {do: func(t *testing.T, dir string) {
			t.Helper()
			path, at := segmentWith(t, dir, string(all[77]))
			overwrite(t, path, at, []byte("other"))
		}, lost: 1},
		"a segment is cut short": {do: func(t *testing.T, dir string) {
			t.Helper()
			path, at := segmentWith(t, dir, string(all[200]))
			if err := os.Truncate(path, at&^4095); err != nil {
				t.Fatal(err)
			}
		}, lost: -1},
		"a segment is emptied": {do: func(t *testing.T, dir string) {
			t.Helper()
			path, _ := segmentWith(t, dir, string(all[0]))
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		}, lost: n},
		"the pages that lead to the records are overwritten": {do: func(t *testing.T, dir string) {
			t.Helper()
			path, _ := segmentWith(t, dir, string(all[0]))
			for page := int64(2); page < 8; page++ {
				overwrite(t, path, page*4096, bytes.Repeat([]byte{0xff}, 64))
			}
		}, lost: -1},
		"the state is overwritten": {do: func(t *testing.T, dir string) {
			t.Helper()
			info, err := os.Stat(filepath.Join(dir, "state.db"))
			if err != nil {
				t.Fatal(err)
			}
			overwrite(t, filepath.Join(dir, "state.db"), 2*4096, bytes.Repeat([]byte{0xff}, int(info.Size())-2*4096))
		}, anew: true},
		"the state is cut short": {do: func(t *testing.T, dir string) {
			t.Helper()
			if err := os.Truncate(filepath.Join(dir, "state.db"), 8192); err != nil {
				t.Fatal(err)
			}
		}, anew: true},
	} {
		for _, first := range []string{"read", "commit"} {
			t.Run(name+", then "+first, func(t *testing.T) {
				t.Parallel()
				s := settings(t, filepath.Join(fastDir(t), "stage"))
				inChildren(&s)
				st := open(t, s)
				commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Cursors: map[string][]byte{"r": []byte("1")}, Insights: all})
				harm.do(t, s.Dir)
				if first == "commit" {
					commitAfterDamage(t, st)
				}
				got := readAll(t, st, 0)
				lost := 0
				for i, r := range got[:min(n, len(got))] {
					switch {
					case r.Gone != "":
						lost++
					case !bytes.Equal(r.Payload, all[i]):
						t.Fatalf("record %d is wrong", r.Seq)
					}
				}
				if len(got) < n || harm.lost >= 0 && lost != harm.lost || harm.lost < 0 && lost == n {
					t.Errorf("%d records are left and %d of them are lost", len(got), lost)
				}
				state, err := st.LoadFlow(t.Context(), "a")
				if err != nil || harm.anew != (state.Cursors["r"] == nil) && first == "read" {
					t.Errorf("the flow is at %+v, %v", state, err)
				}
				if first == "read" {
					commitAfterDamage(t, st)
				}
				stats := st.Stats()
				if stats.Lost != uint64(lost) || stats.SetAside != 1 || len(stats.Damaged) != 1 || stats.Degraded != "" {
					t.Errorf("%d are lost and the stats are %+v", lost, stats)
				}
				st = reopen(t, st, s)
				if again := readAll(t, st, 0); !slices.EqualFunc(got, again[:len(got)], func(a, b stage.Record) bool { return a.Gone == b.Gone && bytes.Equal(a.Payload, b.Payload) }) {
					t.Error("after a restart the outbox is another")
				}
			})
		}
	}
}

// commitAfterDamage commits as a flow does: after an error it loads its state and goes on from there.
func commitAfterDamage(t *testing.T, st *stage.Stage) {
	t.Helper()
	for range 3 {
		state, err := st.LoadFlow(t.Context(), "a")
		if err == nil {
			_, err = st.Commit(t.Context(), stage.Checkpoint{Flow: "a", Number: state.Number + 1, Insights: payloads(1, "after")})
		}
		if err == nil {
			return
		}
		t.Logf("the commit fails: %v", err)
	}
	t.Error("no commit succeeds any more")
}

// TestFaultNoDamageKeepsTheAgentFromStarting lets the child processes die or say nothing of use, on every file and every time.
func TestFaultNoDamageKeepsTheAgentFromStarting(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(fastDir(t), "stage"))
	st := open(t, s)
	commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(10, "a")})
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	died := fmt.Errorf("%w: signal: segmentation fault", stage.ErrDamaged)
	s.Verify = func(context.Context, string) error { return died }
	s.Salvage = func(context.Context, string, string, uint64) error { return died }
	for start := range 3 {
		if err := os.WriteFile(filepath.Join(s.Dir, "RUNNING"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		st, err := stage.Open(t.Context(), s)
		if err != nil {
			t.Fatalf("start %d: %v", start+1, err)
		}
		if got := st.Stats(); got.SetAside == 0 || len(got.Damaged) == 0 {
			t.Errorf("start %d: %+v", start+1, got)
		}
		state, err := st.LoadFlow(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		commit(t, st, stage.Checkpoint{Flow: "a", Number: state.Number + 1, Insights: payloads(1, "b")})
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFaultDamagedFilesThatAreKeptAreBounded sets more aside than may stay.
func TestFaultDamagedFilesThatAreKeptAreBounded(t *testing.T) {
	t.Parallel()
	s := settings(t, filepath.Join(fastDir(t), "stage"))
	const starts = 20
	for i := range starts {
		st, err := stage.Open(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := st.Stats(), min(i, 16); len(got.Damaged) != want || got.SetAside != uint64(i) || got.Lost != 0 {
			t.Fatalf("start %d: %d files are kept and the stats are %+v", i+1, len(got.Damaged), got)
		}
		state, err := st.LoadFlow(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		last := commit(t, st, stage.Checkpoint{Flow: "a", Number: state.Number + 1, Insights: payloads(3, "a")})
		if err := errors.Join(st.Acknowledge(t.Context(), last), st.Close()); err != nil {
			t.Fatal(err)
		}
		overwrite(t, filepath.Join(s.Dir, "state.db"), 16, make([]byte, 8))
		overwrite(t, filepath.Join(s.Dir, "state.db"), 4096+16, make([]byte, 8))
	}
}

// TestFaultLargeDamagedSegmentsRunAgainSoon damages segments of 64 MiB and starts a real process on them.
func TestFaultLargeDamagedSegmentsRunAgainSoon(t *testing.T) {
	t.Parallel()
	if !*long {
		t.Skip("it is part of the tests at length: -long")
	}
	s := settings(t, filepath.Join(fastDir(t), "stage"))
	st, err := stage.Open(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	sm := &sample{}
	for number := uint64(1); number <= 20; number++ {
		c := stage.Checkpoint{Flow: "a", Number: number}
		for range 9000 {
			p := fmt.Appendf(nil, "insight %d %s", len(sm.payloads)+1, strings.Repeat("x", 980))
			sm.payloads, c.Insights = append(sm.payloads, p), append(c.Insights, p)
		}
		commit(t, st, c)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	paths := databases(t, s.Dir)
	for _, path := range paths[:len(paths)-1] {
		for page := int64(100); page < 10_000; page += 1000 {
			overwrite(t, path, page*4096, bytes.Repeat([]byte{0xee}, 512))
		}
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "RUNNING"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := sm.start(t, s.Dir)
	if d == nil {
		return
	}
	if d.Started > 10*time.Second || d.Stats.Lost == 0 || d.Stats.Lost > 60 || d.Stats.SetAside != uint64(len(paths))-1 {
		t.Errorf("it ran again after %s with %+v", d.Started, d.Stats)
	}
	t.Logf("with %d damaged segments of 64 MiB it ran again after %s; %d of %d records are lost", len(paths)-1, d.Started.Round(time.Millisecond), d.Stats.Lost, len(sm.payloads))
}
