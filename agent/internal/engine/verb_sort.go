package engine

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

const (
	// chunkPrefix begins the keys of the rows that a sort has stored, their number follows.
	chunkPrefix = 'c'
	// chunkBytes is about how large one stored entry of rows is.
	chunkBytes = 128 << 10
	// topSlack is how many rows beyond twice those wanted a sort gathers before it drops what cannot be among them.
	topSlack = 4096
)

func requireSort(step *flowdef.PlanStep, live, from []bool) {
	mark(from, live)
	markAll(from, step.SortPlan.Columns)
}

// sortStep collects all rows and gives them in order when the input has ended. Where only the first rows are wanted, it
// keeps not many more than those.
type sortStep struct {
	outputs
	plan   *flowdef.PlanStep
	counts *stepCounts
	sorter sorter
	// top is how many rows are wanted; 0 is all.
	top int
	// keep are the positions of the columns that are stored, live of those that are emitted.
	keep, live []int
	run        sortRun
	// full says that the run is in order and begins with top rows, so that its row top-1 is a bound for others.
	full  bool
	order []int32
	// sorted says that the input has ended and order is that of the run; emitted is how many rows of it are out.
	sorted  bool
	emitted int
	ended   bool

	sel []int32
	// texts are the columns of the run with text that are emitted.
	texts []*column.Column
	out   *column.Batch
	state sortState
}

// sortState is what a sort has to tell the store: rows in chunks, as they came.
type sortState struct {
	meta stepMeta
	// first and next number the chunks in the store; saved is how many rows of the run they hold.
	first, next int64
	saved       int
	removed     []StateChange
}

func (m *maker) sort(i int) (operator, *outputs, error) {
	step, input, counts, live := m.step(i)
	if m.span == endless {
		return nil, nil, errors.New("rows can be sorted only when all of them are there, and the input has no end; read a source that ends, such as files that are not followed")
	}
	s := &sortStep{plan: step, counts: counts, live: positions(live), top: m.graph.wanted(i), out: column.NewBatch(step.Output)}
	need := append([]bool(nil), live...)
	markAll(need, step.SortPlan.Columns)
	s.keep = positions(need)
	var definition strings.Builder
	fmt.Fprintf(&definition, "sort %d %s", s.top, describeColumns(input, s.keep))
	for k, pos := range step.SortPlan.Columns {
		key := sortKey{col: pos, descending: step.SortPlan.Descending[k]}
		s.sorter.keys = append(s.sorter.keys, key)
		fmt.Fprintf(&definition, "%d %t;", key.col, key.descending)
	}
	s.run.cols = newColumns(input)
	s.state.meta = newStepMeta(step.ID, definition.String())
	if m.res.memory != nil {
		return m.limitedSort(s), &s.outputs, nil
	}
	return s, &s.outputs, nil
}

func newColumns(schema expr.Schema) []column.Column { return column.NewBatch(schema).Cols }

// maxTop is the most rows that a sort drops others for.
const maxTop = 1 << 20

// wanted is how many rows of a sort's output can pass the limits behind it; 0 is all of them.
func (g *graph) wanted(i int) int {
	most, followed := int64(0), false
	for k := i + 1; k < len(g.plan.Steps); k++ {
		step := &g.plan.Steps[k]
		if !g.include[k] || len(step.Inputs) == 0 || !slices.Contains(g.inputs(k), i) {
			continue
		}
		if step.Verb != flowdef.Limit || len(step.LimitPlan.By) > 0 {
			return 0
		}
		followed, most = true, max(most, step.Limit.Rows)
	}
	if !followed || i == g.sink || most > maxTop {
		return 0
	}
	return int(most)
}

func (s *sortStep) push(b *column.Batch) error {
	s.counts.in += int64(b.Len)
	s.sel = allRows(s.sel, b.Len)
	if s.full {
		s.sel = s.sel[:0]
		for row := range b.Len {
			if s.sorter.compare(b.Cols, row, &s.run, s.top-1) < 0 {
				s.sel = append(s.sel, i32(row))
			}
		}
	}
	if s.run.rows > math.MaxInt32-len(s.sel) {
		return fmt.Errorf("step %s: a sort takes at most %d rows; sort less, or behind an aggregate", s.plan.ID, math.MaxInt32)
	}
	for _, pos := range s.keep {
		if err := s.run.cols[pos].AppendRows(&b.Cols[pos], s.sel); err != nil {
			return fmt.Errorf("step %s: %w; sort fewer rows, or without the long texts", s.plan.ID, err)
		}
	}
	s.run.rows += len(s.sel)
	if s.top > 0 && s.run.rows >= 2*s.top+topSlack {
		return s.prune()
	}
	return nil
}

