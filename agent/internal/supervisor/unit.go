package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/internal/backoff"
	"github.com/outfeed/outfeed/protocol/flowdef"
	"github.com/outfeed/outfeed/protocol/wire"
)

// The states of a flow, as in wire.FlowStatus.
const (
	stateStarting   = "starting"
	stateRunning    = "running"
	stateWaiting    = "waiting"
	stateBackingOff = "backing_off"
	stateCompleted  = "completed"
	stateFailed     = "failed"
	stateRefused    = "refused"
)

// sourceFailing is the state of a source, as in engine.SourceReport, that makes its flow's report one of a failure.
const sourceFailing = "failing"

// steadyRun is how long a run must have lasted for the next failure to wait only shortly again.
const steadyRun = time.Minute

// unit is one deployment that shall run. Its goroutine runs it over and over as the trigger says.
type unit struct {
	s *Supervisor
	// dep is what is deployed.
	dep    Deployment
	cancel context.CancelCauseFunc
	done   chan struct{}
	// versions, memory, runs and makesUp belong to the unit's goroutine; runs is the deployment that runs, dep or the version before.
	versions versions
	memory   *engine.Memory
	runs     Deployment
	// makesUp is for the next run, whose reports say it.
	makesUp string

	mu      sync.Mutex
	state   string
	problem string
	since   time.Time
	// current is the run under way, nil between runs; sources is what the last run said at its end.
	current *run
	sources []engine.SourceReport
	// version is the one that runs, setBackFrom the one that was set back to it, and note says why.
	version, setBackFrom uint32
	note                 string
	// next is when the next run begins, zero while one is under way or none is waited for.
	next time.Time
}

// run is the unit's goroutine. crash is what an earlier process died of in this flow.
func (u *unit) run(ctx context.Context, crash string) {
	u.versions.load(ctx)
	if crash != "" {
		u.s.settings.Logger.ErrorContext(ctx, "the agent ended in this flow the last time", slog.String("flow", u.dep.Name), slog.String("reason", crash))
		u.versions.crashed(ctx, crash)
	}
	for u.runVersion(ctx) == goBack {
		// The version before runs now.
	}
}

// runVersion runs the version that is to run, until ctx ends or there is nothing more to run, or another one is to run.
func (u *unit) runVersion(ctx context.Context) verdict {
	u.runs = u.versions.current(ctx)
	u.explain()
	p, err := u.prepare()
	if err != nil {
		u.set(stateRefused, err)
		return goOn
	}
	if u.versions.exhausted() {
		u.set(stateFailed, nil)
		if u.pause(ctx) != nil {
			return goOn
		}
	}
	u.forgetServed(ctx, p)
	switch p.trigger.Kind {
	case flowdef.Continuous:
		return u.keepRunning(ctx, p)
	case flowdef.Every:
		return u.repeat(ctx, p, timetable{next: func(started time.Time) (time.Time, bool) { return nextPeriod(started, u.now(), p.trigger.Every), true }})
	case flowdef.Cron:
		return u.onSchedule(ctx, p)
	case flowdef.Manual:
		u.set(stateWaiting, nil)
	}
	return goOn
}

// pause is how long a flow is left alone that has failed by its own doing as often as it may.
func (u *unit) pause(ctx context.Context) error { return backoff.Sleep(ctx, u.s.settings.Limits.Pause) }

// explain makes what became of the versions visible.
func (u *unit) explain() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.version, u.setBackFrom, u.note = u.runs.Version, 0, u.versions.explain()
	if u.versions.record.SetBack {
		u.setBackFrom = u.dep.Version
	}
}

func (u *unit) now() time.Time { return u.s.settings.Clock() }

func (u *unit) prepare() (p *prepared, err error) {
	defer connector.Catch(&err)
	settings := u.s.settings
	settings.Memory = u.memory
	return prepare(settings, u.runs)
}

// keepRunning runs a continuous flow until its sources end, and again after each failure.
func (u *unit) keepRunning(ctx context.Context, p *prepared) verdict {
	wait := u.s.settings.Backoff
	for {
		started := u.now()
		err := u.runOnce(ctx, p)
		if ctx.Err() != nil {
			return goOn
		}
		switch u.judge(ctx, err) {
		case goBack:
			return goBack
		case leaveAlone:
			u.set(stateFailed, err)
			if u.pause(ctx) != nil {
				return goOn
			}
			continue
		case goOn:
		}
		if err == nil {
			u.set(stateCompleted, nil)
			return goOn
		}
		if _, ok := errors.AsType[*engine.StoppedError](err); ok {
			// The same record would stop it again, so it waits for another version.
			u.set(stateFailed, err)
			return goOn
		}
		if u.now().Sub(started) >= steadyRun {
			wait.Reset()
		}
		u.set(stateBackingOff, err)
		if wait.Wait(ctx) != nil {
			return goOn
		}
	}
}

