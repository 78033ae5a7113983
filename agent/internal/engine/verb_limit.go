package engine

import (
	"fmt"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// maxLimitGroups bounds what a limit by group remembers in an endless input.
const maxLimitGroups = 1 << 20

func requireLimit(step *flowdef.PlanStep, live, from []bool) {
	mark(from, live)
	markAll(from, step.LimitPlan.By)
}

// limit passes the first rows on, of the whole input or of each group.
type limit struct {
	outputs
	counts *stepCounts
	max    int64
	by     []int
	live   []int
	span   span
	// taken counts the rows passed on where there are no groups; groups has the count of each.
	taken  int64
	groups ledger
	meta   stepMeta
	ended  bool
	budget *budget

	cols    []*column.Column
	rows    []int32
	entries []int32
	sel     []int32
	out     *column.Batch
}

func (m *maker) limit(i int) (operator, *outputs, error) {
	step, input, counts, live := m.step(i)
	by := step.LimitPlan.By
	l := &limit{
		counts: counts, max: step.Limit.Rows, by: by, live: positions(live), span: m.span, budget: m.res.budget(),
		groups: newLedger(step.ID, []byte{groupPrefix}, typesOf(input, by)),
		// The number of rows is no part of the definition: whoever raises it wants the rows up to the new one.
		meta: newStepMeta(step.ID, "limit "+describeColumns(input, by)),
		cols: make([]*column.Column, len(by)), out: column.NewBatch(step.Output),
	}
	return l, &l.outputs, nil
}

func (l *limit) push(b *column.Batch) error {
	l.counts.in += int64(b.Len)
	if len(l.by) == 0 {
		n := int(min(int64(b.Len), l.max-l.taken))
		if n <= 0 {
			return nil
		}
		l.taken += int64(n)
		l.sel = allRows(l.sel, n)
		return l.pass(b)
	}
	for i, pos := range l.by {
		l.cols[i] = &b.Cols[pos]
	}
	l.rows = allRows(l.rows, b.Len)
	var err error
	if l.entries, err = l.groups.assign(l.cols, l.rows, nil, l.entries); err != nil {
		return err
	}
	l.sel = l.sel[:0]
	for row, e := range l.entries {
		if n := l.groups.values[e]; n < l.max {
			if e >= maxLimitGroups && l.span == endless {
				if err = l.tooMany(b, row); err != nil {
					return err
				}
				continue
			}
			l.groups.put(e, n+1)
			l.sel = append(l.sel, i32(row))
		}
	}
	if l.span == endless && l.groups.table.len() > 2*maxLimitGroups {
		l.groups.retain(func(int64) bool { return true })
	}
	if l.span == bounded {
		if err = l.budget.hold(l.groups.size(), l.groups.step, "the groups that limit counts"); err != nil {
			return err
		}
	}
	return l.pass(b)
}

func (l *limit) tooMany(b *column.Batch, row int) error {
	return l.counts.failRow(failedRow{b, row, fmt.Sprintf("the limit counts at most %d groups, and this row would be of another one; group by columns with fewer values", maxLimitGroups)})
}

// pass emits the selected rows.
func (l *limit) pass(b *column.Batch) error {
	l.counts.out += int64(len(l.sel))
	if len(l.sel) == b.Len {
		return l.emit(b)
	}
	for _, pos := range l.live {
		l.out.Cols[pos].Gather(&b.Cols[pos], l.sel)
	}
	l.out.Len = len(l.sel)
	return l.emit(l.out)
}

// finish has nothing to emit: it forgets the counts of an input that has ended.
func (l *limit) finish() (more bool, err error) { //nolint:unparam // it is a finisher
	l.ended = true
	l.groups.forgetAll()
	l.budget.release()
	return false, nil
}

func (l *limit) stepID() string { return l.groups.step }

func (l *limit) restore(entries map[string][]byte) error {
	if len(entries) == 0 {
		return nil
	}
	if err := l.meta.restore(entries, &l.taken); err != nil {
		return err
	}
	return restoreLedgers(entries, &l.groups)
}

func (l *limit) discard(entries map[string][]byte) {
	l.groups.removed = append(l.groups.removed, discardAll(l.groups.step, entries)...)
}

func (l *limit) changes(dst []StateChange) []StateChange {
	dst = l.groups.changes(dst)
	if l.ended {
		return l.meta.end(dst)
	}
	return l.meta.changes(dst, l.taken)
}

// failedRow is a row that a step cannot handle, and why.
type failedRow struct {
	batch  *column.Batch
	row    int
	reason string
}

// sampling says whether the next failing record would be kept, so that no message is made in vain.
func (c *stepCounts) sampling() bool { return c.stop || len(*c.sample) < maxSamples }

// failRow counts a row as failed. It gives an error when the flow says on_error: stop.
func (c *stepCounts) failRow(f failedRow) error {
	if !c.sampling() {
		return c.failAll(connector.Failures{Count: 1})
	}
	return c.fail(connector.FailedRecord{Where: "step " + c.step, Reason: f.reason, Record: describeRow(f.batch, f.row)})
}

// restoreLedgers gives every entry but the meta entry to the ledger whose tag its key begins with.
func restoreLedgers(entries map[string][]byte, ledgers ...*ledger) error {
	return restoreEntries(entries, func(key string, payload []byte) error {
		for _, l := range ledgers {
			if len(key) >= len(l.tag) && key[:len(l.tag)] == string(l.tag) {
				return l.restore(key, payload)
			}
		}
		return errCorruptState
	})
}
