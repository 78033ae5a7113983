package supervisor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// history keeps records as JSON, as the agent's does in files.
type history struct {
	mu      sync.Mutex
	records map[string][]byte
	crashes map[string]string
	busy    []string
}

func (h *history) LoadRecord(id string) (r supervisor.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if raw, ok := h.records[id]; ok {
		if err := json.Unmarshal(raw, &r); err != nil {
			panic(err)
		}
	}
	return r
}

func (h *history) SaveRecord(id string, r supervisor.Record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write a record: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.records[id] = raw
	return nil
}

func (h *history) KeepRecords(ids []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.records, func(id string, _ []byte) bool { return !slices.Contains(ids, id) })
	return nil
}

func (h *history) Crashes() map[string]string { return maps.Clone(h.crashes) }

func (h *history) MarkBusy(ids []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy = slices.Clone(ids)
}

func newHistory() *history { return &history{records: map[string][]byte{}} }

// kept is the Origin of a test's deployments.
type kept struct {
	Version    uint32
	Definition []byte
}

// withOrigin gives a deployment what reopen needs.
func withOrigin(d supervisor.Deployment) supervisor.Deployment {
	var err error
	if d.Origin, err = json.Marshal(kept{d.Version, d.Definition}); err != nil {
		panic(err)
	}
	return d
}

// isolating is a plant whose supervisor keeps a history.
func isolating(t *testing.T, h *history, change func(*supervisor.Settings), others ...connector.Connector) *plant {
	t.Helper()
	var p *plant
	set := func(s *supervisor.Settings) {
		s.History, s.Program = h, "test"
		s.Limits.Pause = 50 * time.Millisecond
		s.Reopen = func(origin []byte) (supervisor.Deployment, error) {
			var k kept
			if err := json.Unmarshal(origin, &k); err != nil {
				return supervisor.Deployment{}, fmt.Errorf("read what was kept: %w", err)
			}
			return supervisor.Deployment{Version: k.Version, Definition: k.Definition, Connections: p.connections()}, nil
		}
		if change != nil {
			change(s)
		}
	}
	p = newPlantWith(t, nil, others...)
	p.stop()
	p.change = set
	p.start()
	return p
}

// connections are the files and all other connectors of the plant, each under its kind.
func (p *plant) connections() []connector.Connection {
	out := []connector.Connection{p.fileConnection()}
	for _, o := range p.others {
		out = append(out, connector.Connection{Name: o.Spec().Kind, Kind: o.Spec().Kind})
	}
	return out
}

// faulty is a connector that does harm in its own way: it is good for ten records.
type faulty struct {
	kind string
	// next makes the next delivery after ten good records.
	next func(ctx context.Context, b *column.Batch) (connector.Delivery, error)
	// ahead has the harm done in a goroutine of the source's own.
	ahead  bool
	opened atomic.Int64
}

func (f *faulty) Spec() flowdef.ConnectorSpec { return flowdef.ConnectorSpec{Kind: f.kind} }

func (f *faulty) NewSource(s connector.SourceSettings) (connector.Source, error) {
	f.opened.Add(1)
	src := &faultySource{faulty: f, schema: s.Schema}
	if f.ahead {
		src.own = connector.NewAhead(2, src.produce)
	}
	return src, nil
}

type faultySource struct {
	*faulty
	schema expr.Schema
	n      int
	own    *connector.Ahead[struct{}]
}

func (s *faultySource) Traits() connector.Traits { return connector.Traits{} }

func (s *faultySource) produce(ctx context.Context, a *connector.Ahead[struct{}]) {
	for {
		p, ok := a.Take()
		if !ok {
			return
		}
		d, err := s.give(ctx)
		if err != nil {
			return
		}
		p.Deliveries = append(p.Deliveries, d)
		if !a.Send(p) {
			return
		}
	}
}

