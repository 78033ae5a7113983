package supervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outfeed/outfeed/internal/backoff"
)

// nextPeriod is the next whole period after a start that has not passed yet: runs never overlap, and what was missed
// is not made up for.
func nextPeriod(started, now time.Time, every time.Duration) time.Time {
	missed := max(0, now.Sub(started)/every)
	next := started.Add(missed * every)
	if !next.After(now) || !next.After(started) {
		next = next.Add(every)
	}
	return next
}

// timetable says when a batch flow runs.
type timetable struct {
	// next gives the time of the run after one that began at started; ok is false when there is none.
	next func(started time.Time) (at time.Time, ok bool)
	// dues is nil unless what was missed is made up for.
	dues *dues
}

// onSchedule waits for the first time that the schedule names, unless one was missed, and goes on from there.
func (u *unit) onSchedule(ctx context.Context, p *prepared) verdict {
	u.set(stateWaiting, nil)
	if _, ok := p.schedule.next(u.now()); !ok {
		u.set(stateRefused, fmt.Errorf("the trigger's cron expression %q never comes true", p.trigger.Cron))
		return goOn
	}
	t := timetable{dues: u.newDues(p)}
	t.next = func(time.Time) (time.Time, bool) {
		t.dues.align(ctx)
		return p.schedule.next(u.now())
	}
	missed, err := t.dues.start(ctx)
	if err != nil {
		return goOn
	}
	if at, ok := t.next(u.now()); !missed && (!ok || u.waitDue(ctx, at, t) != nil) {
		return goOn
	}
	return u.repeat(ctx, p, t)
}

// repeat runs a batch flow now and then at each time of the timetable. A run that failed is tried again after a while,
// unless the next one is due before.
func (u *unit) repeat(ctx context.Context, p *prepared, t timetable) verdict {
	wait := u.s.settings.Backoff
	for {
		started := u.now()
		err := u.runOnce(ctx, p)
		if ctx.Err() != nil {
			t.dues.stopped(ctx)
			return goOn
		}
		v := u.judge(ctx, err)
		t.dues.ended(ctx, err)
		switch {
		case v == goBack:
			return goBack
		case v == leaveAlone:
			u.set(stateFailed, err)
			err = u.waitFor(ctx, u.now().Add(u.s.settings.Limits.Pause), func() (time.Time, bool) { return t.next(u.now()) })
		case err == nil:
			wait.Reset()
			u.set(stateWaiting, nil)
			err = u.waitNext(ctx, t, started, time.Time{})
		default:
			u.set(stateBackingOff, err)
			err = u.waitNext(ctx, t, started, u.now().Add(wait.Next()))
		}
		if err != nil {
			return goOn
		}
	}
}

// errNever says that there is no next time.
var errNever = errors.New("there is no next time")

// waitNext waits after a run that began at started, for the next time or for another try if that is not zero and earlier.
func (u *unit) waitNext(ctx context.Context, t timetable, started, another time.Time) error {
	at, ok := t.next(started)
	switch {
	case !another.IsZero() && (!ok || another.Before(at)):
		return u.waitFor(ctx, another, func() (time.Time, bool) { return t.next(u.now()) })
	case ok:
		return u.waitDue(ctx, at, t)
	}
	return errNever
}

// sleepStep bounds one sleep, so that a clock that was set, or a machine that slept, is noticed.
const sleepStep = time.Minute

// errSetBack says that the clock was set back while a time of day was waited for.
var errSetBack = errors.New("the clock was set back")

// waitDue waits until at, and for the next time when the clock was set meanwhile so that nothing is due.
func (u *unit) waitDue(ctx context.Context, at time.Time, t timetable) error {
	for {
		if err := u.waitFor(ctx, at, func() (time.Time, bool) { return t.next(u.now()) }); err != nil {
			return err
		}
		due, err := t.dues.due(ctx)
		if due || err != nil {
			return err
		}
		var ok bool
		if at, ok = t.next(u.now()); !ok {
			return errNever
		}
	}
}

// waitFor waits until at. When the clock is set back meanwhile, at may have become years away: then it waits for what again
// gives instead.
func (u *unit) waitFor(ctx context.Context, at time.Time, again func() (time.Time, bool)) error {
	for {
		u.expect(at)
		err := u.sleepUntil(ctx, at)
		if !errors.Is(err, errSetBack) {
			return err
		}
		var ok bool
		if at, ok = again(); !ok {
			return err
		}
	}
}

func (u *unit) sleepUntil(ctx context.Context, at time.Time) error {
	for before := at.Sub(u.now()); ; {
		left := at.Sub(u.now())
		switch {
		case left <= 0:
			return nil
		case left > before+sleepStep:
			return errSetBack
		}
		before = left
		if err := backoff.Sleep(ctx, min(left, sleepStep)); err != nil {
			return err
		}
	}
}
