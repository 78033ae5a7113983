package engine

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
)

func TestCommitEveryAndTheLastAcknowledgement(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		var source *memory
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := Run(ctx, RunSettings{
			Program: program(t, pressFlow), Store: store, CommitEvery: 3 * time.Second,
			Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
				source = newMemory(need, from, pressRows(100, 3), 10)
				source.traits.Bounded = false
				return source, nil
			},
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if store.commits != 1 {
			t.Errorf("%d commits, want the one after 3 s", store.commits)
		}
		if len(source.committed) != 1 || !slices.Equal(source.committed[0], cursorAt(100)) {
			t.Errorf("acknowledged %v", source.committed)
		}
	})
}

// TestInsightsAreCommittedBeforeState holds that insights wait CommitEvery at most, and what changes state alone twice that.
func TestInsightsAreCommittedBeforeState(t *testing.T) {
	t.Parallel()
	const seconds = 90
	// A flow that filters everything out has state from its cursor alone.
	for name, c := range map[string]struct {
		keep    string
		longest time.Duration
	}{
		"insights": {"n >= 0", time.Second},
		"state":    {"n < 0", 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				text := "flow: f\ntrigger: continuous\nsteps:\n  - id: l\n    read: a\n    schema: {n: int}\n  - filter: " + c.keep + "\n  - insight: out\n    key: [n]\n"
				data := &table{}
				for i := range seconds {
					data.rows = append(data.rows, map[string]any{"n": int64(i)})
				}
				var longest time.Duration
				commits := 0
				var since atomic.Int64
				store := newStore()
				store.onCommit = func(*memStore) {
					commits++
					if at := since.Swap(0); at != 0 {
						longest = max(longest, time.Since(time.Unix(0, at)))
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*seconds*time.Second)
				defer cancel()
				_, err := Run(ctx, RunSettings{
					Program: program(t, text), Store: store,
					Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
						source := newMemory(need, from, data, 1)
						source.traits.Bounded = false
						// The records come between the moments at which flows commit.
						wait := 1100 * time.Millisecond
						source.onNext = func(int) {
							<-time.NewTimer(wait).C
							wait = time.Second
							since.CompareAndSwap(0, time.Now().UnixNano())
						}
						return source, nil
					},
				})
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatal(err)
				}
				want := int(seconds * time.Second / c.longest)
				if longest > c.longest || commits < want-want/10 || commits > want+want/10 {
					t.Errorf("%d commits, of which one came %s after its first record, want %d, one in %s", commits, longest, want, c.longest)
				}
			})
		})
	}
}

// TestUntilCommit wants the time to the next commit to be above zero and at most the interval, and the moments the same,
// whatever the clock shows.
func TestUntilCommit(t *testing.T) {
	t.Parallel()
	const every = 1500 * time.Millisecond
	for _, now := range []time.Time{
		time.Date(2026, 11, 22, 6, 0, 0, 123_456_789, time.UTC), time.Unix(0, 0), time.Unix(0, 1), time.Unix(-1, 999_999_999),
		time.Date(1901, 1, 1, 0, 0, 0, 1, time.UTC), time.Date(2107, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		for moment := range int64(commitMoments) {
			r := NewRunner(RunSettings{Program: program(t, pressFlow), CommitEvery: every})
			r.moment = moment
			wait := r.untilCommit(now, every)
			if wait <= 0 || wait > every {
				t.Errorf("%s, moment %d: the next commit is in %s, want at most %s", now, moment, wait, every)
			}
			if again := r.untilCommit(now.Add(wait), every); again != every {
				t.Errorf("%s, moment %d: the commit after that is %s later, want %s", now, moment, again, every)
			}
		}
	}
}
