package stage_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// modelPlane is a control plane that stores each sequence once, and what lies behind its last one alone.
type modelPlane struct {
	stored uint64
	texts  []string
}

// session runs one: it looks at what waits, agrees, and sends so many of the insights, all of them for 0.
func (p *modelPlane) session(t *testing.T, st *stage.Stage, send int) {
	t.Helper()
	look, err := st.ReadOutbox(t.Context(), 0, 1000, 1<<20) // as the tunnel does before it agrees
	if err != nil {
		t.Fatal(err, look)
	}
	after, err := st.Reconcile(t.Context(), p.stored, nil)
	if err != nil {
		t.Fatal(err)
	}
	if after != p.stored {
		t.Fatalf("it sends from behind %d, and %d are stored", after, p.stored)
	}
	records, err := st.ReadOutbox(t.Context(), after, 1000, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range records {
		if r.Seq != p.stored+1 || r.Gone != "" {
			t.Fatalf("%d is followed by %+v", p.stored, r)
		}
		if send > 0 && i >= send {
			break
		}
		p.stored++
		p.texts = append(p.texts, string(r.Payload))
	}
}

// put replaces what is in a directory by a copy of another.
func put(t *testing.T, to, from string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(from))); err != nil {
		t.Fatal(err)
	}
}

func TestWhatADirectoryThatWentBackProducesIsNotLost(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]struct {
		acknowledged uint64
		fresh        int
		segment      int
		// restarts is after how many fresh ones the agent restarts without a session.
		restarts int
	}{
		"past the control plane's number, over restarts": {acknowledged: 10, fresh: 15, restarts: 4},
		"with waiting ones, over restarts":               {acknowledged: 3, fresh: 15, restarts: 4},
		"past the control plane's number":                {acknowledged: 10, fresh: 15},
		"up to it":                                       {acknowledged: 10, fresh: 10},
		"fewer":                                          {acknowledged: 10, fresh: 4},
		"none":                                           {acknowledged: 10},
		"with waiting ones":                              {acknowledged: 3, fresh: 15},
		"with waiting ones, fewer":                       {acknowledged: 3, fresh: 4},
		"nothing acknowledged":                           {fresh: 15},
		"many in many segments":                          {acknowledged: 3, fresh: 500, segment: 64 << 10},
		"as many as make the numbers hard to do":         {acknowledged: 10, fresh: 11},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := settings(t, filepath.Join(t.TempDir(), "stage"))
			if how.segment > 0 {
				stage.SmallSegments(&s, how.segment)
			}
			p := &modelPlane{}
			st := open(t, s)
			commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(10, "first")})
			p.session(t, st, 0)
			if err := errors.Join(st.Acknowledge(t.Context(), how.acknowledged), st.Close()); err != nil {
				t.Fatal(err)
			}
			aside := filepath.Join(t.TempDir(), "aside")
			put(t, aside, s.Dir)
			st = open(t, s)
			commit(t, st, stage.Checkpoint{Flow: "a", Number: 2, Insights: payloads(10, "second")})
			p.session(t, st, 0)
			if err := st.Close(); err != nil || p.stored != 20 {
				t.Fatal(p.stored, err)
			}
			put(t, s.Dir, aside)

			s, log := logged(t, s)
			st = open(t, s)
			long := "third"
			if how.segment > 0 {
				long = strings.Repeat("t", 2000)
			}
			number := uint64(2)
			for i := range how.fresh {
				commit(t, st, stage.Checkpoint{Flow: "a", Number: number, Insights: payloads(1, fmt.Sprint(long, i))})
				number++
				if how.restarts > 0 && i%how.restarts == 0 {
					st = reopen(t, st, s)
				}
			}
			p.session(t, st, 0)
			want := slices.Concat(texts10("first"), texts10("second"))
			for i := range how.fresh {
				want = append(want, fmt.Sprintf("%s%d-0", long, i))
			}
			if !slices.Equal(p.texts, want) {
				t.Fatalf("the control plane has %d insights up to %d, want %d", len(p.texts), p.stored, len(want))
			}
			for start := range 3 {
				got := st.Stats()
				if got.SetAside != 1 || len(got.Damaged) != 1 || !strings.Contains(got.Damaged[0].Reason, "older than what the control plane has") || got.Lost+got.LostRemotely != 0 {
					t.Errorf("start %d: %+v", start, got)
				}
				if start == 0 {
					st = reopen(t, st, s)
				}
				p.session(t, st, 0)
			}
			if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "stored=20") {
				t.Errorf("%d errors: %s", n, log)
			}
			if got := commit(t, st, stage.Checkpoint{Flow: "a", Number: number, Insights: payloads(1, "last")}); got != p.stored+1 {
				t.Errorf("the next is %d behind %d", got, p.stored)
			}
			st = reopen(t, st, s)
			p.session(t, st, 0)
			if err := st.Acknowledge(t.Context(), p.stored); err != nil {
				t.Fatal(err)
			}
			if got := st.Stats(); got.WaitingRecords != 0 || got.Lost != 0 || p.texts[len(p.texts)-1] != "last-0" {
				t.Errorf("at the end: %+v", got)
			}
		})
	}
}