func (s *faultySource) give(ctx context.Context) (connector.Delivery, error) {
	b := column.NewBatch(s.schema)
	if s.n++; s.n > 10 {
		return s.next(ctx, b)
	}
	for i := range b.Cols {
		if b.Cols[i].Type == expr.Int {
			b.Cols[i].AppendInt(int64(s.n))
		} else {
			b.Cols[i].AppendStr([]byte("M1"))
		}
	}
	b.Len = 1
	return connector.Delivery{Batch: b, Read: 1}, nil
}

func (s *faultySource) Next(ctx context.Context) (connector.Delivery, error) {
	if s.own != nil {
		return s.own.Next(ctx)
	}
	return s.give(ctx)
}

func (s *faultySource) Committed(context.Context, connector.Cursor) error { return nil }

func (s *faultySource) Close() error {
	if s.own != nil {
		return s.own.Close()
	}
	return nil
}

func panics(context.Context, *column.Batch) (connector.Delivery, error) { panic("the tenth record") }

// malformed is a batch that says that it has more rows than it has, in which every operator panics.
func malformed(_ context.Context, b *column.Batch) (connector.Delivery, error) {
	b.Len = 100
	return connector.Delivery{Batch: b, Read: 100}, nil
}

// reading is p.lines with a read step of the faulty connector.
func (p *plant) reading(id string, version uint32) supervisor.Deployment {
	d := p.lines(id, "continuous", version, "path: x")
	text := strings.Replace(string(d.Definition), "read: files\n    with: {path: x}", "read: faulty", 1)
	d.Definition, d.Connections = []byte(text), p.connections()
	return withOrigin(d)
}

// TestAPanicConcernsItsOwnFlowAlone provokes panics in every goroutine of a flow. goleak, at the end of all tests, wants that
// none of them is left.
func TestAPanicConcernsItsOwnFlowAlone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*faulty{
		"in the source":                   {next: panics},
		"in a goroutine of the connector": {next: panics, ahead: true},
		"in the operators":                {next: malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.kind = "faulty"
			p := isolating(t, newHistory(), nil, c)
			p.sup.Apply([]supervisor.Deployment{p.reading("bad", 1), p.lines("good", "continuous", 1, follow)})
			s := p.awaitState("bad", "failed")
			if !strings.Contains(s.GetError(), "internal error") || !strings.Contains(s.GetError(), "3 times") || s.GetSetBackFrom() != 0 {
				t.Errorf("the status is %v", s)
			}
			p.write("a.jsonl", line(77))
			p.await("the other flow goes on", func() bool { return slices.Contains(p.insights(), seen(1, 77)) })
			tried := c.opened.Load()
			p.await("it is tried again, slowly", func() bool { return c.opened.Load() > tried })
			if got := p.sup.Isolations(); got.Panics < 3 || got.Memory+got.Time+got.SetBack > 0 {
				t.Errorf("counted %+v", got)
			}
		})
	}
}

