package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
	"github.com/outfeed/outfeed/protocol/flowdef"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	follow = `path: "*.jsonl", format: jsonl, follow: true`
	once   = `path: "*.jsonl", format: jsonl`
)

func TestAnotherVersionContinuesWhereTheLastOneCommitted(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.write("a.jsonl", line(1)+line(2))
	p.sup.Apply([]supervisor.Deployment{p.lines("a", "continuous", 1, follow)})
	p.awaitInsights(seen(1, 1), seen(1, 2))
	p.await("the source is reading", func() bool {
		s := p.status("a")
		return s.GetState() == "running" && len(s.GetSources()) == 1 && s.GetSources()[0].GetState() == "reading" && s.GetSources()[0].GetLastRecord() > 0
	})
	p.sup.Apply([]supervisor.Deployment{p.lines("a", "continuous", 2, follow)})
	p.await("version 2 runs", func() bool { return p.status("a").GetVersion() == 2 })
	p.write("a.jsonl", line(3))
	p.awaitInsights(seen(1, 1), seen(1, 2), seen(2, 3))

	p.stop()
	p.write("a.jsonl", line(4))
	p.start()
	p.sup.Apply([]supervisor.Deployment{p.lines("a", "continuous", 2, follow)})
	p.awaitInsights(seen(1, 1), seen(1, 2), seen(2, 3), seen(2, 4))
}

func TestARemovedFlowIsStoppedAndItsStateDropped(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.write("a.jsonl", line(1))
	a, b := p.lines("a", "continuous", 1, follow), p.lines("b", "continuous", 1, follow)
	p.sup.Apply([]supervisor.Deployment{a, b})
	p.await("both have committed", func() bool { return len(p.insights()) == 2 })
	p.sup.Apply([]supervisor.Deployment{b})
	p.await("only one is left", func() bool {
		flows, err := p.staging.Flows(t.Context())
		return err == nil && len(flows) == 1 && flows[0] == "b" && len(p.sup.Status()) == 1
	})
	// A flow that was removed while the agent was down.
	p.stop()
	p.start()
	p.sup.Apply(nil)
	p.await("none is left", func() bool {
		flows, err := p.staging.Flows(t.Context())
		return err == nil && len(flows) == 0
	})
	p.sup.Apply([]supervisor.Deployment{a})
	p.await("it begins anew", func() bool { return len(p.insights()) == 3 })
}

func TestWhatIsTheSameIsNotTouched(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.write("a.jsonl", line(1))
	a := p.lines("a", "continuous", 1, follow)
	p.sup.Apply([]supervisor.Deployment{a})
	p.awaitState("a", "running")
	since := p.status("a").GetSince()
	again := p.lines("a", "continuous", 1, follow)
	p.sup.Apply([]supervisor.Deployment{p.lines("b", "manual", 1, follow), again})
	p.awaitState("b", "waiting")
	if s := p.status("a"); s.GetSince() != since || s.GetState() != "running" {
		t.Errorf("the flow was touched: %v", s)
	}
	for _, r := range p.reports("a") {
		if r.GetStatus() == "stopped" {
			t.Errorf("the flow was stopped: %v", r)
		}
	}
}

func TestABatchFlowReportsEveryRun(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.write("a.jsonl", line(1)+"no json\n"+line(2))
	p.sup.Apply([]supervisor.Deployment{p.lines("a", "{every: 1s}", 1, once)})
	p.awaitInsights(seen(1, 1), seen(1, 2))
	p.awaitState("a", "waiting")
	p.write("b.jsonl", line(3))
	p.awaitInsights(seen(1, 1), seen(1, 2), seen(1, 3))
	p.await("the second run has ended", func() bool { r := p.reports("a"); return len(r) >= 2 && r[1].GetStatus() == "ok" })
	first := p.reports("a")[0]
	if first.GetStatus() != "ok" || first.GetRecordsRead() != 3 || first.GetRecordsFailed() != 1 || first.GetInsights() != 2 ||
		len(first.GetFailedSample()) != 1 || first.GetSteps()[0].GetRowsFailed() != 1 || first.GetEnded() < first.GetStarted() || len(first.GetSteps()) != 2 {
		t.Errorf("the first report is %v", first)
	}
}

