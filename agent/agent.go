// Package agent is the composition root of outfeed-agent: it puts configuration, identity, staging, supervisor and tunnel
// together, and holds what the command line needs of them.
//
// Only its main and the end-to-end tests import it. Run may be called once.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outfeed/outfeed/agent/internal/config"
	"github.com/outfeed/outfeed/agent/internal/connectors/all"
	"github.com/outfeed/outfeed/agent/internal/identity"
	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
	"github.com/outfeed/outfeed/agent/internal/tunnel"
	"github.com/outfeed/outfeed/internal/buildinfo"
	"github.com/outfeed/outfeed/internal/lifecycle"
	"github.com/outfeed/outfeed/protocol/wire"
)

// Config is what the person who runs the agent sets.
type Config = config.Config

// LoadConfig reads a file (none when path is empty), then the environment, which wins.
func LoadConfig(path string, lookup func(string) (string, bool)) (Config, error) {
	return config.Load(path, lookup)
}

// stageDir is the staging's folder in the data directory.
const stageDir = "stage"

// Agent runs flows and keeps one connection to the control plane.
type Agent struct {
	config Config
	log    *slog.Logger
}

// New makes an agent. It touches nothing before Run.
func New(c Config, log *slog.Logger) *Agent { return &Agent{config: c, log: log} }

// parts are what an agent consists of while it runs.
type parts struct {
	identity   *identity.Identity
	stage      *stage.Stage
	supervisor *supervisor.Supervisor
	bundles    *bundles
	tunnel     *tunnel.Client
	status     *status
	pressure   *pressure
	reports    *reports
	// begun is closed once what an earlier run has left is taken up.
	begun chan struct{}
}

// errStopped is the cause with which Run ends its parts.
var errStopped = errors.New("the agent is stopping")

// Run runs until ctx ends. Flows stop first, so that their last commits are staged, then the tunnel, then the staging.
func (a *Agent) Run(ctx context.Context) (err error) {
	id, err := identity.Load(a.config.DataDir)
	if err != nil {
		return err
	}
	st, err := stage.OpenOrWait(ctx, stageSettings(a.config, id.Profile().Agent, a.log))
	if err != nil {
		return stage.Advise(a.config.DataDir, fmt.Errorf("open the staging in %s: %w", a.config.DataDir, err))
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	spill, err := stage.OpenScratch(scratchDir(a.config.DataDir), uint64(a.config.Staging.MinFree)) //nolint:gosec // Validate has seen it
	if err != nil {
		return stage.Advise(a.config.DataDir, err)
	}
	defer func() { err = errors.Join(err, spill.Close()) }()
	// Only who has the lock of the staging may touch what else is in the data directory.
	known := openHistory(ctx, a.config.DataDir, a.log)
	defer func() { err = errors.Join(err, known.close()) }()
	if err := known.reportCrashes(); err != nil {
		a.log.WarnContext(ctx, "what may end the agent cannot be written to a file", slog.Any("error", err))
	}
	defer keepMemorySmall(ctx, heapLimit(a.config.MemoryLimit))()
	p, err := a.assemble(id, stores{st, spill, known})
	if err != nil {
		return err
	}
	a.log.InfoContext(ctx, "agent starts", "agent", id.Profile().Agent, "control_plane", id.Profile().URL, "version", buildinfo.Version())
	return a.runParts(ctx, p)
}

// begin takes up what an earlier run has left, once the staging is open.
func (p *parts) begin(ctx context.Context) error {
	err := awaitOr(ctx, p.stage.Opened())
	if err == nil {
		err = p.stage.OpenError()
	}
	if err == nil {
		err = p.reports.load(ctx)
	}
	if err == nil {
		err = p.bundles.resume(ctx)
	}
	if err == nil {
		close(p.begun)
	}
	return err
}

// runParts runs everything until ctx ends or a part fails.
func (a *Agent) runParts(ctx context.Context, p *parts) error {
	g, ctx := errgroup.WithContext(ctx)
	select {
	case <-p.stage.Opened():
		if err := lifecycle.UnlessDone(ctx, p.begin(ctx)); err != nil {
			return err
		}
	default:
		// The staging waits for room on its disk. Meanwhile the agent is connected and says so.
		g.Go(func() error { return lifecycle.UnlessDone(ctx, p.begin(ctx)) })
	}
	// The tunnel outlives the flows, so that what their last commits staged has a chance to leave.
	tunnelCtx, stopTunnel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopTunnel(nil)
	g.Go(func() error {
		defer stopTunnel(errStopped)
		return lifecycle.UnlessDone(ctx, p.supervisor.Run(ctx))
	})
	g.Go(func() error { return lifecycle.UnlessDone(tunnelCtx, p.tunnel.Run(tunnelCtx)) })
	g.Go(func() error {
		return lifecycle.UnlessDone(ctx, serveLocal(ctx, socketPath(a.config.DataDir), localCommands{p.status.local, p.rotate}, a.log))
	})
	g.Go(func() error { return p.status.watch(ctx) })
	g.Go(func() error { return p.pressure.run(ctx) })
	g.Go(func() error { return newProcessors().run(ctx) })
	if a.config.Listen != "" {
		g.Go(func() error { return lifecycle.UnlessDone(ctx, a.serveMetrics(ctx, p.status)) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("the agent stopped: %w", err)
	}
	return nil
}

// stores are where the agent keeps things.
type stores struct {
	stage   *stage.Stage
	scratch *stage.Scratch
	history *history
}

// rotate begins to change the agent's keys. Once they are on disk it goes on by itself, also after a restart.
func (p *parts) rotate() error {
	if _, err := p.identity.PrepareKeys(); err != nil {
		return err
	}
	p.tunnel.Rotate()
	return nil
}

// assemble wires the parts; none of them runs yet.
func (a *Agent) assemble(id *identity.Identity, open stores) (*parts, error) {
	st := open.stage
	reports, begun := unreadReports(st, a.log), make(chan struct{})
	s := &status{identity: id, stage: st, reports: reports, changed: make(chan struct{}, 1)}
	s.bundles = &bundles{identity: id, stage: st, log: a.log, changed: s.signal}
	sup := supervisor.New(supervisor.Settings{
		Staging: staging{reports: reports, stage: st}, Connector: all.Find, AgentID: id.Profile().Agent, Logger: a.log,
		MaxInsight: stage.MaxRecordBytes, Writes: writeRule(a.config),
		Memory: limitMemory(a.config.MemoryLimit), Scratch: scratch{open.scratch},
		History: open.history, Reopen: s.bundles.reopen, Program: buildinfo.Version(),
	})
	reports.changed = sup.Reported()
	s.supervisor, s.bundles.supervisor = sup, sup
	var err error
	s.tunnel, err = tunnel.New(tunnel.Settings{
		Link: link(a.config, id.Profile().URL), Agent: id.Profile().Agent, Fingerprint: id.Profile().Fingerprint,
		Host: host(), Connectors: specs(), Identity: tunnelIdentity{id}, Bundles: bundlesOnceBegun{s.bundles, begun}, Clock: s.bundles, Reporter: s,
		Outbox: outbox{st}, Reports: reportsOnceBegun{reports, begun}, Log: a.log,
	})
	if err != nil {
		return nil, fmt.Errorf("prepare the connection to %s: %w", id.Profile().URL, err)
	}
	return &parts{
		identity: id, stage: st, supervisor: sup, bundles: s.bundles, tunnel: s.tunnel, status: s, pressure: newPressure(sup, a.log),
		reports: reports, begun: begun,
	}, nil
}

// writeRule is what the configuration says about writes.
func writeRule(c Config) supervisor.WriteRule {
	if c.Writes == config.WritesAllow {
		return supervisor.WritesAllowed
	}
	return supervisor.WritesDenied
}

// serveMetrics serves /healthz, /readyz and /metrics on loopback.
func (a *Agent) serveMetrics(ctx context.Context, s *status) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", a.config.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", a.config.Listen, err)
	}
	return serveHTTP(ctx, l, metricsHandler(s), a.log)
}