func TestAVersionThatFailsThreeTimesIsSetBack(t *testing.T) {
	t.Parallel()
	c := &faulty{kind: "faulty", next: panics}
	h := newHistory()
	p := isolating(t, h, nil, c)
	p.write("a.jsonl", line(1))
	first := withOrigin(p.lines("a", "continuous", 1, follow))
	first.Connections = p.connections()
	p.sup.Apply([]supervisor.Deployment{first})
	p.awaitInsights(seen(1, 1))

	p.sup.Apply([]supervisor.Deployment{p.reading("a", 2)})
	setBack := func() bool {
		s := p.status("a")
		return s.GetState() == "running" && s.GetVersion() == 1 && s.GetSetBackFrom() == 2 &&
			strings.Contains(s.GetError(), "set back to version 1") && strings.Contains(s.GetError(), "tenth record")
	}
	p.await("version 1 runs again", setBack)
	if n := c.opened.Load(); n < 3 {
		t.Errorf("version 2 was tried %d times, want 3", n)
	}
	p.write("a.jsonl", line(2))
	p.await("it goes on where it was", func() bool { return slices.Contains(p.insights(), seen(1, 2)) })
	if n := strings.Count(strings.Join(p.insights(), "\n"), seen(1, 1)); n != 1 {
		t.Errorf("the first insight came %d times", n)
	}

	// The set-back holds over a restart, offline as it were.
	tried := c.opened.Load()
	p.stop()
	p.start()
	p.sup.Apply([]supervisor.Deployment{p.reading("a", 2)})
	p.await("version 1 runs after a restart", setBack)
	if now := c.opened.Load(); now > tried {
		t.Errorf("version 2 was tried %d times more", now-tried)
	}

	// A new version ends it, and is set back in its turn to the one that worked.
	p.sup.Apply([]supervisor.Deployment{p.reading("a", 3)})
	p.await("version 3 was set back", func() bool { s := p.status("a"); return s.GetVersion() == 1 && s.GetSetBackFrom() == 3 })
	good := withOrigin(p.lines("a", "continuous", 4, follow))
	good.Connections = p.connections()
	p.sup.Apply([]supervisor.Deployment{good})
	p.await("version 4 runs", func() bool {
		s := p.status("a")
		return s.GetVersion() == 4 && s.GetState() == "running" && s.GetSetBackFrom() == 0 && s.GetError() == ""
	})
	p.write("a.jsonl", line(3))
	p.await("its insights come", func() bool { return slices.Contains(p.insights(), seen(4, 3)) })
}

// TestAProvenVersionIsNotSetBack wants that what ran well for long is left alone and not replaced by what was before it.
func TestAProvenVersionIsNotSetBack(t *testing.T) {
	t.Parallel()
	var bad atomic.Bool
	c := &faulty{kind: "faulty", next: func(ctx context.Context, _ *column.Batch) (connector.Delivery, error) {
		if bad.Load() {
			panic("the data has changed")
		}
		<-ctx.Done()
		return connector.Delivery{}, context.Cause(ctx)
	}}
	h := newHistory()
	p := isolating(t, h, func(s *supervisor.Settings) { s.Limits.Clean, s.Limits.Proven = time.Millisecond, 100*time.Millisecond }, c)
	p.sup.Apply([]supervisor.Deployment{withOrigin(p.lines("a", "continuous", 1, follow))})
	p.awaitState("a", "running")
	p.sup.Apply([]supervisor.Deployment{p.reading("a", 2)})
	p.await("version 2 is proven", func() bool { return h.LoadRecord("a").Proven })
	p.stop()
	bad.Store(true)
	p.change = func(change func(*supervisor.Settings)) func(*supervisor.Settings) {
		return func(s *supervisor.Settings) { change(s); s.Limits.Clean = time.Hour }
	}(p.change)
	p.start()
	p.sup.Apply([]supervisor.Deployment{p.reading("a", 2)})
	s := p.awaitState("a", "failed")
	if s.GetVersion() != 2 || s.GetSetBackFrom() != 0 {
		t.Errorf("the status is %v", s)
	}
}

// TestACrashOfTheProcessCounts has the third failure be the end of an earlier process.
func TestACrashOfTheProcessCounts(t *testing.T) {
	t.Parallel()
	h := newHistory()
	p := isolating(t, h, nil)
	p.sup.Apply([]supervisor.Deployment{withOrigin(p.lines("a", "continuous", 1, follow))})
	p.awaitState("a", "running")
	second := withOrigin(p.lines("a", "continuous", 2, follow))
	p.sup.Apply([]supervisor.Deployment{second})
	p.await("version 2 runs", func() bool { return p.status("a").GetVersion() == 2 })
	for i := range 3 {
		p.stop()
		h.crashes = map[string]string{"a": "concurrent map writes"}
		p.start()
		p.sup.Apply([]supervisor.Deployment{second})
		want := uint32(2)
		if i == 2 {
			want = 1
		}
		p.await(fmt.Sprintf("version %d runs after crash %d", want, i+1), func() bool {
			s := p.status("a")
			return s.GetState() == "running" && s.GetVersion() == want
		})
	}
	if s := p.status("a"); s.GetSetBackFrom() != 2 || !strings.Contains(s.GetError(), "concurrent map writes") {
		t.Errorf("the status is %v", s)
	}
}