// judge takes note of how a run ended.
func (u *unit) judge(ctx context.Context, err error) verdict {
	isolated := &u.s.isolated
	switch kind := engine.Overrun(err); {
	case kind == engine.OverrunMemory:
		isolated.memory.Add(1)
	case kind == engine.OverrunTime:
		isolated.time.Add(1)
	case ownFailure(err):
		isolated.panics.Add(1)
	}
	v := u.versions.judge(ctx, err)
	u.explain()
	return v
}

// runOnce runs the flow once, with reports. It waits here for as long as the flow runs, so that it keeps nothing on its stack that
// is needed only before or behind that: there may be hundreds of flows.
func (u *unit) runOnce(ctx context.Context, p *prepared) error {
	r, log := u.begin(p)
	err := r.run(ctx)
	u.report(ctx, r, log, err)
	return err
}

// begin makes a run.
//
//go:noinline
func (u *unit) begin(p *prepared) (*run, *slog.Logger) {
	u.set(stateStarting, nil)
	settings := u.s.settings
	settings.Memory = u.memory
	st := newStore(settings, p, &u.runs, func() Encoder { return recordEncoder(&u.runs) })
	st.payloads = &u.s.payloads
	set := p.runSettings(settings)
	set.Store = st
	set.Logger = settings.Logger.With("deployment", u.dep.ID, "flow", u.dep.Name, "version", u.runs.Version)
	runner := engine.NewRunner(set)
	r := newRun(u, runner, st, p.trigger.Kind == flowdef.Continuous)
	r.makesUp, u.makesUp = u.makesUp, ""
	u.s.openRun(r)
	u.enter(r)
	return r, set.Logger
}

// report tells how a run has ended.
//
//go:noinline
func (u *unit) report(ctx context.Context, r *run, log *slog.Logger, err error) {
	u.leave(r.runner.Report().Sources)
	// The last report is stored even though ctx may have ended.
	r.finish(context.WithoutCancel(ctx), ctx.Err() != nil, err)
	u.s.closeRun(r)
	if err == nil || ctx.Err() != nil {
		return
	}
	if caught, ok := errors.AsType[*connector.PanicError](err); ok {
		log.ErrorContext(ctx, "a flow failed with an internal error", slog.String("stack", string(caught.Stack)))
	}
	log.WarnContext(ctx, "a flow failed", slog.Any("error", err))
}

func (u *unit) enter(r *run) {
	u.mu.Lock()
	u.current, u.next = r, time.Time{}
	u.mu.Unlock()
	u.set(stateRunning, nil)
}

func (u *unit) leave(sources []engine.SourceReport) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.current, u.sources = nil, sources
}

// running is the run under way, or nil.
func (u *unit) running() *run {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.current
}

// look is the watchdog's: it says whether the flow has been at the same piece of work since the last look. It also looks at
// the sources.
func (u *unit) look(every time.Duration) bool {
	r := u.running()
	if r == nil {
		return false
	}
	r.lookAtSources()
	return r.look(every)
}

// set changes the state and says so.
func (u *unit) set(state string, problem error) {
	u.mu.Lock()
	if u.state != state {
		u.since = u.now()
	}
	u.state, u.problem = state, ""
	if problem != nil {
		u.problem = problem.Error()
	}
	u.mu.Unlock()
	signal(u.s.changed)
}

// expect says when the next run begins.
func (u *unit) expect(at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next = at
}

// nextRun is when the next run begins, zero when none is waited for. It is not in the past: by a clock that was set ahead a run is
// due now, and begins when the flow looks at the clock again.
func (u *unit) nextRun() time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := u.now(); !u.next.IsZero() && u.next.Before(now) {
		return now
	}
	return u.next
}

// status tells how the flow is.
func (u *unit) status() *wire.FlowStatus {
	u.mu.Lock()
	defer u.mu.Unlock()
	out := &wire.FlowStatus{
		DeploymentId: u.dep.ID, FlowId: u.dep.FlowID, Name: u.dep.Name, Version: u.version,
		State: u.state, Error: u.problem, Since: u.since.UnixMicro(), SetBackFrom: u.setBackFrom,
	}
	if u.version == 0 {
		out.Version = u.dep.Version
	}
	sources := u.sources
	if u.current != nil {
		sources = u.current.runner.Report().Sources
		out.Error = u.current.trouble(sources)
	}
	if u.note != "" {
		out.Error = strings.TrimSuffix(u.note+"; "+out.Error, "; ")
		if strings.Contains(u.note, u.problem) {
			out.Error = u.note
		}
	}
	for _, s := range sources {
		out.Sources = append(out.Sources, &wire.SourceStatus{Step: s.Step, Connection: s.Connection, State: s.State, Error: s.Error, LastRecord: s.LastRecord})
	}
	return out
}
