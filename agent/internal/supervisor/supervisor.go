package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/internal/backoff"
	"github.com/outfeed/outfeed/protocol/wire"
)

// Settings is what a Supervisor needs.
type Settings struct {
	Staging   Staging
	Connector Finder
	// MaxInsight is the largest message of an insight that can be sent, in bytes, 0 for no limit. Larger ones are left to the
	// staging, and the reports count them as failed.
	MaxInsight int
	// Writes is the plant's rule for flows that write into its systems; the zero value denies them.
	Writes WriteRule
	// AgentID makes the names under which sources are known to the plant's systems different from other agents'.
	AgentID string
	// Memory is what the operators of all flows may hold, nil for no limit; Scratch takes what they spill.
	Memory  *engine.Memory
	Scratch engine.Scratch
	// Logger may be nil, for none.
	Logger *slog.Logger
	// Limits say when a flow is kept away from the others.
	Limits Limits
	// History keeps what is known of the versions of flows; nil keeps nothing. Reopen makes a Deployment of the Origin of
	// another; nil means that no version is ever set back. Program is the agent's build.
	History History
	Reopen  func(origin []byte) (Deployment, error)
	Program string
	// ReportEvery is how often a running flow reports; 0 means 30 s.
	ReportEvery time.Duration
	// WatchEvery is how often the state of sources is looked at for Changed; 0 means a second.
	WatchEvery time.Duration
	// Backoff is how long a failed flow waits; zero fields mean 1 s, and up to 5 min.
	Backoff backoff.Backoff
	// Clock tells the time of reports and of cron triggers; nil means time.Now.
	Clock connector.Clock
}

// WriteRule says whether flows may write into the plant's systems. Only the plant's own configuration sets it.
type WriteRule uint8

// The rules: WritesDenied refuses every flow that has a write step.
const (
	WritesDenied WriteRule = iota
	WritesAllowed
)

// Supervisor runs flows.
type Supervisor struct {
	settings Settings
	wake     chan struct{}
	changed  chan struct{}
	reported chan struct{}

	mu      sync.Mutex
	applied bool
	desired []Deployment
	units   []*unit
	// openRuns are those that OpenRuns tells.
	openRuns map[string]struct{}

	// interval strikes when all runs are to report.
	interval beat
	// payloads has *payloadBuffer, for the commits of all flows.
	payloads sync.Pool

	// turns are those of the runs that make up for missed ones.
	turns turns

	// left counts the runs that do not return; isolated the failures of flows' own doing by kind.
	left     atomic.Int64
	isolated isolations
	// crashes are what an earlier process died of; each is counted once.
	crashes map[string]string
	// full receives when too many runs are left behind.
	full chan struct{}
}

// FlowLabel is the label of a flow's goroutines in a traceback; its value is the deployment.
const FlowLabel = "outfeed_flow"

// isolations counts failures of flows' own doing.
type isolations struct{ panics, memory, time, setBack atomic.Int64 }

// Isolations is how often flows failed by their own doing, by kind: panic, memory, time; and how often one was set back.
type Isolations struct{ Panics, Memory, Time, SetBack int64 }

// Isolations counts since the supervisor was made.
func (s *Supervisor) Isolations() Isolations {
	i := &s.isolated
	return Isolations{Panics: i.panics.Load(), Memory: i.memory.Load(), Time: i.time.Load(), SetBack: i.setBack.Load()}
}

// errStopping is the cause with which runs are ended.
var errStopping = errors.New("the flow is being stopped")

// New makes a supervisor. It runs nothing before Run.
func New(settings Settings) *Supervisor {
	if settings.Logger == nil {
		settings.Logger = slog.New(slog.DiscardHandler)
	}
	if settings.ReportEvery <= 0 {
		settings.ReportEvery = 30 * time.Second
	}
	if settings.WatchEvery <= 0 {
		settings.WatchEvery = time.Second
	}
	if settings.Clock == nil {
		settings.Clock = time.Now
	}
	if settings.History == nil {
		settings.History = noHistory{}
	}
	settings.Limits = settings.Limits.withDefaults()
	return &Supervisor{
		settings: settings, full: make(chan struct{}, 1), openRuns: map[string]struct{}{},
		wake: make(chan struct{}, 1), changed: make(chan struct{}, 1), reported: make(chan struct{}, 1),
	}
}