// prune keeps the first rows only, in order.
func (s *sortStep) prune() error {
	order := s.sorter.sortRows(&s.run)[:s.top]
	best := sortRun{cols: newColumns(s.plan.Output), rows: s.top}
	for _, pos := range s.keep {
		if err := best.cols[pos].AppendRows(&s.run.cols[pos], order); err != nil {
			return fmt.Errorf("step %s: %w", s.plan.ID, err)
		}
	}
	s.run, s.full = best, true
	s.state.forget()
	return nil
}

// finish emits the next rows in order.
func (s *sortStep) finish() (more bool, err error) {
	if !s.sorted {
		s.order, s.sorted = s.sorter.sortRows(&s.run), true
		if s.top > 0 {
			s.order = s.order[:min(s.top, len(s.order))]
		}
	}
	part := s.order[min(s.emitted, len(s.order)):]
	part = part[:min(len(part), column.TargetRows)]
	if s.texts == nil {
		s.texts = textRefs(s.run.cols, s.live)
	}
	part = part[:fitText(s.texts, part, batchText)]
	for _, pos := range s.live {
		s.out.Cols[pos].Gather(&s.run.cols[pos], part)
	}
	s.out.Len = len(part)
	s.emitted += len(part)
	s.counts.out += int64(len(part))
	if err = s.emit(s.out); err != nil {
		return false, err
	}
	if s.emitted < len(s.order) {
		return true, nil
	}
	s.ended = true
	s.state.forget()
	s.run, s.order, s.sorter.entries, s.sorter.tmp, s.sorter.order = sortRun{}, nil, nil, nil, nil
	return false, nil
}

// forget notes that the stored rows are to be removed.
func (s *sortState) forget() {
	for n := s.first; n < s.next; n++ {
		s.removed = append(s.removed, StateChange{Step: s.meta.step, Key: string(chunkKey(n))})
	}
	s.first, s.saved = s.next, 0
}

func chunkKey(n int64) []byte { return putInt([]byte{chunkPrefix}, n) }

func (s *sortStep) stepID() string { return s.plan.ID }

func (s *sortStep) discard(entries map[string][]byte) {
	s.state.removed = append(s.state.removed, discardAll(s.plan.ID, entries)...)
}

func (s *sortStep) changes(dst []StateChange) []StateChange {
	st := &s.state
	dst, st.removed = append(dst, st.removed...), nil
	if s.ended {
		return st.meta.end(dst)
	}
	for st.saved < s.run.rows {
		key := chunkKey(st.next)
		value := []byte{stateVersion}
		for ; st.saved < s.run.rows && len(value) < chunkBytes; st.saved++ {
			for _, pos := range s.keep {
				value = putCell(value, &s.run.cols[pos], st.saved)
			}
		}
		dst = append(dst, StateChange{Step: s.plan.ID, Key: string(key), Value: seal(value, key)})
		st.next++
	}
	full := int64(0)
	if s.full {
		full = 1
	}
	return st.meta.changes(dst, st.first, st.next, int64(s.emitted), full)
}

func (s *sortStep) restore(entries map[string][]byte) error {
	if len(entries) == 0 {
		return nil
	}
	st := &s.state
	var emitted, full int64
	if err := st.meta.restore(entries, &st.first, &st.next, &emitted, &full); err != nil {
		return err
	}
	if int64(len(entries)-1) != st.next-st.first || emitted < 0 {
		return errCorruptState
	}
	for n := st.first; n < st.next; n++ {
		key := string(chunkKey(n))
		payload, err := unseal(key, entries[key])
		if err != nil {
			return err
		}
		if err = s.restoreChunk(payload); err != nil {
			return err
		}
	}
	if full != 0 && (s.top == 0 || s.run.rows < s.top) || emitted > int64(s.run.rows) {
		return errCorruptState
	}
	st.saved, s.emitted, s.full = s.run.rows, int(emitted), full != 0
	return nil
}

func (s *sortStep) restoreChunk(payload []byte) error {
	r := reader{s: payload}
	for len(r.s) > 0 {
		for _, pos := range s.keep {
			r.cell(&s.run.cols[pos])
		}
		if r.err != nil {
			return r.err
		}
		s.run.rows++
	}
	return nil
}
