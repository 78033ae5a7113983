package engine

import (
	"fmt"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// kernel computes one node of an expression for all rows of a batch. The result is valid until the kernel's next call;
// it may be a column of the batch itself, so nobody changes it. Kernels own scratch memory and belong to one goroutine.
type kernel interface {
	eval(b *column.Batch) *column.Column
}

// storage is which slice of a column holds the values of a type.
type storage uint8

const (
	storeNone storage = iota
	storeBool
	storeInt
	storeFloat
	storeText
)

func storageOf(t expr.Type) storage {
	switch t {
	case expr.Bool:
		return storeBool
	case expr.Int, expr.Timestamp:
		return storeInt
	case expr.Float:
		return storeFloat
	case expr.String, expr.JSON:
		return storeText
	case expr.Invalid, expr.Null:
	}
	return storeNone
}

// i32 narrows a row number or a group number; batches and tables are bounded far below two billion rows.
func i32(n int) int32 {
	return int32(n) //nolint:gosec // see above
}

func resize[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }

// begin readies a scratch column for n rows of its type. Text columns start empty and are appended to.
func begin(c *column.Column, n int) {
	c.Nulls = c.Nulls[:0]
	switch storageOf(c.Type) {
	case storeBool:
		c.Bools = resize(c.Bools, n)
	case storeInt:
		c.Ints = resize(c.Ints, n)
	case storeFloat:
		c.Floats = resize(c.Floats, n)
	case storeText:
		c.Strs, c.Data = c.Strs[:0], c.Data[:0]
	case storeNone:
	}
}

// addNulls makes every row of dst null that is null in src.
func addNulls(dst, src *column.Column) {
	for i, w := range src.Nulls {
		if i < len(dst.Nulls) {
			dst.Nulls[i] |= w
		} else {
			dst.Nulls = append(dst.Nulls, w)
		}
	}
}

// addText appends a row to a text column; one with which the column would have more than limit bytes is null, and then
// false comes back.
func addText(c *column.Column, text []byte, limit int) (fits bool) {
	if len(c.Data)+len(text) > limit {
		c.AppendNull()
		return false
	}
	c.AppendStr(text)
	return true
}

// compileExpr makes the kernel of a checked node. want is the type that the place needs: it decides the type of a
// literal null and widens an int to a float.
func compileExpr(n *expr.Node, want expr.Type) (kernel, error) {
	if n == nil {
		return nil, fmt.Errorf("an expression of type %s is missing from the plan", want)
	}
	if n.Type == expr.Null || (n.Op == expr.OpLiteral && n.Value.Type == expr.Null) {
		if storageOf(want) == storeNone {
			return nil, fmt.Errorf("the expression at offset %d is always null and has no type", n.Pos)
		}
		return newLiteral(expr.Value{Type: expr.Null}, want), nil
	}
	k, err := compileNode(n)
	if err != nil {
		return nil, err
	}
	k = meterTexts(k, n.Type)
	if want == expr.Float && n.Type == expr.Int {
		return widen(k), nil
	}
	if n.Type != want {
		return nil, fmt.Errorf("the expression at offset %d is %s where the plan needs %s", n.Pos, n.Type, want)
	}
	return k, nil
}

func compileNode(n *expr.Node) (kernel, error) {
	switch n.Op {
	case expr.OpLiteral:
		return newLiteral(n.Value, n.Type), nil
	case expr.OpColumn:
		return &columnKernel{pos: n.Column}, nil
	case expr.OpNot:
		return compileNot(n)
	case expr.OpNeg:
		return compileNeg(n)
	case expr.OpAnd, expr.OpOr:
		return compileLogic(n)
	case expr.OpEq, expr.OpNe, expr.OpLt, expr.OpLe, expr.OpGt, expr.OpGe:
		return compileCompare(n)
	case expr.OpAdd, expr.OpSub, expr.OpMul, expr.OpDiv, expr.OpMod:
		return compileArith(n)
	case expr.OpCond:
		return compileCond(n)
	case expr.OpCoalesce:
		return compileCoalesce(n)
	case expr.OpIn:
		return compileIn(n)
	case expr.OpMatches:
		return compileMatches(n)
	case expr.OpCall:
		return compileCall(n)
	case expr.OpCast:
		return compileCast(n)
	}
	return nil, fmt.Errorf("the expression at offset %d has the unknown operation %d", n.Pos, n.Op)
}

// compileArgs compiles every argument to the same type.
func compileArgs(n *expr.Node, want expr.Type) ([]kernel, error) {
	args := make([]kernel, len(n.Args))
	for i, a := range n.Args {
		k, err := compileExpr(a, want)
		if err != nil {
			return nil, err
		}
		args[i] = k
	}
	return args, nil
}

type columnKernel struct{ pos int }

func (k *columnKernel) eval(b *column.Batch) *column.Column { return &b.Cols[k.pos] }

// literalKernel repeats a constant. It is filled once for the longest batch seen.
type literalKernel struct {
	value  expr.Value
	filled column.Column
	out    column.Column
}

func newLiteral(v expr.Value, t expr.Type) *literalKernel {
	k := &literalKernel{value: v}
	if v.Type == expr.Int && t == expr.Float {
		k.value = expr.Value{Type: expr.Float, Float: float64(v.Int)}
	}
	k.filled.Type, k.out.Type = t, t
	if storageOf(t) == storeText {
		k.filled.Data = []byte(v.Str)
		k.out.Data = k.filled.Data
	}
	return k
}

func (k *literalKernel) eval(b *column.Batch) *column.Column {
	f, out := &k.filled, &k.out
	for i := f.Rows(); i < b.Len; i++ {
		k.fill()
		if k.value.Type == expr.Null {
			f.SetNull(i)
		}
	}
	switch storageOf(f.Type) {
	case storeBool:
		out.Bools = f.Bools[:b.Len]
	case storeInt:
		out.Ints = f.Ints[:b.Len]
	case storeFloat:
		out.Floats = f.Floats[:b.Len]
	case storeText:
		out.Strs = f.Strs[:b.Len]
	case storeNone:
	}
	if k.value.Type == expr.Null {
		out.Nulls = append(out.Nulls[:0], f.Nulls[:(b.Len+63)>>6]...)
		if rest := b.Len & 63; rest != 0 {
			out.Nulls[len(out.Nulls)-1] = 1<<uint(rest) - 1
		}
	}
	return out
}

func (k *literalKernel) fill() {
	f := &k.filled
	switch storageOf(f.Type) {
	case storeBool:
		f.Bools = append(f.Bools, k.value.Bool)
	case storeInt:
		f.Ints = append(f.Ints, k.value.Int)
	case storeFloat:
		f.Floats = append(f.Floats, k.value.Float)
	case storeText:
		f.Strs = append(f.Strs, column.Str{Len: uint32(len(f.Data))}) //nolint:gosec // a literal is shorter than a definition
	case storeNone:
	}
}

// widenKernel is OpCast: int to float.
type widenKernel struct {
	arg kernel
	out column.Column
}

func widen(arg kernel) kernel {
	if l, ok := arg.(*literalKernel); ok {
		return newLiteral(l.value, expr.Float)
	}
	return &widenKernel{arg: arg, out: column.Column{Type: expr.Float}}
}

func compileCast(n *expr.Node) (kernel, error) {
	if len(n.Args) != 1 {
		return nil, argumentError(n)
	}
	return compileExpr(n.Args[0], n.Type)
}

func argumentError(n *expr.Node) error {
	return fmt.Errorf("the expression at offset %d has %d arguments, which its operation does not take", n.Pos, len(n.Args))
}

func (k *widenKernel) eval(b *column.Batch) *column.Column {
	a := k.arg.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, a)
	out, in := k.out.Floats, a.Ints[:b.Len]
	for i, v := range in {
		out[i] = float64(v)
	}
	return &k.out
}

