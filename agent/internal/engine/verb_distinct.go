package engine

import (
	"fmt"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

func requireDistinct(step *flowdef.PlanStep, live, from []bool) {
	mark(from, live)
	markAll(from, step.DistinctPlan.By)
	if t := step.DistinctPlan.Time; t >= 0 {
		from[t] = true
	}
}

// distinct passes the first row of each key on.
type distinct struct {
	outputs
	counts *stepCounts
	live   []int
	seen   *seen
	meta   stepMeta
	ended  bool

	rows []int32
	out  *column.Batch
}

func (m *maker) distinct(i int) (operator, *outputs, error) {
	step, input, counts, live := m.step(i)
	p := step.DistinctPlan
	d := &distinct{
		counts: counts, live: positions(live), out: column.NewBatch(step.Output),
		seen: newSeen(step.ID, []byte{groupPrefix}, input, seenRule{by: p.By, time: p.Time, within: step.Distinct.Within}, m.lateSpan()),
		meta: newStepMeta(step.ID, fmt.Sprintf("distinct %s%d %d", describeColumns(input, p.By), p.Time, step.Distinct.Within)),
	}
	if err := d.seen.check("distinct"); err != nil {
		return nil, nil, err
	}
	if m.res.memory != nil && d.seen.span == bounded {
		return m.limitedDistinct(i, d), &d.outputs, nil
	}
	return d, &d.outputs, nil
}

func (d *distinct) push(b *column.Batch) error {
	d.counts.in += int64(b.Len)
	d.rows = allRows(d.rows, b.Len)
	if err := d.seen.look(b, d.rows); err != nil {
		return err
	}
	d.counts.late += int64(len(d.seen.late))
	d.counts.lateTotal += int64(len(d.seen.late))
	for _, row := range d.seen.failed {
		if err := d.counts.failRow(failedRow{b, int(row), untimed(b, d.seen.timeCol, int(row))}); err != nil {
			return err
		}
	}
	d.counts.out += int64(len(d.seen.fresh))
	if len(d.seen.fresh) == b.Len {
		return d.emit(b)
	}
	for _, pos := range d.live {
		d.out.Cols[pos].Gather(&b.Cols[pos], d.seen.fresh)
	}
	d.out.Len = len(d.seen.fresh)
	return d.emit(d.out)
}

// untimed says why the time of a row cannot be used.
func untimed(b *column.Batch, timeCol, row int) string {
	if b.Cols[timeCol].Null(row) {
		return fmt.Sprintf("the time column %s is null", b.Schema[timeCol].Name)
	}
	return fmt.Sprintf("the time in column %s is out of range", b.Schema[timeCol].Name)
}

// finish has nothing to emit: it forgets the keys of an input that has ended.
func (d *distinct) finish() (more bool, err error) { //nolint:unparam // it is a finisher
	d.ended = true
	d.seen.forgetAll()
	return false, nil
}

func (d *distinct) stepID() string { return d.seen.step }

func (d *distinct) restore(entries map[string][]byte) error {
	if len(entries) == 0 {
		return nil
	}
	if err := d.meta.restore(entries, &d.seen.newest, &d.counts.lateTotal); err != nil {
		return err
	}
	return restoreLedgers(entries, &d.seen.ledger)
}

func (d *distinct) discard(entries map[string][]byte) {
	d.seen.removed = append(d.seen.removed, discardAll(d.seen.step, entries)...)
}

func (d *distinct) changes(dst []StateChange) []StateChange {
	dst = d.seen.changes(dst)
	if d.ended {
		return d.meta.end(dst)
	}
	return d.meta.changes(dst, d.seen.newest, d.counts.lateTotal)
}
