package engine

import (
	"errors"
	"io"
	"math"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// dumpRows and dumpText are how many groups, and bytes of what they hold, are written at once.
const (
	dumpRows = 1024
	dumpText = 1 << 18
)

// stateTypes are the columns of spilled groups: the start of the window, the key, and what the accumulators hold.
func (n *groupNode) stateTypes() []expr.Type {
	types := []expr.Type{expr.Int}
	for i := range n.agg.table.cols {
		types = append(types, n.agg.table.cols[i].Type)
	}
	return append(types, expr.String)
}

// dump spills what the node's groups hold, and goes on without them.
func (l *limitedAggregate) dump(n *groupNode) error {
	a := n.agg
	n.states = newParts(l.res, n.stateTypes())
	cols := make([]column.Column, len(a.table.cols)+2)
	refs := make([]*column.Column, len(cols))
	for i := range cols {
		refs[i] = &cols[i]
	}
	cols[0].Type, cols[len(cols)-1].Type = expr.Int, expr.String
	keys, state := refs[1:len(refs)-1], refs[len(refs)-1]
	var groups, all []int32
	var buf []byte
	for from := 0; from < a.table.len(); {
		groups = groups[:0]
		cols[0].Ints, state.Strs, state.Data = cols[0].Ints[:0], state.Strs[:0], state.Data[:0]
		for ; from < a.table.len() && len(groups) < dumpRows && len(state.Data) < dumpText; from++ {
			if a.dead[from] {
				continue
			}
			groups = append(groups, i32(from))
			cols[0].Ints = append(cols[0].Ints, a.table.prefix[from])
			buf = a.encodeSession(buf[:0], i32(from))
			for _, acc := range a.accs {
				buf = acc.encode(buf, i32(from))
			}
			state.AppendStr(buf)
		}
		for i := range keys {
			keys[i].Gather(&a.table.cols[i], groups)
		}
		all = sequence(all, len(groups))
		if err := n.spread(n.states, refs, keyRows{cols: keys, rows: all, prefix: cols[0].Ints}); err != nil {
			return err
		}
	}
	return l.replace(n)
}

// replace gives a node an aggregate without groups. What the store has of the old ones is removed at the end of the run.
func (l *limitedAggregate) replace(n *groupNode) error {
	empty, err := l.fresh()
	if err != nil {
		return err
	}
	old := n.agg
	empty.counts, empty.outputs = old.counts, old.outputs
	if old.win != nil {
		empty.win = old.win
	}
	if old.carries() {
		empty.keys.limit = math.MaxInt // what there is too much of is known when all parts are done
		if err = empty.keys.take(old.keys, takeAll); err != nil {
			return err
		}
	}
	n.agg = empty
	if n == l.node {
		old.state.forget(sequence(nil, old.table.len()))
		for g := range old.dead {
			old.dead[g] = true
		}
		old.state.end()
		l.left = append(l.left, old.changes(nil)...)
		if old.carries() {
			empty.keys.inherit(old.keys)
		}
		l.aggregate = empty
	}
	l.budget.release()
	return nil
}

// restoreStates gives a node what its groups held; nil is nothing.
func (l *limitedAggregate) restoreStates(n *groupNode, states *spillWriter) error {
	if states == nil {
		return nil
	}
	for r := states.reader(); ; {
		b, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = l.restoreBlock(n, b)
		}
		if err != nil {
			return err
		}
	}
}

// restoreBlock gives a node a block of groups, or spills it again when the node has outgrown the memory.
func (l *limitedAggregate) restoreBlock(n *groupNode, b *column.Batch) error {
	refs := make([]*column.Column, len(b.Cols))
	for i := range refs {
		refs[i] = &b.Cols[i]
	}
	keys := keyRows{cols: refs[1 : len(refs)-1], rows: sequence(nil, b.Len), prefix: b.Cols[0].Ints}
	if n.states != nil {
		return n.spread(n.states, refs, keys)
	}
	groups, err := n.agg.adopt(keys)
	if err != nil {
		return err
	}
	for i, g := range groups {
		payload, err := n.agg.restoreFrame(g, refs[len(refs)-1].Bytes(i))
		if err != nil {
			return err
		}
		for _, acc := range n.agg.accs {
			if payload, err = acc.decode(payload, g); err != nil {
				return err
			}
		}
	}
	if l.budget.fit(n.agg.size()) {
		return nil
	}
	return l.full(n)
}

// adopt makes new groups.
func (a *aggregate) adopt(keys keyRows) ([]int32, error) {
	groups, err := a.table.assign(keys, nil)
	if err != nil {
		return nil, err
	}
	a.growGroups(a.table.len())
	return groups, nil
}
