package engine

import (
	"fmt"
	"math"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// aggregate groups rows by columns and, where there is a window, by the window's start.
//
// Groups are numbered by the key table; every accumulator is an array over those numbers. A closed window's groups are
// marked dead and stay until they outnumber the living: no row can find them, since their window is past.
type aggregate struct {
	outputs
	plan   *flowdef.PlanStep
	counts *stepCounts

	by      []int
	byCols  []*column.Column
	args    []kernel
	argCols []*column.Column
	accs    []accumulator
	table   *keyTable
	win     *window
	timeCol int

	seg    segment
	groups []int32
	out    *column.Batch

	dead   []bool
	deaths int
	// closing is what a bounded input's end has still to emit; ended says that it was collected.
	closing []int32
	ended   bool

	state aggregateState
}

// compactFloor is how many dead groups are left alone however few are alive.
const compactFloor = 256

func newAggregate(step *flowdef.PlanStep, input expr.Schema, s span) (*aggregate, error) {
	a := &aggregate{
		plan: step, by: step.By, byCols: make([]*column.Column, len(step.By)),
		out: column.NewBatch(step.Output), timeCol: -1,
	}
	types := make([]expr.Type, len(step.By))
	for i, pos := range step.By {
		types[i] = input[pos].Type
	}
	a.table = newKeyTable(types)
	if w := step.Aggregate.Window; w != nil {
		if w.Tumbling.Microseconds() <= 0 {
			return nil, fmt.Errorf("the window must be at least a microsecond long, not %s", w.Tumbling)
		}
		a.win, a.timeCol = newWindow(w.Tumbling, w.Late, s), step.WindowTime
	}
	a.argCols = make([]*column.Column, len(step.Aggregates))
	for i := range step.Aggregates {
		call := &step.Aggregates[i]
		acc, err := newAccumulator(call)
		if err != nil {
			return nil, err
		}
		var arg kernel
		if call.Arg != nil {
			if arg, err = compileExpr(call.Arg, call.Arg.Type); err != nil {
				return nil, err
			}
		}
		a.accs, a.args = append(a.accs, acc), append(a.args, arg)
	}
	a.state.init(a, types)
	return a, nil
}

func (a *aggregate) push(b *column.Batch) error {
	a.counts.in += int64(b.Len)
	for i, pos := range a.by {
		a.byCols[i] = &b.Cols[pos]
	}
	for i, arg := range a.args {
		if arg != nil {
			a.argCols[i] = arg.eval(b)
		}
	}
	if a.win == nil {
		a.seg.reset()
		for i := range b.Len {
			a.seg.rows, a.seg.starts = append(a.seg.rows, i32(i)), append(a.seg.starts, 0)
		}
		return a.update(nil)
	}
	times := &b.Cols[a.timeCol]
	for from := 0; from < b.Len; {
		next, closes := a.win.scan(times, from, b.Len, &a.seg)
		if len(a.seg.late)+len(a.seg.failed) > 0 {
			a.counts.late += int64(len(a.seg.late))
			a.counts.lateTotal += int64(len(a.seg.late))
			if err := a.fail(b); err != nil {
				return err
			}
		}
		if err := a.update(times.Ints); err != nil {
			return err
		}
		if closes {
			if err := a.closeWindows(); err != nil {
				return err
			}
		}
		from = next
	}
	return nil
}

// fail reports the rows of the segment whose time cannot be used.
func (a *aggregate) fail(b *column.Batch) error {
	for _, row := range a.seg.failed {
		reason := fmt.Sprintf("the time column %s is null", b.Schema[a.timeCol].Name)
		if !b.Cols[a.timeCol].Null(int(row)) {
			reason = fmt.Sprintf("the time in column %s is out of range", b.Schema[a.timeCol].Name)
		}
		err := a.counts.fail(connector.FailedRecord{Where: "step " + a.plan.ID, Reason: reason, Record: describeRow(b, int(row))})
		if err != nil {
			return err
		}
	}
	return nil
}

// update adds the segment's rows to their groups.
func (a *aggregate) update(times []int64) error {
	if len(a.seg.rows) == 0 {
		return nil
	}
	keys := keyRows{cols: a.byCols, rows: a.seg.rows, prefix: a.seg.starts}
	var err error
	if a.groups, err = a.table.assign(keys, a.groups); err != nil {
		return err
	}
	n := a.table.len()
	a.dead = growTo(a.dead, n)
	a.state.grow(n)
	u := updates{rows: a.seg.rows, groups: a.groups, times: times}
	for i, acc := range a.accs {
		acc.grow(n)
		if err = acc.update(a.argCols[i], u); err != nil {
			return err
		}
	}
	for _, g := range a.groups {
		a.state.changed[g] = true
	}
	return nil
}

// closeWindows emits the groups of the windows that the watermark has passed, and forgets them.
func (a *aggregate) closeWindows() error {
	mark := a.win.watermark()
	a.closing = a.closing[:0]
	a.win.minEnd = math.MaxInt64
	for g, start := range a.table.prefix {
		if a.dead[g] {
			continue
		}
		if end := start + a.win.size; end <= mark {
			a.closing = append(a.closing, i32(g))
		} else {
			a.win.minEnd = min(a.win.minEnd, end)
		}
	}
	a.table.sort(a.closing)
	for len(a.closing) > 0 {
		if err := a.emitNext(); err != nil {
			return err
		}
	}
	if live := len(a.dead) - a.deaths; a.deaths > live+compactFloor {
		a.compact()
	}
	return nil
}

// emitNext emits and forgets the next of the closing groups, at most a batch of them.
func (a *aggregate) emitNext() error {
	n := min(len(a.closing), column.TargetRows)
	part := a.closing[:n]
	a.state.forget(part)
	for _, g := range part {
		a.dead[g] = true
	}
	a.deaths += n
	a.out.Reset()
	if err := a.fill(part); err != nil {
		return err
	}
	a.closing = a.closing[n:]
	a.counts.out += int64(n)
	return a.emit(a.out)
}

// fill writes the rows of the groups in the order of the step's output.
func (a *aggregate) fill(groups []int32) error {
	a.out.Len = len(groups)
	col := 0
	for i := range a.table.cols {
		if err := a.out.Cols[col].AppendRows(&a.table.cols[i], groups); err != nil {
			return fmt.Errorf("step %s: %w", a.plan.ID, err)
		}
		col++
	}
	if a.win != nil {
		for _, g := range groups {
			a.out.Cols[col].AppendInt(a.table.prefix[g])
			a.out.Cols[col+1].AppendInt(a.table.prefix[g] + a.win.size)
		}
		col += 2
	}
	for _, acc := range a.accs {
		acc.result(&a.out.Cols[col], groups)
		col++
	}
	return nil
}

// compact drops the dead groups.
func (a *aggregate) compact() {
	keep := make([]int32, 0, len(a.dead)-a.deaths)
	for g, dead := range a.dead {
		if !dead {
			keep = append(keep, i32(g))
		}
	}
	a.table.compact(keep, nil)
	for _, acc := range a.accs {
		acc.compact(keep)
	}
	a.state.compact(keep)
	a.dead, a.deaths = a.dead[:len(keep)], 0
	clear(a.dead)
}

// finish emits the next part of what a bounded input leaves at its end; more says that there is another.
func (a *aggregate) finish() (more bool, err error) {
	if !a.ended {
		a.ended = true
		a.closing = a.closing[:0]
		for g := range a.table.prefix {
			if !a.dead[g] {
				a.closing = append(a.closing, i32(g))
			}
		}
		a.table.sort(a.closing)
	}
	if len(a.closing) > 0 {
		err = a.emitNext()
	}
	if len(a.closing) == 0 {
		a.state.end()
	}
	return len(a.closing) > 0, err
}

func (a *aggregate) stepID() string                          { return a.plan.ID }
func (a *aggregate) restore(entries map[string][]byte) error { return a.state.restore(entries) }
func (a *aggregate) discard(entries map[string][]byte)       { a.state.discard(entries) }
func (a *aggregate) changes(dst []StateChange) []StateChange { return a.state.changes(dst) }