// TestNotesAreReported wants the notes of a run in its report although no record failed, and each in one interval only.
func TestNotesAreReported(t *testing.T) {
	t.Parallel()
	for trigger, read := range map[string]string{"{every: 1h}": once, "continuous": follow} {
		p := newPlant(t)
		p.write("a.jsonl", `{"machine":"M1","n":1,"operator":"Ann"}`+"\n")
		d := p.lines("a", trigger, 1, read)
		d.Definition = []byte(strings.Replace(string(d.Definition), "    schema:", "    drift: report\n    schema:", 1))
		p.sup.Apply([]supervisor.Deployment{d})
		p.awaitInsights(seen(1, 1))
		var told *wire.RunReport
		p.await("the note is reported", func() bool {
			for _, r := range p.reports("a") {
				if len(r.GetFailedSample()) > 0 {
					told = r
				}
			}
			return told != nil
		})
		note := told.GetFailedSample()[0]
		if told.GetRecordsFailed() != 0 || note.GetStep() != "lines" || !strings.Contains(note.GetReason(), "operator") {
			t.Errorf("%s: the report is %v", trigger, told)
		}
		if steps := told.GetSteps(); len(steps) != 2 || steps[0].GetRowsFailed() != 0 || steps[0].GetRowsOut() != 1 {
			t.Errorf("%s: the steps are %v", trigger, steps)
		}
		if trigger != "continuous" {
			continue
		}
		before := len(p.reports("a"))
		p.await("two more intervals are over", func() bool { return len(p.reports("a")) >= before+2 })
		for i, r := range p.reports("a") {
			if r.GetRunId() != told.GetRunId() && len(r.GetFailedSample()) > 0 {
				t.Errorf("interval %d tells the note again: %v", i, r)
			}
		}
	}
}

func TestAContinuousFlowReportsIntervals(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.write("a.jsonl", line(1))
	p.sup.Apply([]supervisor.Deployment{p.lines("a", "continuous", 1, follow)})
	p.await("three intervals are over", func() bool { return len(p.reports("a")) >= 3 })
	p.write("a.jsonl", line(2))
	p.awaitInsights(seen(1, 1), seen(1, 2))
	p.sup.Apply(nil)
	p.await("it has stopped", func() bool { return len(p.sup.Status()) == 0 })
	var read, insights uint64
	reports := p.reports("a")
	for _, r := range reports {
		read, insights = read+r.GetRecordsRead(), insights+r.GetInsights()
	}
	if last := reports[len(reports)-1]; read != 2 || insights != 2 || last.GetStatus() != "stopped" {
		t.Errorf("the intervals read %d and gave %d insights, and the last is %v", read, insights, last)
	}
}

func TestAContinuousFlowOverBoundedSourcesCompletes(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.write("a.jsonl", line(1))
	p.sup.Apply([]supervisor.Deployment{p.lines("a", "continuous", 1, once)})
	s := p.awaitState("a", "completed")
	if len(s.GetSources()) != 1 || s.GetSources()[0].GetState() != "ended" {
		t.Errorf("the status is %v", s)
	}
	p.awaitInsights(seen(1, 1))
}

func TestAFailingSourceShowsAndRecovers(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	if err := os.Remove(p.files); err != nil {
		t.Fatal(err)
	}
	p.sup.Apply([]supervisor.Deployment{p.lines("a", "continuous", 1, follow)})
	p.await("the status says that the folder is missing", func() bool {
		return strings.Contains(p.status("a").GetError(), p.files)
	})
	p.await("a report says so", func() bool {
		r := p.reports("a")
		return len(r) > 0 && r[len(r)-1].GetStatus() == "failed" && strings.Contains(r[len(r)-1].GetError(), p.files)
	})
	if err := os.Mkdir(p.files, 0o700); err != nil {
		t.Fatal(err)
	}
	p.write("a.jsonl", line(1))
	p.awaitInsights(seen(1, 1))
	p.await("the status is well again", func() bool { s := p.status("a"); return s.GetState() == "running" && s.GetError() == "" })
}

func TestWhatIsRefusedSaysWhy(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	well := p.lines("well", "manual", 1, once)
	for name, c := range map[string]struct {
		change func(*supervisor.Deployment)
		want   string
	}{
		"a flow that writes": {func(d *supervisor.Deployment) {
			d.Definition = append(d.Definition, "  - id: back\n    write: files\n    with: {path: back.jsonl}\n"...)
		}, "denies writes"},
		"a definition that is no flow": {func(d *supervisor.Deployment) { d.Definition = []byte("steps: 7") }, "definition is refused"},
		"a connection that is missing": {func(d *supervisor.Deployment) { d.Connections = nil }, "files"},
		"a kind that is not known":     {func(d *supervisor.Deployment) { d.Connections[0].Kind = "s7" }, "s7"},
		"a wrong option":               {func(d *supervisor.Deployment) { d.Connections[0].Options = map[string]any{"rooot": "x"} }, "root"},
		"a time that never comes":      {func(d *supervisor.Deployment) { *d = p.lines("x", `{cron: "0 0 31 2 *"}`, 1, once) }, "never"},
	} {
		d := p.lines("x", "continuous", 1, follow)
		c.change(&d)
		p.sup.Apply([]supervisor.Deployment{well, d})
		p.await(name+" is refused with the reason", func() bool {
			s := p.status("x")
			return s.GetState() == "refused" && strings.Contains(s.GetError(), c.want)
		})
		p.awaitState("well", "waiting")
	}
}

