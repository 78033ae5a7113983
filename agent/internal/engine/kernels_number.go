package engine

import (
	"fmt"
	"math"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

func finite(v float64) (float64, bool) { return v, !math.IsNaN(v) && !math.IsInf(v, 0) }

func absInt(v int64) (int64, bool) {
	if v < 0 {
		return -v, v != math.MinInt64
	}
	return v, true
}

func absFloat(v float64) (float64, bool)   { return finite(math.Abs(v)) }
func floorFloat(v float64) (float64, bool) { return finite(math.Floor(v)) }
func ceilFloat(v float64) (float64, bool)  { return finite(math.Ceil(v)) }
func roundFloat(v float64) (float64, bool) { return finite(math.Round(v)) }
func sqrtFloat(v float64) (float64, bool)  { return finite(math.Sqrt(v)) }

// intOfFloat drops the decimals. The bounds are the exact floats -2^63 and 2^63.
func intOfFloat(v float64) (int64, bool) {
	v = math.Trunc(v)
	if v >= -(1<<63) && v < 1<<63 {
		return int64(v), true
	}
	return 0, false
}

func intOfBool(v bool) (int64, bool) {
	if v {
		return 1, true
	}
	return 0, true
}

func floatOfBool(v bool) (float64, bool) {
	if v {
		return 1, true
	}
	return 0, true
}

func boolOfInt(v int64) (value, ok bool)     { return v != 0, true }
func boolOfFloat(v float64) (value, ok bool) { return v != 0, true }

// roundKernel keeps a number of decimals.
type roundKernel struct {
	arg   kernel
	scale float64
	out   column.Column
}

func buildRound(n *expr.Node) (kernel, error) {
	if len(n.Args) == 1 {
		if n.Args[0].Type == expr.Int {
			return passThrough(n)
		}
		return convert(expr.Float, floats, floats, roundFloat)(n)
	}
	digits := n.Args[1]
	if digits.Op != expr.OpLiteral || digits.Value.Type != expr.Int || digits.Value.Int < 0 || digits.Value.Int > 15 {
		return nil, fmt.Errorf("round at offset %d needs a constant from 0 to 15 as its second argument", n.Pos)
	}
	arg, err := compileExpr(n.Args[0], expr.Float)
	if err != nil {
		return nil, err
	}
	return &roundKernel{arg: arg, scale: math.Pow(10, float64(digits.Value.Int)), out: column.Column{Type: expr.Float}}, nil
}

func (k *roundKernel) eval(b *column.Batch) *column.Column {
	a := k.arg.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, a)
	for i, v := range a.Floats[:b.Len] {
		k.out.Floats[i] = v
		if scaled := v * k.scale; !math.IsInf(scaled, 0) {
			k.out.Floats[i] = math.Round(scaled) / k.scale
		}
	}
	nullWhereNotFinite(&k.out)
	return &k.out
}

type powKernel struct {
	base, exponent kernel
	out            column.Column
}

func buildPow(n *expr.Node) (kernel, error) {
	args, err := compileArgs(n, expr.Float)
	if err != nil {
		return nil, err
	}
	return &powKernel{base: args[0], exponent: args[1], out: column.Column{Type: expr.Float}}, nil
}

func (k *powKernel) eval(b *column.Batch) *column.Column {
	x, y := k.base.eval(b), k.exponent.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, x)
	addNulls(&k.out, y)
	for i := range k.out.Floats {
		k.out.Floats[i] = math.Pow(x.Floats[i], y.Floats[i])
	}
	nullWhereNotFinite(&k.out)
	return &k.out
}
