package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"sync"
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
	// Writes is the plant's rule for flows that write into its systems; the zero value denies them.
	Writes WriteRule
	// AgentID makes the names under which sources are known to the plant's systems different from other agents'.
	AgentID string
	// Memory is what the operators of all flows may hold, nil for no limit; Scratch takes what they spill.
	Memory  *engine.Memory
	Scratch engine.Scratch
	// Logger may be nil, for none.
	Logger *slog.Logger
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
	return &Supervisor{
		settings: settings,
		wake:     make(chan struct{}, 1), changed: make(chan struct{}, 1), reported: make(chan struct{}, 1),
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

// Run runs flows until ctx ends, whose cause it then gives, after every flow has committed and stopped.
func (s *Supervisor) Run(ctx context.Context) error {
	for {
		select {
		case <-s.wake:
			s.reconcile(ctx)
		case <-ctx.Done():
			s.mu.Lock()
			units := s.units
			s.mu.Unlock()
			stopAll(units)
			return context.Cause(ctx)
		}
	}
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
		if i >= 0 && reflect.DeepEqual(desired[i], u.dep) {
			kept[u.dep.ID] = u
		} else {
			ending = append(ending, u)
		}
	}
	stopAll(ending)
	s.dropRemoved(ctx, desired)

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

// start starts a deployment. Its unit ends with ctx or with its own cancel.
func (s *Supervisor) start(ctx context.Context, d Deployment) *unit {
	inner, cancel := context.WithCancelCause(ctx)
	u := &unit{s: s, dep: d, cancel: cancel, done: make(chan struct{}), state: stateStarting, since: s.settings.Clock()}
	go func() {
		defer close(u.done)
		defer cancel(nil)
		u.run(inner)
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
