package engine

import (
	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// distinctAcc is count_distinct: a table of the values of all groups, with the group as the prefix. Its values are
// state entries of their own (see state.go), so that a large set is not written again for every new value.
type distinctAcc struct {
	table *keyTable
	n     []int64
	// committed is how many entries of the table are in the last checkpoint; entries are only ever added behind them.
	committed int
	// head is the newest entry of a group and next the one before it, both plus one; zero ends the chain.
	head, next []int32

	rows, entries []int32
	prefix        []int64
	arg           [1]*column.Column
	copied        column.Column
	renumbered    []int32
}

func newDistinctAcc(t expr.Type) *distinctAcc {
	return &distinctAcc{table: newKeyTable([]expr.Type{t}), copied: column.Column{Type: t}}
}

func (a *distinctAcc) grow(n int) { a.n, a.head = growTo(a.n, n), growTo(a.head, n) }

// link counts the entries from `from` on for their groups.
func (a *distinctAcc) link(from int) {
	for i, g := range a.table.prefix[from:] {
		a.n[g]++
		a.next = append(a.next, a.head[g])
		a.head[g] = i32(from+i) + 1
	}
}

func (a *distinctAcc) update(arg *column.Column, u updates) error {
	a.rows, a.prefix = a.rows[:0], a.prefix[:0]
	for i, row := range u.rows {
		if !arg.Null(int(row)) {
			a.rows, a.prefix = append(a.rows, row), append(a.prefix, int64(u.groups[i]))
		}
	}
	return a.addRows(arg)
}

// addRows adds the values at a.rows to the groups a.prefix.
func (a *distinctAcc) addRows(arg *column.Column) error {
	known := a.table.len()
	a.arg[0] = arg
	var err error
	a.entries, err = a.table.assign(keyRows{cols: a.arg[:], rows: a.rows, prefix: a.prefix}, a.entries)
	a.link(known)
	return err
}

func (a *distinctAcc) result(dst *column.Column, groups []int32) {
	for _, g := range groups {
		dst.AppendInt(a.n[g])
	}
}

func (a *distinctAcc) compact(keep []int32) {
	a.renumbered = resize(a.renumbered, len(a.n))
	for i := range a.renumbered {
		a.renumbered[i] = noEntry
	}
	for i, g := range keep {
		a.renumbered[g] = i32(i)
	}
	entries, prefix := a.entries[:0], a.prefix[:0]
	committed := 0
	for e, g := range a.table.prefix {
		to := a.renumbered[g]
		if to == noEntry {
			continue
		}
		entries, prefix = append(entries, i32(e)), append(prefix, int64(to))
		if e < a.committed {
			committed++
		}
	}
	a.entries, a.prefix = entries, prefix
	a.table.compact(entries, prefix)
	a.n, a.head, a.next, a.committed = a.n[:len(keep)], a.head[:len(keep)], a.next[:0], committed
	clear(a.n)
	clear(a.head)
	a.link(0)
}

// merge adds the values of src to those of dst. They are new entries, which the next commit writes.
func (a *distinctAcc) merge(dst, src int32) error {
	a.rows, a.prefix = a.rows[:0], a.prefix[:0]
	for e := a.head[src] - 1; e >= 0; e = a.next[e] - 1 {
		a.rows, a.prefix = append(a.rows, e), append(a.prefix, int64(dst))
	}
	begin(&a.copied, 0)
	for i, e := range a.rows {
		a.copied.AppendFrom(&a.table.cols[0], int(e))
		a.rows[i] = i32(i)
	}
	return a.addRows(&a.copied)
}

func (*distinctAcc) keepsEntries() {}

func (a *distinctAcc) encode(dst []byte, g int32) []byte {
	dst = putInt(dst, a.n[g])
	for e := a.head[g] - 1; e >= 0; e = a.next[e] - 1 {
		dst = putCell(dst, &a.table.cols[0], int(e))
	}
	return dst
}

func (a *distinctAcc) decode(src []byte, g int32) ([]byte, error) {
	r := reader{s: src}
	for range r.int() {
		value := []column.Column{{Type: a.table.cols[0].Type}}
		if r.cell(&value[0]); r.err != nil {
			break
		}
		known := a.table.len()
		if _, err := oneKey(a.table, int64(g), value); err != nil {
			return nil, err
		}
		a.link(known)
	}
	return r.s, r.err
}
