package supervisor_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/supervisor"
)

// TestAReportThatTheEndOfTheRunCutsOff has the disk be slow for the first report, until the run has ended or is stopped. All
// that the run did is told, so nothing warns.
func TestAReportThatTheEndOfTheRunCutsOff(t *testing.T) {
	t.Parallel()
	for trigger, read := range map[string]string{"{every: 1h}": once, "continuous": follow} {
		t.Run(trigger, func(t *testing.T) {
			t.Parallel()
			var log text
			p := newPlantWith(t, func(s *supervisor.Settings) {
				s.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(&log, t.Output()), nil))
			})
			var puts atomic.Int64
			p.staging.failReportsWith(func(ctx context.Context) error {
				if puts.Add(1) == 1 {
					<-ctx.Done()
					return context.Cause(ctx)
				}
				return nil
			})
			p.write("a.jsonl", line(1))
			p.sup.Apply([]supervisor.Deployment{p.lines("a", trigger, 1, read)})
			p.awaitInsights(seen(1, 1))
			p.await("a report is being stored", func() bool { return puts.Load() > 0 })
			p.await("the first run's end, or interval", func() bool { return trigger == "continuous" || len(p.reports("a")) > 0 })
			p.sup.Apply(nil)
			p.await("it has stopped", func() bool { return len(p.sup.Status()) == 0 })
			reports := p.reports("a")
			if len(reports) != 1 || reports[0].GetRecordsRead() != 1 || reports[0].GetInsights() != 1 || reports[0].GetEnded() == 0 {
				t.Errorf("the reports are %v", reports)
			}
			if strings.Contains(log.String(), "could not be stored") {
				t.Errorf("the log is\n%s", log.String())
			}
		})
	}
}

// TestAReportThatCannotBeStored is warned of, and its counts are told with the next.
func TestAReportThatCannotBeStored(t *testing.T) {
	t.Parallel()
	var log text
	p := newPlantWith(t, func(s *supervisor.Settings) {
		s.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(&log, t.Output()), nil))
	})
	var broken atomic.Bool
	broken.Store(true)
	p.staging.failReportsWith(func(context.Context) error {
		if broken.Load() {
			return errors.New("the disk is full")
		}
		return nil
	})
	p.write("a.jsonl", line(1))
	p.sup.Apply([]supervisor.Deployment{p.lines("a", "continuous", 1, follow)})
	p.awaitInsights(seen(1, 1))
	p.await("the warning", func() bool { return strings.Count(log.String(), "could not be stored") >= 2 })
	broken.Store(false)
	p.await("a report", func() bool { return len(p.reports("a")) > 0 })
	if first := p.reports("a")[0]; first.GetRecordsRead() != 1 {
		t.Errorf("the first report is %v", first)
	}
}

// TestOpenRuns are those whose start is told, from before that until their end is stored; runs of continuous flows are none.
func TestOpenRuns(t *testing.T) {
	t.Parallel()
	for trigger, open := range map[string]int{"{every: 1h}": 1, "continuous": 0} {
		t.Run(trigger, func(t *testing.T) {
			t.Parallel()
			p := newPlant(t)
			var puts atomic.Int64
			p.staging.failReportsWith(func(context.Context) error {
				puts.Add(1)
				if runs := p.sup.OpenRuns(); len(runs) != open {
					t.Errorf("while a report is being stored the open runs are %q, want %d", runs, open)
				}
				return nil
			})
			p.write("a.jsonl", line(1))
			read := once
			if open == 0 {
				read = follow
			}
			p.sup.Apply([]supervisor.Deployment{p.lines("a", trigger, 1, read)})
			p.awaitInsights(seen(1, 1))
			p.sup.Apply(nil)
			p.await("it has stopped", func() bool { return len(p.sup.Status()) == 0 })
			if runs := p.sup.OpenRuns(); len(runs) > 0 || puts.Load() == 0 {
				t.Errorf("after %d reports and the end the open runs are %q", puts.Load(), runs)
			}
		})
	}
}