// TestARunThatHangsIsLeftBehind has a connector that ignores everything: what else shall run, runs, and when there are too
// many of its kind, the supervisor gives up.
func TestARunThatHangsIsLeftBehind(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	c := &faulty{kind: "faulty", next: func(context.Context, *column.Batch) (connector.Delivery, error) {
		<-release
		return connector.Delivery{}, io.EOF
	}}
	p := isolating(t, newHistory(), func(s *supervisor.Settings) { s.Limits.Left, s.Limits.Grace = 1, 200*time.Millisecond }, c)
	p.sup.Apply([]supervisor.Deployment{p.reading("hangs", 1)})
	p.await("it has delivered", func() bool { return len(p.insights()) == 10 })
	p.sup.Apply([]supervisor.Deployment{p.lines("good", "continuous", 1, follow)})
	p.awaitState("good", "running")
	p.await("one is left behind", func() bool { return p.sup.Left() == 1 })
	close(release)
	p.await("it has returned after all", func() bool { return p.sup.Left() == 0 })
	if n := len(p.insights()); n != 10 {
		t.Errorf("%d insights are staged, want 10", n)
	}
}

func TestTooManyHangingRunsEndTheSupervisor(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	c := &faulty{kind: "faulty", next: func(context.Context, *column.Batch) (connector.Delivery, error) {
		<-release
		return connector.Delivery{}, io.EOF
	}}
	p := isolating(t, newHistory(), nil, c)
	p.stop()
	settings := supervisor.Settings{
		Staging: p.staging, WatchEvery: 5 * time.Millisecond, Limits: supervisor.Limits{Grace: 20 * time.Millisecond, Left: 1},
		Connector: func(kind string) (connector.Connector, bool) { return c, kind == "faulty" },
	}
	sup := supervisor.New(settings)
	ended := make(chan error, 1)
	go func() { ended <- sup.Run(t.Context()) }()
	sup.Apply([]supervisor.Deployment{p.reading("one", 1), p.reading("two", 1)})
	p.await("both have delivered", func() bool { return len(p.insights()) == 20 })
	sup.Apply(nil)
	select {
	case err := <-ended:
		if !errors.Is(err, supervisor.ErrTooManyLeft) {
			t.Errorf("Run gave %v", err)
		}
	case <-time.NewTimer(deadline).C:
		t.Error("Run goes on")
	}
	close(release)
	p.await("both have returned", func() bool { return sup.Left() == 0 })
}

// explosion is a join of a small file with itself that makes as many rows as the square of its lines.
func (p *plant) explosion(id, rest string) supervisor.Deployment {
	return withOrigin(supervisor.Deployment{
		ID: id, FlowID: "flow-" + id, Name: id, Version: 1, Connections: p.connections(),
		Definition: fmt.Appendf(nil, `flow: %s
trigger: {every: 1h}
steps:
  - id: left
    read: files
    with: {path: big.csv, format: csv}
    schema: {k: int, machine: string, n: int}
  - id: right
    read: files
    with: {path: big.csv, format: csv}
    schema: {k: int, m: int}
  - id: pairs
    from: left
    join: right
    on: [k]
%s`, id, rest),
	})
}

