package engine

import (
	"encoding/binary"
	"math"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// refiner narrows a list of rows to those for which its condition is true: not false and not null. The result lies in
// out, which is as long as rows and may be the same memory.
//
// A filter is a list of them, because `a and b` is true exactly where both are. What is most common in filters, a column
// compared with a constant, is done without making a column of the constant and one of the answers.
type refiner interface {
	refine(b *column.Batch, rows, out []int32) []int32
}

// newRefiners takes a condition apart at its `and`s.
func newRefiners(condition *expr.Node, list []refiner) ([]refiner, error) {
	if condition.Op == expr.OpAnd && len(condition.Args) == 2 {
		list, err := newRefiners(condition.Args[0], list)
		if err != nil {
			return nil, err
		}
		return newRefiners(condition.Args[1], list)
	}
	if r, ok := newConstantRefiner(condition); ok {
		return append(list, r), nil
	}
	k, err := compileExpr(condition, expr.Bool)
	if err != nil {
		return nil, err
	}
	return append(list, &kernelRefiner{condition: k}), nil
}

// kernelRefiner serves every condition.
type kernelRefiner struct{ condition kernel }

func (r *kernelRefiner) refine(b *column.Batch, rows, out []int32) []int32 {
	keep := r.condition.eval(b)
	count, nulls := 0, keep.HasNulls()
	for _, row := range rows {
		out[count] = row
		if keep.Bools[row] && (!nulls || !keep.Null(int(row))) {
			count++
		}
	}
	return out[:count]
}

// newConstantRefiner serves a comparison of a column with a constant of its type.
func newConstantRefiner(n *expr.Node) (refiner, bool) {
	if len(n.Args) != 2 {
		return nil, false
	}
	op, col, constant := n.Op, n.Args[0], n.Args[1]
	if constant.Op == expr.OpColumn {
		op, col, constant = mirrored(op), constant, col
	}
	if constant.Op == expr.OpCast && len(constant.Args) == 1 {
		constant = constant.Args[0]
	}
	rel, ok := relationOf(op)
	if !ok || col.Op != expr.OpColumn || constant.Op != expr.OpLiteral {
		return nil, false
	}
	return compareWith(col, rel, constant.Value)
}

func compareWith(col *expr.Node, rel relation, v expr.Value) (refiner, bool) {
	switch {
	case col.Type == expr.Int && v.Type == expr.Int:
		return &intRefiner{pos: col.Column, rel: rel, than: v.Int}, true
	case col.Type == expr.Float && v.Type == expr.Int:
		return &floatRefiner{pos: col.Column, rel: rel, than: float64(v.Int)}, true
	case col.Type == expr.Float && v.Type == expr.Float && !math.IsNaN(v.Float): // NaN has an order of its own
		return &floatRefiner{pos: col.Column, rel: rel, than: v.Float}, true
	case col.Type == expr.String && v.Type == expr.String && rel.kind == relationEqual:
		return newTextRefiner(col.Column, rel.negate, v.Str), true
	}
	return nil, false
}

// relation is one of three comparisons, or what it is not.
type relation struct {
	kind   relationKind
	negate bool
}

type relationKind uint8

const (
	relationEqual relationKind = iota + 1
	relationLess
	relationAtMost
)

// relationOf says what a comparison is. That greater is not at most, and at least is not less, also holds for NaN, which
// is greater than every constant.
func relationOf(op expr.Op) (relation, bool) {
	switch op { //nolint:exhaustive // the others are no comparisons
	case expr.OpEq:
		return relation{kind: relationEqual}, true
	case expr.OpNe:
		return relation{kind: relationEqual, negate: true}, true
	case expr.OpLt:
		return relation{kind: relationLess}, true
	case expr.OpGe:
		return relation{kind: relationLess, negate: true}, true
	case expr.OpLe:
		return relation{kind: relationAtMost}, true
	case expr.OpGt:
		return relation{kind: relationAtMost, negate: true}, true
	}
	return relation{}, false
}

// mirrored is the comparison with its sides exchanged.
func mirrored(op expr.Op) expr.Op {
	switch op { //nolint:exhaustive // the others stay as they are
	case expr.OpLt:
		return expr.OpGt
	case expr.OpGt:
		return expr.OpLt
	case expr.OpLe:
		return expr.OpGe
	case expr.OpGe:
		return expr.OpLe
	}
	return op
}

// notNull are the rows in which the column is not null.
func notNull(c *column.Column, rows, out []int32) []int32 {
	if !c.HasNulls() {
		return rows
	}
	count := 0
	for _, row := range rows {
		out[count] = row
		if !c.Null(int(row)) {
			count++
		}
	}
	return out[:count]
}

type intRefiner struct {
	pos  int
	rel  relation
	than int64
}

func (r *intRefiner) refine(b *column.Batch, rows, out []int32) []int32 {
	c := &b.Cols[r.pos]
	return refineNumbers(c.Ints, r.than, r.rel, notNull(c, rows, out), out)
}

type floatRefiner struct {
	pos  int
	rel  relation
	than float64
}

func (r *floatRefiner) refine(b *column.Batch, rows, out []int32) []int32 {
	c := &b.Cols[r.pos]
	return refineNumbers(c.Floats, r.than, r.rel, notNull(c, rows, out), out)
}

// refineNumbers has no branch on the answer: whether a row stays cannot be foretold.
func refineNumbers[T int64 | float64](values []T, than T, rel relation, rows, out []int32) []int32 {
	count := 0
	switch rel.kind {
	case relationEqual:
		for _, row := range rows {
			out[count] = row
			if (values[row] == than) != rel.negate {
				count++
			}
		}
	case relationLess:
		for _, row := range rows {
			out[count] = row
			if (values[row] < than) != rel.negate {
				count++
			}
		}
	case relationAtMost:
		for _, row := range rows {
			out[count] = row
			if (values[row] <= than) != rel.negate {
				count++
			}
		}
	}
	return out[:count]
}

// wordBytes is how long a text may be to be compared as one number.
const wordBytes = 8

// textRefiner compares a text column with a constant for equality.
type textRefiner struct {
	pos    int
	negate bool
	want   string
	// word and mask are the text of a short constant as a number, and which bits of it count.
	word, mask uint64
}

func newTextRefiner(pos int, negate bool, want string) *textRefiner { //revive:disable-line:flag-parameter
	r := &textRefiner{pos: pos, negate: negate, want: want}
	if len(want) <= wordBytes {
		var text [wordBytes]byte
		copy(text[:], want)
		r.word = binary.LittleEndian.Uint64(text[:])
		r.mask = ^uint64(0) >> (8 * (wordBytes - len(want)))
	}
	return r
}

func (r *textRefiner) refine(b *column.Batch, rows, out []int32) []int32 {
	c := &b.Cols[r.pos]
	rows = notNull(c, rows, out)
	size, short := uint32(len(r.want)), len(r.want) <= wordBytes //nolint:gosec // a literal of the definition
	count := 0
	for _, row := range rows {
		s := c.Strs[row]
		out[count] = row
		equal := s.Len == size
		switch {
		case short && int(s.Off)+wordBytes <= len(c.Data):
			equal = equal && binary.LittleEndian.Uint64(c.Data[s.Off:])&r.mask == r.word
		case equal:
			equal = string(c.Data[s.Off:s.Off+s.Len]) == r.want
		}
		if equal != r.negate {
			count++
		}
	}
	return out[:count]
}
