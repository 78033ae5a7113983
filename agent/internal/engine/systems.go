package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
)

// The systems of the plant that a run asks and writes to while rows are on their way: its lookups and sinks.

// openSystems gives the operators of a pipeline their systems. ctx ends what they wait for; close ends the systems.
func (r *Runner) openSystems(ctx context.Context, p *pipeline) (closeAll func() error, err error) {
	var closers []func() error
	closeAll = func() error {
		var errs []error
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	started := r.set.Clock()
	for _, l := range p.lookups {
		if r.set.OpenLookup == nil {
			return closeAll, fmt.Errorf("step %s: this run has no way to look rows up", l.need.Step)
		}
		system, err := r.set.OpenLookup(l.need)
		if err != nil {
			return closeAll, sourceError(l.need, err)
		}
		closers = append(closers, system.Close)
		l.now = func() time.Duration { return r.set.Clock().Sub(started) }
		l.fetch = func(keys *column.Batch) (found connector.Found, err error) {
			err = r.insist(ctx, l.need, func() error {
				found, err = system.Fetch(ctx, keys)
				return err
			})
			return found, err
		}
	}
	for _, w := range p.writers {
		if r.set.OpenSink == nil {
			return closeAll, fmt.Errorf("step %s: this run has no way to write", w.need.Step)
		}
		if w.sink, err = r.set.OpenSink(w.need); err != nil {
			return closeAll, sourceError(ReadNeed{Step: w.need.Step, Connection: w.need.Connection}, err)
		}
		closers = append(closers, w.sink.Close)
		w.flush = func() error { return r.flush(ctx, w) }
	}
	return closeAll, nil
}

// endSystems says that the lookups and sinks of a run that has ended are no longer used.
func (r *Runner) endSystems() {
	for _, l := range r.set.Program.lookups {
		r.reporterOf(l.Step)(sourceEnded, "")
	}
	for _, w := range r.pipe.writers {
		r.reporterOf(w.need.Step)(sourceEnded, "")
	}
}

// insist calls a system until it answers, and reports it as failing meanwhile. Errors that do not pass end the run.
func (r *Runner) insist(ctx context.Context, need ReadNeed, call func() error) error {
	defer r.worker.rest()() // it waits for the plant's system
	report := r.reporterOf(need.Step)
	wait := sourceBackoff()
	for {
		err := call()
		if err == nil {
			report(sourceReading, "")
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, permanent := errors.AsType[*connector.PermanentError](err); permanent {
			report(sourceGivenUp, err.Error())
			return sourceError(need, err)
		}
		report(sourceFailing, err.Error())
		if err = wait.Wait(ctx); err != nil {
			return err
		}
	}
}

// reporterOf is reporter for a lookup or write step.
func (r *Runner) reporterOf(step string) func(state, problem string) {
	for i := range r.report.Sources {
		if r.report.Sources[i].Step == step {
			return r.reporter(i)
		}
	}
	return func(string, string) {}
}

// flush has a sink write what it holds. What the system refuses is counted.
func (r *Runner) flush(ctx context.Context, w *writer) error {
	if !w.holds {
		return nil
	}
	var failed connector.Failures
	err := r.insist(ctx, ReadNeed{Step: w.need.Step, Connection: w.need.Connection}, func() (err error) {
		failed, err = w.sink.Flush(ctx)
		return err
	})
	if err != nil {
		return err
	}
	w.holds = false
	return w.counts.failAll(failed)
}

// flushSinks has all sinks write what they hold, which must be before the commit of what it was made from.
func (r *Runner) flushSinks(ctx context.Context) error {
	for _, w := range r.pipe.writers {
		err := r.flush(ctx, w)
		var stopped *StoppedError
		switch {
		case err == nil:
		case errors.As(err, &stopped):
			return &partialError{err: err} // what led to the refused record must not be committed
		case ctx.Err() == nil:
			r.refused = true // the system will not take it the next time either
			return err
		default:
			return err
		}
	}
	return nil
}

// sinksHold says whether rows wait for a flush.
func (r *Runner) sinksHold() bool {
	for _, w := range r.pipe.writers {
		if w.holds {
			return true
		}
	}
	return false
}
