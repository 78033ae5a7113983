package engine

import (
	"errors"
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
// Where something is kept for a key over its windows, the hash is that of the key without the window. A single key that is
// still too large is cut by time, and the parts of it are aggregated in the order of time, each going on with what the
// key carries.
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
	// texts is the bytes of text that came since.
	texts int

	// At the end of the input: what is still to be aggregated, the sorted results, and their merging.
	work    []groupPart
	runs    []*spillWriter
	merging *runMerger
	// left is what the state had still to say when its groups were let go.
	left []StateChange
	over bool

	// atATime is how many rows go in before the memory is looked at, 0 for whole batches; few and sel are those rows.
	atATime int
	few     *column.Batch
	sel     []int32
}

// manyPanes is how many groups at most a row makes for whole batches to go in at once.
const manyPanes = 8

// measureEvery is after how many batches without new groups the memory is measured again: groups themselves can grow.
const measureEvery = 16

// groupNode is an aggregate and the parts of what it has spilled.
type groupNode struct {
	agg *aggregate
	// part is what the node aggregates; it has no files where that is the input.
	part groupPart
	// parts are rows; states is what groups held before them. byTime says that they are parts of the time.
	parts, states []*spillWriter
	byTime        bool
	split         partitioner
	hasher        *keyTable
	refs          []*column.Column
	prefix, zeros []int64
	hashes        []uint64
	valid         []int32
	mine          []int32
	other         []int32
	out           column.Batch
	// texts are for the whole of the input, those of agg for the rows that are in no window.
	texts *textParts
}

// groupPart is rows that were spilled, and what their groups held before them, nil for nothing.
type groupPart struct {
	states, rows *spillWriter
	// level is how many times it was cut by hash.
	level int
	// from and to are the first and the last start of a window in it, where known.
	from, to int64
	known    bool
}

func newLimitedAggregate(m *maker, i int) (*limitedAggregate, error) {
	step, input, counts, _ := m.step(i)
	span := m.lateSpan()
	l := &limitedAggregate{res: m.res, budget: m.res.budget(), input: input}
	l.fresh = func() (*aggregate, error) { return newAggregate(step, input, span) }
	agg, err := l.fresh()
	if err != nil {
		return nil, err
	}
	agg.counts = counts
	l.aggregate, l.node = agg, &groupNode{agg: agg}
	read := make([]bool, len(input))
	requireAggregate(step, nil, read)
	l.cols = positions(read)
	if w := step.Aggregate.Window; w != nil && w.Hopping > 0 && w.Every > 0 {
		if panes := int(w.Hopping / w.Every); panes > manyPanes {
			l.atATime, l.few = max(1, column.TargetRows*manyPanes/panes), column.NewBatch(input)
		}
	}
	return l, nil
}

// push adds a batch: where a row makes groups in many windows only some rows at a time, because the memory is looked at behind
// them.
func (l *limitedAggregate) push(b *column.Batch) error {
	if l.atATime == 0 || b.Len <= l.atATime {
		return l.pushTo(l.node, b)
	}
	for from := 0; from < b.Len; from += l.atATime {
		l.sel = l.sel[:0]
		for row := from; row < min(from+l.atATime, b.Len); row++ {
			l.sel = append(l.sel, i32(row))
		}
		for _, pos := range l.cols {
			l.few.Cols[pos].Gather(&b.Cols[pos], l.sel)
		}
		l.few.Len, l.few.Texts = len(l.sel), b.Texts
		if err := l.pushTo(l.node, l.few); err != nil {
			return err
		}
		if err := l.res.worker.beat(); err != nil {
			return err
		}
	}
	return nil
}

// pushTo adds a batch to a node.
func (l *limitedAggregate) pushTo(n *groupNode, b *column.Batch) error {
	if n.parts != nil {
		return l.route(n, b)
	}
	if n.agg.texts == nil {
		return nodeInput{l, n}.use(b)
	}
	if n.texts == nil {
		n.texts = &textParts{rows: math.MaxInt32}
	}
	return n.texts.push(b, nodeInput{l, n}, n.agg.counts)
}