// condKernel is `cond ? a : b`; a null condition takes b.
type condKernel struct {
	cond, then, other kernel
	out               column.Column
}

func compileCond(n *expr.Node) (kernel, error) {
	if len(n.Args) != 3 {
		return nil, argumentError(n)
	}
	cond, err := compileExpr(n.Args[0], expr.Bool)
	if err != nil {
		return nil, err
	}
	then, err := compileExpr(n.Args[1], n.Type)
	if err != nil {
		return nil, err
	}
	other, err := compileExpr(n.Args[2], n.Type)
	if err != nil {
		return nil, err
	}
	return &condKernel{cond: cond, then: then, other: other, out: column.Column{Type: n.Type}}, nil
}

func (k *condKernel) eval(b *column.Batch) *column.Column {
	c, then, other, out := k.cond.eval(b), k.then.eval(b), k.other.eval(b), &k.out
	limit := beginText(out, b)
	if len(c.Nulls)+len(then.Nulls)+len(other.Nulls) == 0 && pickRows(out, c.Bools[:b.Len], then, other) {
		return out
	}
	for i := range b.Len {
		from := other
		if c.Bools[i] && !c.Null(i) {
			from = then
		}
		if !putRow(out, i, from, limit) && outgrown(out, b) {
			break
		}
	}
	return endText(out, b)
}

