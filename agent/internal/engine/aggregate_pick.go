package engine

import (
	"fmt"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// number is what fixed-size columns hold.
type number interface{ int64 | float64 }

// cells reads and writes the slice of a column that holds T.
type cells[T number] struct {
	of  func(*column.Column) []T
	add func(*column.Column, T)
	put func([]byte, T) []byte
	get func(*reader) T
}

func intCells() cells[int64] {
	return cells[int64]{of: ints, add: (*column.Column).AppendInt, put: putInt, get: (*reader).int}
}

func floatCells() cells[float64] {
	return cells[float64]{of: floats, add: (*column.Column).AppendFloat, put: putFloat, get: (*reader).float}
}

// extremeAcc is min (sign -1) and max (sign 1) of numbers and times; NaN is greatest.
type extremeAcc[T number] struct {
	cells[T]
	sign int
	best []held[T]
}

type held[T number] struct {
	value T
	set   bool
}

func newExtreme(name string, store storage) (accumulator, error) {
	sign := 1
	if name == "min" {
		sign = -1
	}
	switch store {
	case storeInt:
		return &extremeAcc[int64]{cells: intCells(), sign: sign}, nil
	case storeFloat:
		return &extremeAcc[float64]{cells: floatCells(), sign: sign}, nil
	case storeText:
		return &textExtremeAcc{sign: sign}, nil
	case storeBool, storeNone:
	}
	return nil, fmt.Errorf("the agent does not know %s of that type; a newer agent may", name)
}

func (a *extremeAcc[T]) grow(n int) { a.best = growTo(a.best, n) }

func (a *extremeAcc[T]) update(arg *column.Column, u updates) error {
	nulls, values := arg.HasNulls(), a.of(arg)
	for i, row := range u.rows {
		if nulls && arg.Null(int(row)) {
			continue
		}
		b, v := &a.best[u.groups[i]], values[row]
		if !b.set || (a.sign > 0 && lessNumber(b.value, v)) || (a.sign < 0 && lessNumber(v, b.value)) {
			b.value, b.set = v, true
		}
	}
	return nil
}

// lessNumber is lessFloat for both types; for ints the test for NaN is always false.
func lessNumber[T number](a, b T) bool {
	return a < b || (b != b && a == a)
}

func (a *extremeAcc[T]) result(dst *column.Column, groups []int32) {
	for _, g := range groups {
		if !a.best[g].set {
			dst.AppendNull()
			continue
		}
		a.add(dst, a.best[g].value)
	}
}

func (a *extremeAcc[T]) compact(keep []int32) { a.best = compactSlice(a.best, keep) }

func (a *extremeAcc[T]) encode(dst []byte, g int32) []byte {
	return a.put(putBool(dst, a.best[g].set), a.best[g].value)
}

func (a *extremeAcc[T]) decode(src []byte, g int32) ([]byte, error) {
	r := reader{s: src}
	a.best[g] = held[T]{set: r.bool(), value: a.get(&r)}
	return r.s, r.err
}

// moment orders the candidates of first and last: by the window's time, or by arrival when all times are zero.
type moment struct {
	at  int64
	set bool
}

// replaces says whether a row at that time takes the place of the one held. sign is -1 for first, 1 for last; of equal
// times first keeps what came first and last takes what came last.
func (m *moment) replaces(at int64, sign int) bool {
	return !m.set || (sign < 0 && at < m.at) || (sign > 0 && at >= m.at)
}

func newPick(name string, store storage) (accumulator, error) {
	sign := 1
	if name == "first" {
		sign = -1
	}
	switch store {
	case storeInt:
		return &pickAcc[int64]{cells: intCells(), sign: sign}, nil
	case storeFloat:
		return &pickAcc[float64]{cells: floatCells(), sign: sign}, nil
	case storeText:
		return &textPickAcc{sign: sign}, nil
	case storeBool, storeNone:
	}
	return nil, fmt.Errorf("the agent does not know %s of that type; a newer agent may", name)
}

// pickAcc is first and last of numbers and times.
type pickAcc[T number] struct {
	cells[T]
	sign   int
	when   []moment
	values []T
}

func (a *pickAcc[T]) grow(n int) { a.when, a.values = growTo(a.when, n), growTo(a.values, n) }

func (a *pickAcc[T]) update(arg *column.Column, u updates) error {
	nulls, values := arg.HasNulls(), a.of(arg)
	for i, row := range u.rows {
		if nulls && arg.Null(int(row)) {
			continue
		}
		g, at := u.groups[i], u.at(row)
		if a.when[g].replaces(at, a.sign) {
			a.when[g], a.values[g] = moment{at: at, set: true}, values[row]
		}
	}
	return nil
}

func (u *updates) at(row int32) int64 {
	if u.times == nil {
		return 0
	}
	return u.times[row]
}

func (a *pickAcc[T]) result(dst *column.Column, groups []int32) {
	for _, g := range groups {
		if !a.when[g].set {
			dst.AppendNull()
			continue
		}
		a.add(dst, a.values[g])
	}
}

func (a *pickAcc[T]) compact(keep []int32) {
	a.when, a.values = compactSlice(a.when, keep), compactSlice(a.values, keep)
}

func (m *moment) encode(dst []byte) []byte { return putInt(putBool(dst, m.set), m.at) }
func (m *moment) decode(r *reader)         { m.set, m.at = r.bool(), r.int() }

func (a *pickAcc[T]) encode(dst []byte, g int32) []byte {
	return a.put(a.when[g].encode(dst), a.values[g])
}

func (a *pickAcc[T]) decode(src []byte, g int32) ([]byte, error) {
	r := reader{s: src}
	a.when[g].decode(&r)
	a.values[g] = a.get(&r)
	return r.s, r.err
}

// textPickAcc is first and last of text.
type textPickAcc struct {
	sign   int
	when   []moment
	values []heldText
}

func (a *textPickAcc) grow(n int) { a.when, a.values = growTo(a.when, n), growHeld(a.values, n) }

func (a *textPickAcc) update(arg *column.Column, u updates) error {
	for i, row := range u.rows {
		if arg.Null(int(row)) {
			continue
		}
		g, at := u.groups[i], u.at(row)
		if a.when[g].replaces(at, a.sign) {
			a.when[g] = moment{at: at, set: true}
			a.values[g].hold(arg.Bytes(int(row)))
		}
	}
	return nil
}

func (a *textPickAcc) result(dst *column.Column, groups []int32) {
	for _, g := range groups {
		a.values[g].result(dst)
	}
}

func (a *textPickAcc) compact(keep []int32) {
	a.when, a.values = compactSlice(a.when, keep), compactHeld(a.values, keep)
}

func (a *textPickAcc) encode(dst []byte, g int32) []byte {
	return a.values[g].encode(a.when[g].encode(dst))
}

func (a *textPickAcc) decode(src []byte, g int32) ([]byte, error) {
	r := reader{s: src}
	a.when[g].decode(&r)
	a.values[g].decode(&r)
	return r.s, r.err
}

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
}

func newDistinctAcc(t expr.Type) *distinctAcc {
	return &distinctAcc{table: newKeyTable([]expr.Type{t})}
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
	renumbered := make([]int64, len(a.n))
	for i := range renumbered {
		renumbered[i] = noEntry
	}
	for i, g := range keep {
		renumbered[g] = int64(i)
	}
	var entries []int32
	var prefix []int64
	committed := 0
	for e, g := range a.table.prefix {
		if renumbered[g] == noEntry {
			continue
		}
		entries, prefix = append(entries, i32(e)), append(prefix, renumbered[g])
		if e < a.committed {
			committed++
		}
	}
	a.table.compact(entries, prefix)
	a.n, a.head, a.next, a.committed = a.n[:len(keep)], a.head[:len(keep)], a.next[:0], committed
	clear(a.n)
	clear(a.head)
	a.link(0)
}

// The group's own entry says nothing; the values' entries do.
func (a *distinctAcc) encode(dst []byte, _ int32) []byte          { return dst }
func (a *distinctAcc) decode(src []byte, _ int32) ([]byte, error) { return src, nil }