// nodeInput gives a node the parts of a batch. It may spill behind each, because the groups can keep the texts.
type nodeInput struct {
	*limitedAggregate
	node *groupNode
}

func (i nodeInput) evaluate(b *column.Batch) {
	if i.node.parts == nil {
		i.node.agg.evaluate(b)
	}
}

func (i nodeInput) use(b *column.Batch) error {
	if i.node.parts != nil {
		return i.route(i.node, b)
	}
	if i.node.texts == nil {
		i.node.agg.evaluate(b)
	}
	if err := i.node.agg.use(b); err != nil {
		return err
	}
	return i.look(i.node, b)
}

// look has a node that took a batch spill from then on when it has outgrown the memory.
func (l *limitedAggregate) look(n *groupNode, b *column.Batch) error {
	l.pushes++
	if l.texts += l.textIn(b) + n.texts.made(); l.texts >= 4*batchText {
		l.texts, l.pushes = 0, 0 // of texts a few batches can hold much
	}
	if groups := n.agg.table.len(); groups == l.groups && l.pushes%measureEvery != 0 {
		return nil
	}
	l.groups = n.agg.table.len()
	if l.budget.fit(n.agg.size()) {
		return nil
	}
	return l.full(n)
}

// textIn is about how much text of a batch the aggregate can have kept.
func (l *limitedAggregate) textIn(b *column.Batch) int {
	total := 0
	if !l.keepsText() {
		return 0
	}
	for _, pos := range l.cols {
		total += len(b.Cols[pos].Data)
	}
	return total
}

// route spills the rows of a batch. Those that belong to no window go to the node's aggregate, which counts them.
func (l *limitedAggregate) route(n *groupNode, b *column.Batch) error {
	a := n.agg
	for i, pos := range a.by {
		a.byCols[i] = &b.Cols[pos]
	}
	n.mine, n.other = n.mine[:0], n.other[:0]
	n.place(b)
	k := 0
	for row := range b.Len {
		if k == len(n.valid) || int(n.valid[k]) != row {
			n.mine = append(n.mine, i32(row))
			continue
		}
		n.other = append(n.other, i32(row))
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
	if err := n.spread(n.parts, n.refs, keyRows{cols: a.byCols, rows: n.other, prefix: n.prefix}); err != nil {
		return err
	}
	if len(n.mine) == 0 {
		return nil
	}
	n.out.Len, n.out.Texts = len(n.mine), b.Texts
	return a.push(&n.out)
}

// place finds the rows that belong to a window, and its start for each.
func (n *groupNode) place(b *column.Batch) {
	n.valid, n.prefix = n.valid[:0], n.prefix[:0]
	a := n.agg
	if a.win == nil || a.together() && !n.byTime {
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
			if start, _, end, ok = a.win.bounds(t); !ok {
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

// letGo notes the parts of the input as work to do, and lets go of the aggregate that took it.
func (l *limitedAggregate) letGo() error {
	n, counts := l.node, l.counts
	l.counts = &stepCounts{step: counts.step, sample: &[]FailedRecord{}, lateTotal: counts.lateTotal, bounds: counts.bounds}
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
		empty.keys.inherit(l.keys)
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
	agg.counts = &stepCounts{step: l.plan.ID, sample: l.counts.sample, stop: l.counts.stop, bounds: l.counts.bounds}
	n := &groupNode{agg: agg, part: p}
	b := column.NewBatch(l.input)
	b.Texts = l.res.meter()
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
	carries := agg.carries()
	if carries {
		n.agg.keys.limit = math.MaxInt // what there is too much of is known when all parts are done
		if err = n.agg.keys.take(l.keys, takeKnown); err != nil {
			return err
		}
	}
	if err = l.drain(n); err == nil && carries {
		err = l.keys.take(n.agg.keys, takeAll)
	}
	l.counts.failed += n.agg.counts.failed
	l.counts.outside += n.agg.counts.outside
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
	if err := l.queueParts(n); err != nil {
		return err
	}
	if !crowded(l.runs, l.budget.memory) {
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