func texts10(prefix string) (out []string) {
	for _, p := range payloads(10, prefix) {
		out = append(out, string(p))
	}
	return out
}

// TestASessionThatWasCutIsNoDirectoryThatWentBack ends sessions before an acknowledgement comes.
func TestASessionThatWasCutIsNoDirectoryThatWentBack(t *testing.T) {
	t.Parallel()
	s, log := logged(t, settings(t, t.TempDir()))
	st := open(t, s)
	p := &modelPlane{}
	for n := range 6 {
		commit(t, st, stage.Checkpoint{Flow: "a", Number: uint64(n + 1), Insights: payloads(10, "n"+strconv.Itoa(n))})
		p.session(t, st, 7)
		if n%3 == 2 {
			st = reopen(t, st, s)
		}
	}
	p.session(t, st, 0)
	p.session(t, st, 0)
	if got := st.Stats(); got.SetAside != 0 || got.Produced != 60 || got.Acknowledged != 60 || len(p.texts) != 60 {
		t.Errorf("%d arrived: %+v", len(p.texts), got)
	}
	if strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("the log says %s", log)
	}
}

// TestALoweringThatFailsLosesNothing lets a commit fail while what waits is numbered anew.
func TestALoweringThatFailsLosesNothing(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"outbox", "outbox landed", "state", "state landed"} {
		for nth := range 2 {
			t.Run(fmt.Sprint(point, nth), func(t *testing.T) {
				t.Parallel()
				s := settings(t, t.TempDir())
				st := open(t, s)
				commit(t, st, stage.Checkpoint{Flow: "a", Number: 1, Insights: payloads(10, "third")})
				if err := st.PutDesired(t.Context(), []byte("x"), 1); err != nil { // nothing is in the journal alone
					t.Fatal(err)
				}
				seen := 0
				stage.FailAt(st, func(at string) error {
					if at == point {
						if seen++; seen == nth+1 {
							return errors.New("the disk is ill")
						}
					}
					return nil
				})
				if _, err := st.Reconcile(t.Context(), 5, nil); err == nil {
					t.Fatal("nothing failed")
				}
				stage.FailAt(st, nil)
				after, err := st.Reconcile(t.Context(), 5, nil)
				if err != nil {
					t.Fatal(err)
				}
				st = reopen(t, st, s)
				// The numbers between may stay empty; the insights may not go.
				var got []string
				for _, r := range readAll(t, st, after) {
					got = append(got, string(r.Payload))
				}
				if !slices.Equal(got, texts10("third")) {
					t.Errorf("behind %d there are %q, %+v", after, got, st.Stats())
				}
			})
		}
	}
}
