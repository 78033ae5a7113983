package supervisor

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/engine"
)

// Limits say when a flow is kept away from the others. Zero fields mean what is written behind them.
type Limits struct {
	// Step is how long a step may work without passing anything on, Batch how long one batch may keep all steps busy.
	Step  time.Duration // a minute
	Batch time.Duration // ten minutes
	// Grace is how long a run that was ended may take to return before it is left behind.
	Grace time.Duration // twenty seconds
	// Left is how many runs may be left behind before the agent must start anew.
	Left int // 3
	// Failures is after how many failures of its own doing a version is set back, or left alone for Pause.
	Failures int           // 3
	Pause    time.Duration // a quarter of an hour
	// Clean is after how long without such a failure those before are forgotten, Proven after how long a version is no
	// longer set back.
	Clean  time.Duration // an hour
	Proven time.Duration // a day
}

func (l Limits) withDefaults() Limits {
	l.Step, l.Batch, l.Grace = cmp.Or(l.Step, time.Minute), cmp.Or(l.Batch, 10*time.Minute), cmp.Or(l.Grace, 20*time.Second)
	l.Left, l.Failures, l.Pause = cmp.Or(l.Left, 3), cmp.Or(l.Failures, 3), cmp.Or(l.Pause, 15*time.Minute)
	l.Clean, l.Proven = cmp.Or(l.Clean, time.Hour), cmp.Or(l.Proven, 24*time.Hour)
	return l
}

// ErrTooManyLeft is when so many runs did not return that the process must start anew to get rid of them.
var ErrTooManyLeft = errors.New("too many flows did not stop when they were told to, so the agent ends to be started anew")

// ownFailure says whether a run failed by the flow's own doing, and not because something that it needs is not well.
func ownFailure(err error) bool {
	if _, panicked := errors.AsType[*connector.PanicError](err); panicked {
		return true
	}
	return engine.Overrun(err) != ""
}

// watched is what the watchdog knows of a goroutine of a run.
type watched struct {
	last        engine.Progress
	batch, step time.Duration
}

// watchdog looks at one run now and then. It counts its own looks and not the clock, so a machine that slept, or that is
// so busy that nobody comes along, ends nothing.
type watchdog struct {
	now     []engine.Progress
	workers []watched
	// cause is why the run was ended; ending is how long it has been ending, and over that it was given up.
	cause  error
	ending time.Duration
	over   bool
}

// look gives the error with which the run must be ended, nil while it does well. every is the time between two looks.
func (w *watchdog) look(r *engine.Runner, every time.Duration, l Limits) error {
	w.now = r.Progress(w.now[:0])
	for len(w.workers) < len(w.now) {
		w.workers = append(w.workers, watched{})
	}
	for i, p := range w.now {
		k := &w.workers[i]
		switch {
		case p.Busy == 0 || p.Busy != k.last.Busy:
			k.batch, k.step = 0, 0
		case p.Beats != k.last.Beats:
			k.batch, k.step = k.batch+every, 0
		default:
			k.batch, k.step = k.batch+every, k.step+every
		}
		k.last = p
		switch {
		case k.step >= l.Step:
			return &engine.OverrunError{Kind: engine.OverrunTime, Err: fmt.Errorf("a step has worked at one batch for %s without a result; simplify its expressions, or give it fewer rows at a time", l.Step)}
		case k.batch >= l.Batch && !p.Ending:
			return &engine.OverrunError{Kind: engine.OverrunTime, Err: fmt.Errorf("the steps have worked at one batch for %s, because they make too many rows of it; look for a join, an unnest or a window that multiplies rows", l.Batch)}
		}
	}
	return nil
}

// busy says whether the run has been at the same piece of work since the last look.
func (w *watchdog) busy() bool {
	for i := range w.workers {
		if w.workers[i].batch > 0 {
			return true
		}
	}
	return false
}
