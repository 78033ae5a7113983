package engine

import (
	"bytes"
	"cmp"
	"fmt"
	"math/bits"
	"regexp"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

type notKernel struct {
	arg kernel
	out column.Column
}

func compileNot(n *expr.Node) (kernel, error) {
	if len(n.Args) != 1 {
		return nil, argumentError(n)
	}
	arg, err := compileExpr(n.Args[0], expr.Bool)
	if err != nil {
		return nil, err
	}
	return &notKernel{arg: arg, out: column.Column{Type: expr.Bool}}, nil
}

func (k *notKernel) eval(b *column.Batch) *column.Column {
	a := k.arg.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, a)
	out := k.out.Bools
	for i, v := range a.Bools[:b.Len] {
		out[i] = !v
	}
	return &k.out
}

// logicKernel is OpAnd and OpOr. dominant is the operand that decides alone: false for and, true for or.
type logicKernel struct {
	a, b     kernel
	dominant bool
	out      column.Column
}

func compileLogic(n *expr.Node) (kernel, error) {
	if len(n.Args) != 2 {
		return nil, argumentError(n)
	}
	args, err := compileArgs(n, expr.Bool)
	if err != nil {
		return nil, err
	}
	return &logicKernel{a: args[0], b: args[1], dominant: n.Op == expr.OpOr, out: column.Column{Type: expr.Bool}}, nil
}

func (k *logicKernel) eval(b *column.Batch) *column.Column {
	x, y := k.a.eval(b), k.b.eval(b)
	begin(&k.out, b.Len)
	out, xs, ys := k.out.Bools, x.Bools[:b.Len], y.Bools[:b.Len]
	if len(x.Nulls) == 0 && len(y.Nulls) == 0 {
		for i := range out {
			out[i] = (xs[i] == k.dominant || ys[i] == k.dominant) == k.dominant
		}
		return &k.out
	}
	// Where one operand is null the result is known only if the other one decides alone, and then the plain operation
	// gives it whatever stands in the null row.
	for i := range out {
		out[i] = (xs[i] == k.dominant || ys[i] == k.dominant) == k.dominant
	}
	for w := range max(len(x.Nulls), len(y.Nulls)) {
		xn, yn := nullWord(x, w), nullWord(y, w)
		for rest := xn | yn; rest != 0; rest &= rest - 1 {
			i := w<<6 + bits.TrailingZeros64(rest)
			if i >= len(out) {
				break
			}
			bit := rest & -rest
			if (xn&bit != 0 || xs[i] != k.dominant) && (yn&bit != 0 || ys[i] != k.dominant) {
				k.out.SetNull(i)
			}
		}
	}
	return &k.out
}

// nullWord is the nulls of the rows 64w to 64w+63.
func nullWord(c *column.Column, w int) uint64 {
	if w < len(c.Nulls) {
		return c.Nulls[w]
	}
	return 0
}

// compareKernel is every comparison, made from equal and less: a != b is not equal, a > b is b < a, a <= b is not b < a
// and a >= b is not a < b, which holds because every type is totally ordered (NaN is greatest and equal to itself).
type compareKernel struct {
	a, b   kernel
	equal  bool
	negate bool
	store  storage
	out    column.Column
}

func compileCompare(n *expr.Node) (kernel, error) {
	if len(n.Args) != 2 {
		return nil, argumentError(n)
	}
	args, err := compileArgs(n, commonType(n.Args))
	if err != nil {
		return nil, err
	}
	k := &compareKernel{a: args[0], b: args[1], store: storageOf(commonType(n.Args)), out: column.Column{Type: expr.Bool}}
	k.equal = n.Op == expr.OpEq || n.Op == expr.OpNe
	k.negate = n.Op == expr.OpNe || n.Op == expr.OpLe || n.Op == expr.OpGe
	if n.Op == expr.OpGt || n.Op == expr.OpLe {
		k.a, k.b = k.b, k.a
	}
	if c := constantCompare(k); c != nil {
		return c, nil
	}
	return k, nil
}

// commonType is the type in which arguments meet: float when ints and floats mix, bool when all are the literal null.
func commonType(args []*expr.Node) expr.Type {
	common := expr.Null
	for _, a := range args {
		switch {
		case a.Type == expr.Null:
		case common == expr.Null || (common == expr.Int && a.Type == expr.Float):
			common = a.Type
		}
	}
	if common == expr.Null {
		return expr.Bool
	}
	return common
}

func (k *compareKernel) eval(b *column.Batch) *column.Column {
	x, y := k.a.eval(b), k.b.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, x)
	addNulls(&k.out, y)
	out := k.out.Bools
	switch k.store {
	case storeBool:
		k.bools(out, x.Bools[:b.Len], y.Bools[:b.Len])
	case storeInt:
		compareInts(k, out, x.Ints[:b.Len], y.Ints[:b.Len])
	case storeFloat:
		k.floats(out, x.Floats[:b.Len], y.Floats[:b.Len])
	case storeText:
		k.text(out, x, y)
	case storeNone:
	}
	return &k.out
}

func (k *compareKernel) bools(out, x, y []bool) {
	for i := range out {
		if k.equal {
			out[i] = (x[i] == y[i]) != k.negate
		} else {
			out[i] = (!x[i] && y[i]) != k.negate
		}
	}
}

func compareInts(k *compareKernel, out []bool, x, y []int64) {
	x, y = x[:len(out)], y[:len(out)]
	if k.equal {
		for i := range out {
			out[i] = (x[i] == y[i]) != k.negate
		}
		return
	}
	for i := range out {
		out[i] = (x[i] < y[i]) != k.negate
	}
}