// pickRows is condKernel where nothing is null; false says that it does not know the type.
func pickRows(out *column.Column, cond []bool, then, other *column.Column) bool {
	switch storageOf(out.Type) {
	case storeInt:
		pick(out.Ints, cond, then.Ints, other.Ints)
	case storeFloat:
		pick(out.Floats, cond, then.Floats, other.Floats)
	case storeBool, storeText, storeNone:
		return false
	}
	return true
}

func pick[T any](out []T, cond []bool, then, other []T) {
	then, other, cond = then[:len(out)], other[:len(out)], cond[:len(out)]
	for i, yes := range cond {
		out[i] = other[i]
		if yes {
			out[i] = then[i]
		}
	}
}

// putRow sets row i of out, which beginText has readied, to row i of from; fits is that of addText.
func putRow(out *column.Column, i int, from *column.Column, limit int) (fits bool) {
	null := from.Null(i)
	if null {
		out.SetNull(i)
	}
	switch storageOf(out.Type) {
	case storeBool:
		out.Bools[i] = from.Bools[i]
	case storeInt:
		out.Ints[i] = from.Ints[i]
	case storeFloat:
		out.Floats[i] = from.Floats[i]
	case storeText:
		if !null {
			return addText(out, from.Bytes(i), limit)
		}
		out.Strs = append(out.Strs, column.Str{})
	case storeNone:
	}
	return true
}

// coalesceKernel gives each row the first argument that is not null.
type coalesceKernel struct {
	args []kernel
	cols []*column.Column
	out  column.Column
}

func compileCoalesce(n *expr.Node) (kernel, error) {
	if len(n.Args) == 0 {
		return nil, argumentError(n)
	}
	args, err := compileArgs(n, n.Type)
	if err != nil {
		return nil, err
	}
	return &coalesceKernel{args: args, cols: make([]*column.Column, len(args)), out: column.Column{Type: n.Type}}, nil
}

func (k *coalesceKernel) eval(b *column.Batch) *column.Column {
	for i, a := range k.args {
		k.cols[i] = a.eval(b)
	}
	if !k.cols[0].HasNulls() {
		return k.cols[0]
	}
	limit := beginText(&k.out, b)
	for i := range b.Len {
		from := k.cols[0]
		for j := 1; j < len(k.cols) && from.Null(i); j++ {
			from = k.cols[j]
		}
		if !putRow(&k.out, i, from, limit) && outgrown(&k.out, b) {
			break
		}
	}
	return endText(&k.out, b)
}
