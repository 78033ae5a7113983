package engine

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
)

// What an operator remembers can be of a time that no row will reach for years: it was let in before there was a bound,
// or while the agent's clock was fast as well. Then all rows that come are late, over restarts too. So the guard in front
// of the operator watches for that, and has it forget what lies beyond the bound.

// rewinder is an operator that goes by event time.
type rewinder interface {
	// eventTime is the greatest time that the operator goes by, noTime where it knows of none or nothing can be late.
	eventTime() int64
	// rewind forgets what the operator knows of times after limit, as if they had never come.
	rewind(limit int64)
}

const (
	// rewindBeyond is how much further than the bound a time must lie ahead to be wrong for certain, in microseconds.
	rewindBeyond = 24 * int64(time.Hour/time.Microsecond)
	// rewindAfter is how long that must be so while rows come that are not ahead. A clock that is slow when the machine
	// starts is set by then, and until then no row that tells the true time passes the guard.
	rewindAfter = 10 * time.Minute
)

// recover rewinds the operator when it goes by a time that is wrong. Rows that are not ahead are about to come in.
func (g *aheadGuard) recover(now time.Time) {
	newest := g.rewinds.eventTime()
	limit := now.UnixMicro() + g.furthest
	if newest <= limit+rewindBeyond {
		g.wrongSince = time.Time{}
		return
	}
	if g.wrongSince.IsZero() {
		g.wrongSince = now
	}
	if now.Sub(g.wrongSince) < rewindAfter {
		return
	}
	g.wrongSince = time.Time{}
	g.rewinds.rewind(limit)
	g.counts.note([]connector.FailedRecord{{
		Where: "step " + g.counts.step,
		Reason: fmt.Sprintf("the step went by a time %s ahead of the agent's clock, so that every record was late; it has forgotten that time and goes on from the records that come",
			aheadText(newest-now.UnixMicro())),
	}})
}

func (a *aggregate) eventTime() int64 {
	if a.win == nil || !a.win.seen {
		return noTime
	}
	return a.win.newest
}

// rewind drops the windows that begin after the limit. Those that were open when the watermark passed it are closed.
func (a *aggregate) rewind(limit int64) {
	gone := make([]int32, 0, len(a.dead)-a.deaths)
	for g, dead := range a.dead {
		if !dead && a.frames.starts[g] > limit {
			gone = append(gone, i32(g))
		}
	}
	a.state.forget(gone)
	for _, g := range gone {
		a.bury(g)
	}
	if a.carries() {
		a.state.forgetCarries(a.keys.dropAfter(limit))
	}
	a.compact()
	w := a.win
	w.seen, w.newest = false, 0
	w.forget()
	if a.sessions != nil {
		_, w.minEnd = a.closeUpTo(nil, math.MinInt64)
	} else {
		_, w.minEnd = a.scanEnds(nil, math.MinInt64)
	}
}

// dropAfter drops what was read after the limit, and gives the keys that carried it.
func (k *keyring) dropAfter(limit int64) []int32 {
	k.scratch = k.scratch[:0]
	for key, carries := range k.carries {
		if carries && k.atOf(i32(key)) > limit {
			k.scratch = append(k.scratch, i32(key))
		}
	}
	k.drop(k.scratch)
	return k.scratch
}

func (d *distinct) eventTime() int64   { return d.seen.eventTime() }
func (d *distinct) rewind(limit int64) { d.seen.rewind(limit) }

func (v *validate) eventTime() int64 {
	newest := int64(noTime)
	for i := range v.rules {
		if u := v.rules[i].unique; u != nil {
			newest = max(newest, u.eventTime())
		}
	}
	return newest
}

func (v *validate) rewind(limit int64) {
	for i := range v.rules {
		if u := v.rules[i].unique; u != nil && u.eventTime() > limit {
			u.rewind(limit)
		}
	}
}

func (s *seen) eventTime() int64 {
	if s.span != endless || s.within == 0 {
		return noTime
	}
	return s.newest
}

func (s *seen) rewind(limit int64) {
	s.retain(func(kept int64) bool { return kept <= limit })
	s.newest = math.MinInt64
	for _, kept := range s.values {
		s.newest = max(s.newest, kept)
	}
}

func (d *detector) eventTime() int64 {
	if d.span != endless {
		return noTime
	}
	return d.newest
}

// rewind makes the groups whose last reading is after the limit ones that have seen nothing.
func (d *detector) rewind(limit int64) {
	d.newest = noTime
	for g, last := range d.last {
		if last > limit {
			d.last[g] = noTime
			d.method.reset(i32(g))
			d.state.changed[g] = true
		}
		d.newest = max(d.newest, d.last[g])
	}
	if s, ok := d.method.(*silence); ok {
		s.rewound()
	}
}

func (b *deadband) reset(g int32) { b.group[g] = passed{at: noTime} }

func (e *events) reset(g int32) {
	for at := g * i32(e.sides); at < (g+1)*i32(e.sides); at++ {
		e.breakOff(at)
	}
	e.scorer.reset(g)
}

func (s *silence) reset(g int32) { s.group[g] = heard{at: noTime} }

// rewound makes time pass with the groups that are left.
func (s *silence) rewound() {
	s.newest, s.due = noTime, s.due[:0]
	for g, h := range s.group {
		s.newest = max(s.newest, h.at)
		if !h.silent && h.at != noTime {
			s.wait(dueGroup{at: h.at + s.limit, group: i32(g)})
		}
	}
}

func (level) reset(int32)       {}
func (r *rate) reset(g int32)   { r.group[g] = rateOf{at: noTime} }
func (z *zscore) reset(g int32) { z.forget(g) }
func (c *cusum) reset(g int32)  { c.forget(g) }
func (e *ewma) reset(g int32) {
	e.group[g] = smoothed{at: noTime}
	e.forget(g)
}

func (e streamEntrance) eventTime() int64 {
	s := e.join.sides[e.side]
	if e.join.span != endless || !s.seen {
		return noTime
	}
	return s.newest
}

// rewind lets go of the side's rows after the limit.
func (e streamEntrance) rewind(limit int64) {
	s := e.join.sides[e.side]
	s.seen, s.newest = false, 0
	s.due = slices.DeleteFunc(s.due, func(d due) bool {
		if d.time > limit {
			e.join.drop(e.side, d.row)
		}
		return d.time > limit
	})
	left := slices.Clone(s.due)
	s.due = s.due[:0]
	for _, d := range left {
		s.due.push(d)
	}
}
