package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
)

const pressFlow = `
flow: press-health
trigger: continuous
steps:
  - id: readings
    read: press-plc
    schema: {ts: timestamp, machine: string, state: string, temp: float, vibration: float, count: int, scrap: int, unused: json}
  - id: running
    filter: state == "RUN" and temp > 60
  - map: {yield: (count - scrap) / count}
  - id: per_minute
    aggregate: {n: count(), temp_avg: avg(temp), vib_max: max(vibration), made: sum(count), yield_avg: avg(yield), states: count_distinct(scrap), first_state: first(state), last_count: last(count), dev: stddev(temp), low: min(machine)}
    by: [machine]
    window: {tumbling: 1m, time: ts, late: 5s}
  - insight: press_health
    key: [machine]
`

// pressRows are readings a few seconds apart, some out of order, some late, some without a time.
func pressRows(n int, seed uint64) *table {
	rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // test data
	data := &table{}
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		at := base.Add(time.Duration(i)*700*time.Millisecond - time.Duration(rng.IntN(8000))*time.Millisecond)
		row := map[string]any{
			"ts": at, "machine": fmt.Sprintf("M%d", rng.IntN(4)), "state": "RUN",
			"temp": 50 + rng.Float64()*40, "vibration": rng.Float64(), "count": int64(rng.IntN(5)), "scrap": int64(rng.IntN(3)),
		}
		switch rng.IntN(25) {
		case 0:
			row["ts"] = at.Add(-2 * time.Minute)
		case 1:
			delete(row, "ts")
		case 2:
			delete(row, "machine")
		case 3:
			row["state"] = "IDLE"
		case 4:
			delete(row, "temp")
		case 5:
			delete(row, "count")
		}
		data.rows = append(data.rows, row)
	}
	return data
}

func TestUnreadColumnsArePruned(t *testing.T) {
	t.Parallel()
	reads := program(t, pressFlow).Reads()
	if len(reads) != 1 {
		t.Fatalf("%d reads, want 1", len(reads))
	}
	want := []string{"ts", "machine", "state", "temp", "vibration", "count", "scrap"}
	if got := reads[0].Schema.Names(); !slices.Equal(got, want) {
		t.Errorf("the read delivers %v, want %v", got, want)
	}
	if reads[0].Step != "readings" || reads[0].Connection != "press-plc" || reads[0].Role != RoleStream {
		t.Errorf("the need is %+v", reads[0])
	}
}

// endlessRun runs an endless stream until everything was read and committed, and gives the insights.
func endlessRun(tb testing.TB, text string, data *table, size int, store *memStore) Report {
	tb.Helper()
	ctx, cancel := context.WithCancelCause(tb.Context())
	defer cancel(nil)
	done := errors.New("all read")
	report, err := Run(ctx, RunSettings{
		Program: program(tb, text), Store: store, CommitRows: 1,
		Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
			m := newMemory(need, from, data, size)
			m.traits.Bounded = false
			m.onNext = func(at int) {
				if at >= len(data.rows) {
					cancel(done)
				}
			}
			return m, nil
		},
	})
	if !errors.Is(err, done) {
		tb.Fatalf("Run: %v", err)
	}
	return report
}

func TestBatchBoundariesChangeNothing(t *testing.T) {
	t.Parallel()
	data := pressRows(1500, 7)
	var want []string
	var first Report
	for i, size := range []int{1500, 1, 2, 7, 64, 999} {
		store := newStore()
		report := endlessRun(t, pressFlow, data, size, store)
		if i == 0 {
			want, first = store.lines(), report
			if len(want) < 30 || report.Late == 0 || report.Failed == 0 {
				t.Fatalf("the input shows too little: %d insights, %d late, %d failed", len(want), report.Late, report.Failed)
			}
			continue
		}
		sameLines(t, fmt.Sprintf("batches of %d", size), store.lines(), want)
		if report.Late != first.Late || report.Failed != first.Failed || report.Insights != first.Insights {
			t.Errorf("batches of %d: late %d failed %d, want %d and %d", size, report.Late, report.Failed, first.Late, first.Failed)
		}
		if !slices.Equal(report.Steps, first.Steps) {
			t.Errorf("batches of %d: steps %+v, want %+v", size, report.Steps, first.Steps)
		}
	}
}

