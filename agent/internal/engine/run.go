package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
)

// RunSettings is everything a run needs.
type RunSettings struct {
	Program *Program
	// Open makes the source of a need, resuming from a cursor (nil for the beginning). It is called again for every
	// refresh of a table, from another goroutine than Run's.
	Open func(ReadNeed, connector.Cursor) (connector.Source, error)
	// OpenLookup makes the system of a lookup step's need, from any goroutine, and OpenSink that of a write step. They may
	// be nil for a program without such steps.
	OpenLookup func(ReadNeed) (connector.Lookup, error)
	OpenSink   func(WriteNeed) (connector.Sink, error)
	Store      Store
	// Memory is what the operators may hold, shared with other runs; nil means no limit. Scratch takes what they spill;
	// with nil they spill nothing.
	Memory  *Memory
	Scratch Scratch
	// HoldFor is how long a run that ends by itself goes on before its first commit; 0 commits from the beginning. A run
	// that ends sooner commits once, and its operators' state never has to be stored. It needs Scratch. A program with
	// on_error: stop does not hold: it commits behind every batch, so that what came before a failing record is kept.
	HoldFor time.Duration
	// Started is the time of insights that have no time of their own.
	Started time.Time
	// CommitEvery is the longest time between an insight, or a row for a sink, and its commit while the store works; 0 means a
	// second. What changes cursors and state alone is committed within twice that.
	CommitEvery time.Duration
	// CommitRows is how many rows are processed at most without a commit; 0 means about a million.
	CommitRows int64
	Logger     *slog.Logger
	// Clock is for reports and for the operators that act without rows; nil means time.Now.
	Clock connector.Clock
	// guard bounds the tests of a definition.
	guard *testGuard
	// texts are other bounds than usual, for tests.
	texts textBounds
}

const (
	defaultCommitEvery = time.Second
	defaultCommitRows  = 1 << 20
	// maxPendingBytes is how much of insights waits for a commit.
	maxPendingBytes = 4 << 20
	// stateEvery is how many times CommitEvery what changes state alone may wait, and commitMoments at how many moments
	// within that flows commit.
	stateEvery    = 2
	commitMoments = 4
	// ackIdle is how long an ack-gated source may have nothing ready before what it delivered is committed.
	ackIdle = 2 * time.Millisecond
	// tickEvery is how often the operators that act without rows are asked to.
	tickEvery = time.Second
	// finalTimeout bounds the last commit of a run that was told to stop.
	finalTimeout = 5 * time.Second
)

// Runner is one run of a program. Run is called once; Report at any time from any goroutine.
type Runner struct {
	set   RunSettings
	spans []span
	pipe  *pipeline
	pumps []*pump
	// life ends the run's operators; worker is the goroutine of Run.
	life   *life
	worker *worker

	events  chan event
	refresh chan refreshed

	// working is held by the goroutine that runs the operators or commits: Run's own, or that of a pump with a delivery. It
	// guards what follows, down to mu. over says that nothing is done any more, and failure why, where the work was the
	// reason; broken receives then.
	working sync.Mutex
	over    bool
	failure error
	broken  chan struct{}

	// dirty says that something was processed since the last commit, leaving that some of it is to leave the flow.
	dirty, leaving bool
	// cursors are the positions behind the last processed batches, by read; moved says which are not committed.
	cursors []connector.Cursor
	moved   []bool
	// discarded are state entries of steps that no longer exist.
	discarded []StateChange
	// changes is the memory of the last checkpoint's, which are of no use to anyone when the next one is made.
	changes []StateChange
	// uncommitted is a checkpoint of unknown outcome; nothing is processed before it landed.
	uncommitted *Checkpoint
	// refused says that the store can never take the uncommitted checkpoint.
	refused bool
	// aside are the insights before those of the box, while the run holds its commit. began is when Run did.
	aside *asideInsights
	began time.Time
	rows  int64
	// committed counts the insights of all commits, and lateTold the late rows.
	committed   int64
	lateTold    int64
	commitTimer *time.Timer
	// moment is the one of commitMoments at which this run commits.
	moment    int64
	idleTimer *time.Timer
	ticks     *time.Ticker

	mu     sync.Mutex
	report Report
	// totals are what the report says of each step; base is what the loads of tables have added to it.
	base []StepCount
}