// Apply sets what shall run. It returns at once; Run then starts what is new, stops what is gone and forgets its state,
// and replaces what has changed, from its last commit on. What is the same goes on untouched. The last call counts.
func (s *Supervisor) Apply(desired []Deployment) {
	s.mu.Lock()
	s.desired, s.applied = slices.Clone(desired), true
	s.mu.Unlock()
	signal(s.wake)
}

// Changed gives a channel that receives after the status of a flow has changed. It holds one signal, for one reader.
func (s *Supervisor) Changed() <-chan struct{} { return s.changed }

// Reported gives a channel that receives after a run report was stored. It holds one signal, for one reader.
func (s *Supervisor) Reported() <-chan struct{} { return s.reported }

// Status tells how each flow is, in the order of Apply.
func (s *Supervisor) Status() []*wire.FlowStatus {
	s.mu.Lock()
	units := slices.Clone(s.units)
	s.mu.Unlock()
	out := make([]*wire.FlowStatus, len(units))
	for i, u := range units {
		out[i] = u.status()
	}
	return out
}

// OpenRuns gives the ids of the runs that are reported as running, from before the first such report until the report of the
// end is stored, or cannot be. Runs of continuous flows are reported when they are over, and are not among them.
func (s *Supervisor) OpenRuns() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.openRuns))
}