// TestResumeAtEveryCommit cuts a run after every commit: a run from the state at that point must add exactly the
// insights that were still missing.
func TestResumeAtEveryCommit(t *testing.T) {
	t.Parallel()
	data := pressRows(600, 11)
	type cut struct {
		state    State
		insights []string
		late     int64
	}
	var cuts []cut
	whole := newStore()
	whole.onCommit = func(s *memStore) {
		cuts = append(cuts, cut{cloneState(s.state), insightLines(s.insights), s.late})
	}
	report := endlessRun(t, pressFlow, data, 13, whole)
	want := whole.lines()
	if len(cuts) < 600/13 {
		t.Fatalf("%d commits, want one per batch", len(cuts))
	}
	for i, c := range cuts {
		store := newStore()
		store.state = cloneState(c.state)
		resumed := endlessRun(t, pressFlow, data, 29, store)
		sameLines(t, fmt.Sprintf("resumed after commit %d", i), append(slices.Clone(c.insights), store.lines()...), want)
		if got := resumed.Steps[3].LateTotal; got != report.Late {
			t.Fatalf("resumed after commit %d: %d late in all, want %d", i, got, report.Late)
		}
		if told := c.late + store.late; told != report.Late {
			t.Fatalf("resumed after commit %d: the checkpoints tell of %d late rows, want %d", i, told, report.Late)
		}
		if got, all := len(store.state.Operators["per_minute"]), len(whole.state.Operators["per_minute"]); got != all {
			t.Fatalf("resumed after commit %d: %d entries of state, want %d", i, got, all)
		}
	}
}

func TestBoundedRunResumesAtEveryCommit(t *testing.T) {
	t.Parallel()
	data := pressRows(300, 5)
	text := strings.Replace(pressFlow, "trigger: continuous\n", "", 1)
	want, report := runBounded(t, text, map[string]*table{"readings": data}, 4096)
	if report.Late != 0 || len(want) == 0 {
		t.Fatalf("%d late and %d insights in a bounded run", report.Late, len(want))
	}
	if !slices.IsSortedFunc(want, func(a, b string) int { return strings.Compare(a[:33], b[:33]) }) {
		t.Error("the insights are not sorted by window")
	}
	for cutAt := 1; ; cutAt++ {
		store := newStore()
		ctx, cancel := context.WithCancel(t.Context())
		store.onCommit = func(s *memStore) {
			if s.commits == cutAt {
				cancel()
			}
		}
		set := RunSettings{Program: program(t, text), Store: store, CommitRows: 1, Open: opener(map[string]*table{"readings": data}, 9)}
		_, err := Run(ctx, set)
		cancel()
		if err == nil {
			if cutAt < 300/9 {
				t.Fatalf("only %d cuts", cutAt)
			}
			return
		}
		store.onCommit = nil
		if _, err = Run(t.Context(), set); err != nil {
			t.Fatal(err)
		}
		sameLines(t, fmt.Sprintf("cut at commit %d", cutAt), store.lines(), want)
	}
}

func TestAFailedCommitIsRetriedWithTheSameCheckpoint(t *testing.T) {
	t.Parallel()
	data := pressRows(200, 3)
	want := newStore()
	endlessRun(t, pressFlow, data, 50, want)
	synctest.Test(t, func(t *testing.T) {
		store := newStore()
		store.fail = func(commit int) (error, bool) {
			if commit%3 != 0 {
				return errors.New("the disk is full"), false
			}
			return nil, true
		}
		endlessRun(t, pressFlow, data, 50, store)
		sameLines(t, "with failing commits", store.lines(), want.lines())
	})
}

func TestSourceFailuresAreRetriedAndReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		data := pressRows(100, 3)
		var seen atomic.Bool
		var runner *Runner
		runner = NewRunner(RunSettings{
			Program: program(t, pressFlow), Store: newStore(),
			Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
				m := newMemory(need, from, data, 10)
				m.faults = map[int]error{0: errors.New("the broker refused the connection"), 30: errors.New("broken pipe")}
				m.onNext = func(at int) {
					if s := runner.Report().Sources[0]; at == 0 && s.State == "failing" && strings.Contains(s.Error, "broker") {
						seen.Store(true)
					}
				}
				return m, nil
			},
		})
		if err := runner.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		report := runner.Report()
		if !seen.Load() {
			t.Error("the report never said that the source was failing")
		}
		if report.Read != 100 || report.Bytes != 1000 || report.Sources[0].State != "ended" || report.Sources[0].Error != "" {
			t.Errorf("the report is %+v", report)
		}
	})
}

// stuck is a store whose commits last until their context ends.
type stuck struct {
	*memStore
	entered chan struct{}
}

func (s stuck) Commit(ctx context.Context, _ Checkpoint) error {
	select {
	case s.entered <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestARunThatIsToldToStopDoesNotWaitForALongCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := stuck{newStore(), make(chan struct{}, 1)}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-store.entered; cancel() }()
		start := time.Now()
		_, err := Run(ctx, RunSettings{
			Program: program(t, pressFlow), Store: store, CommitRows: 1, Open: opener(map[string]*table{"readings": pressRows(100, 3)}, 10),
		})
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "the last commit did not succeed") {
			t.Errorf("Run: %v", err)
		}
		if d := time.Since(start); d > finalTimeout {
			t.Errorf("the run ended after %v, want %v at most", d, finalTimeout)
		}
	})
}

