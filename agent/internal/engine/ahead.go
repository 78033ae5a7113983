package engine

import (
	"fmt"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
)

// aheadGuard stands in front of an operator that goes by event time and keeps the rows away whose time lies too far ahead
// of the clock: one of them would move the watermark so far that all rows after it would be late. They are failed records
// of the operator's step.
type aheadGuard struct {
	next   operator
	counts *stepCounts
	clock  connector.Clock
	bounds []aheadBound
	// rewinds is the operator, and nil where it remembers no time; furthest is the widest of the bounds, and wrongSince
	// when the operator was first seen to go by a time that is wrong.
	rewinds    rewinder
	furthest   int64
	wrongSince time.Time
	// live are the columns that have values.
	live []int
	rows []int32
	out  *column.Batch
}

// aheadBound is a time column and how many microseconds its times may lie ahead.
type aheadBound struct {
	col   int
	ahead int64
}

// clockSet is the earliest time at which a clock can be right, 2026-01-01T00:00:00Z in UTC microseconds. A machine
// whose battery is empty starts long before, and then its clock says nothing about the times of the rows.
const clockSet = 1_767_225_600_000_000

// ahead puts the guard in front of the n-th input of a step. The tests of a definition have no clock, so that they give
// the same result on every day.
func (m *maker) ahead(i, n int, op operator) operator {
	if m.res.clock == nil || m.res.guard != nil {
		return op
	}
	step := &m.graph.plan.Steps[i]
	g := &aheadGuard{next: op, counts: m.counts[i], clock: m.res.clock}
	for _, b := range m.graph.plan.TimeBounds(i) {
		if b.Input == n && (!b.Default || m.span == endless) {
			g.bounds = append(g.bounds, aheadBound{b.Column, b.Ahead.Microseconds()})
			g.furthest = max(g.furthest, b.Ahead.Microseconds())
		}
	}
	if len(g.bounds) == 0 {
		return op
	}
	g.rewinds, _ = op.(rewinder)
	in := step.Inputs[n]
	g.live, g.out = positions(m.graph.live[in]), column.NewBatch(m.graph.plan.Steps[in].Output)
	return g
}

func (g *aheadGuard) push(b *column.Batch) error {
	clock := g.clock()
	now := clock.UnixMicro()
	if now < clockSet {
		return g.next.push(b)
	}
	kept := false
	for _, bound := range g.bounds {
		if latest(b.Cols[bound.col].Ints[:b.Len]) <= now+bound.ahead {
			continue
		}
		if !kept {
			g.rows, kept = allRows(g.rows, b.Len), true
		}
		if err := g.keep(b, bound, now); err != nil {
			return err
		}
	}
	if g.rewinds != nil && (!kept || len(g.rows) > 0) {
		g.recover(clock)
	}
	if !kept || len(g.rows) == b.Len {
		return g.next.push(b)
	}
	for _, pos := range g.live {
		g.out.Cols[pos].Gather(&b.Cols[pos], g.rows)
	}
	g.out.Len, g.out.Texts = len(g.rows), b.Texts
	return g.next.push(g.out)
}

// keep takes the rows out of those kept whose time is beyond the bound.
func (g *aheadGuard) keep(b *column.Batch, bound aheadBound, now int64) error {
	times := &b.Cols[bound.col]
	kept := g.rows[:0]
	for _, row := range g.rows {
		t := times.Ints[row]
		if t <= now+bound.ahead || times.Null(int(row)) {
			kept = append(kept, row)
			continue
		}
		g.counts.in++
		f := failedRow{batch: b, row: int(row)}
		if g.counts.sampling() {
			f.reason = fmt.Sprintf("its time in column %s is %s ahead of the agent's clock, and this step takes at most %s (ahead); correct the source's clock, or this machine's",
				b.Schema[bound.col].Name, aheadText(t-now), aheadText(bound.ahead))
		}
		if err := g.counts.failRow(f); err != nil {
			return err
		}
	}
	g.rows = kept
	return nil
}

// latest is the greatest of some times. The value of a null does not matter: it makes the rows be looked at one by one.
func latest(times []int64) int64 {
	greatest := int64(noTime)
	for _, t := range times {
		greatest = max(greatest, t)
	}
	return greatest
}

// aheadText says how long so many microseconds are, to the day, the second or the millisecond.
func aheadText(micros int64) string {
	const day = 24 * 3600 * 1_000_000
	switch {
	case micros >= 2*day:
		return fmt.Sprintf("%d days", micros/day)
	case micros >= 1_000_000:
		return (time.Duration(micros/1_000_000) * time.Second).String()
	}
	return (time.Duration(micros) * time.Microsecond).String()
}