// status tells how the agent is: to the tunnel, to commands on this machine, and to Prometheus.
type status struct {
	identity   *identity.Identity
	stage      *stage.Stage
	reports    *reports
	supervisor *supervisor.Supervisor
	bundles    *bundles
	tunnel     *tunnel.Client
	changed    chan struct{}
}

func (s *status) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// lookEvery is how often the outbox is looked at when nobody asks, so that its growth is known also while offline.
const lookEvery = 15 * time.Second

// watch passes the supervisor's changes on and follows the outbox, until ctx ends.
func (s *status) watch(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			s.stage.Stats()
		case <-s.supervisor.Changed():
			s.signal()
		}
	}
}

// StatusChanged is for the tunnel.
func (s *status) StatusChanged() <-chan struct{} { return s.changed }

// Status is for the tunnel.
func (s *status) Status() *wire.Status {
	o := s.outbox()
	// In this order: a run that ends between the two is among the second.
	runs := s.supervisor.OpenRuns()
	return &wire.Status{
		OpenRuns: s.reports.openRuns(runs),
		Time:     time.Now().UnixMicro(), DesiredSerial: s.bundles.DesiredSerial(), BundleError: s.bundles.refused(),
		Flows:  s.supervisor.Status(),
		Outbox: o.wire(),
	}
}

// outbox is the account of the outbox.
func (s *status) outbox() OutboxStatus {
	o := s.stage.Stats()
	return outboxStatus(&o, s.tunnel.State().Sent)
}

// local is for outfeed-agent status.
func (s *status) local() LocalStatus {
	t := s.tunnel.State()
	out := LocalStatus{
		AgentID: s.identity.Profile().Agent, Version: buildinfo.Version(), ControlPlane: s.identity.Profile().URL,
		Tunnel:      TunnelStatus{Connected: t.Connected, Since: t.Since, Error: t.LastError, NextTry: t.NextTry, ClockSkew: int64(t.Skew / time.Second), RotationError: t.RotationError},
		BundleError: s.bundles.refused(), LeftBehind: s.supervisor.Left(),
		Outbox: s.outbox(),
		Flows:  []FlowStatus{},
	}
	next := s.supervisor.NextRuns()
	for _, f := range s.supervisor.Status() {
		flow := localFlow(f)
		flow.NextRun = next[flow.DeploymentID].UTC()
		out.Flows = append(out.Flows, flow)
	}
	return out
}

func localFlow(f *wire.FlowStatus) FlowStatus {
	out := FlowStatus{
		ID: f.GetFlowId(), DeploymentID: f.GetDeploymentId(), Name: f.GetName(), Version: f.GetVersion(), State: f.GetState(), Error: f.GetError(),
		SetBackFrom: f.GetSetBackFrom(), Since: micros(f.GetSince()), Sources: []SourceStatus{},
	}
	for _, src := range f.GetSources() {
		out.Sources = append(out.Sources, SourceStatus{
			Step: src.GetStep(), Connection: src.GetConnection(), State: src.GetState(), Error: src.GetError(), LastRecord: micros(src.GetLastRecord()),
		})
	}
	return out
}

// micros is the time of UTC microseconds; 0 is no time.
func micros(t int64) time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.UnixMicro(t).UTC()
}

// hostname is this machine's name, or "unknown".
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}
