package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/internal/backoff"
)

// missedOnce is what a trigger says so that the runs that were missed are made up for by one.
const missedOnce = "once"

// Served is until when the due times of a schedule were seen to. It counts for that schedule alone: with another one it
// begins anew.
type Served struct {
	Cron     string `json:"cron"`
	Timezone string `json:"timezone"`
	// Until is when the last run ended that came to its end, or when the schedule was taken over. What was due by then was seen to.
	Until time.Time `json:"until"`
	// Behind is zero, or what a clock said that is behind Until: either it is wrong now, or it was when Until was noted.
	Behind time.Time `json:"behind,omitzero"`
	// Begun counts how often a run that makes up for missed ones was begun and neither ended nor was stopped.
	Begun int `json:"begun,omitempty"`
	// PutOff is zero, or when such a run is begun at the latest that was begun too often.
	PutOff time.Time `json:"put_off,omitzero"`
}

// anew is without what is known of runs that were begun, as another version of the flow goes on.
func (s Served) anew() Served {
	s.Begun, s.PutOff = 0, time.Time{}
	return s
}

// since is from when on due times are to be seen to.
func (s *Served) since(now time.Time) time.Time {
	switch {
	case !now.Before(s.Until):
		return s.Until
	case s.Behind.IsZero() || now.Before(s.Behind):
		return now
	}
	return s.Behind
}

// dues sees to the due times of a schedule with `missed: once`, and nil to none: then a flow is due whenever its time has
// come. It belongs to the unit's goroutine.
type dues struct {
	u      *unit
	p      *prepared
	served *Served
	// tried is until when this process saw to due times, whatever became of the runs.
	tried time.Time
}

// newDues gives nil for a flow that skips what it missed.
func (u *unit) newDues(p *prepared) *dues {
	if p.trigger.Missed != missedOnce {
		return nil
	}
	return &dues{u: u, p: p, served: &u.versions.record.Served}
}

// forgetServed forgets what is kept for a flow that skips what it missed, so that it begins anew should it be told not to.
func (u *unit) forgetServed(ctx context.Context, p *prepared) {
	if r := &u.versions.record; p.trigger.Missed != missedOnce && r.Served != (Served{}) {
		r.Served = Served{}
		u.versions.save(ctx)
	}
}

// now has no monotonic part, so that it is the same when it is read again.
func (d *dues) now() time.Time { return d.u.now().Round(0).UTC() }

// align makes what is kept fit the schedule and the clock. A schedule that is new has missed nothing. Of a clock that is
// behind Until nobody knows which of the two is wrong: nothing was missed by it so far, and Until counts again should the
// clock be set right before a run has ended.
func (d *dues) align(ctx context.Context) {
	if d == nil {
		return
	}
	now, before := d.now(), *d.served
	s := d.served
	switch {
	case s.Cron != d.p.trigger.Cron || s.Timezone != d.p.trigger.Timezone || s.Until.IsZero():
		*s = Served{Cron: d.p.trigger.Cron, Timezone: d.p.trigger.Timezone, Until: now}
	case !now.Before(s.Until):
		s.Behind = time.Time{}
	case s.Behind.IsZero() || now.Before(s.Behind):
		s.Behind = now
	}
	if d.tried.After(now) {
		d.tried = now
	}
	d.saveSince(ctx, before)
}

// missed are due times that nobody saw to.
type missed struct {
	n           int
	first, last time.Time
}

// mostCounted bounds how many due times are counted: of a clock that was set by years there would be millions.
const mostCounted = 1000

// String counts them.
func (m missed) String() string {
	times := "times"
	if m.n == 1 {
		times = "time"
	}
	atLeast := ""
	if m.n == mostCounted {
		atLeast = "at least "
	}
	return fmt.Sprintf("%s%d due %s missed since %s", atLeast, m.n, times, m.first.Format(time.RFC3339))
}

// attr counts them for the log.
func (m missed) attr() slog.Attr {
	if m.n == mostCounted {
		return slog.Int("missed_at_least", m.n)
	}
	return slog.Int("missed", m.n)
}

// missed are the due times up to now that nobody saw to.
func (d *dues) missed() (m missed) {
	now := d.now()
	from := d.served.since(now)
	if d.tried.After(from) {
		from = d.tried
	}
	for at, ok := d.p.schedule.next(from); ok && !at.After(now) && m.n < mostCounted; at, ok = d.p.schedule.next(at) {
		if m.n == 0 {
			m.first = at
		}
		m.n, m.last = m.n+1, at
	}
	if m.n == mostCounted {
		m.last = d.p.schedule.last(m.last.Add(-time.Minute), now)
	}
	return m
}

