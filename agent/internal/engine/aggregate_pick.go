package engine

import (
	"fmt"

	"github.com/outfeed/outfeed/agent/internal/column"
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
		a.best[u.groups[i]].improve(values[row], a.sign)
	}
	return nil
}

func (h *held[T]) improve(v T, sign int) {
	if !h.set || (sign > 0 && lessNumber(h.value, v)) || (sign < 0 && lessNumber(v, h.value)) {
		h.value, h.set = v, true
	}
}

func (a *extremeAcc[T]) merge(dst, src int32) error {
	if s := a.best[src]; s.set {
		a.best[dst].improve(s.value, a.sign)
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

func (a *pickAcc[T]) merge(dst, src int32) error {
	if s := a.when[src]; s.set && a.when[dst].replaces(s.at, a.sign) {
		a.when[dst], a.values[dst] = s, a.values[src]
	}
	return nil
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

func (a *textPickAcc) merge(dst, src int32) error {
	if s := a.when[src]; s.set && a.when[dst].replaces(s.at, a.sign) {
		a.when[dst] = s
		a.values[dst].hold(a.values[src].text)
	}
	return nil
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