// hostile is a connector whose sources panic or fail for good.
type hostile struct {
	opened atomic.Int64
	next   func() error
}

func (h *hostile) Spec() flowdef.ConnectorSpec { return flowdef.ConnectorSpec{Kind: "hostile"} }
func (h *hostile) NewSource(connector.SourceSettings) (connector.Source, error) {
	h.opened.Add(1)
	return h, nil
}
func (h *hostile) Traits() connector.Traits { return connector.Traits{} }
func (h *hostile) Next(context.Context) (connector.Delivery, error) {
	return connector.Delivery{}, h.next()
}
func (h *hostile) Committed(context.Context, connector.Cursor) error { return nil }
func (h *hostile) Close() error                                      { return nil }

func TestAFailureConcernsItsOwnFlowAlone(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]func() error{
		"password is wrong": func() error { return &connector.PermanentError{Err: errors.New("the password is wrong")} },
		"file is locked":    func() error { return &connector.PermanentError{Err: errors.New("the file is locked")} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &hostile{next: next}
			p := newPlant(t, h)
			p.write("a.jsonl", line(1))
			bad := p.lines("bad", "continuous", 1, "")
			bad.Connections = []connector.Connection{{Name: "files", Kind: "hostile"}}
			p.sup.Apply([]supervisor.Deployment{bad, p.lines("good", "continuous", 1, follow)})
			p.await("the failing flow was tried again and says why", func() bool {
				s := p.status("bad")
				return h.opened.Load() > 4 && s.GetState() == "backing_off" && strings.Contains(s.GetError(), name)
			})
			p.await("a report says so", func() bool {
				r := p.reports("bad")
				return len(r) > 0 && r[0].GetStatus() == "failed" && strings.Contains(r[0].GetError(), name)
			})
			p.awaitInsights(seen(1, 1))
			p.awaitState("good", "running")
		})
	}
}

func TestACommitThatFailsIsRepeatedAndShown(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	var tries atomic.Int64
	release := make(chan struct{})
	p.staging.failWith(func(supervisor.Checkpoint) error {
		tries.Add(1)
		select {
		case <-release:
			return nil
		default:
			return errors.New("no space left on device")
		}
	})
	p.write("a.jsonl", line(1))
	p.sup.Apply([]supervisor.Deployment{p.lines("a", "continuous", 1, follow)})
	p.await("the status shows the failing commit", func() bool {
		return strings.Contains(p.status("a").GetError(), "no space left")
	})
	close(release)
	p.awaitInsights(seen(1, 1))
	p.await("the status is well again", func() bool { return p.status("a").GetError() == "" })
	if tries.Load() < 2 {
		t.Errorf("the commit was tried %d times", tries.Load())
	}
}

func TestAnotherRunnerOfTheSameFlowEndsTheRun(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.write("a.jsonl", line(1))
	p.sup.Apply([]supervisor.Deployment{p.lines("a", "continuous", 1, follow)})
	p.awaitInsights(seen(1, 1))
	state, err := p.staging.LoadFlow(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.staging.Commit(t.Context(), supervisor.Checkpoint{Flow: "a", Number: state.Number + 1}); err != nil {
		t.Fatal(err)
	}
	p.write("a.jsonl", line(2))
	// The run cannot commit, ends, and the next one begins with what is stored: nothing is missing or twice.
	p.awaitInsights(seen(1, 1), seen(1, 2))
}

func TestOnErrorStopParksTheFlow(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	p.write("a.jsonl", line(1)+"no json\n")
	d := p.lines("a", "continuous", 1, follow)
	d.Definition = append(d.Definition, "on_error: stop\n"...)
	p.sup.Apply([]supervisor.Deployment{d})
	if s := p.awaitState("a", "failed"); !strings.Contains(s.GetError(), "on_error") {
		t.Errorf("the status is %v", s)
	}
}

func TestStatusOfManyFlowsIsInTheirOrder(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	var desired []supervisor.Deployment
	for i := range 20 {
		desired = append(desired, p.lines(fmt.Sprint("f", i), "manual", 1, once))
	}
	p.sup.Apply(desired)
	p.await("all wait", func() bool {
		all := p.sup.Status()
		for _, s := range all {
			if s.GetState() != "waiting" {
				return false
			}
		}
		return len(all) == 20
	})
	for i, s := range p.sup.Status() {
		if s.GetName() != fmt.Sprint("f", i) {
			t.Errorf("flow %d is %s", i, s.GetName())
		}
	}
}