// start says whether a run is to make up for what was missed while the flow did not run. It waits for the run's turn. A flow
// that was given up on by its own doing has nothing to make up for: its next try is its next time.
func (d *dues) start(ctx context.Context) (missed bool, err error) {
	if d == nil {
		return false, nil
	}
	d.align(ctx)
	if d.u.versions.exhausted() {
		d.settle(ctx)
	}
	m := d.missed()
	d.tried = d.now()
	if m.n == 0 {
		return false, nil
	}
	return true, d.makeUp(ctx, m)
}

// due says, when a time has come, whether the flow is due. Most often it simply is; after the machine has slept or its clock
// was set, its run makes up for those that were missed.
func (d *dues) due(ctx context.Context) (bool, error) {
	if d == nil {
		return true, nil
	}
	d.align(ctx)
	m := d.missed()
	switch {
	case m.n == 0:
		return false, nil
	case m.n == 1 && d.now().Sub(m.last) <= sleepStep:
		return true, nil
	}
	return true, d.makeUp(ctx, m)
}

// putOff gives when a run is begun that the agent ended in too often, and keeps it, so that a restart puts it off no further: at
// its next due time, and after the pause at the latest.
func (d *dues) putOff(ctx context.Context) time.Time {
	now, before, pause := d.now(), *d.served, d.u.s.settings.Limits.Pause
	at := d.served.PutOff
	if at.IsZero() || at.Sub(now) > pause { // the latter by a clock that was set back
		at = now.Add(pause)
	}
	if next, ok := d.p.schedule.next(now); ok && next.Before(at) {
		at = next.UTC()
	}
	d.served.PutOff = at
	d.saveSince(ctx, before)
	return at
}

// makeUp waits until the run may begin that makes up for missed ones, and notes it: a run that ends the process must not do
// so at every start.
func (d *dues) makeUp(ctx context.Context, m missed) error {
	s := d.u.s
	if d.served.Begun >= s.settings.Limits.Failures {
		d.u.set(stateBackingOff, fmt.Errorf("the agent ended %d times in the run that makes up for %s; it is tried again within %s", d.served.Begun, m, s.settings.Limits.Pause))
		if err := d.u.waitFor(ctx, d.putOff(ctx), func() (time.Time, bool) { return d.putOff(ctx), true }); err != nil {
			return err
		}
		d.tried = d.now()
	}
	wait := s.turns.take(time.Now())
	d.u.expect(d.now().Add(wait))
	if err := backoff.Sleep(ctx, wait); err != nil {
		return err
	}
	before := *d.served
	d.served.Begun, d.served.PutOff = d.served.Begun+1, time.Time{}
	d.saveSince(ctx, before)
	d.u.makesUp = m.String()
	s.settings.Logger.InfoContext(ctx, "the flow runs once for its missed due times", slog.String("flow", d.u.dep.Name),
		slog.String("deployment", d.u.dep.ID), m.attr(), slog.Time("since", m.first), slog.Time("last", m.last))
	return nil
}

// ended takes note of the end of a run. What was due is seen to when the run came to its end, or was stopped at a record that
// would stop it again. Otherwise it is tried again, after a restart too.
func (d *dues) ended(ctx context.Context, err error) {
	if d == nil {
		return
	}
	d.tried = d.now()
	if _, stopped := errors.AsType[*engine.StoppedError](err); err == nil || stopped {
		d.settle(ctx)
		return
	}
	before := *d.served
	*d.served = d.served.anew()
	d.saveSince(ctx, before)
}

// settle notes that nothing is due any more, of what was due up to now, also while the run was under way.
func (d *dues) settle(ctx context.Context) {
	before := *d.served
	*d.served = d.served.anew()
	d.served.Until, d.served.Behind = d.now(), time.Time{}
	d.saveSince(ctx, before)
}

// stopped takes note of a run that was stopped in order: it is begun again.
func (d *dues) stopped(ctx context.Context) {
	if d == nil {
		return
	}
	before := *d.served
	d.served.Begun = max(0, d.served.Begun-1)
	d.saveSince(ctx, before)
}

// saveSince makes a change last.
func (d *dues) saveSince(ctx context.Context, before Served) {
	if *d.served != before {
		d.u.versions.save(ctx)
	}
}

// turnEvery is how far apart runs begin that make up for missed ones: those of 200 flows within 50 s.
const turnEvery = 250 * time.Millisecond

// turns keeps the runs of many flows that have all missed theirs from beginning at once. It may be used by any number of
// goroutines.
type turns struct {
	mu   sync.Mutex
	next time.Time
}

// take gives how long to wait for a turn.
func (t *turns) take(now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.next.Before(now) {
		t.next = now
	}
	wait := t.next.Sub(now)
	t.next = t.next.Add(turnEvery)
	return wait
}
