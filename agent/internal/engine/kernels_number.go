package engine

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// numberKernels are the functions of numbers.
func numberKernels() map[string]builder {
	float := func(row func(float64) (float64, bool)) builder { return convert(expr.Float, floats, floats, row) }
	either := func(ofInt, ofFloat builder) builder {
		return byArgument(map[expr.Type]builder{expr.Int: ofInt, expr.Float: ofFloat})
	}
	pair := func(f func(x, y float64) float64) builder {
		return rows(expr.Float, floats, func(c []*column.Column, i int) (float64, bool) {
			return finite(f(c[0].Floats[i], c[1].Floats[i]))
		}, expr.Float, expr.Float)
	}
	return map[string]builder{
		"abs":   either(convert(expr.Int, ints, ints, absInt), float(absFloat)),
		"sign":  either(convert(expr.Int, ints, ints, signInt), convert(expr.Int, floats, ints, signFloat)),
		"round": buildRound, "floor": either(passThrough, float(floorFloat)), "ceil": either(passThrough, float(ceilFloat)),
		"trunc": either(passThrough, float(plain(math.Trunc))),
		"sqrt":  float(sqrtFloat), "pow": buildPow, "hypot": pair(math.Hypot), "atan2": pair(math.Atan2), "log": pair(logarithm),
		"exp": float(plain(math.Exp)), "ln": float(plain(math.Log)), "log10": float(plain(math.Log10)),
		"sin": float(plain(math.Sin)), "cos": float(plain(math.Cos)), "tan": float(plain(math.Tan)),
		"asin": float(plain(math.Asin)), "acos": float(plain(math.Acos)), "atan": float(plain(math.Atan)),
		"degrees": float(degreesOf), "radians": float(radiansOf), "pi": buildPi, "convert": buildConversion,
		"clamp":     buildClamp,
		"is_nan":    convert(expr.Bool, floats, bools, isNaN),
		"is_finite": convert(expr.Bool, floats, bools, isFinite),
	}
}

// plain makes null of what is not finite.
func plain(f func(float64) float64) func(float64) (float64, bool) {
	return func(v float64) (float64, bool) { return finite(f(v)) }
}

func signInt(v int64) (int64, bool) {
	switch {
	case v > 0:
		return 1, true
	case v < 0:
		return -1, true
	}
	return 0, true
}

func signFloat(v float64) (int64, bool) {
	switch {
	case v > 0:
		return 1, true
	case v < 0:
		return -1, true
	}
	return 0, !math.IsNaN(v)
}

// logarithm is exact for powers of 2 and 10, where the quotient of natural logarithms is not.
func logarithm(v, base float64) float64 {
	switch {
	case base <= 0 || v <= 0 || base == 1:
		return math.NaN()
	case base == 2:
		return math.Log2(v)
	case base == 10:
		return math.Log10(v)
	}
	return math.Log(v) / math.Log(base)
}

// One division and one product: 180 degrees are exactly pi.
func degreesOf(v float64) (float64, bool) { return finite(v / math.Pi * 180) }
func radiansOf(v float64) (float64, bool) { return finite(v / 180 * math.Pi) }

func isNaN(v float64) (value, ok bool)    { return math.IsNaN(v), true }
func isFinite(v float64) (value, ok bool) { return !math.IsNaN(v) && !math.IsInf(v, 0), true }

func buildPi(*expr.Node) (kernel, error) {
	return newLiteral(expr.Value{Type: expr.Float, Float: math.Pi}, expr.Float), nil
}

func buildConversion(n *expr.Node) (kernel, error) {
	conversion, err := expr.NewConversion(n.Args[1].Value.Str, n.Args[2].Value.Str)
	if err != nil {
		return nil, fmt.Errorf("convert at offset %d: %w", n.Pos, err)
	}
	return convert(expr.Float, floats, floats, func(v float64) (float64, bool) { return finite(conversion.Convert(v)) })(n)
}

func buildClamp(n *expr.Node) (kernel, error) {
	if n.Type == expr.Int {
		return rows(expr.Int, ints, func(c []*column.Column, i int) (int64, bool) {
			low, high := c[1].Ints[i], c[2].Ints[i]
			return max(low, min(high, c[0].Ints[i])), low <= high
		}, expr.Int, expr.Int, expr.Int)(n)
	}
	return rows(expr.Float, floats, func(c []*column.Column, i int) (float64, bool) {
		v, low, high := c[0].Floats[i], c[1].Floats[i], c[2].Floats[i]
		if v < low {
			v = low
		} else if v > high {
			v = high
		}
		_, ok := finite(v)
		return v, ok && low <= high
	}, expr.Float, expr.Float, expr.Float)(n)
}

// bitKernels see an int as 64 bits.
func bitKernels() map[string]builder {
	pair := func(f func(a, b int64) (int64, bool)) builder {
		return rows(expr.Int, ints, func(c []*column.Column, i int) (int64, bool) {
			return f(c[0].Ints[i], c[1].Ints[i])
		}, expr.Int, expr.Int)
	}
	return map[string]builder{
		"bit": rows(expr.Bool, bools, func(c []*column.Column, i int) (value, ok bool) {
			n := c[1].Ints[i]
			return c[0].Ints[i]>>(uint64(n)&63)&1 == 1, n >= 0 && n < 64 //nolint:gosec // the bits as they are
		}, expr.Int, expr.Int),
		"bit_and":     pair(func(a, b int64) (int64, bool) { return a & b, true }),
		"bit_or":      pair(func(a, b int64) (int64, bool) { return a | b, true }),
		"bit_xor":     pair(func(a, b int64) (int64, bool) { return a ^ b, true }),
		"bit_not":     convert(expr.Int, ints, ints, func(v int64) (int64, bool) { return ^v, true }),
		"bit_count":   convert(expr.Int, ints, ints, func(v int64) (int64, bool) { return int64(bits.OnesCount64(uint64(v))), true }), //nolint:gosec // the bits as they are
		"shift_left":  pair(func(v, n int64) (int64, bool) { return v << (uint64(n) & 63), n >= 0 && n < 64 }),                        //nolint:gosec // the bits as they are
		"shift_right": pair(func(v, n int64) (int64, bool) { return int64(uint64(v) >> (uint64(n) & 63)), n >= 0 && n < 64 }),         //nolint:gosec // the bits as they are
	}
}

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