// NewRunner prepares a run. It starts nothing.
func NewRunner(set RunSettings) *Runner {
	if set.CommitEvery <= 0 {
		set.CommitEvery = defaultCommitEvery
	}
	if set.CommitRows <= 0 {
		set.CommitRows = defaultCommitRows
	}
	if set.Clock == nil {
		set.Clock = time.Now
	}
	if set.Logger == nil {
		set.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Runner{set: set, events: make(chan event), refresh: make(chan refreshed), broken: make(chan struct{}, 1), moment: rand.Int64N(commitMoments)} //nolint:gosec // no secret
	r.life = &life{memory: set.Memory}
	r.worker = r.life.worker()
	for _, need := range set.Program.Reads() {
		r.report.Sources = append(r.report.Sources, SourceReport{Step: need.Step, Connection: need.Connection, State: sourceConnecting})
	}
	for _, need := range set.Program.Writes() {
		r.report.Sources = append(r.report.Sources, SourceReport{Step: need.Step, Connection: need.Connection, State: sourceConnecting})
	}
	for i := range set.Program.plan.Steps {
		count := StepCount{Step: set.Program.plan.Steps[i].ID}
		r.report.Steps, r.base = append(r.report.Steps, count), append(r.base, count)
	}
	return r
}

// Run runs a program to its end. See Runner.Run.
func Run(ctx context.Context, set RunSettings) (Report, error) {
	r := NewRunner(set)
	err := r.Run(ctx)
	return r.Report(), err
}

// Run reads until every source has ended or ctx ends, whose cause it then gives. Before it returns it commits what was
// processed, and closes the sources. Other errors are final: a source that cannot work (naming step and connection), a
// definition that the sources do not fit, damaged state, or a *StoppedError.
func (r *Runner) Run(ctx context.Context) error {
	state, err := r.set.Store.Load(ctx)
	if err != nil {
		return fmt.Errorf("load the flow's state: %w", err)
	}
	err = guard(func() error {
		if openErr := r.open(state); openErr != nil {
			return openErr
		}
		return r.restore(state)
	})
	if err != nil {
		return errors.Join(err, r.closeSources())
	}
	r.began = time.Now()
	inner, cancel := r.life.begin(ctx)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	closeSystems := func() error { return nil }
	err = guard(func() (runErr error) {
		if closeSystems, runErr = r.openSystems(inner, r.pipe); runErr != nil {
			return runErr
		}
		if runErr = r.loadTables(inner); runErr != nil {
			return runErr
		}
		r.startRefreshes(inner, &wg)
		return r.loop(inner, func(p *pump) { wg.Go(func() { p.run(inner, stop) }) })
	})
	r.worker.rest()
	// A run that ends early while it holds rows that no state covers starts over.
	if commits(err) && (err == nil || !r.pipe.res.held) {
		err = errors.Join(err, guard(func() error { return r.finalCommit(ctx) }))
	}
	if err == nil {
		r.endSystems()
	}
	cancel()
	close(stop)
	wg.Wait()
	r.settle()
	return errors.Join(err, guard(closeSystems), guard(r.closeSources), guard(r.release))
}

// release gives back the memory and the scratch files of the run.
func (r *Runner) release() error {
	errs := []error{r.pipe.res.close()}
	for _, j := range r.pipe.joins {
		errs = append(errs, j.table.close())
	}
	return errors.Join(errs...)
}

// commits says whether what was processed may be committed after the error: not when the error came from the middle of
// a batch.
func commits(err error) bool {
	var partial *partialError
	return !errors.As(err, &partial)
}

// partialError wraps an error that left a batch half processed.
type partialError struct{ err error }

func (e *partialError) Error() string { return e.err.Error() }
func (e *partialError) Unwrap() error { return e.err }

// open makes the sources of the streams and the operators behind them.
func (r *Runner) open(state State) error {
	main := r.set.Program.main
	for i := range main.reads {
		need := main.reads[i].need
		source, err := r.set.Open(need, state.Cursors[need.Step])
		if err != nil {
			return sourceError(need, err)
		}
		r.cursors = append(r.cursors, state.Cursors[need.Step])
		r.pumps = append(r.pumps, newPump(i, source, r))
		s := endless
		if source.Traits().Bounded {
			s = bounded
		}
		r.spans = append(r.spans, s)
	}
	r.moved = make([]bool, len(main.reads))
	var err error
	s := bounded
	if r.endless() {
		s = endless
	}
	res := r.resources(s, r.worker)
	r.aside = &asideInsights{res: res}
	r.pipe, err = main.instantiateWith(res, func(read int) span { return r.spans[read] }, r.set.Started.UnixMicro())
	if err == nil {
		r.pipe.box.tooMuch = r.tooManyInsights
	}
	return err
}

func sourceError(need ReadNeed, err error) error {
	return fmt.Errorf("step %s: connection %s: %w", need.Step, need.Connection, err)
}

func (r *Runner) closeSources() error {
	var errs []error
	for _, p := range r.pumps {
		if err := p.source.Close(); err != nil {
			errs = append(errs, sourceError(r.set.Program.main.reads[p.read].need, err))
		}
	}
	return errors.Join(errs...)
}

// restore gives the operators their state of the last commit. A step whose definition has changed starts empty.
func (r *Runner) restore(state State) error {
	known := map[string]bool{}
	for _, k := range r.pipe.keepers {
		step := k.stepID()
		known[step] = true
		err := k.restore(state.Operators[step])
		switch {
		case errors.Is(err, errOtherDefinition):
			r.set.Logger.Warn("the step's definition has changed, so its saved state is dropped", "step", step, "entries", len(state.Operators[step]))
			k.discard(state.Operators[step])
		case err != nil:
			return fmt.Errorf("step %s: %w; reset the flow's state to start it anew", step, err)
		}
	}
	for _, step := range sortedKeys(state.Operators) {
		if known[step] || len(state.Operators[step]) == 0 {
			continue
		}
		r.set.Logger.Warn("the step no longer keeps state, so its saved state is dropped", "step", step, "entries", len(state.Operators[step]))
		for _, key := range sortedKeys(state.Operators[step]) {
			r.discarded = append(r.discarded, StateChange{Step: step, Key: key})
		}
	}
	return nil
}

// loop starts the pumps and does what is not for them to do, until all have ended. start runs a pump.
func (r *Runner) loop(ctx context.Context, start func(*pump)) error {
	r.commitTimer, r.idleTimer = stoppedTimer(), stoppedTimer()
	defer r.commitTimer.Stop()
	defer r.idleTimer.Stop()
	r.ticks = time.NewTicker(tickEvery)
	if len(r.pipe.tickers) == 0 {
		r.ticks.Stop()
	}
	defer r.ticks.Stop()
	err := r.attend(ctx, start)
	if failure := r.endWork(); failure != nil {
		err = failure
	}
	return err
}

// attend does what is due, until the pumps have ended or there is an error.
func (r *Runner) attend(ctx context.Context, start func(*pump)) error {
	for r.startPumps(start) {
		var err error
		select {
		case e := <-r.events:
			err = r.work(func() error { return r.ended(ctx, e) })
		case t := <-r.refresh:
			err = r.work(func() error { r.swap(t); return nil })
		case <-r.commitTimer.C:
			err = r.work(func() error { return r.commitDue(ctx) })
		case <-r.idleTimer.C:
			err = r.work(func() error { return r.commitDue(ctx) })
		case <-r.ticks.C:
			err = r.work(func() error { return r.tick(ctx) })
		case <-r.broken:
			err = errOver // endWork knows better
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// errOver is for who comes with work when the run is over.
var errOver = errors.New("the run is over")

// work does something that no other goroutine may do meanwhile. After an error nothing is done any more.
func (r *Runner) work(do func() error) error {
	r.working.Lock()
	defer r.working.Unlock()
	if r.over {
		return errOver
	}
	err := guard(do)
	if err != nil {
		r.over, r.failure = true, err
		r.broken <- struct{}{} // there is room, because this happens once
	}
	return err
}

// endWork waits for who works, sees to it that nobody does any more, and gives the error with which the work has failed.
func (r *Runner) endWork() error {
	r.working.Lock()
	defer r.working.Unlock()
	r.over = true
	return r.failure
}

// take processes a delivery, in the goroutine of its pump: that spares two switches of goroutines for every batch, which for
// small batches cost more than all else. False says that the run is over.
func (r *Runner) take(ctx context.Context, p *pump, d *connector.Delivery) bool {
	return r.work(func() error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return r.handle(ctx, p, d)
	}) == nil
}

// tick lets the operators act that must do so even when no row comes.
func (r *Runner) tick(ctx context.Context) error {
	r.worker.work()
	before := len(r.pipe.box.items)
	now := r.set.Clock().UnixMicro()
	for _, t := range r.pipe.tickers {
		if err := t.tick(now); err != nil {
			return &partialError{err: err}
		}
	}
	if err := r.worker.done(nil); err != nil {
		return &partialError{err: err}
	}
	if len(r.pipe.box.items) > before || r.sinksHold() {
		r.scheduleCommit()
	}
	r.publish()
	return r.commitWhenFull(ctx)
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// startPumps starts the streams that never end, and of those that end one after the other, so that a bounded run is
// always the same. It says whether any is left.
func (r *Runner) startPumps(start func(*pump)) bool {
	left, busy := false, false
	for _, p := range r.pumps {
		if p.ended {
			continue
		}
		left = true
		if !p.started && (!p.traits.Bounded || !busy) {
			p.started = true
			start(p)
		}
		busy = busy || p.traits.Bounded
	}
	return left
}

// handle processes one delivery.
func (r *Runner) handle(ctx context.Context, p *pump, d *connector.Delivery) error {
	if err := r.admit(p.read, d); err != nil {
		return err
	}
	r.worker.work()
	if err := r.worker.done(r.process(p.read, d)); err != nil {
		return &partialError{err: err}
	}
	if p.traits.AckGated && r.dirty {
		r.idleTimer.Reset(ackIdle)
	}
	return r.commitBehindBatch(ctx)
}

// ended is for a source that has ended, or that can never work.
func (r *Runner) ended(ctx context.Context, e event) error {
	p := e.pump
	if !errors.Is(e.err, io.EOF) {
		return sourceError(r.set.Program.main.reads[p.read].need, e.err)
	}
	if r.spans[p.read] == bounded {
		if err := r.finish(ctx, p.read); err != nil {
			return err
		}
	}
	p.ended = true
	r.publish()
	return nil
}

// admit counts the records of a delivery. An error is of a failing record that the source reports and that ends the run
// before anything of its batch is processed.
func (r *Runner) admit(read int, d *connector.Delivery) error {
	counts := r.pipe.sources[read].counts
	counts.in += d.Read
	return counts.failAll(d.Failed)
}

// process runs a delivery through the operators.
func (r *Runner) process(read int, d *connector.Delivery) error {
	source := r.pipe.sources[read]
	moved := d.Cursor != nil && !bytes.Equal(d.Cursor, r.cursors[read])
	if d.Batch != nil && d.Batch.Len > 0 {
		r.rows += int64(d.Batch.Len)
		if err := source.push(d.Batch); err != nil {
			return err
		}
	}
	if moved {
		r.cursors[read], r.moved[read] = slices.Clone(d.Cursor), true
	}
	if d.Read > 0 || d.Batch != nil || moved {
		r.scheduleCommit()
	}
	r.received(read, d)
	r.publish()
	return nil
}

// finish lets the operators behind a bounded source emit what they hold, committing on the way where there is much.
func (r *Runner) finish(ctx context.Context, read int) error {
	for _, f := range r.pipe.ended(read) {
		for more := true; more; {
			var err error
			r.worker.workEnd()
			more, err = f.finish()
			if err = r.worker.done(err); err != nil {
				return &partialError{err: err}
			}
			r.publish()
			if err = r.commitWhenFull(ctx); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	return nil
}
