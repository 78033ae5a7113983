package engine

import (
	"bytes"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// accumulator is one aggregate over all groups, which are numbered from zero.
type accumulator interface {
	// grow makes n groups in all; new ones are empty.
	grow(n int)
	// update adds rows of the argument (nil for count()) to their groups, in order, skipping nulls.
	update(arg *column.Column, u updates) error
	// result appends the results of the groups to dst.
	result(dst *column.Column, groups []int32)
	// compact keeps only the groups keep, which rise, renumbered in that order.
	compact(keep []int32)
	// merge adds the group src to dst, as if src's rows had come after dst's. src may be anything afterwards.
	merge(dst, src int32) error
	// encode appends all that a group holds; decode reads it back into an empty group and gives what follows it.
	encode(dst []byte, g int32) []byte
	decode(src []byte, g int32) (rest []byte, err error)
}

// entryKeeper is an accumulator whose groups grow with their rows. Its state is in entries of its own, to which every
// commit only adds, and not in the group's entry.
type entryKeeper interface {
	accumulator
	keepsEntries()
}

// updates pairs rows with groups. times is the window's time by row, nil without a window.
type updates struct {
	rows, groups []int32
	times        []int64
}

func newAccumulator(call *flowdef.AggregateCall, f *frames) (accumulator, error) {
	if call.Func == "count" {
		return &countAcc{}, nil
	}
	var arg expr.Type
	if call.Arg != nil {
		arg = call.Arg.Type
	}
	store := storageOf(arg)
	if store == storeNone {
		return nil, fmt.Errorf("%s needs an argument with a type", call.Func)
	}
	switch call.Func {
	case "count_distinct":
		return newDistinctAcc(arg), nil
	case "min", "max":
		return newExtreme(call.Func, store)
	case "first", "last":
		return newPick(call.Func, store)
	}
	if acc, ok := newMomentAccumulator(call, arg); ok {
		return acc, nil
	}
	if acc, ok := newTimedAccumulator(call, f); ok {
		return acc, nil
	}
	return nil, fmt.Errorf("the agent does not know the aggregate %s of %s; a newer agent may", call.Func, arg)
}

// newMomentAccumulator makes what describes numbers without their times.
func newMomentAccumulator(call *flowdef.AggregateCall, arg expr.Type) (acc accumulator, ok bool) {
	if call.Func == "sum" && arg == expr.Int {
		return &intSumAcc{}, true
	}
	if arg != expr.Float {
		return nil, false
	}
	switch call.Func {
	case "sum":
		return &floatSumAcc{}, true
	case "avg":
		return &meanAcc{}, true
	case "stddev":
		return &stddevAcc{}, true
	case "median":
		return newQuantile(0.5), true
	case "quantile":
		if len(call.Params) == 1 && call.Params[0].Type == expr.Float {
			p := call.Params[0].Float
			return newQuantile(p), p >= 0 && p <= 1
		}
	}
	return nil, false
}

func growTo[T any](s []T, n int) []T {
	if n <= len(s) {
		return s
	}
	old := len(s)
	s = slices.Grow(s, n-old)[:n]
	clear(s[old:])
	return s
}

// countAcc counts rows, or the rows in which its argument is not null.
type countAcc struct{ n []int64 }

func (a *countAcc) grow(n int) { a.n = growTo(a.n, n) }

func (a *countAcc) update(arg *column.Column, u updates) error {
	n := a.n
	if arg == nil || !arg.HasNulls() {
		for _, g := range u.groups {
			n[g]++
		}
		return nil
	}
	for i, g := range u.groups {
		if !arg.Null(int(u.rows[i])) {
			n[g]++
		}
	}
	return nil
}

func (a *countAcc) result(dst *column.Column, groups []int32) {
	for _, g := range groups {
		dst.AppendInt(a.n[g])
	}
}

func (a *countAcc) merge(dst, src int32) error {
	a.n[dst] += a.n[src]
	return nil
}

func (a *countAcc) compact(keep []int32)              { a.n = compactSlice(a.n, keep) }
func (a *countAcc) encode(dst []byte, g int32) []byte { return putInt(dst, a.n[g]) }

func (a *countAcc) decode(src []byte, g int32) ([]byte, error) {
	r := reader{s: src}
	a.n[g] = r.int()
	return r.s, r.err
}

// intSumAcc keeps a 128-bit sum, so that only the total decides whether it fits, whatever the order of the rows.
type intSumAcc struct{ sums []intSum }

type intSum struct {
	lo    uint64
	hi, n int64
}

func (a *intSumAcc) grow(n int) { a.sums = growTo(a.sums, n) }

func (a *intSumAcc) update(arg *column.Column, u updates) error {
	nulls := arg.HasNulls()
	for i, row := range u.rows {
		if nulls && arg.Null(int(row)) {
			continue
		}
		s, v := &a.sums[u.groups[i]], arg.Ints[row]
		lo, carry := bits.Add64(s.lo, uint64Of(v), 0)
		s.lo = lo
		s.hi += v>>63 + int64(carry) //nolint:gosec // 0 or 1
		s.n++
	}
	return nil
}

func (a *intSumAcc) result(dst *column.Column, groups []int32) {
	for _, g := range groups {
		s := &a.sums[g]
		v := int64(s.lo) //nolint:gosec // the high word says whether the bits are the number
		if s.n == 0 || s.hi != v>>63 {
			dst.AppendNull()
			continue
		}
		dst.AppendInt(v)
	}
}

func (a *intSumAcc) merge(dst, src int32) error {
	d, s := &a.sums[dst], a.sums[src]
	lo, carry := bits.Add64(d.lo, s.lo, 0)
	d.lo = lo
	d.hi += s.hi + int64(carry) //nolint:gosec // 0 or 1
	d.n += s.n
	return nil
}

func (a *intSumAcc) compact(keep []int32) { a.sums = compactSlice(a.sums, keep) }

func (a *intSumAcc) encode(dst []byte, g int32) []byte {
	s := &a.sums[g]
	return putInt(putInt(putWord(dst, s.lo), s.hi), s.n)
}

func (a *intSumAcc) decode(src []byte, g int32) ([]byte, error) {
	r := reader{s: src}
	a.sums[g] = intSum{lo: r.word(), hi: r.int(), n: r.int()}
	return r.s, r.err
}

// floatSumAcc adds strictly in the order of arrival, so the same input gives the same bits.
type floatSumAcc struct{ sums []floatSum }

type floatSum struct {
	sum float64
	n   int64
}

func (a *floatSumAcc) grow(n int) { a.sums = growTo(a.sums, n) }

func (a *floatSumAcc) update(arg *column.Column, u updates) error {
	sums, values := a.sums, arg.Floats
	if !arg.HasNulls() {
		for i, row := range u.rows {
			s := &sums[u.groups[i]]
			s.sum += values[row]
			s.n++
		}
		return nil
	}
	for i, row := range u.rows {
		if !arg.Null(int(row)) {
			s := &sums[u.groups[i]]
			s.sum += values[row]
			s.n++
		}
	}
	return nil
}

func (a *floatSumAcc) result(dst *column.Column, groups []int32) {
	for _, g := range groups {
		if a.sums[g].n == 0 {
			dst.AppendNull()
			continue
		}
		dst.AppendFloat(a.sums[g].sum)
	}
}

func (a *floatSumAcc) merge(dst, src int32) error {
	a.sums[dst].sum += a.sums[src].sum
	a.sums[dst].n += a.sums[src].n
	return nil
}

func (a *floatSumAcc) compact(keep []int32) { a.sums = compactSlice(a.sums, keep) }

func (a *floatSumAcc) encode(dst []byte, g int32) []byte {
	return putInt(putFloat(dst, a.sums[g].sum), a.sums[g].n)
}

func (a *floatSumAcc) decode(src []byte, g int32) ([]byte, error) {
	r := reader{s: src}
	a.sums[g] = floatSum{sum: r.float(), n: r.int()}
	return r.s, r.err
}

// meanAcc is avg.
type meanAcc struct{ floatSumAcc }

func (a *meanAcc) result(dst *column.Column, groups []int32) {
	for _, g := range groups {
		if a.sums[g].n == 0 {
			dst.AppendNull()
			continue
		}
		dst.AppendFloat(a.sums[g].sum / float64(a.sums[g].n))
	}
}

// stddevAcc is the sample standard deviation by the method of Youngs and Cramer (1971), which PostgreSQL uses too.
type stddevAcc struct{ moments []moments }

type moments struct {
	n, sum, squares float64
}

func (a *stddevAcc) grow(n int) { a.moments = growTo(a.moments, n) }

func (a *stddevAcc) update(arg *column.Column, u updates) error {
	nulls := arg.HasNulls()
	for i, row := range u.rows {
		if nulls && arg.Null(int(row)) {
			continue
		}
		m, v := &a.moments[u.groups[i]], arg.Floats[row]
		m.n++
		m.sum += v
		if m.n > 1 {
			d := v*m.n - m.sum
			m.squares += d * d / (m.n * (m.n - 1))
		} else if math.IsNaN(v) || math.IsInf(v, 0) {
			m.squares = math.NaN()
		}
	}
	return nil
}

func (a *stddevAcc) result(dst *column.Column, groups []int32) {
	for _, g := range groups {
		m := &a.moments[g]
		if m.n < 2 {
			dst.AppendNull()
			continue
		}
		dst.AppendFloat(math.Sqrt(m.squares / (m.n - 1)))
	}
}

// merge combines two sums of squares as Youngs and Cramer give it, and PostgreSQL's float8_combine too.
func (a *stddevAcc) merge(dst, src int32) error {
	d, s := &a.moments[dst], a.moments[src]
	switch {
	case s.n == 0:
	case d.n == 0:
		*d = s
	default:
		apart := d.sum/d.n - s.sum/s.n
		d.squares += s.squares + d.n*s.n*apart*apart/(d.n+s.n)
		d.n, d.sum = d.n+s.n, d.sum+s.sum
	}
	return nil
}

func (a *stddevAcc) compact(keep []int32) { a.moments = compactSlice(a.moments, keep) }

func (a *stddevAcc) encode(dst []byte, g int32) []byte {
	m := &a.moments[g]
	return putFloat(putFloat(putFloat(dst, m.n), m.sum), m.squares)
}

func (a *stddevAcc) decode(src []byte, g int32) ([]byte, error) {
	r := reader{s: src}
	a.moments[g] = moments{n: r.float(), sum: r.float(), squares: r.float()}
	return r.s, r.err
}

// textExtremeAcc is min (sign -1) and max (sign 1) of text.
type textExtremeAcc struct {
	sign int
	best []heldText
}

// heldText keeps its memory when it is overwritten.
type heldText struct {
	text []byte
	set  bool
}

func (h *heldText) hold(text []byte) { h.text, h.set = append(h.text[:0], text...), true }

func (a *textExtremeAcc) grow(n int) { a.best = growHeld(a.best, n) }

// growHeld keeps the memory of texts that an earlier compact left behind the end.
func growHeld(s []heldText, n int) []heldText {
	for len(s) < n {
		if len(s) < cap(s) {
			s = s[:len(s)+1]
			last := &s[len(s)-1]
			last.text, last.set = last.text[:0], false
			continue
		}
		s = append(s, heldText{})
	}
	return s
}

// compactHeld moves texts down by swapping, so that every buffer stays in use once.
func compactHeld(s []heldText, keep []int32) []heldText {
	for i, row := range keep {
		s[i], s[row] = s[row], s[i]
	}
	return s[:len(keep)]
}

func (a *textExtremeAcc) update(arg *column.Column, u updates) error {
	for i, row := range u.rows {
		if arg.Null(int(row)) {
			continue
		}
		b, text := &a.best[u.groups[i]], arg.Bytes(int(row))
		if !b.set || bytes.Compare(text, b.text)*a.sign > 0 {
			b.hold(text)
		}
	}
	return nil
}

func (a *textExtremeAcc) merge(dst, src int32) error {
	d, s := &a.best[dst], &a.best[src]
	if s.set && (!d.set || bytes.Compare(s.text, d.text)*a.sign > 0) {
		d.hold(s.text)
	}
	return nil
}

func (a *textExtremeAcc) result(dst *column.Column, groups []int32) {
	for _, g := range groups {
		a.best[g].result(dst)
	}
}

func (h *heldText) result(dst *column.Column) {
	if !h.set {
		dst.AppendNull()
		return
	}
	addText(dst, h.text, column.MaxData)
}

func (h *heldText) encode(dst []byte) []byte { return putText(putBool(dst, h.set), h.text) }

func (h *heldText) decode(r *reader) {
	h.set = r.bool()
	h.text = append(h.text[:0], r.text()...)
}

func (a *textExtremeAcc) compact(keep []int32)              { a.best = compactHeld(a.best, keep) }
func (a *textExtremeAcc) encode(dst []byte, g int32) []byte { return a.best[g].encode(dst) }

func (a *textExtremeAcc) decode(src []byte, g int32) ([]byte, error) {
	r := reader{s: src}
	a.best[g].decode(&r)
	return r.s, r.err
}