// TestAFailingSourceIsLoggedOncePerChange has a source that fails three times in a row, twice with the same words.
func TestAFailingSourceIsLoggedOncePerChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		handler := slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})
		_, err := Run(t.Context(), RunSettings{
			Program: program(t, pressFlow), Store: newStore(), Logger: slog.New(handler),
			Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
				m := newMemory(need, from, pressRows(100, 3), 10)
				m.faults = map[int]error{}
				calls := 0
				m.onNext = func(at int) {
					if at != 30 {
						return
					}
					if calls++; calls < 4 {
						m.faults[30] = []error{errors.New("refused"), errors.New("refused"), errors.New("no route")}[calls-1]
					}
				}
				return m, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		want := `level=WARN msg="the source fails" step=readings connection=press-plc error=refused
level=WARN msg="the source fails" step=readings connection=press-plc error="no route"
level=INFO msg="the source works again" step=readings connection=press-plc
`
		if log.String() != want {
			t.Errorf("the log is\n%swant\n%s", log.String(), want)
		}
	})
}

// hesitant gives an empty delivery before each of its batches, as a source that has connected and has nothing yet.
type hesitant struct {
	*memory
	said bool
}

func (h *hesitant) Next(ctx context.Context) (connector.Delivery, error) {
	if h.said = !h.said; h.said {
		return connector.Delivery{}, nil
	}
	return h.memory.Next(ctx)
}

func TestAnEmptyDeliveryShowsASourceAsReadingAndMovesNoCursor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		data := pressRows(100, 3)
		for _, from := range []int{0, 40, 100} {
			store := recorder{memStore: newStore(), see: func(c Checkpoint) {
				if cursor, moved := c.Cursors["readings"]; moved && (cursor == nil || from == 100) {
					t.Errorf("a checkpoint moves the cursor to %v", cursor)
				}
			}}
			store.state.Cursors["readings"] = cursorAt(from)
			ctx, cancel := context.WithCancel(t.Context())
			runner := NewRunner(RunSettings{
				Program: program(t, pressFlow), Store: store, CommitRows: 1,
				Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
					m := newMemory(need, from, data, 10)
					m.traits.Bounded = false
					return &hesitant{memory: m}, nil
				},
			})
			ended := make(chan error, 1)
			go func() { ended <- runner.Run(ctx) }()
			synctest.Wait()
			report := runner.Report()
			if s := report.Sources[0]; s.State != "reading" || (s.LastRecord == 0) != (from == 100) || report.Read != int64(100-from) {
				t.Errorf("from %d: %+v", from, report)
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
			if got := store.state.Cursors["readings"]; !slices.Equal(got, cursorAt(100)) {
				t.Errorf("from %d: the cursor is %v", from, got)
			}
		}
	})
}

func TestAPermanentErrorNamesStepAndConnection(t *testing.T) {
	t.Parallel()
	store := newStore()
	_, err := Run(t.Context(), RunSettings{
		Program: program(t, pressFlow), Store: store,
		Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
			m := newMemory(need, from, pressRows(100, 3), 10)
			m.faults = map[int]error{20: &connector.PermanentError{Err: errors.New("no such table")}}
			return m, nil
		},
	})
	var permanent *connector.PermanentError
	if !errors.As(err, &permanent) || !strings.Contains(err.Error(), "readings") || !strings.Contains(err.Error(), "press-plc") {
		t.Errorf("the error is %v", err)
	}
	if got := store.state.Cursors["readings"]; !slices.Equal(got, cursorAt(20)) {
		t.Errorf("the cursor is %v: what was processed before is not committed", got)
	}
}

// gated is a source that delivers one batch at a time and waits for Committed.
type gated struct {
	*memory
	open int
}

func (g *gated) Next(ctx context.Context) (connector.Delivery, error) {
	if g.open > 0 {
		<-ctx.Done()
		return connector.Delivery{}, ctx.Err()
	}
	d, err := g.memory.Next(ctx)
	if err == nil {
		g.open++
	}
	return d, err
}

func (g *gated) Committed(ctx context.Context, upTo connector.Cursor) error {
	g.open = 0
	return g.memory.Committed(ctx, upTo)
}

func TestAnAckGatedSourceNeverWaitsForTheTimer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var source *gated
		_, err := Run(t.Context(), RunSettings{
			Program: program(t, pressFlow), Store: newStore(), CommitEvery: time.Hour,
			Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
				source = &gated{memory: newMemory(need, from, pressRows(100, 3), 10)}
				source.traits.AckGated = true
				return source, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("ten batches took %v", d)
		}
		if len(source.committed) != 10 || !source.closed {
			t.Errorf("%d acknowledgements, want 10; closed %t", len(source.committed), source.closed)
		}
	})
}

