package supervisor_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
	"github.com/outfeed/outfeed/internal/backoff"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// counted is a connector whose sources count the runs. A run ends at once, or as act says.
type counted struct {
	runs atomic.Int64
	mu   sync.Mutex
	act  func(ctx context.Context) error
	at   []time.Time
}

func (c *counted) Spec() flowdef.ConnectorSpec { return flowdef.ConnectorSpec{Kind: "counted"} }

func (c *counted) NewSource(connector.SourceSettings) (connector.Source, error) {
	return &countedSource{counted: c}, nil
}

func (c *counted) do(act func(ctx context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.act = act
}

// times are when the runs began.
func (c *counted) times() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

type countedSource struct{ counted *counted }

func (s *countedSource) Traits() connector.Traits { return connector.Traits{Bounded: true} }

func (s *countedSource) Next(ctx context.Context) (connector.Delivery, error) {
	c := s.counted
	c.runs.Add(1)
	c.mu.Lock()
	act := c.act
	c.at = append(c.at, time.Now())
	c.mu.Unlock()
	if act != nil {
		if err := act(ctx); err != nil {
			return connector.Delivery{}, err
		}
	}
	return connector.Delivery{}, io.EOF
}

func (s *countedSource) Committed(context.Context, connector.Cursor) error { return nil }
func (s *countedSource) Close() error                                      { return nil }

// hangs is a run that goes on until it is stopped.
func hangs(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// schedules is a plant in a bubble of time whose clock can be set.
type schedules struct {
	*plant
	h      *history
	source *counted
	// ahead is how far the clock is ahead of what timers go by; log is what was logged.
	ahead atomic.Int64
	logMu sync.Mutex
	log   bytes.Buffer
}

func (s *schedules) Write(p []byte) (int, error) {
	s.logMu.Lock()
	defer s.logMu.Unlock()
	return s.log.Write(p)
}

func newSchedules(t *testing.T) *schedules {
	t.Helper()
	s := &schedules{h: newHistory(), source: &counted{}}
	s.plant = newPlantWith(t, func(set *supervisor.Settings) {
		set.History, set.Program = s.h, "test"
		set.WatchEvery, set.ReportEvery = time.Minute, time.Hour
		set.Limits.Pause = 20 * time.Minute
		set.Backoff = backoff.Backoff{Min: 5 * time.Second, Max: 10 * time.Minute}
		set.Clock = func() time.Time { return time.Now().Round(0).Add(time.Duration(s.ahead.Load())) }
		set.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(s, t.Output()), nil))
	}, s.source)
	s.pass(time.Minute) // so that no time is a whole hour by chance
	return s
}

// flow is one that reads from counted.
func (s *schedules) flow(id, trigger string, version uint32) supervisor.Deployment {
	d := s.lines(id, trigger, version, "path: x")
	d.Definition = []byte(strings.Replace(string(d.Definition), "read: files\n    with: {path: x}", "read: counted", 1))
	d.Connections = []connector.Connection{{Name: "counted", Kind: "counted"}}
	return d
}

func (s *schedules) deploy(trigger string, version uint32) {
	s.sup.Apply([]supervisor.Deployment{s.flow("a", trigger, version)})
	s.settle()
}

// settle has all that is due at this moment done.
func (s *schedules) settle() { s.pass(2 * time.Second) }

func (s *schedules) pass(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
	synctest.Wait()
}

// set moves the clock on, or back.
func (s *schedules) set(by time.Duration) { s.ahead.Add(int64(by)) }

// kill ends the supervisor as kill -9 ends the agent: what it notes at its end is not there.
func (s *schedules) kill() {
	s.h.mu.Lock()
	left := maps.Clone(s.h.records)
	s.h.mu.Unlock()
	s.stop()
	s.h.mu.Lock()
	s.h.records = left
	s.h.mu.Unlock()
}

// down is a time for which the agent does not run.
func (s *schedules) down(trigger string, d time.Duration) {
	s.kill()
	s.set(d)
	s.start()
	s.deploy(trigger, 1)
}

// want holds the number of runs.
func (s *schedules) want(what string, runs int64) {
	s.t.Helper()
	if got := s.source.runs.Load(); got != runs {
		s.t.Fatalf("%s: the flow ran %d times, want %d; it is %v", what, got, runs, s.status("a"))
	}
}

// notes are what the reports of the runs say about the trigger.
func (s *schedules) notes() (out []string) {
	s.t.Helper()
	for _, r := range s.reports("a") {
		note := ""
		for _, f := range r.GetFailedSample() {
			if f.GetWhere() == "trigger" {
				note = f.GetReason()
			}
		}
		out = append(out, note)
	}
	return out
}
