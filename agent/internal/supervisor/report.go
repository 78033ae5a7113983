package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/protocol/wire"
)

// The statuses of a run, as in wire.RunReport.
const (
	runRunning = "running"
	runOK      = "ok"
	runFailed  = "failed"
	runStopped = "stopped"
)

// run is one run of a flow, and what was reported of it. A batch run has one report, which is replaced as the run goes
// on; a continuous one has a report per interval, with the counts of that interval.
type run struct {
	u          *unit
	runner     *engine.Runner
	store      *store
	continuous bool
	// makesUp says which missed runs this one makes up for, "" for none.
	makesUp string

	// watchdog belongs to the supervisor's; givenUp is closed when the run did not end and is left behind.
	watchdog watchdog
	stopping atomic.Bool
	givenUp  chan struct{}

	// telling is held by the goroutine that reports, one at a time, which told waits for.
	telling atomic.Bool
	told    sync.WaitGroup

	// What follows belongs to who is telling, and after them to finish.
	id      string
	started time.Time
	// base is what the reports before have told.
	base report

	// now and seen are the sources as they are and as they were looked at last, and problem is what kept the run from
	// working then. They belong to the supervisor's watch.
	now, seen []engine.SourceReport
	problem   string
}

func newRun(u *unit, runner *engine.Runner, st *store, continuous bool) *run {
	return &run{u: u, runner: runner, store: st, continuous: continuous, givenUp: make(chan struct{}), id: uuid.NewString(), started: u.now()}
}

// errGivenUp is for a run that was told to stop, and did not.
var errGivenUp = errors.New("the flow did not stop when it was told to, and was left behind; look for a connector that hangs, and restart the agent to be rid of it")

// run runs to the end, or until the run is left behind. A run that is left behind commits nothing any more.
func (r *run) run(ctx context.Context) error {
	returned := make(chan error, 1)
	go func() { // it is waited for, as long as there is hope
		defer close(returned)
		var err error
		defer func() { returned <- err }()
		defer connector.Catch(&err)
		err = r.runner.Run(ctx)
	}()
	stop := context.AfterFunc(ctx, func() { r.stopping.Store(true) })
	defer stop()
	if over, err := r.await(ctx, returned); over {
		return err
	}
	r.u.s.leave(returned)
	err := errGivenUp
	if cause := r.watchdog.cause; cause != nil {
		err = fmt.Errorf("%w; it did not even stop then, and was left behind", cause)
	}
	return err
}

// look says whether the run has been at the same piece of work since the last look. It ends a run that harms others, and
// gives one up that does not return.
func (r *run) look(every time.Duration) bool {
	w, limits := &r.watchdog, r.u.s.settings.Limits
	if w.cause == nil && !r.stopping.Load() {
		if w.cause = w.look(r.runner, every, limits); w.cause != nil {
			r.runner.End(w.cause)
		}
		return w.busy()
	}
	w.ending += every
	// While a commit is under way the disk is what hangs, and the commit may still land.
	if w.ending >= limits.Grace && !w.over && r.store.fence() {
		w.over = true
		close(r.givenUp)
	}
	return w.busy()
}

// trouble says what keeps a run that goes on from working.
func (r *run) trouble(sources []engine.SourceReport) string {
	if problem := r.store.failing(); problem != "" {
		return problem
	}
	for _, s := range sources {
		if s.State == sourceFailing {
			return fmt.Sprintf("step %s: connection %s: %s", s.Step, s.Connection, s.Error)
		}
	}
	return ""
}

// await waits for the end of the run, and reports at every interval. It is not over when the run is left behind.
func (r *run) await(ctx context.Context, returned <-chan error) (over bool, err error) {
	telling, stopTelling := context.WithCancel(ctx)
	defer r.told.Wait()
	defer stopTelling()
	if !r.continuous {
		r.tell(func() { r.put(telling, r.report(runRunning, r.current(), "")) })
	}
	for {
		select {
		case err = <-returned:
			return true, err
		case <-r.givenUp:
			return false, nil
		case <-r.u.s.interval.next():
			r.tell(func() {
				r.interval(telling)
				r.u.versions.steady(telling)
			})
		}
	}
}

// tell reports, unless the report before is still being stored. A goroutine of its own does so, which most runs have no need
// of most of the time.
func (r *run) tell(report func()) {
	if r.telling.CompareAndSwap(false, true) {
		r.told.Go(func() {
			defer r.telling.Store(false)
			report()
		})
	}
}

// lookAtSources says when a source has changed.
func (r *run) lookAtSources() {
	r.now = r.runner.Sources(r.now[:0])
	problem := r.trouble(r.now)
	if problem != r.problem || !slices.EqualFunc(r.now, r.seen, sameState) {
		r.problem, r.seen = problem, append(r.seen[:0], r.now...)
		signal(r.u.s.changed)
	}
}

// beat wakes all who wait for it at once: what many do at the same moment costs the processor, and the disk that it is
// stored on, little more than what one does.
type beat struct {
	mu   sync.Mutex
	wait chan struct{}
}

