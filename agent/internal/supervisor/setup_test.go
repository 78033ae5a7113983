package supervisor_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/connectors/file"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
	"github.com/outfeed/outfeed/internal/backoff"
	"github.com/outfeed/outfeed/protocol/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// staging is the real stage behind the supervisor's port. fail, when set, may fail a commit before it is made, and failReport
// a run report.
type staging struct {
	*stage.Stage
	mu         sync.Mutex
	fail       func(supervisor.Checkpoint) error
	failReport func(ctx context.Context) error
}

func (s *staging) failReportsWith(fn func(ctx context.Context) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failReport = fn
}

func (s *staging) PutRunReport(ctx context.Context, id string, payload []byte) error {
	s.mu.Lock()
	fail := s.failReport
	s.mu.Unlock()
	if fail != nil {
		if err := fail(ctx); err != nil {
			return err
		}
	}
	return s.Stage.PutRunReport(ctx, id, payload)
}

func (s *staging) failWith(fn func(supervisor.Checkpoint) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fn
}

func (s *staging) LoadFlow(ctx context.Context, flow string) (supervisor.FlowState, error) {
	state, err := s.Stage.LoadFlow(ctx, flow)
	return supervisor.FlowState(state), err
}

func (s *staging) Commit(ctx context.Context, c supervisor.Checkpoint) error {
	s.mu.Lock()
	fail := s.fail
	s.mu.Unlock()
	if fail != nil {
		if err := fail(c); err != nil {
			return err
		}
	}
	out := stage.Checkpoint{Flow: c.Flow, Number: c.Number, Cursors: c.Cursors, Insights: c.Insights}
	for _, change := range c.Changes {
		out.Changes = append(out.Changes, stage.Change(change))
	}
	_, err := s.Stage.Commit(ctx, out)
	if errors.Is(err, stage.ErrStaleCommit) {
		return fmt.Errorf("%w: %w", engine.ErrCannotCommit, err)
	}
	return err
}

// plant is a folder of files, a stage and a supervisor over it.
type plant struct {
	t       *testing.T
	files   string
	staging *staging
	sup     *supervisor.Supervisor
	// others are connectors beside the file connector.
	others []connector.Connector
	// change may change the settings of the next start.
	change func(*supervisor.Settings)
	stop   func()
}

func newPlant(t *testing.T, others ...connector.Connector) *plant {
	t.Helper()
	return newPlantWith(t, nil, others...)
}

// newPlantWith is newPlant with settings of its own.
func newPlantWith(t *testing.T, change func(*supervisor.Settings), others ...connector.Connector) *plant {
	t.Helper()
	st, err := stage.Open(t.Context(), stage.Settings{Dir: filepath.Join(t.TempDir(), "stage"), MinFreeBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	p := &plant{t: t, files: t.TempDir(), staging: &staging{Stage: st}, others: others, change: change}
	p.start()
	t.Cleanup(func() {
		p.stop()
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// start runs a supervisor over the same stage, as an agent that has been started again.
func (p *plant) start() {
	p.t.Helper()
	settings := supervisor.Settings{
		Staging: p.staging, AgentID: "agent", Logger: slog.New(slog.NewTextHandler(p.t.Output(), nil)),
		ReportEvery: 50 * time.Millisecond, WatchEvery: 5 * time.Millisecond,
		Backoff: backoff.Backoff{Min: time.Millisecond, Max: 20 * time.Millisecond},
		Connector: func(kind string) (connector.Connector, bool) {
			for _, c := range append([]connector.Connector{file.New()}, p.others...) {
				if c.Spec().Kind == kind {
					return c, true
				}
			}
			return nil, false
		},
	}
	if p.change != nil {
		p.change(&settings)
	}
	p.sup = supervisor.New(settings)
	ctx, cancel := context.WithCancel(context.WithoutCancel(p.t.Context()))
	ended := make(chan error, 1)
	sup := p.sup
	go func() { ended <- sup.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			p.t.Errorf("Run gave %v, want the end of its context", err)
		}
	})
}

// deadline bounds every wait of a test.
const deadline = time.Minute

// await waits until the condition holds, and looks again whenever the supervisor says that something has changed.
func (p *plant) await(what string, holds func() bool) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), deadline)
	defer cancel()
	// Some of what tests wait for has no signal of its own.
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-p.sup.Changed():
		case <-p.sup.Reported():
		case <-tick.C:
		case <-ctx.Done():
			p.t.Fatalf("waited in vain until %s; the flows are %v, the insights %v", what, p.sup.Status(), p.insights())
		}
	}
}

