package engine

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

type negKernel struct {
	arg kernel
	out column.Column
}

func compileNeg(n *expr.Node) (kernel, error) {
	if len(n.Args) != 1 {
		return nil, argumentError(n)
	}
	arg, err := compileExpr(n.Args[0], n.Type)
	if err != nil {
		return nil, err
	}
	if n.Type != expr.Int && n.Type != expr.Float {
		return nil, arithError(n)
	}
	return &negKernel{arg: arg, out: column.Column{Type: n.Type}}, nil
}

func arithError(n *expr.Node) error {
	return fmt.Errorf("the expression at offset %d calculates with %s, which the engine cannot", n.Pos, n.Type)
}

func (k *negKernel) eval(b *column.Batch) *column.Column {
	a := k.arg.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, a)
	if k.out.Type == expr.Float {
		for i, v := range a.Floats[:b.Len] {
			k.out.Floats[i] = -v
		}
		return &k.out
	}
	for i, v := range a.Ints[:b.Len] {
		k.out.Ints[i] = -v
		if v == math.MinInt64 {
			k.out.SetNull(i)
		}
	}
	return &k.out
}

func compileArith(n *expr.Node) (kernel, error) {
	if len(n.Args) != 2 {
		return nil, argumentError(n)
	}
	args, err := compileArgs(n, n.Type)
	if err != nil {
		return nil, err
	}
	switch n.Type {
	case expr.Float:
		return &floatArith{op: n.Op, a: args[0], b: args[1], out: column.Column{Type: expr.Float}}, nil
	case expr.Int:
		if n.Op != expr.OpDiv {
			return &intArith{op: n.Op, a: args[0], b: args[1], out: column.Column{Type: expr.Int}}, nil
		}
	case expr.String:
		if n.Op == expr.OpAdd {
			return newConcat(args), nil
		}
	case expr.Bool, expr.Timestamp, expr.JSON, expr.Null, expr.Invalid:
	}
	return nil, arithError(n)
}

type floatArith struct {
	op   expr.Op
	a, b kernel
	out  column.Column
}

func (k *floatArith) eval(b *column.Batch) *column.Column {
	x, y := k.a.eval(b), k.b.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, x)
	addNulls(&k.out, y)
	out := k.out.Floats
	xs, ys := x.Floats[:len(out)], y.Floats[:len(out)]
	switch k.op { //nolint:exhaustive // compileArith lets only these through
	case expr.OpAdd:
		for i := range out {
			out[i] = xs[i] + ys[i]
		}
	case expr.OpSub:
		for i := range out {
			out[i] = xs[i] - ys[i]
		}
	case expr.OpMul:
		for i := range out {
			out[i] = xs[i] * ys[i]
		}
	case expr.OpDiv:
		for i := range out {
			out[i] = xs[i] / ys[i]
			if ys[i] == 0 {
				k.out.SetNull(i)
			}
		}
	case expr.OpMod:
		for i := range out {
			out[i] = math.Mod(xs[i], ys[i])
			if ys[i] == 0 {
				k.out.SetNull(i)
			}
		}
	}
	return &k.out
}

type intArith struct {
	op   expr.Op
	a, b kernel
	out  column.Column
}

func (k *intArith) eval(b *column.Batch) *column.Column {
	x, y := k.a.eval(b), k.b.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, x)
	addNulls(&k.out, y)
	out := k.out.Ints
	xs, ys := x.Ints[:len(out)], y.Ints[:len(out)]
	switch k.op { //nolint:exhaustive // compileArith lets only these through
	case expr.OpAdd:
		for i := range out {
			v := xs[i] + ys[i]
			out[i] = v
			if (v > xs[i]) != (ys[i] > 0) {
				k.out.SetNull(i)
			}
		}
	case expr.OpSub:
		for i := range out {
			v := xs[i] - ys[i]
			out[i] = v
			if (v < xs[i]) != (ys[i] > 0) {
				k.out.SetNull(i)
			}
		}
	case expr.OpMul:
		for i := range out {
			v, ok := mulInt(xs[i], ys[i])
			out[i] = v
			if !ok {
				k.out.SetNull(i)
			}
		}
	case expr.OpMod:
		for i := range out {
			if ys[i] == 0 {
				k.out.SetNull(i)
				continue
			}
			out[i] = xs[i] % ys[i]
		}
	}
	return &k.out
}

// mulInt multiplies; ok is false when the product does not fit.
func mulInt(a, b int64) (product int64, ok bool) {
	hi, lo := bits.Mul64(magnitude(a), magnitude(b))
	product = a * b
	if (a < 0) != (b < 0) {
		return product, hi == 0 && lo <= 1<<63
	}
	return product, hi == 0 && lo < 1<<63
}

func magnitude(v int64) uint64 {
	if v < 0 {
		return -uint64(v) //nolint:gosec // two's complement
	}
	return uint64(v)
}
