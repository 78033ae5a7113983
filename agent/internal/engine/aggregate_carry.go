package engine

import (
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
)

// carrier is an accumulator that carries something of a key from window to window.
type carrier interface {
	sampler
	growKeys(n int)
	compactKeys(keep []int32)
	// carriedAt is the time of what the key carries; ok is false when that is nothing.
	carriedAt(key int32) (at int64, ok bool)
	dropCarry(key int32)
	encodeCarry(dst []byte, key int32) []byte
	decodeCarry(r *reader, key int32)
}

func (a *timedAcc[T]) growKeys(n int)           { a.carry = growTo(a.carry, n) }
func (a *timedAcc[T]) compactKeys(keep []int32) { a.carry = compactSlice(a.carry, keep) }
func (a *timedAcc[T]) dropCarry(key int32)      { a.carry[key] = carried[T]{} }

func (a *timedAcc[T]) carriedAt(key int32) (at int64, ok bool) {
	return a.carry[key].at, a.carry[key].set
}

func (a *timedAcc[T]) encodeCarry(dst []byte, key int32) []byte {
	c := &a.carry[key]
	return a.put(putBool(dst, c.set), c.reading, reading[T]{})
}

func (a *timedAcc[T]) decodeCarry(r *reader, key int32) {
	a.carry[key] = carried[T]{set: r.bool(), reading: a.get(r, reading[T]{})}
}

// maxCarries is how many keys can carry something at the end of a window of an endless input and at the end of a bounded
// one; the oldest go first.
const maxCarries = 100_000

// carries says whether something of a key is carried from window to window, and so to the next run.
func (a *aggregate) carries() bool { return a.keys != nil && len(a.keys.carriers) > 0 }

// keyring numbers the grouping values, whatever the window, for what outlives a window or finds one.
type keyring struct {
	table    *keyTable
	carriers []carrier
	cols     []*column.Column
	prefix   []int64
	rows     []int32
	entries  []int32
	scratch  []int32

	// carries says which keys carry something and changed which of these are to be written, in blocks.
	carries, changed []bool
	carrying         int
	blocks           groupBlocks
	// limit is maxCarries.
	limit int
}

// wasteful says that there are many more keys than the living groups have and carry something. A nil keyring is not.
func (k *keyring) wasteful(live int) bool {
	return k != nil && k.table.len() > 2*(live+k.carrying)+column.TargetRows
}

func (k *keyring) grow() {
	n := k.table.len()
	k.carries, k.changed = growTo(k.carries, n), growTo(k.changed, n)
	k.blocks.grow(n)
	for _, c := range k.carriers {
		c.growKeys(n)
	}
}

// assign gives the keys of rows of columns.
func (k *keyring) assign(cols []*column.Column, rows []int32) ([]int32, error) {
	k.prefix = growTo(k.prefix[:0], len(rows)) // always zero
	var err error
	k.entries, err = k.table.assign(keyRows{cols: cols, rows: rows, prefix: k.prefix[:len(rows)]}, k.entries)
	k.grow()
	return k.entries, err
}

// ofGroups gives the keys of the groups from `from` to before `to`.
func (k *keyring) ofGroups(groups *keyTable, from, to int) ([]int32, error) {
	k.cols, k.rows = k.cols[:0], k.rows[:0]
	for i := range groups.cols {
		k.cols = append(k.cols, &groups.cols[i])
	}
	for g := from; g < to; g++ {
		k.rows = append(k.rows, i32(g))
	}
	return k.assign(k.cols, k.rows)
}

// note sees to it that what the keys carry now is written.
func (k *keyring) note(keys []int32, groups []int32) {
	for _, g := range groups {
		key := keys[g]
		if _, ok := k.at(key); !ok {
			continue
		}
		if !k.carries[key] {
			k.carries[key] = true
			k.carrying++
		}
		k.changed[key] = true
	}
}

// at is the time of the newest that a key carries.
func (k *keyring) at(key int32) (newest int64, ok bool) {
	for _, c := range k.carriers {
		if at, set := c.carriedAt(key); set && (!ok || at > newest) {
			newest, ok = at, true
		}
	}
	return newest, ok
}

// evict drops the oldest carries where there are too many, and gives their keys. What it drops depends on the readings
// alone, and so is the same after a restart.
func (k *keyring) evict() []int32 {
	k.scratch = k.scratch[:0]
	if k.carrying <= k.limit {
		return nil
	}
	for key, carries := range k.carries {
		if carries {
			k.scratch = append(k.scratch, i32(key))
		}
	}
	slices.SortFunc(k.scratch, func(x, y int32) int {
		if a, b := k.atOf(x), k.atOf(y); a != b {
			if a < b {
				return -1
			}
			return 1
		}
		return compareKeys(k.table, x, y)
	})
	gone := k.scratch[:len(k.scratch)-k.limit*3/4]
	k.drop(gone)
	return gone
}

// drop makes keys carry nothing.
func (k *keyring) drop(keys []int32) {
	for _, key := range keys {
		k.carries[key], k.changed[key] = false, false
		for _, c := range k.carriers {
			c.dropCarry(key)
		}
	}
	k.carrying -= len(keys)
}

func (k *keyring) atOf(key int32) int64 {
	at, _ := k.at(key)
	return at
}

// compact keeps the keys keep, which rise.
func (k *keyring) compact(keep []int32) {
	k.table.compact(keep, nil)
	k.carries, k.changed = compactSlice(k.carries, keep), compactSlice(k.changed, keep)
	k.blocks.compact(keep)
	for _, c := range k.carriers {
		c.compactKeys(keep)
	}
}

// compareKeys orders entries of a table by their columns, nulls last.
func compareKeys(t *keyTable, a, b int32) int {
	for c := range t.cols {
		if order := compareRows(&t.cols[c], int(a), &t.cols[c], int(b)); order != 0 {
			return order
		}
	}
	return 0
}

// take copies what keys of another keyring carry: all of them, or those that this keyring knows.
func (k *keyring) take(from *keyring, which takeKeys) error {
	all := sequence(nil, from.table.len())
	here, prefix := pointersTo(from.table.cols), make([]int64, len(all))
	rows := keyRows{cols: here, rows: all, prefix: prefix}
	var to []int32
	if which == takeKnown {
		to = k.table.lookup(rows, nil)
	} else {
		var err error
		if to, err = k.table.assign(rows, nil); err != nil {
			return err
		}
		k.grow()
	}
	var buf []byte
	for key, at := range to {
		if at == noEntry || !from.carries[key] {
			continue
		}
		buf = buf[:0]
		for _, c := range from.carriers {
			buf = c.encodeCarry(buf, i32(key))
		}
		r := reader{s: buf}
		for _, c := range k.carriers {
			c.decodeCarry(&r, at)
		}
		if !k.carries[at] {
			k.carries[at] = true
			k.carrying++
		}
		k.changed[at] = true
	}
	return nil
}

// inherit takes over the blocks of a keyring all of whose keys it has taken before it had any, so that their numbers are the same.
func (k *keyring) inherit(from *keyring) { k.blocks = from.blocks }

// takeKeys says of which keys take copies.
type takeKeys int

const (
	takeAll takeKeys = iota
	takeKnown
)

func pointersTo(cols []column.Column) []*column.Column {
	list := make([]*column.Column, len(cols))
	for i := range cols {
		list[i] = &cols[i]
	}
	return list
}
