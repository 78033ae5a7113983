package engine

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// joinIndex finds rows by key: rows whose hash ends in the same bits are in one chain, which rises.
//
// A row costs its own values and 9 to 13 bytes more: 4 for the next row of its chain, 4 to 8 for the heads, which are at
// least as many as the rows, and one for its tag. That is another part of the hash, so that hardly ever a row of another
// key is looked at, which lies somewhere in memory.
type joinIndex struct {
	rows *rowStore
	// keys is how many of the store's first columns are the key.
	keys int
	// single is how the key is held where it is one column, else storeNone.
	single storage
	hasher *keyTable
	heads  []int32
	next   []int32
	tags   []uint8
}

// maxTableRows is what row numbers count.
const maxTableRows = math.MaxInt32 - 1

// indexBytes is what an index of n rows takes.
func indexBytes(n int) int64 { return int64(5*n + 4*headsFor(n)) }

// tagOf is a part of a hash that does not choose the chain.
func tagOf(hash uint64) uint8 { return uint8(hash >> 56) }

func headsFor(n int) int {
	heads := 1024
	for heads < n {
		heads *= 2
	}
	return heads
}

// newHasher hashes keys of these types. The hash is seeded, so nobody can choose colliding keys; one hasher belongs to
// both sides of a join.
func newHasher(types []expr.Type) *keyTable { return newKeyTable(types) }

// indexRows makes the index of a store.
func indexRows(rows *rowStore, keys int, hasher *keyTable) *joinIndex {
	x := &joinIndex{rows: rows, keys: keys, hasher: hasher, heads: make([]int32, headsFor(rows.n)), next: make([]int32, rows.n), tags: make([]uint8, rows.n)}
	if keys == 1 {
		x.single = storageOf(rows.types[0])
	}
	for i := range x.heads {
		x.heads[i] = noEntry
	}
	mask := uint64(len(x.heads) - 1) //nolint:gosec // there are heads
	// From the last row to the first, so that a chain begins with its first row.
	const step = 4096
	cols := make([]*column.Column, keys)
	prefix, list := make([]int64, step), make([]int32, 0, step)
	for end := rows.n; end > 0; {
		begin := (end - 1) / step * step
		block := rows.blocks[begin>>storeBits]
		for c := range cols {
			cols[c] = &block[c]
		}
		list = list[:0]
		for row := begin; row < end; row++ {
			list = append(list, i32(row&storeMask))
		}
		hashes := hasher.hash(keyRows{cols: cols, rows: list, prefix: prefix[:len(list)]})
		for i, hash := range slices.Backward(hashes) {
			head := &x.heads[hash&mask]
			x.next[begin+i], *head = *head, i32(begin+i)
			x.tags[begin+i] = tagOf(hash)
		}
		end = begin
	}
	return x
}

// lookup gives for each key the first row of its chain that may have it, noEntry where there is none.
func (x *joinIndex) lookup(hashes []uint64, out []int32) []int32 {
	out = resize(out, len(hashes))
	heads, mask := x.heads, uint64(len(x.heads)-1) //nolint:gosec // there are heads
	for i, h := range hashes {
		row := heads[h&mask]
		for tag := tagOf(h); row != noEntry && x.tags[row] != tag; {
			row = x.next[row]
		}
		out[i] = row
	}
	return out
}

// after is the next row of the chain that may have the key of this row, noEntry when there is none.
func (x *joinIndex) after(row int32) int32 {
	tag := x.tags[row]
	for row = x.next[row]; row != noEntry && x.tags[row] != tag; {
		row = x.next[row]
	}
	return row
}

// match is the first row that has the i-th key, from a row on that may have it; noEntry when there is none.
func (x *joinIndex) match(k *keyRows, i int, row int32) int32 {
	switch x.single { //nolint:exhaustive // the others are not worth a loop of their own
	case storeInt:
		return x.matchInt(k.cols[0].Ints[k.rows[i]], row)
	case storeText:
		return x.matchText(k.cols[0].Bytes(int(k.rows[i])), row)
	}
	for ; row != noEntry; row = x.after(row) {
		if x.same(k, i, row) {
			return row
		}
	}
	return noEntry
}

func (x *joinIndex) matchInt(want int64, row int32) int32 {
	for ; row != noEntry; row = x.after(row) {
		col := &x.rows.blocks[row>>storeBits][0]
		if at := int(row & storeMask); col.Ints[at] == want && (len(col.Nulls) == 0 || !col.Null(at)) {
			return row
		}
	}
	return noEntry
}

func (x *joinIndex) matchText(want []byte, row int32) int32 {
	for ; row != noEntry; row = x.after(row) {
		col := &x.rows.blocks[row>>storeBits][0]
		at := int(row & storeMask)
		s := col.Strs[at]
		if int(s.Len) == len(want) && string(col.Data[s.Off:s.Off+s.Len]) == string(want) && (len(col.Nulls) == 0 || !col.Null(at)) {
			return row
		}
	}
	return noEntry
}

func (x *joinIndex) same(k *keyRows, i int, row int32) bool {
	for c := range x.keys {
		col, at := x.rows.column(c, row)
		if !sameKey(col, at, k.cols[c], int(k.rows[i])) {
			return false
		}
	}
	return true
}

