package engine

import (
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// errTooManyGroups is for groups that must stay in memory.
var errTooManyGroups = errors.New("the groups do not fit in the memory, and the groups of a flow that never ends cannot be spilled; raise memory_limit, group by fewer columns, or take a shorter window")

// limitedAggregate keeps an aggregate within its memory. When its groups have outgrown that, what they hold is spilled in
// parts by the hash of their keys, and from then on the rows are spilled as they are, to the same parts. When the input
// has ended, each part is aggregated in the same way: first what its groups held, then their rows. So every group sees its
// rows in their order and gives the same bits as without spilling. The results of the parts, each in the order of the
// aggregate, are merged in that order.
//
// Where something is kept for a key over its windows, the groups that are in memory stay there with their keys, and only
// the rows of other keys are spilled.
type limitedAggregate struct {
	*aggregate
	res    *resources
	budget *budget
	node   *groupNode
	fresh  func() (*aggregate, error)
	// cols are the input columns that the aggregate reads.
	cols  []int
	input expr.Schema
	// pushes and groups are when the memory was last measured.
	pushes, groups int

	// At the end of the input: what is still to be aggregated, the sorted results, and their merging.
	work    []groupPart
	runs    []*spillWriter
	merging *runMerger
	// left is what the state had still to say when its groups were let go.
	left []StateChange
	over bool
}

// measureEvery is after how many batches without new groups the memory is measured again: groups themselves can grow.
const measureEvery = 16

// groupNode is an aggregate and the parts of the rows that are not its own.
type groupNode struct {
	agg   *aggregate
	level int
	// parts are rows; states is what groups held before, nil where those stay in memory.
	parts, states []*spillWriter
	split         partitioner
	// hasher hashes the key, keys numbers those keys whose groups are here, where a key's groups must stay together.
	hasher *keyTable
	keys   *keyTable
	refs   []*column.Column
	prefix []int64
	valid  []int32
	mine   []int32
	other  []int32
	at     []int32
	out    column.Batch
}

// groupPart is rows that were spilled, and what their groups held before them, nil for nothing.
type groupPart struct {
	states, rows *spillWriter
	level        int
}

func newLimitedAggregate(m *maker, i int) (*limitedAggregate, error) {
	step, input, counts, _ := m.step(i)
	l := &limitedAggregate{res: m.res, budget: m.res.budget(), input: input}
	l.fresh = func() (*aggregate, error) { return newAggregate(step, input, m.span) }
	agg, err := l.fresh()
	if err != nil {
		return nil, err
	}
	agg.counts = counts
	l.aggregate, l.node = agg, &groupNode{agg: agg}
	read := make([]bool, len(input))
	requireAggregate(step, nil, read)
	l.cols = positions(read)
	return l, nil
}

func (l *limitedAggregate) push(b *column.Batch) error { return l.pushTo(l.node, b) }

// pushTo adds a batch to a node, and has it spill from then on when it has outgrown the memory.
func (l *limitedAggregate) pushTo(n *groupNode, b *column.Batch) error {
	if n.parts != nil {
		return l.route(n, b)
	}
	if err := n.agg.push(b); err != nil {
		return err
	}
	l.pushes++
	if groups := n.agg.table.len(); groups == l.groups && l.pushes%measureEvery != 0 {
		return nil
	}
	l.groups = n.agg.table.len()
	if l.budget.fit(n.agg.size()) {
		return nil
	}
	if n.agg.table.len() == 1 || n.level == deepest {
		return l.watch(n.agg)
	}
	if l.res.scratch == nil {
		return fmt.Errorf("step %s: %w", l.plan.ID, errTooManyGroups)
	}
	return l.overflow(n)
}

// overflow makes a node spill the rows of groups that it does not have yet.
func (l *limitedAggregate) overflow(n *groupNode) error {
	l.res.held = true
	if n.agg.carries() {
		n.agg.keys.limit = math.MaxInt // what there is too much of is known when all parts are done
	}
	l.budget.force(n.agg.size())
	types := make([]expr.Type, len(l.cols))
	for i, pos := range l.cols {
		types[i] = l.input[pos].Type
	}
	n.parts = newParts(l.res, types)
	keys := make([]expr.Type, len(l.by))
	for i, pos := range l.by {
		keys[i] = l.input[pos].Type
	}
	n.hasher = newHasher(keys)
	n.refs = make([]*column.Column, len(l.cols))
	n.out = *column.NewBatch(l.input)
	if !n.agg.together() {
		return l.dump(n)
	}
	n.keys = newKeyTable(keys)
	t := n.agg.table
	refs := make([]*column.Column, len(t.cols))
	for i := range refs {
		refs[i] = &t.cols[i]
	}
	all := sequence(nil, t.len())
	_, err := n.keys.assign(keyRows{cols: refs, rows: all, prefix: make([]int64, len(all))}, nil)
	return err
}

// route gives a node the rows of its groups and spills the others.
func (l *limitedAggregate) route(n *groupNode, b *column.Batch) error {
	a := n.agg
	for i, pos := range a.by {
		a.byCols[i] = &b.Cols[pos]
	}
	n.mine, n.other = n.mine[:0], n.other[:0]
	n.place(b)
	keys := keyRows{cols: a.byCols, rows: n.valid, prefix: n.prefix}
	table := a.table
	if n.keys != nil {
		clear(n.prefix)
		table = n.keys
	}
	if n.states == nil {
		n.at = table.lookup(keys, n.at)
	}
	k := 0
	for row := range b.Len {
		if k == len(n.valid) || int(n.valid[k]) != row {
			n.mine = append(n.mine, i32(row)) // it is in no window, which the aggregate counts
			continue
		}
		if n.states == nil && n.at[k] != noEntry {
			n.mine = append(n.mine, i32(row))
		} else {
			n.prefix[len(n.other)] = n.prefix[k]
			n.other = append(n.other, i32(row))
		}
		k++
	}
	for i, pos := range l.cols {
		n.refs[i] = &b.Cols[pos]
		if len(n.mine) > 0 {
			n.out.Cols[pos].Gather(&b.Cols[pos], n.mine)
		}
	}
	if n == l.node {
		l.counts.in += int64(len(n.other))
	}
	hashes := n.hasher.hash(keyRows{cols: a.byCols, rows: n.other, prefix: n.prefix[:len(n.other)]})
	if err := n.split.write(n.parts, n.refs, n.other, hashes, n.level); err != nil {
		return err
	}
	if len(n.mine) == 0 {
		return nil
	}
	n.out.Len = len(n.mine)
	if err := a.push(&n.out); err != nil {
		return err
	}
	return l.watch(a)
}

// watch holds groups that cannot be spilled to what the process as a whole may use.
func (l *limitedAggregate) watch(a *aggregate) error {
	if l.pushes++; l.pushes%measureEvery != 0 || l.budget.memory == nil {
		return nil
	}
	size := a.size()
	if l.budget.force(size); size > max(2*l.budget.memory.limit, maxFloor) {
		return fmt.Errorf("step %s: %d groups need more memory than there is, and a group cannot be spilled in parts; raise memory_limit", l.plan.ID, a.table.len())
	}
	return nil
}

// place finds the rows that belong to a window, and its start for each.
func (n *groupNode) place(b *column.Batch) {
	n.valid, n.prefix = n.valid[:0], n.prefix[:0]
	a := n.agg
	if a.win == nil || n.keys != nil {
		n.valid = sequence(n.valid, b.Len)
		n.prefix = resize(n.prefix, b.Len)
		clear(n.prefix)
		return
	}
	times := &b.Cols[a.timeCol]
	nulls := times.HasNulls()
	start, end := int64(0), int64(0)
	for row := range b.Len {
		if nulls && times.Null(row) {
			continue
		}
		if t := times.Ints[row]; t < start || t >= end {
			ok := false
			if start, end, ok = a.win.bounds(t); !ok {
				start, end = 0, 0
				continue
			}
		}
		n.valid, n.prefix = append(n.valid, i32(row)), append(n.prefix, start)
	}
}

// finish emits the next part of the result, or works towards it.
func (l *limitedAggregate) finish() (more bool, err error) {
	if l.node != nil && l.node.parts == nil {
		if more, err = l.aggregate.finish(); more || err != nil {
			return more, err
		}
		l.budget.release()
		return false, l.empty()
	}
	switch {
	case l.over && l.runs == nil:
		return false, nil // nothing was spilled, and all of it has been emitted
	case l.node != nil:
		err = l.letGo()
		return true, err
	case len(l.work) > 0:
		part := l.work[len(l.work)-1]
		l.work = l.work[:len(l.work)-1]
		return true, l.aggregatePart(part)
	case l.merging == nil:
		l.merging, err = newRunMerger(l)
		return true, err
	}
	return l.merging.next(func(b *column.Batch) error {
		l.counts.out += int64(b.Len)
		return l.emit(b)
	})
}

// letGo writes the result of the groups that were in memory to the end, and lets go of them.
func (l *limitedAggregate) letGo() error {
	n, counts := l.node, l.counts
	l.counts = &stepCounts{step: counts.step, sample: &[]FailedRecord{}, lateTotal: counts.lateTotal}
	outs := l.outputs
	if err := l.drain(n); err != nil {
		return err
	}
	l.counts, l.outputs = counts, outs
	return l.empty()
}

// empty lets go of the groups, whose results are out. The commit of them comes later and takes memory itself.
func (l *limitedAggregate) empty() error {
	empty, err := l.fresh()
	if err != nil {
		return err
	}
	l.left = append(l.left, l.aggregate.changes(nil)...)
	empty.counts, empty.outputs = l.counts, l.outputs
	if l.carries() {
		// What the parts carry joins what the groups in memory did, and the parts go on with what was carried before.
		if err = empty.keys.take(l.keys, takeAll); err != nil {
			return err
		}
	}
	l.aggregate, l.node, l.over = empty, nil, true
	return nil
}

// aggregatePart aggregates rows that were spilled.
func (l *limitedAggregate) aggregatePart(p groupPart) error {
	agg, err := l.fresh()
	if err != nil {
		return err
	}
	agg.counts = &stepCounts{step: l.plan.ID, sample: l.counts.sample, stop: l.counts.stop}
	n := &groupNode{agg: agg, level: p.level}
	b := column.NewBatch(l.input)
	l.groups = 0
	if err := l.restoreStates(n, p.states); err != nil {
		return err
	}
	for r := p.rows.reader(); ; {
		block, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for i, pos := range l.cols {
			b.Cols[pos] = block.Cols[i]
		}
		b.Len = block.Len
		if err := l.pushTo(n, b); err != nil {
			return err
		}
	}
	if err := errors.Join(p.rows.remove(), p.states.remove()); err != nil {
		return err
	}
	if agg.carries() {
		agg.keys.limit = math.MaxInt
		if err = agg.keys.take(l.keys, takeKnown); err != nil {
			return err
		}
	}
	if err = l.drain(n); err == nil && agg.carries() {
		err = l.keys.take(agg.keys, takeAll)
	}
	l.counts.failed += agg.counts.failed
	l.counts.outside += agg.counts.outside
	return err
}

// drain writes a node's own result as a run, and notes its parts as work to do.
func (l *limitedAggregate) drain(n *groupNode) error {
	types := make([]expr.Type, len(l.plan.Output))
	for i := range types {
		types[i] = l.plan.Output[i].Type
	}
	run := &runWriter{out: newSpillWriter(l.res, types)}
	n.agg.outputs = outputs{next: []operator{run}}
	for more := true; more; {
		var err error
		if more, err = n.agg.finish(); err != nil {
			return err
		}
	}
	if err := run.out.finish(); err != nil {
		return err
	}
	l.budget.release()
	l.runs = append(l.runs, run.out)
	for i, w := range n.parts {
		part := groupPart{rows: w, level: min(n.level+1, deepest)}
		if n.states != nil {
			part.states = n.states[i]
		}
		if w.rows == 0 && (part.states == nil || part.states.rows == 0) {
			continue
		}
		if err := w.finish(); err != nil {
			return err
		}
		if part.states != nil {
			if err := part.states.finish(); err != nil {
				return err
			}
		}
		l.work = append(l.work, part)
	}
	if len(l.runs) < spillFan {
		return nil
	}
	return l.shorten()
}

// deepest is the last level with bits of the hash of its own.
const deepest = 64/spillFanBits - 1

// shorten merges the runs to one, so that never too many are open.
func (l *limitedAggregate) shorten() error {
	m, err := newRunMerger(l)
	if err != nil {
		return err
	}
	types := make([]expr.Type, len(l.plan.Output))
	for i := range types {
		types[i] = l.plan.Output[i].Type
	}
	run := &runWriter{out: newSpillWriter(l.res, types)}
	for more := true; more; {
		if more, err = m.next(run.push); err != nil {
			return err
		}
	}
	l.runs = []*spillWriter{run.out}
	return run.out.finish()
}

func (l *limitedAggregate) changes(dst []StateChange) []StateChange {
	if !l.over {
		return l.aggregate.changes(dst)
	}
	dst = append(dst, l.left...)
	l.left = nil
	if !l.carries() || l.keys.carrying == 0 {
		return dst
	}
	l.state.forgetCarries(l.keys.evict())
	dst = append(dst, l.state.removed...)
	l.state.removed = nil
	return l.state.metaChange(l.state.carryChanges(dst))
}