// TestAFlowThatSpinsIsEnded multiplies the rows of a small file to a hundred million. Beside it a small flow goes on;
// for how long its insights have to wait is printed, and bounded for a busy machine.
func TestAFlowThatSpinsIsEnded(t *testing.T) {
	t.Parallel()
	p := isolating(t, newHistory(), func(s *supervisor.Settings) { s.Limits.Batch = time.Second })
	var big strings.Builder
	big.WriteString("k,machine,n,m\n")
	for i := range 30_000 {
		fmt.Fprintf(&big, "1,M%d,%d,%d\n", i%7, i, i)
	}
	p.write("big.csv", big.String())
	bad := p.explosion("bad", `  - aggregate: {total: sum(n * m), top: max(n + m)}
    by: [machine]
  - insight: totals
`)
	p.sup.Apply([]supervisor.Deployment{bad, p.lines("good", "continuous", 1, follow)})
	p.awaitState("good", "running")
	p.awaitState("bad", "running")
	var slowest time.Duration
	for n := 0; p.sup.Isolations().Time == 0 && n < 1000; n++ {
		began := time.Now()
		p.write("a.jsonl", line(n))
		p.await("its insight comes", func() bool { return strings.Contains(strings.Join(p.insights(), " "), fmt.Sprintf(`"n":%d}`, n)) })
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("the slowest insight of the flow beside it took %s", slowest)
	p.await("the run was ended", func() bool {
		r := p.reports("bad")
		return len(r) > 0 && r[0].GetStatus() == "failed" && strings.Contains(r[0].GetError(), "multiplies rows")
	})
	if slowest > 20*time.Second {
		t.Errorf("the flow beside it had to wait for %s", slowest)
	}
}

// TestAFlowThatSpinsStops wants that a flow in the middle of an endless batch does not hold up a change of the flows.
func TestAFlowThatSpinsStops(t *testing.T) {
	t.Parallel()
	p := isolating(t, newHistory(), nil)
	p.write("big.csv", "k,machine,n,m\n"+strings.Repeat("1,M1,1,1\n", 60_000))
	bad := p.explosion("bad", `  - aggregate: {total: sum(n * m)}
  - insight: totals
`)
	p.sup.Apply([]supervisor.Deployment{bad})
	p.awaitState("bad", "running")
	p.await("it works", func() bool { r := p.reports("bad"); return len(r) > 0 && r[0].GetRecordsRead() > 0 })
	began := time.Now()
	p.sup.Apply([]supervisor.Deployment{p.lines("good", "continuous", 1, follow)})
	p.awaitState("good", "running")
	took := time.Since(began)
	t.Logf("the change took %s", took)
	if took > 30*time.Second {
		t.Error("that is too long")
	}
	if p.sup.Left() != 0 {
		t.Error("it was left behind")
	}
}

// TestAFlowThatEatsMemoryIsEnded has flows that would take far more memory than there is, each in its own way.
func TestAFlowThatEatsMemoryIsEnded(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ steps, want string }{
		"insights of one batch": {"  - insight: pairs\n", "insights"},
		"texts that double": {"  - map: {a: machine + machine + machine + machine + machine + machine + machine + machine}\n" +
			strings.Repeat("  - map: {a: a + a + a + a}\n", 6) + strings.Repeat("  - map: {a: upper(a)}\n", 30) + "  - filter: a != \"\"\n  - insight: texts\n", "texts"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := isolating(t, newHistory(), func(s *supervisor.Settings) { s.Memory = engine.NewMemory(8 << 20) })
			p.write("big.csv", "k,machine,n,m\n"+strings.Repeat("1,machine-of-the-plant,1,1\n", 4000))
			// The left side never ends, so nothing can be spilled.
			bad := p.explosion("bad", c.steps)
			text := strings.Replace(string(bad.Definition), "trigger: {every: 1h}", "trigger: continuous", 1)
			text = strings.Replace(text, "{path: big.csv, format: csv}", "{path: big.csv, format: csv, follow: true}", 1)
			bad.Definition = []byte(text)
			p.sup.Apply([]supervisor.Deployment{withOrigin(bad), p.lines("good", "continuous", 1, follow)})
			s := p.awaitState("bad", "failed")
			if !strings.Contains(s.GetError(), c.want) || !strings.Contains(s.GetError(), "memory") {
				t.Errorf("the status is %v", s)
			}
			p.write("a.jsonl", line(1))
			p.await("the other flow goes on", func() bool { return slices.Contains(p.insights(), seen(1, 1)) })
			if got := p.sup.Isolations(); got.Memory < 3 || got.Panics+got.Time > 0 {
				t.Errorf("counted %+v", got)
			}
		})
	}
}