// joinTable is the right side of a join, read completely: in memory, or spilled in parts.
type joinTable struct {
	res    *resources
	budget *budget
	hasher *keyTable
	types  []expr.Type
	keys   int
	// keep has for each kept column of the right side its place behind the keys, -1 for what nothing reads.
	keep []int
	// rows is what is in memory, and index finds it once it is complete; parts are set when it was spilled.
	rows  *rowStore
	index *joinIndex
	parts []*spillWriter
	// inOrder are all rows in their order, for a full join that was spilled; total counts them.
	inOrder *spillWriter
	total   int
}

func (t *joinTable) close() error {
	if t == nil {
		return nil
	}
	return t.res.close()
}

// emptyTable is what a join has before its right side was read.
func emptyTable(types []expr.Type, keep int) *joinTable {
	t := &joinTable{res: &resources{}, hasher: newHasher(types), types: types, keys: len(types), keep: make([]int, keep), rows: newRowStore(types)}
	for i := range t.keep {
		t.keep[i] = -1
	}
	t.index = indexRows(t.rows, t.keys, t.hasher)
	return t
}

// tableBuilder is the operator at the end of a join's right side.
type tableBuilder struct {
	step  string
	side  *keySide
	full  bool
	cols  []int
	refs  []*column.Column
	all   []int32
	table *joinTable
	parts partitioner
	// seq is how many rows of a full join were spilled, place their numbers by row of the batch.
	seq   int64
	place column.Column
}

// add holds or spills the rows of the batch.
func (b *tableBuilder) push(batch *column.Batch) error {
	for i, pos := range b.cols {
		b.refs[i] = &batch.Cols[pos]
	}
	keys := b.side.load(batch)
	rows := keys.rows
	if b.full {
		b.all = sequence(b.all, batch.Len)
		rows = b.all
	}
	t := b.table
	t.total += len(rows)
	if t.parts != nil {
		return b.spill(b.refs, rows, &keys)
	}
	if t.total > maxTableRows {
		return fmt.Errorf("the right side of join %s has more than two billion rows", b.step)
	}
	if err := t.rows.append(b.refs, rows); err != nil {
		return err
	}
	if t.budget.fit(t.rows.size() + indexBytes(t.rows.n)) {
		return nil
	}
	return b.spillAll()
}

// errTableTooLarge is for a table that must stay in memory.
var errTableTooLarge = errors.New("the right side of the join is too large for the memory, and a flow that never ends cannot spill it; raise memory_limit, take fewer columns with select, or use lookup")

// spillAll moves what is in memory to scratch files, where what comes later goes too.
func (b *tableBuilder) spillAll() error {
	t := b.table
	if t.res.scratch == nil {
		return fmt.Errorf("step %s: %w", b.step, errTableTooLarge)
	}
	if b.full {
		t.inOrder = newSpillWriter(t.res, t.types)
	}
	t.parts = newParts(t.res, t.partTypes())
	old := t.rows
	t.rows = nil
	side := newKeySide(ordinals(t.keys))
	err := old.each(func(cols []*column.Column, rows []int32) error {
		// In pieces of a batch, so that the scratch memory stays that of one.
		for len(rows) > 0 {
			n := min(len(rows), column.TargetRows)
			keys := side.among(cols, rows[:n])
			if err := b.spill(cols, rows[:n], &keys); err != nil {
				return err
			}
			rows = rows[n:]
		}
		return nil
	})
	t.budget.release()
	return err
}

// spill writes rows to the parts by their key; a row without a whole key matches nothing and is only kept in order.
func (b *tableBuilder) spill(cols []*column.Column, rows []int32, keys *keyRows) error {
	t := b.table
	if t.inOrder != nil {
		if err := t.inOrder.append(cols, rows); err != nil {
			return err
		}
	}
	if b.full {
		cols = b.numbered(cols, rows)
	}
	return b.parts.write(t.parts, cols, keys.rows, t.hasher.hash(*keys), 0)
}

// numbered adds a column with the rows' places in the table.
func (b *tableBuilder) numbered(cols []*column.Column, rows []int32) []*column.Column {
	b.place.Type = expr.Int
	for _, row := range rows {
		b.place.Ints = growTo(b.place.Ints, int(row)+1)
		b.place.Ints[row] = b.seq
		b.seq++
	}
	return append(slices.Clone(cols), &b.place)
}

// partTypes are those of the columns of a part: the table's, and for a full join the row's place in the table.
func (t *joinTable) partTypes() []expr.Type {
	if t.inOrder == nil {
		return t.types
	}
	return append(slices.Clone(t.types), expr.Int)
}

// complete is called behind the last row.
func (b *tableBuilder) complete() error {
	t := b.table
	if t.parts == nil {
		t.index = indexRows(t.rows, t.keys, t.hasher)
		return nil
	}
	for _, w := range t.parts {
		if err := w.finish(); err != nil {
			return err
		}
	}
	if t.inOrder != nil {
		return t.inOrder.finish()
	}
	return nil
}

func ordinals(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}