func (p *plant) status(id string) *wire.FlowStatus {
	p.t.Helper()
	for _, s := range p.sup.Status() {
		if s.GetDeploymentId() == id {
			return s
		}
	}
	return &wire.FlowStatus{}
}

func (p *plant) awaitState(id, state string) *wire.FlowStatus {
	p.t.Helper()
	p.await("flow "+id+" is "+state, func() bool { return p.status(id).GetState() == state })
	return p.status(id)
}

func (p *plant) write(name, text string) {
	p.t.Helper()
	f, err := os.OpenFile(filepath.Join(p.files, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		p.t.Fatal(err)
	}
}

// insights are those in the outbox, as name, version and values.
func (p *plant) insights() []string {
	p.t.Helper()
	var out []string
	after := uint64(0)
	for {
		records, err := p.staging.ReadOutbox(p.t.Context(), after, 100, 1<<20)
		if err != nil {
			p.t.Fatal(err)
		}
		if len(records) == 0 {
			return out
		}
		for _, r := range records {
			var m wire.InsightRecord
			if err := proto.Unmarshal(r.Payload, &m); err != nil {
				p.t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("%s v%d %s%s", m.GetName(), m.GetFlowVersion(), m.GetKeyJson(), m.GetValuesJson()))
			after = r.Seq
		}
	}
}

func (p *plant) awaitInsights(want ...string) {
	p.t.Helper()
	p.await(fmt.Sprintf("the insights are %v", want), func() bool { return len(p.insights()) >= len(want) })
	if got := p.insights(); !slices.Equal(got, want) {
		p.t.Errorf("the insights are\n %v, want\n %v", got, want)
	}
}

// reports are the stored run reports of a deployment, the oldest first.
func (p *plant) reports(id string) []*wire.RunReport {
	p.t.Helper()
	stored, err := p.staging.RunReports(p.t.Context(), stage.MaxRunReports)
	if err != nil {
		p.t.Fatal(err)
	}
	var out []*wire.RunReport
	for _, r := range slices.Backward(stored) {
		m := new(wire.RunReport)
		if err := proto.Unmarshal(r.Payload, m); err != nil {
			p.t.Fatal(err)
		}
		if m.GetDeploymentId() == id {
			out = append(out, m)
		}
	}
	return out
}

func (p *plant) fileConnection() connector.Connection {
	return connector.Connection{Name: "files", Kind: "file", Options: map[string]any{"root": p.files}}
}

// lines is a flow that gives an insight per line; its map shows which version ran.
func (p *plant) lines(id, trigger string, version uint32, read string) supervisor.Deployment {
	return supervisor.Deployment{
		ID: id, FlowID: "flow-" + id, Name: id, Version: version, Connections: []connector.Connection{p.fileConnection()},
		Definition: fmt.Appendf(nil, `flow: %s
trigger: %s
steps:
  - id: lines
    read: files
    with: {%s}
    schema: {machine: string, n: int}
  - insight: seen
    key: [machine]
`, id, trigger, read),
	}
}

// line is one record, and seen the insight that it gives.
func line(n int) string {
	b, err := json.Marshal(map[string]any{"machine": "M1", "n": n})
	if err != nil {
		panic(err)
	}
	return string(b) + "\n"
}

func seen(version uint32, n int) string {
	return fmt.Sprintf(`seen v%d {"machine":"M1"}{"n":%d}`, version, n)
}

// text is what was logged.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *text) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *text) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