func (s *Supervisor) openRun(r *run) {
	if r.continuous {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.openRuns[r.id] = struct{}{}
}

func (s *Supervisor) closeRun(r *run) {
	if r.continuous {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.openRuns, r.id)
}

// NextRuns tells when the flows that wait for their next run, or for another try of it, begin with it, by deployment.
func (s *Supervisor) NextRuns() map[string]time.Time {
	s.mu.Lock()
	units := slices.Clone(s.units)
	s.mu.Unlock()
	out := map[string]time.Time{}
	for _, u := range units {
		if at := u.nextRun(); !at.IsZero() {
			out[u.dep.ID] = at
		}
	}
	return out
}

// Run runs flows until ctx ends, whose cause it then gives, after every flow has committed and stopped.
// The error is ErrTooManyLeft when flows that do not stop have become too many.
func (s *Supervisor) Run(ctx context.Context) error {
	s.crashes = s.settings.History.Crashes()
	// The watchdog looks at runs until the last of them has stopped.
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	var watch sync.WaitGroup
	watch.Go(func() { s.watch(watching) })
	err := s.keepDesired(ctx)
	s.mu.Lock()
	units := s.units
	s.mu.Unlock()
	stopAll(units)
	stopWatching()
	watch.Wait()
	return err
}

// keepDesired reconciles until ctx ends.
func (s *Supervisor) keepDesired(ctx context.Context) error {
	for {
		select {
		case <-s.wake:
			s.reconcile(ctx)
		case <-s.full:
			return ErrTooManyLeft
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// watch looks at all runs now and then, ends those that harm others, and gives up those that do not return. It also says
// when they are to report.
func (s *Supervisor) watch(ctx context.Context) {
	every := s.settings.WatchEvery
	tick := time.NewTicker(every)
	defer tick.Stop()
	report := time.NewTicker(s.settings.ReportEvery)
	defer report.Stop()
	var busy, marked []string
	for {
		select {
		case <-tick.C:
		case <-report.C:
			s.interval.strike()
			continue
		case <-ctx.Done():
			s.settings.History.MarkBusy(nil)
			return
		}
		s.mu.Lock()
		units := s.units
		s.mu.Unlock()
		busy = busy[:0]
		for _, u := range units {
			if u.look(every) {
				busy = append(busy, u.dep.ID)
			}
		}
		if !slices.Equal(busy, marked) {
			marked = append(marked[:0], busy...)
			s.settings.History.MarkBusy(marked)
		}
	}
}

// Left is how many runs did not return when they were told to and are left behind.
func (s *Supervisor) Left() int { return int(s.left.Load()) }

// leave counts a run that did not return, until it does.
func (s *Supervisor) leave(returned <-chan error) {
	if s.left.Add(1) > int64(s.settings.Limits.Left) {
		signal(s.full)
	}
	go func() { // nobody can wait for it: that is what it is about
		if err := <-returned; err != nil {
			s.settings.Logger.Warn("a flow that was left behind has ended", slog.Any("error", err))
		}
		s.left.Add(-1)
	}()
}

// EndLargest ends the run that is known to hold the most memory, because the process is about to run out of it, and gives
// the name of its flow; "" when none holds any.
func (s *Supervisor) EndLargest(cause error) string {
	s.mu.Lock()
	units := s.units
	s.mu.Unlock()
	var largest *run
	most := int64(0)
	for _, u := range units {
		if r := u.running(); r != nil && r.runner.Held() > most {
			largest, most = r, r.runner.Held()
		}
	}
	if largest == nil {
		return ""
	}
	largest.runner.End(&engine.OverrunError{Kind: engine.OverrunMemory, Err: cause})
	return largest.u.dep.Name
}

// reconcile makes the units equal to the desired deployments. Only Run calls it, so only it changes s.units.
func (s *Supervisor) reconcile(ctx context.Context) {
	s.mu.Lock()
	desired, running := s.desired, s.units
	s.mu.Unlock()

	kept := map[string]*unit{}
	var ending []*unit
	for _, u := range running {
		i := slices.IndexFunc(desired, func(d Deployment) bool { return d.ID == u.dep.ID })
		if i >= 0 && desired[i].Same(&u.dep) {
			kept[u.dep.ID] = u
		} else {
			ending = append(ending, u)
		}
	}
	stopAll(ending)
	s.dropRemoved(ctx, desired)
	s.forgetRemoved(ctx, desired)

	var units []*unit
	for _, d := range desired {
		u := kept[d.ID]
		if u == nil {
			u = s.start(ctx, d)
			kept[d.ID] = u
			units = append(units, u)
		} else if !slices.Contains(units, u) {
			units = append(units, u)
		}
	}
	s.mu.Lock()
	s.units = units
	s.mu.Unlock()
	signal(s.changed)
}

// stopAll ends units and waits for them.
func stopAll(units []*unit) {
	for _, u := range units {
		u.cancel(errStopping)
	}
	for _, u := range units {
		<-u.done
	}
}

// dropRemoved forgets the state of flows that are no longer deployed, also of those that went while the agent was down.
// What cannot be dropped now is seen again with the next change or start.
func (s *Supervisor) dropRemoved(ctx context.Context, desired []Deployment) {
	flows, err := s.settings.Staging.Flows(ctx)
	if err != nil {
		s.settings.Logger.WarnContext(ctx, "the staged flows cannot be listed, so the state of removed ones stays for now", slog.Any("error", err))
		return
	}
	for _, flow := range flows {
		if slices.ContainsFunc(desired, func(d Deployment) bool { return d.ID == flow }) {
			continue
		}
		if err := s.settings.Staging.DropFlow(ctx, flow); err != nil {
			s.settings.Logger.WarnContext(ctx, "the state of a removed flow stays for now", slog.String("deployment", flow), slog.Any("error", err))
		}
	}
}

// forgetRemoved forgets what is known of the versions of flows that are no longer deployed.
func (s *Supervisor) forgetRemoved(ctx context.Context, desired []Deployment) {
	ids := make([]string, len(desired))
	for i := range desired {
		ids[i] = desired[i].ID
	}
	if err := s.settings.History.KeepRecords(ids); err != nil {
		s.settings.Logger.WarnContext(ctx, "what is known of removed flows stays for now", slog.Any("error", err))
	}
}

// start starts a deployment. Its unit ends with ctx or with its own cancel.
func (s *Supervisor) start(ctx context.Context, d Deployment) *unit {
	inner, cancel := context.WithCancelCause(ctx)
	u := &unit{s: s, dep: d, runs: d, cancel: cancel, done: make(chan struct{}), state: stateStarting, since: s.settings.Clock()}
	u.versions = versions{s: s, wanted: d}
	crash := s.crashes[d.ID]
	delete(s.crashes, d.ID)
	go func() {
		defer close(u.done)
		defer cancel(nil)
		memory := s.settings.Memory.Flow()
		defer memory.Leave()
		u.memory = memory
		// What the flow's goroutines leave behind when they end the process says whose they were.
		pprof.Do(inner, pprof.Labels(FlowLabel, d.ID), func(inner context.Context) { u.run(inner, crash) })
	}()
	return u
}

// signal makes sure that a channel of one place is full.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
