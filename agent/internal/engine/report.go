package engine

import (
	"log/slog"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/connector"
)

// The states of a source in a report.
const (
	sourceConnecting = "connecting"
	sourceReading    = "reading"
	sourceFailing    = "failing"
	sourceEnded      = "ended"
	// sourceGivenUp is sourceFailing with an error that ends the run, which is reported as that and not logged: the
	// run's own error says it.
	sourceGivenUp = "given up"
)

// Report says what the run did so far. The result is the caller's.
func (r *Runner) Report() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	report := r.report
	report.Steps = slices.Clone(report.Steps)
	report.Sample = slices.Clone(report.Sample)
	report.Sources = slices.Clone(report.Sources)
	return report
}

// Sources appends how the sources are to dst. It may be called at any time from any goroutine.
func (r *Runner) Sources(dst []SourceReport) []SourceReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(dst, r.report.Sources...)
}

// publish brings the report up to what the operators have counted. The goroutine that runs them calls it.
func (r *Runner) publish() {
	if r.pipe == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rep := &r.report
	rep.Failed, rep.Late, rep.Insights = 0, 0, 0
	for i, c := range r.pipe.counts {
		s := r.base[i]
		s.In, s.Out, s.Late, s.Failed = s.In+c.in, s.Out+c.out, s.Late+c.late, s.Failed+c.failed
		s.Outside += c.outside
		s.LateTotal = c.lateTotal
		rep.Steps[i] = s
		rep.Failed, rep.Late = rep.Failed+s.Failed, rep.Late+s.Late
		if r.set.Program.plan.Steps[i].Insight != nil {
			rep.Insights += s.Out
		}
	}
	rep.Sample = append(rep.Sample[:0], r.pipe.sample...)
}

// lateRows is how many rows have come too late, as published last.
func (r *Runner) lateRows() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.report.Late
}

// settle brings the report of a run that has ended up to what it leaves: an insight that was not committed is none.
func (r *Runner) settle() {
	r.publish()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Insights = r.committed
}

// received counts a delivery of the read at that place of the report.
func (r *Runner) received(read int, d *connector.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report.Read += d.Read
	r.report.Bytes += d.Bytes
	if d.Read > 0 {
		r.report.Sources[read].LastRecord = r.set.Clock().UnixMicro()
	}
}

// reporter sets the state of the source at that place of the report, and logs when it begins to fail, fails in another
// way, or works again; not every retry.
func (r *Runner) reporter(read int) func(state, problem string) {
	return func(state, problem string) {
		r.mu.Lock()
		s := &r.report.Sources[read]
		before := s.Error
		s.State, s.Error = state, problem
		if state == sourceGivenUp {
			s.State = sourceFailing
		}
		step, connection := slog.String("step", s.Step), slog.String("connection", s.Connection)
		r.mu.Unlock()
		switch {
		case problem == before || state == sourceGivenUp:
		case problem != "":
			r.set.Logger.Warn("the source fails", step, connection, slog.String("error", problem))
		default:
			r.set.Logger.Info("the source works again", step, connection)
		}
	}
}

// addTable adds what a load of a table has counted.
func (r *Runner) addTable(counts []stepTotals, sample []FailedRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, c := range counts {
		b := &r.base[i]
		b.In, b.Out, b.Late, b.Failed = b.In+c.in, b.Out+c.out, b.Late+c.late, b.Failed+c.failed
		b.Outside += c.outside
	}
	r.pipe.sample = append(r.pipe.sample, sample[:min(len(sample), maxSamples-len(r.pipe.sample))]...)
}
