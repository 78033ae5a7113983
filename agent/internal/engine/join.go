package engine

import (
	"fmt"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// joinTable is the right side of a join, read completely: the rows by key, those of one key in their order.
type joinTable struct {
	keys *keyTable
	// head and tail are the first and the last row of a key, by its entry; next is the row after a row of the same
	// key, noEntry for none.
	head, tail, next []int32
	// rows are the columns that the join's output takes, in the order of PlanStep.RightKeep.
	rows []column.Column
	n    int
}

// keySide gathers the key columns of one input.
type keySide struct {
	positions []int
	cols      []*column.Column
	rows      []int32
	prefix    []int64
	entries   []int32
}

func newKeySide(positions []int) *keySide {
	return &keySide{positions: positions, cols: make([]*column.Column, len(positions))}
}

// load lists the rows of the batch whose key has no null: a null matches nothing.
func (s *keySide) load(b *column.Batch) keyRows {
	nulls := false
	for i, pos := range s.positions {
		s.cols[i] = &b.Cols[pos]
		nulls = nulls || s.cols[i].HasNulls()
	}
	s.rows = s.rows[:0]
	for row := range b.Len {
		if !nulls || !s.anyNull(row) {
			s.rows = append(s.rows, i32(row))
		}
	}
	s.prefix = growTo(s.prefix, len(s.rows))
	return keyRows{cols: s.cols, rows: s.rows, prefix: s.prefix[:len(s.rows)]}
}

func (s *keySide) anyNull(row int) bool {
	return slices.ContainsFunc(s.cols, func(c *column.Column) bool { return c.Null(row) })
}

// keyTypes are the types of the keys, which are the same on both sides.
func keyTypes(step *flowdef.PlanStep, left, right expr.Schema) ([]expr.Type, error) {
	types := make([]expr.Type, len(step.JoinLeft))
	for i := range types {
		l, r := left[step.JoinLeft[i]], right[step.JoinRight[i]]
		if l.Type != r.Type {
			return nil, fmt.Errorf("the join compares %s (%s) with %s (%s); convert one of them in a map before the join", l.Name, l.Type, r.Name, r.Type)
		}
		types[i] = l.Type
	}
	return types, nil
}

// tableBuilder is the operator at the end of a join's right side.
type tableBuilder struct {
	keys  *keySide
	keep  []int
	table *joinTable
}

func newTableBuilder(step *flowdef.PlanStep, left, right expr.Schema) (*tableBuilder, error) {
	types, err := keyTypes(step, left, right)
	if err != nil {
		return nil, err
	}
	t := &joinTable{keys: newKeyTable(types), rows: make([]column.Column, len(step.RightKeep))}
	for i, pos := range step.RightKeep {
		t.rows[i].Type = right[pos].Type
	}
	return &tableBuilder{keys: newKeySide(step.JoinRight), keep: step.RightKeep, table: t}, nil
}

func (b *tableBuilder) push(batch *column.Batch) error {
	keys, t := b.keys.load(batch), b.table
	var err error
	if b.keys.entries, err = t.keys.assign(keys, b.keys.entries); err != nil {
		return err
	}
	t.head, t.tail = growTo(t.head, t.keys.len()), growTo(t.tail, t.keys.len())
	for i, entry := range b.keys.entries {
		row := i32(t.n + i)
		t.next = append(t.next, noEntry)
		// The first row of an entry is stored plus one, so that zero is "none yet".
		if t.head[entry] == 0 {
			t.head[entry] = row + 1
		} else {
			t.next[t.tail[entry]] = row
		}
		t.tail[entry] = row
	}
	for i, pos := range b.keep {
		if batch.Cols[pos].Rows() < batch.Len {
			continue // nothing downstream reads it
		}
		if err = t.rows[i].AppendRows(&batch.Cols[pos], keys.rows); err != nil {
			return fmt.Errorf("the right side of the join is too large: %w", err)
		}
	}
	t.n += len(keys.rows)
	return nil
}

// join adds the columns of a table to the rows of its left input: for each left row the matches in the table's order.
type join struct {
	outputs
	counts *stepCounts
	outer  bool
	keys   *keySide
	live   []int
	left   int
	table  *joinTable
	// span is that of the left input.
	span span

	entries             []int32
	leftRows, rightRows []int32
	out                 *column.Batch
}

func newJoin(step *flowdef.PlanStep, left, right expr.Schema, live []int) (*join, error) {
	if _, err := keyTypes(step, left, right); err != nil {
		return nil, err
	}
	return &join{
		outer: step.Join.Kind == "left", keys: newKeySide(step.JoinLeft),
		live: live, left: len(left), out: column.NewBatch(step.Output),
	}, nil
}

func (j *join) push(b *column.Batch) error {
	j.counts.in += int64(b.Len)
	keys := j.keys.load(b)
	j.entries = j.table.keys.lookup(keys, j.entries)
	j.leftRows, j.rightRows = j.leftRows[:0], j.rightRows[:0]
	at := 0
	for row := range b.Len {
		match := int32(noEntry)
		if at < len(keys.rows) && int(keys.rows[at]) == row {
			if e := j.entries[at]; e != noEntry {
				match = j.table.head[e] - 1
			}
			at++
		}
		if match == noEntry {
			if j.outer {
				j.leftRows, j.rightRows = append(j.leftRows, i32(row)), append(j.rightRows, noEntry)
			}
			continue
		}
		for ; match != noEntry; match = j.table.next[match] {
			j.leftRows, j.rightRows = append(j.leftRows, i32(row)), append(j.rightRows, match)
			if len(j.leftRows) >= column.TargetRows {
				if err := j.send(b); err != nil {
					return err
				}
			}
		}
	}
	return j.send(b)
}

// send emits the pairs of rows found so far.
func (j *join) send(b *column.Batch) error {
	for _, pos := range j.live {
		out := &j.out.Cols[pos]
		if pos < j.left {
			out.Gather(&b.Cols[pos], j.leftRows)
			continue
		}
		gatherOptional(out, &j.table.rows[pos-j.left], j.rightRows)
	}
	j.out.Len = len(j.leftRows)
	j.counts.out += int64(j.out.Len)
	j.leftRows, j.rightRows = j.leftRows[:0], j.rightRows[:0]
	return j.emit(j.out)
}

// gatherOptional is Gather with noEntry for a row of null.
func gatherOptional(dst, src *column.Column, rows []int32) {
	dst.Reset()
	dst.Data = src.Data
	for i, row := range rows {
		if row == noEntry || src.Null(int(row)) {
			dst.AppendNull()
			continue
		}
		switch storageOf(dst.Type) {
		case storeBool:
			dst.Bools = append(dst.Bools, src.Bools[row])
		case storeInt:
			dst.Ints = append(dst.Ints, src.Ints[row])
		case storeFloat:
			dst.Floats = append(dst.Floats, src.Floats[row])
		case storeText:
			dst.Strs = append(dst.Strs, src.Strs[row])
		case storeNone:
			dst.SetNull(i)
		}
	}
}
