package engine

import (
	"math"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// constantKernel compares a column with a constant, the commonest condition of a filter. Its loops read one column, and
// a constant that is a number has no NaN to look for.
type constantKernel struct {
	arg     kernel
	compare func(out []bool, c *column.Column)
	out     column.Column
}

func (k *constantKernel) eval(b *column.Batch) *column.Column {
	c := k.arg.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, c)
	k.compare(k.out.Bools, c)
	return &k.out
}

// constantCompare gives the kernel for a comparison whose one side is a constant; nil where there is no better one.
func constantCompare(k *compareKernel) kernel {
	arg := k.a
	literal, constantLeft := k.a.(*literalKernel)
	if constantLeft {
		arg = k.b
	} else if l, ok := k.b.(*literalKernel); ok {
		literal = l
	}
	if _, both := arg.(*literalKernel); literal == nil || both || literal.value.Type == expr.Null {
		return nil
	}
	c := &constantKernel{arg: arg, out: column.Column{Type: expr.Bool}}
	value, negate := literal.value, k.negate
	switch {
	case k.store == storeText && k.equal:
		c.compare = equalToText(value.Str, negate)
	case k.store == storeInt && k.equal:
		c.compare = equalToInt(value.Int, negate)
	case k.store == storeInt:
		c.compare = orderToInt(value.Int, constantLeft, negate)
	case k.store == storeFloat && !k.equal && !math.IsNaN(value.Float):
		c.compare = orderToFloat(value.Float, constantLeft, negate)
	default:
		return nil
	}
	return c
}

func equalToText(text string, negate bool) func(out []bool, c *column.Column) {
	size := len(text)
	return func(out []bool, c *column.Column) {
		data, strs := c.Data, c.Strs[:len(out)]
		for i, s := range strs {
			same := int(s.Len) == size && string(data[s.Off:s.Off+s.Len]) == text
			out[i] = same != negate
		}
	}
}

func equalToInt(v int64, negate bool) func(out []bool, c *column.Column) {
	return func(out []bool, c *column.Column) {
		for i, x := range c.Ints[:len(out)] {
			out[i] = (x == v) != negate
		}
	}
}

// orderToInt is v < x where the constant is on the left, and x < v otherwise.
func orderToInt(v int64, constantLeft, negate bool) func(out []bool, c *column.Column) {
	if constantLeft {
		return func(out []bool, c *column.Column) {
			for i, x := range c.Ints[:len(out)] {
				out[i] = (v < x) != negate
			}
		}
	}
	return func(out []bool, c *column.Column) {
		for i, x := range c.Ints[:len(out)] {
			out[i] = (x < v) != negate
		}
	}
}

// orderToFloat is orderToInt for floats: NaN is greater than every number, so that v < x is not x <= v.
func orderToFloat(v float64, constantLeft, negate bool) func(out []bool, c *column.Column) {
	if constantLeft {
		return func(out []bool, c *column.Column) {
			for i, x := range c.Floats[:len(out)] {
				out[i] = (x <= v) == negate
			}
		}
	}
	return func(out []bool, c *column.Column) {
		for i, x := range c.Floats[:len(out)] {
			out[i] = (x < v) != negate
		}
	}
}
