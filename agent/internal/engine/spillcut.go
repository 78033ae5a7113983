package engine

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// full has a node that has outgrown the memory spill what it holds and all further rows, or holds it to what the process
// as a whole may use where it cannot be cut.
func (l *limitedAggregate) full(n *groupNode) error {
	if n.agg.table.len() > 1 && l.res.scratch == nil {
		return fmt.Errorf("step %s: %w", l.plan.ID, errTooManyGroups)
	}
	cut, err := l.cut(n)
	if err != nil {
		return err
	}
	if !cut {
		return l.watch(n)
	}
	return l.overflow(n)
}

// cut finds how a node can be cut in parts; false says that it cannot.
func (l *limitedAggregate) cut(n *groupNode) (bool, error) {
	if n.agg.table.len() == 1 {
		return false, nil
	}
	if n.part.level < deepest && (!n.agg.together() || !n.oneKey()) {
		return true, nil
	}
	if !n.agg.followsTime() {
		return false, nil
	}
	if n.part.rows == nil { // keys that are still to come go to other parts
		return true, nil
	}
	if err := l.reach(n); err != nil {
		return false, err
	}
	n.byTime = n.part.from < n.part.to
	return n.byTime, nil
}

// followsTime says that the windows of a key need of each other only what is carried on in the order of time.
func (a *aggregate) followsTime() bool { return a.carries() && a.sessions == nil && a.win.hops == 1 }

// oneKey says whether all groups are of one key, in different windows.
func (n *groupNode) oneKey() bool {
	t := n.agg.table
	for g := 1; g < t.len(); g++ {
		if compareKeys(t, 0, i32(g)) != 0 {
			return false
		}
	}
	return true
}

// reach finds the first and the last window of a node's part.
func (l *limitedAggregate) reach(n *groupNode) error {
	if n.part.known {
		return nil
	}
	from, to := int64(math.MaxInt64), int64(math.MinInt64)
	if n.part.states != nil {
		err := eachBlock(n.part.states, func(b *column.Batch) error {
			for _, start := range b.Cols[0].Ints[:b.Len] {
				from, to = min(from, start), max(to, start)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	timeCol := slices.Index(l.cols, n.agg.timeCol)
	err := eachBlock(n.part.rows, func(b *column.Batch) error {
		times := &b.Cols[timeCol]
		for row, t := range times.Ints[:b.Len] {
			if times.Null(row) || t >= from && t <= to {
				continue
			}
			if start, _, _, ok := n.agg.win.bounds(t); ok {
				from, to = min(from, start), max(to, start)
			}
		}
		return nil
	})
	n.part.from, n.part.to, n.part.known = from, to, true
	return err
}

// eachBlock calls fn for the blocks of a file.
func eachBlock(w *spillWriter, fn func(*column.Batch) error) error {
	for r := w.reader(); ; {
		b, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = fn(b)
		}
		if err != nil {
			return err
		}
	}
}

// overflow makes a node spill what it holds and the rows to come.
func (l *limitedAggregate) overflow(n *groupNode) error {
	l.res.held = true
	l.budget.force(n.agg.size())
	types := make([]expr.Type, len(l.cols))
	for i, pos := range l.cols {
		types[i] = l.input[pos].Type
	}
	n.parts = newParts(l.res, types)
	n.hasher = newHasher(typesOf(l.input, l.by))
	n.refs = make([]*column.Column, len(l.cols))
	n.out = *column.NewBatch(l.input)
	return l.dump(n)
}

// spread writes rows to the parts that they belong to. The prefix of the keys is the start of the window of each.
func (n *groupNode) spread(parts []*spillWriter, cols []*column.Column, keys keyRows) error {
	if n.byTime {
		n.hashes = n.hashes[:0]
		for _, start := range keys.prefix[:len(keys.rows)] {
			n.hashes = append(n.hashes, uint64(n.part.pieceOf(start))<<(64-spillFanBits)) //nolint:gosec // below spillFan
		}
		return n.split.write(parts, cols, keys.rows, n.hashes, 0)
	}
	if n.agg.together() {
		n.zeros = growTo(n.zeros, len(keys.rows)) // always zero
		keys.prefix = n.zeros
	}
	keys.prefix = keys.prefix[:len(keys.rows)]
	return n.split.write(parts, cols, keys.rows, n.hasher.hash(keys), n.part.level)
}

// piece is the length of time of each of the pieces of a part.
func (p *groupPart) piece() int64 { return (p.to-p.from)/spillFan + 1 }

// pieceOf is the piece with the window that begins at start.
func (p *groupPart) pieceOf(start int64) int64 {
	return min(max((start-p.from)/p.piece(), 0), spillFan-1)
}

// queueParts notes a node's parts as work to do, so that pieces of time come in its order.
func (l *limitedAggregate) queueParts(n *groupNode) error {
	first := len(l.work)
	for i, w := range n.parts {
		part := n.part
		part.rows, part.states = w, n.states[i]
		if n.byTime {
			part.from += int64(i) * n.part.piece()
			part.to = min(part.to, part.from+n.part.piece()-1)
		} else {
			part.level = min(part.level+1, deepest)
		}
		if w.rows == 0 && part.states.rows == 0 {
			continue
		}
		if err := errors.Join(w.finish(), part.states.finish()); err != nil {
			return err
		}
		l.work = append(l.work, part)
	}
	slices.Reverse(l.work[first:]) // the last is worked on first
	return nil
}

// watch holds groups that cannot be cut to twice of what the process as a whole may use.
func (l *limitedAggregate) watch(n *groupNode) error {
	size := n.agg.size()
	if l.budget.force(size); size <= max(2*l.budget.memory.most(), maxFloor) {
		return nil
	}
	groups := n.agg.table.len()
	what := "groups that cannot be told apart by their hash take"
	switch {
	case groups == 1:
		what = "one group" + l.describeKey(n) + " takes"
	case n.oneKey():
		what = fmt.Sprintf("the %d windows of one key%s, which must be together, take", groups, l.describeKey(n))
	}
	return &OverrunError{Kind: OverrunMemory, Err: fmt.Errorf("step %s: %s %s of memory, more than twice the %s that there is for all steps; raise memory_limit, group by more columns, or take fewer rows with filter",
		l.plan.ID, what, describeBytes(size), describeBytes(l.budget.memory.most()))}
}

// describeKey gives the grouping values of a node's first group, for people.
func (l *limitedAggregate) describeKey(n *groupNode) string {
	if len(l.by) == 0 {
		return ""
	}
	list := make([]string, len(l.by))
	for i, pos := range l.by {
		list[i] = l.input[pos].Name + " = " + shownValue(&n.agg.table.cols[i], 0)
	}
	return " (" + strings.Join(list, ", ") + ")"
}

// describeBytes gives a number of bytes for people.
func describeBytes(n int64) string {
	if n < 10<<20 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