func TestOnErrorStop(t *testing.T) {
	t.Parallel()
	data := &table{rows: []map[string]any{{"ts": "2026-01-01T00:00:00Z", "machine": "M1", "state": "RUN", "temp": 70.0}, {"state": "RUN", "temp": 70.0}}}
	text := strings.Replace(pressFlow, "trigger: continuous", "trigger: continuous\non_error: stop", 1)
	store := newStore()
	_, err := Run(t.Context(), RunSettings{Program: program(t, text), Store: store, Open: opener(map[string]*table{"readings": data}, 1)})
	var stopped *StoppedError
	if !errors.As(err, &stopped) || stopped.Step != "per_minute" {
		t.Fatalf("the error is %v", err)
	}
	if store.commits != 1 {
		t.Errorf("%d commits, want that of the batch before the record", store.commits)
	}
}

// TestOnErrorStopKeepsWhatCameBefore holds that a flow with on_error: stop commits every batch before the failing
// record, even where a run may hold its commit, and that its report counts what was committed.
func TestOnErrorStopKeepsWhatCameBefore(t *testing.T) {
	t.Parallel()
	const text = "flow: f\non_error: stop\nsteps:\n  - id: l\n    read: a\n    schema: {n: int}\n  - validate: {n: {max: 99}}\n  - insight: out\n    key: [n]\n"
	data := &table{}
	for i := range 120 {
		data.rows = append(data.rows, map[string]any{"n": int64(i)})
	}
	settings := func(store *memStore) RunSettings {
		return RunSettings{Program: program(t, text), Store: store, Open: opener(map[string]*table{"l": data}, 16), HoldFor: time.Hour}
	}
	stopped := func(store *memStore, set RunSettings) {
		t.Helper()
		set.Scratch, set.Memory = &memScratch{}, &Memory{pool: &pool{limit: 1 << 30, floor: 1 << 26}}
		report, err := Run(t.Context(), set)
		if _, ok := errors.AsType[*StoppedError](err); !ok {
			t.Fatalf("the error is %v", err)
		}
		// Six whole batches of 16 come before the one with the record 100.
		if len(store.insights) != 96 || report.Insights != 96 || !slices.Equal(store.state.Cursors["l"], cursorAt(96)) {
			t.Errorf("%d insights were committed and %d are reported, the cursor is %v", len(store.insights), report.Insights, store.state.Cursors["l"])
		}
	}
	store := newStore()
	stopped(store, settings(store))

	// The same where the source reports the record, which ends the run before its batch.
	store = newStore()
	set := settings(store)
	data.rows = data.rows[:100]
	set.Open = func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
		return &failsAt{memory: newMemory(need, from, data, 16), row: 100}, nil
	}
	stopped(store, set)
}

// failsAt is a source that reports a failing record in the batch that ends at a row.
type failsAt struct {
	*memory
	row int
}

func (f *failsAt) Next(ctx context.Context) (connector.Delivery, error) {
	d, err := f.memory.Next(ctx)
	if f.at == f.row && err == nil {
		d.Read++
		d.Failed = connector.Failures{Count: 1, Sample: []connector.FailedRecord{{Where: "line 101", Reason: "it has no columns"}}}
	}
	return d, err
}

func TestAChangedStepStartsEmpty(t *testing.T) {
	t.Parallel()
	data := pressRows(200, 3)
	store := newStore()
	endlessRun(t, pressFlow, data, 50, store)
	if len(store.state.Operators["per_minute"]) < 2 {
		t.Fatal("no state to change")
	}
	text := strings.Replace(pressFlow, "avg(temp)", "avg(temp + 1)", 1)
	endlessRun(t, text, data, 50, store)
	text = strings.ReplaceAll(text, "per_minute", "each_minute")
	endlessRun(t, text, data, 50, store)
	if n := len(store.state.Operators["per_minute"]); n != 0 {
		t.Errorf("%d entries of a step that is gone", n)
	}
}

func TestDamagedStateIsAnError(t *testing.T) {
	t.Parallel()
	data := pressRows(200, 3)
	store := newStore()
	endlessRun(t, pressFlow, data, 50, store)
	for key, value := range store.state.Operators["per_minute"] {
		damaged := newStore()
		damaged.state = cloneState(store.state)
		value = slices.Clone(value)
		value[len(value)/2] ^= 4
		damaged.state.Operators["per_minute"][key] = value
		_, err := Run(t.Context(), RunSettings{Program: program(t, pressFlow), Store: damaged, Open: opener(nil, 1)})
		if !errors.Is(err, errCorruptState) {
			t.Fatalf("a flipped bit in %q gives %v", key, err)
		}
	}
}
