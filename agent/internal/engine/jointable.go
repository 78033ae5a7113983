package engine

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// joinIndex finds rows by key. It is an open-addressing table whose slots hold a part of a row's hash beside its number,
// so that hardly ever a row of another key is looked at, which lies somewhere in memory. Rows of one hash are in a list,
// which rises.
//
// A row costs its own values and about 11 bytes for its slot and, where two rows of the table have one hash, 4 more for
// the next row of its list. Where a key is looked for costs a look at memory that is most likely in no cache; so each
// step, finding slots, comparing keys and gathering values, is a loop of its own over the rows of a batch, in which the
// processor can wait for many of them at once.
type joinIndex struct {
	rows *rowStore
	// keys is how many of the store's first columns are the key.
	keys int
	// single is how the key is held where it is one column, else storeNone; ints and texts are its blocks.
	single storage
	ints   [][]int64
	texts  []*column.Column
	hasher *keyTable
	// slots have the upper half of a hash and below it a row, counted from one; 0 is a free one.
	slots []uint64
	// next is by row the next one of the same hash, counted from one, 0 behind the last; nil where no two rows have one.
	next []int32
}

// maxTableRows is what row numbers count.
const maxTableRows = math.MaxInt32 - 1

// slotsFor is how many slots the index of n rows has: seven of ten are taken.
func slotsFor(n int) int { return n/7*10 + 16 }

// indexBytes is what an index of n rows takes at most.
func indexBytes(n int) int64 { return 8*int64(slotsFor(n)) + 4*int64(n) }

// newHasher hashes keys of these types. The hash is seeded, so nobody can choose colliding keys; one hasher belongs to
// both sides of a join.
func newHasher(types []expr.Type) *keyTable { return newKeyTable(types) }

// indexRows makes the index of a store. A row whose key has a null is in no list, since it matches nothing.
func indexRows(rows *rowStore, keys int, hasher *keyTable) *joinIndex {
	x := &joinIndex{rows: rows, keys: keys, hasher: hasher, slots: make([]uint64, slotsFor(rows.n))}
	if keys == 1 {
		x.single = storageOf(rows.types[0])
		for _, block := range rows.blocks {
			x.ints, x.texts = append(x.ints, block[0].Ints), append(x.texts, &block[0])
		}
	}
	// From the last row to the first, so that a list begins with its first row.
	const step = 4096
	side, all := newKeySide(ordinals(keys)), make([]int32, 0, step)
	cols := make([]*column.Column, keys)
	for end := rows.n; end > 0; {
		begin := (end - 1) / step * step
		block := rows.blocks[begin>>storeBits]
		for c := range cols {
			cols[c] = &block[c]
		}
		all = all[:0]
		for row := begin; row < end; row++ {
			all = append(all, i32(row&storeMask))
		}
		whole := side.among(cols, all)
		for i, hash := range slices.Backward(hasher.hash(whole)) {
			x.insert(hash, i32(begin&^storeMask)|whole.rows[i])
		}
		end = begin
	}
	return x
}

// place is where the search for a hash begins. It comes from the lower half, because the highest bits are the same for
// all rows of a part of a spilled join.
func (x *joinIndex) place(hash uint64) int {
	at, _ := bits.Mul64(hash<<32, uint64(len(x.slots)))
	return int(at) //nolint:gosec // below the number of slots
}

// insert puts a row in front of the others of its hash.
func (x *joinIndex) insert(hash uint64, row int32) {
	for p := x.place(hash); ; p++ {
		if p == len(x.slots) {
			p = 0
		}
		s := x.slots[p]
		if s != 0 && s>>32 != hash>>32 {
			continue
		}
		if s != 0 {
			if x.next == nil {
				x.next = make([]int32, x.rows.n)
			}
			x.next[row] = int32(s) //nolint:gosec // the lower half is a row
		}
		x.slots[p] = hash>>32<<32 | uint64(row+1) //nolint:gosec // rows count from 0
		return
	}
}

// lookup gives for each hash the first row that has it, noEntry where there is none.
func (x *joinIndex) lookup(hashes []uint64, out []int32) []int32 {
	out = resize(out, len(hashes))
	slots := x.slots
	for i, h := range hashes {
		for p := x.place(h); ; p++ {
			if p == len(slots) {
				p = 0
			}
			if s := slots[p]; s == 0 || s>>32 == h>>32 {
				out[i] = int32(s) - 1 //nolint:gosec // the lower half is a row, and noEntry in a free slot
				break
			}
		}
	}
	return out
}

// find gives for each key, whose hashes these are, the first row that has it, noEntry where there is none.
func (x *joinIndex) find(k *keyRows, hashes []uint64, out []int32) []int32 {
	out = x.lookup(hashes, out)
	switch x.single { //nolint:exhaustive // the others are not worth a loop of their own
	case storeInt:
		want := k.cols[0].Ints
		for i, row := range out {
			if row != noEntry && x.ints[row>>storeBits][row&storeMask] != want[k.rows[i]] {
				out[i] = x.match(k, i, x.after(row))
			}
		}
	case storeText:
		want := k.cols[0]
		for i, row := range out {
			if row != noEntry && string(x.texts[row>>storeBits].Bytes(int(row&storeMask))) != string(want.Bytes(int(k.rows[i]))) {
				out[i] = x.match(k, i, x.after(row))
			}
		}
	default:
		for i, row := range out {
			out[i] = x.match(k, i, row)
		}
	}
	return out
}

// after is the next row of the same hash, noEntry when there is none.
func (x *joinIndex) after(row int32) int32 {
	if x.next == nil {
		return noEntry
	}
	return x.next[row] - 1
}

// match is the first row that has the i-th key, from a row on that may have it; noEntry when there is none.
func (x *joinIndex) match(k *keyRows, i int, row int32) int32 {
	for ; row != noEntry; row = x.after(row) {
		if x.same(k, i, row) {
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