func (k *compareKernel) floats(out []bool, x, y []float64) {
	x, y = x[:len(out)], y[:len(out)]
	if k.equal {
		for i := range out {
			out[i] = equalFloat(x[i], y[i]) != k.negate
		}
		return
	}
	for i := range out {
		out[i] = lessFloat(x[i], y[i]) != k.negate
	}
}

// equalFloat and lessFloat order floats as PostgreSQL does: NaN is equal to itself and greater than everything else.
func equalFloat(a, b float64) bool {
	return a == b || (a != a && b != b)
}

func lessFloat(a, b float64) bool {
	return a < b || (b != b && a == a)
}

func compareFloat(a, b float64) int {
	switch {
	case lessFloat(a, b):
		return -1
	case equalFloat(a, b):
		return 0
	}
	return 1
}

func (k *compareKernel) text(out []bool, x, y *column.Column) {
	for i := range out {
		a, b := x.Bytes(i), y.Bytes(i)
		if k.equal {
			out[i] = bytes.Equal(a, b) != k.negate
		} else {
			out[i] = (bytes.Compare(a, b) < 0) != k.negate
		}
	}
}

// inKernel is `x in [a, b]`: true when equal to one of the literals, else null when x or one of them is null.
type inKernel struct {
	arg     kernel
	hasNull bool
	bools   [2]bool
	ints    map[int64]struct{}
	floats  []float64
	texts   map[string]struct{}
	out     column.Column
}

func compileIn(n *expr.Node) (kernel, error) {
	if len(n.Args) == 0 {
		return nil, argumentError(n)
	}
	t := commonType(n.Args)
	arg, err := compileExpr(n.Args[0], t)
	if err != nil {
		return nil, err
	}
	k := &inKernel{arg: arg, out: column.Column{Type: expr.Bool}}
	k.ints, k.texts = map[int64]struct{}{}, map[string]struct{}{}
	for _, a := range n.Args[1:] {
		if a.Op == expr.OpCast && len(a.Args) == 1 {
			a = a.Args[0]
		}
		if a.Op != expr.OpLiteral {
			return nil, fmt.Errorf("the list at offset %d may hold literals only", a.Pos)
		}
		k.add(a.Value, t)
	}
	return k, nil
}

func (k *inKernel) add(v expr.Value, t expr.Type) {
	if v.Type == expr.Null {
		k.hasNull = true
		return
	}
	switch storageOf(t) {
	case storeBool:
		if v.Bool {
			k.bools[1] = true
		} else {
			k.bools[0] = true
		}
	case storeInt:
		k.ints[v.Int] = struct{}{}
	case storeFloat:
		if v.Type == expr.Int {
			v.Float = float64(v.Int)
		}
		k.floats = append(k.floats, v.Float)
	case storeText:
		k.texts[v.Str] = struct{}{}
	case storeNone:
	}
}

func (k *inKernel) eval(b *column.Batch) *column.Column {
	x := k.arg.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, x)
	out := k.out.Bools
	switch storageOf(x.Type) {
	case storeBool:
		for i, v := range x.Bools[:b.Len] {
			out[i] = (v && k.bools[1]) || (!v && k.bools[0])
		}
	case storeInt:
		for i, v := range x.Ints[:b.Len] {
			_, out[i] = k.ints[v]
		}
	case storeFloat:
		for i, v := range x.Floats[:b.Len] {
			out[i] = k.hasFloat(v)
		}
	case storeText:
		for i := range out {
			_, out[i] = k.texts[string(x.Bytes(i))]
		}
	case storeNone:
	}
	if k.hasNull {
		nullWhereFalse(&k.out)
	}
	return &k.out
}

func nullWhereFalse(c *column.Column) {
	for i, v := range c.Bools {
		if !v {
			c.SetNull(i)
		}
	}
}

func (k *inKernel) hasFloat(v float64) bool {
	for _, f := range k.floats {
		if equalFloat(f, v) {
			return true
		}
	}
	return false
}

type matchesKernel struct {
	arg     kernel
	pattern *regexp.Regexp
	out     column.Column
}

func compileMatches(n *expr.Node) (kernel, error) {
	if len(n.Args) != 2 || n.Args[1].Op != expr.OpLiteral {
		return nil, argumentError(n)
	}
	arg, err := compileExpr(n.Args[0], expr.String)
	if err != nil {
		return nil, err
	}
	pattern, err := regexp.Compile(n.Args[1].Value.Str)
	if err != nil {
		return nil, fmt.Errorf("the pattern at offset %d: %w", n.Args[1].Pos, err)
	}
	return &matchesKernel{arg: arg, pattern: pattern, out: column.Column{Type: expr.Bool}}, nil
}

func (k *matchesKernel) eval(b *column.Batch) *column.Column {
	x := k.arg.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, x)
	for i := range k.out.Bools {
		k.out.Bools[i] = !x.Null(i) && k.pattern.Match(x.Bytes(i))
	}
	return &k.out
}

// compareRows orders two rows of two columns of one type; null is greatest, as PostgreSQL sorts.
func compareRows(a *column.Column, i int, b *column.Column, j int) int {
	an, bn := a.Null(i), b.Null(j)
	if an || bn {
		return compareBool(an, bn)
	}
	switch storageOf(a.Type) {
	case storeBool:
		return compareBool(a.Bools[i], b.Bools[j])
	case storeInt:
		return cmp.Compare(a.Ints[i], b.Ints[j])
	case storeFloat:
		return compareFloat(a.Floats[i], b.Floats[j])
	case storeText:
		return bytes.Compare(a.Bytes(i), b.Bytes(j))
	case storeNone:
	}
	return 0
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