// next is closed by the next strike.
func (b *beat) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wait == nil {
		b.wait = make(chan struct{})
	}
	return b.wait
}

func (b *beat) strike() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wait != nil {
		close(b.wait)
		b.wait = nil
	}
}

// sameState compares sources, without when they last had a record.
func sameState(a, b engine.SourceReport) bool {
	a.LastRecord, b.LastRecord = 0, 0
	return a == b
}

// interval reports a run that goes on. What could not be stored is told by the next report, of the same id.
func (r *run) interval(ctx context.Context) {
	now := r.current()
	trouble := r.trouble(now.Sources)
	if !r.continuous {
		r.put(ctx, r.report(runRunning, now, trouble))
		return
	}
	status := runOK
	if trouble != "" {
		status = runFailed
	}
	if r.put(ctx, r.report(status, now, trouble)) {
		r.id, r.started, r.base = uuid.NewString(), r.u.now(), now
	}
}

// finish reports the end of the run.
func (r *run) finish(ctx context.Context, stopped bool, err error) {
	status, problem := runOK, ""
	switch {
	case stopped:
		status = runStopped
	case err != nil:
		status, problem = runFailed, err.Error()
	}
	limited, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	r.put(limited, r.report(status, r.current(), problem))
}

// finishTimeout bounds how long a stopping flow waits for its last report to be stored.
const finishTimeout = 5 * time.Second

// report makes the message; the counts are those since base.
func (r *run) report(status string, now report, problem string) *wire.RunReport {
	out := &wire.RunReport{
		RunId: r.id, DeploymentId: r.u.dep.ID, FlowId: r.u.dep.FlowID, Version: r.u.runs.Version,
		Status: status, Started: r.started.UnixMicro(), Error: problem,
		RecordsRead: since(now.Read, r.base.Read), BytesRead: since(now.Bytes, r.base.Bytes),
		RecordsFailed: since(now.Failed, r.base.Failed), RecordsLate: since(now.Late, r.base.Late), Insights: since(now.Insights, r.base.Insights),
	}
	if status != runRunning {
		// By the time that has passed, so that a clock that is set meanwhile makes no run longer, nor end before it began.
		out.Ended = r.started.Add(r.u.now().Sub(r.started)).UnixMicro()
	}
	for i, s := range now.Steps {
		var before engine.StepCount
		if i < len(r.base.Steps) {
			before = r.base.Steps[i]
		}
		out.Steps = append(out.Steps, &wire.StepCount{
			Step: s.Step, RowsIn: since(s.In, before.In), RowsOut: since(s.Out, before.Out),
			RowsFailed: since(s.Failed, before.Failed), RowsLate: since(s.Late, before.Late), RowsOutside: since(s.Outside, before.Outside),
		})
	}
	if r.makesUp != "" {
		out.FailedSample = append(out.FailedSample, &wire.FailedRecord{Where: "trigger", Reason: "this run makes up for " + r.makesUp})
	}
	for _, f := range r.sample(now) {
		out.FailedSample = append(out.FailedSample, &wire.FailedRecord{Step: f.Step, Where: f.Where, Reason: f.Reason, Record: f.Record})
	}
	return out
}

// sample is what is new in the sample since base, which may be notes although no record failed. Where records failed and
// the sample was full already, the records of before stand for them.
func (r *run) sample(now report) []engine.FailedRecord {
	known, knownLarge := min(len(r.base.Sample), len(now.Sample)), min(len(r.base.large), len(now.large))
	if known == len(now.Sample) && knownLarge == len(now.large) && now.Failed > r.base.Failed {
		return slices.Concat(now.Sample, now.large)
	}
	return slices.Concat(now.Sample[known:], now.large[knownLarge:])
}

// report is what a run did so far; large are some of its insights that were too large.
type report struct {
	engine.Report
	large []engine.FailedRecord
}

// current is what the run did so far.
func (r *run) current() report {
	now := report{Report: r.runner.Report()}
	now.large = r.store.large.addTo(&now.Report)
	return now
}

// since is how far a counter has risen.
func since(now, before int64) uint64 { return uint64(max(0, now-before)) }

// put stores a report and says whether it has. A report that cannot be stored is lost, and the flow goes on. One that the end
// of ctx cut off is not lost when the run has ended meanwhile: the report of its end, of the same id, stands for it.
func (r *run) put(ctx context.Context, m *wire.RunReport) (stored bool) {
	payload, err := wire.Encode(m)
	if err == nil {
		err = r.u.s.settings.Staging.PutRunReport(ctx, m.GetRunId(), payload)
	}
	switch {
	case err == nil:
		signal(r.u.s.reported)
	case errors.Is(ctx.Err(), context.Canceled):
		r.u.s.settings.Logger.DebugContext(ctx, "a run report gives way to that of the run's end", slog.String("flow", r.u.dep.Name), slog.Any("error", err))
	default:
		r.u.s.settings.Logger.WarnContext(ctx, "a run report could not be stored", slog.String("flow", r.u.dep.Name), slog.Any("error", err))
	}
	return err == nil
}
