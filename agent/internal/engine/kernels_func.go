package engine

import (
	"fmt"
	"maps"
	"math"
	"sync"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// builder makes the kernel of a call whose arguments the checker has accepted.
type builder func(n *expr.Node) (kernel, error)

// functionKernels has a builder for every function of the language; a test compares it with expr.Functions. The map is
// made once and then only read: a large definition calls thousands of functions.
func functionKernels() map[string]builder {
	functionIndex.once.Do(func() {
		functionIndex.builders = map[string]builder{}
		for _, family := range []map[string]builder{
			textKernels(), numberKernels(), bitKernels(), choiceKernels(), castKernels(), timeKernels(), jsonKernels(),
		} {
			maps.Copy(functionIndex.builders, family)
		}
	})
	return functionIndex.builders
}

// functionIndex is what sync.OnceValue would be, if builders did not compile arguments, which may be calls: that is a
// cycle for the initialisation of a variable.
var functionIndex struct {
	once     sync.Once
	builders map[string]builder
}

func choiceKernels() map[string]builder {
	return map[string]builder{
		"least": buildExtreme, "greatest": buildExtreme, "coalesce": compileCoalesce, "is_null": buildIsNull,
	}
}

func castKernels() map[string]builder {
	return map[string]builder{
		"int": byArgument(map[expr.Type]builder{
			expr.Int: passThrough, expr.Float: convert(expr.Int, floats, ints, intOfFloat),
			expr.Bool: convert(expr.Int, bools, ints, intOfBool), expr.String: fromText(expr.Int, ints, intOfText),
		}),
		"float": byArgument(map[expr.Type]builder{
			expr.Int: buildWiden, expr.Float: convert(expr.Float, floats, floats, finite),
			expr.Bool: convert(expr.Float, bools, floats, floatOfBool), expr.String: fromText(expr.Float, floats, floatOfText),
		}),
		"string": byArgument(map[expr.Type]builder{
			expr.String: passThrough, expr.Int: toText(ints, textOfInt), expr.Float: toText(floats, textOfFloat),
			expr.Bool: toText(bools, textOfBool), expr.Timestamp: toText(ints, textOfTime), expr.JSON: textToText(copyText),
		}),
		"bool": byArgument(map[expr.Type]builder{
			expr.Bool: passThrough, expr.Int: convert(expr.Bool, ints, bools, boolOfInt),
			expr.Float: convert(expr.Bool, floats, bools, boolOfFloat), expr.String: fromText(expr.Bool, bools, boolOfText),
		}),
		"timestamp": byArgument(map[expr.Type]builder{
			expr.Timestamp: passThrough, expr.String: buildTimestamp,
			expr.Int: convert(expr.Timestamp, ints, ints, timeOfMillis),
		}),
		"json": byArgument(map[expr.Type]builder{expr.JSON: passThrough, expr.String: textToText(validJSON)}),
	}
}

func compileCall(n *expr.Node) (kernel, error) {
	name := n.Name
	if n.Func != nil {
		name = n.Func.Name
	}
	build, ok := functionKernels()[name]
	if !ok {
		return nil, fmt.Errorf("the agent does not know the function %s; a newer agent may", name)
	}
	if len(n.Args) == 0 && name != "pi" {
		return nil, argumentError(n)
	}
	return build(n)
}

func bools(c *column.Column) []bool     { return c.Bools }
func ints(c *column.Column) []int64     { return c.Ints }
func floats(c *column.Column) []float64 { return c.Floats }

// byArgument picks a builder by the type of the first argument.
func byArgument(builders map[expr.Type]builder) builder {
	return func(n *expr.Node) (kernel, error) {
		build, ok := builders[n.Args[0].Type]
		if !ok && n.Args[0].Type == expr.Null {
			return newLiteral(expr.Value{Type: expr.Null}, n.Type), nil
		}
		if !ok {
			return nil, fmt.Errorf("the function %s does not take %s", n.Name, n.Args[0].Type)
		}
		return build(n)
	}
}

func passThrough(n *expr.Node) (kernel, error) { return compileExpr(n.Args[0], n.Type) }

func buildWiden(n *expr.Node) (kernel, error) { return compileExpr(n.Args[0], expr.Float) }

// firstArgument compiles the first argument in its own type.
func firstArgument(n *expr.Node) (kernel, error) {
	a := n.Args[0]
	if a.Type == expr.Null && n.Func != nil && len(n.Func.Signatures) > 0 {
		return compileExpr(a, n.Func.Signatures[0].Args[0])
	}
	return compileExpr(a, a.Type)
}

// The four generic kernels call a plain function for every row: it costs a nanosecond, far less than what these
// functions do, and allocates nothing.

// convertKernel turns one fixed-size value into another.
type convertKernel[A, R any] struct {
	arg  kernel
	from func(*column.Column) []A
	to   func(*column.Column) []R
	row  func(A) (R, bool)
	out  column.Column
}

func convert[A, R any](t expr.Type, from func(*column.Column) []A, to func(*column.Column) []R, row func(A) (R, bool)) builder {
	return func(n *expr.Node) (kernel, error) {
		var arg kernel
		var err error
		if a := n.Args[0].Type; t == expr.Float && a == expr.Int {
			arg, err = compileExpr(n.Args[0], expr.Float)
		} else {
			arg, err = firstArgument(n)
		}
		if err != nil {
			return nil, err
		}
		return &convertKernel[A, R]{arg: arg, from: from, to: to, row: row, out: column.Column{Type: t}}, nil
	}
}

func (k *convertKernel[A, R]) eval(b *column.Batch) *column.Column {
	a := k.arg.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, a)
	out := k.to(&k.out)
	for i, v := range k.from(a)[:b.Len] {
		r, ok := k.row(v)
		out[i] = r
		if !ok {
			k.out.SetNull(i)
		}
	}
	return &k.out
}

// fromTextKernel turns text into a fixed-size value.
type fromTextKernel[R any] struct {
	arg kernel
	to  func(*column.Column) []R
	row func([]byte) (R, bool)
	out column.Column
}

func fromText[R any](t expr.Type, to func(*column.Column) []R, row func([]byte) (R, bool)) builder {
	return func(n *expr.Node) (kernel, error) {
		arg, err := firstArgument(n)
		if err != nil {
			return nil, err
		}
		return &fromTextKernel[R]{arg: arg, to: to, row: row, out: column.Column{Type: t}}, nil
	}
}

func (k *fromTextKernel[R]) eval(b *column.Batch) *column.Column {
	a := k.arg.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, a)
	out := k.to(&k.out)
	for i := range b.Len {
		if k.out.Null(i) {
			continue
		}
		r, ok := k.row(a.Bytes(i))
		out[i] = r
		if !ok {
			k.out.SetNull(i)
		}
	}
	return &k.out
}

// toTextKernel turns a fixed-size value into text, which row appends.
type toTextKernel[A any] struct {
	arg  kernel
	from func(*column.Column) []A
	row  func([]byte, A) ([]byte, bool)
	out  column.Column
}

func toText[A any](from func(*column.Column) []A, row func([]byte, A) ([]byte, bool)) builder {
	return func(n *expr.Node) (kernel, error) {
		arg, err := firstArgument(n)
		if err != nil {
			return nil, err
		}
		return &toTextKernel[A]{arg: arg, from: from, row: row, out: column.Column{Type: n.Type}}, nil
	}
}

func (k *toTextKernel[A]) eval(b *column.Batch) *column.Column {
	a, out := k.arg.eval(b), &k.out
	limit := beginText(out, b)
	addNulls(out, a)
	for i, v := range k.from(a)[:b.Len] {
		start, ok := len(out.Data), false
		if !out.Null(i) {
			out.Data, ok = k.row(out.Data, v)
		}
		if !finishText(out, start, limit, ok) && outgrown(out, b) {
			break
		}
	}
	return endText(out, b)
}

// textKernel turns text into text, which row appends.
type textKernel struct {
	arg kernel
	row func(dst, s []byte) ([]byte, bool)
	out column.Column
}

func textToText(row func(dst, s []byte) ([]byte, bool)) builder {
	return func(n *expr.Node) (kernel, error) {
		arg, err := firstArgument(n)
		if err != nil {
			return nil, err
		}
		return &textKernel{arg: arg, row: row, out: column.Column{Type: n.Type}}, nil
	}
}

func (k *textKernel) eval(b *column.Batch) *column.Column {
	a, out := k.arg.eval(b), &k.out
	limit := beginText(out, b)
	addNulls(out, a)
	for i := range b.Len {
		start, ok := len(out.Data), false
		if !out.Null(i) {
			out.Data, ok = k.row(out.Data, a.Bytes(i))
		}
		if !finishText(out, start, limit, ok) && outgrown(out, b) {
			break
		}
	}
	return endText(out, b)
}

// textPairKernel asks something of two texts.
type textPairKernel struct {
	a, b kernel
	row  func(a, b []byte) bool
	out  column.Column
}

func textPair(row func(a, b []byte) bool) builder {
	return func(n *expr.Node) (kernel, error) {
		args, err := compileArgs(n, expr.String)
		if err != nil {
			return nil, err
		}
		return &textPairKernel{a: args[0], b: args[1], row: row, out: column.Column{Type: expr.Bool}}, nil
	}
}

func (k *textPairKernel) eval(b *column.Batch) *column.Column {
	x, y := k.a.eval(b), k.b.eval(b)
	begin(&k.out, b.Len)
	addNulls(&k.out, x)
	addNulls(&k.out, y)
	for i := range k.out.Bools {
		k.out.Bools[i] = !k.out.Null(i) && k.row(x.Bytes(i), y.Bytes(i))
	}
	return &k.out
}

// isNullKernel is never null itself.
type isNullKernel struct {
	arg kernel
	out column.Column
}

func buildIsNull(n *expr.Node) (kernel, error) {
	arg, err := firstArgument(n)
	if err != nil {
		return nil, err
	}
	return &isNullKernel{arg: arg, out: column.Column{Type: expr.Bool}}, nil
}

func (k *isNullKernel) eval(b *column.Batch) *column.Column {
	a := k.arg.eval(b)
	begin(&k.out, b.Len)
	for i := range k.out.Bools {
		k.out.Bools[i] = a.Null(i)
	}
	return &k.out
}

// extremeKernel is least (sign -1) and greatest (sign 1); null when an argument is.
type extremeKernel struct {
	args []kernel
	cols []*column.Column
	sign int
	out  column.Column
}

func buildExtreme(n *expr.Node) (kernel, error) {
	args, err := compileArgs(n, n.Type)
	if err != nil {
		return nil, err
	}
	k := &extremeKernel{args: args, cols: make([]*column.Column, len(args)), sign: -1, out: column.Column{Type: n.Type}}
	if n.Name == "greatest" {
		k.sign = 1
	}
	return k, nil
}

func (k *extremeKernel) eval(b *column.Batch) *column.Column {
	for i, a := range k.args {
		k.cols[i] = a.eval(b)
	}
	limit := beginText(&k.out, b)
	for i := range b.Len {
		best := k.cols[0]
		for _, c := range k.cols[1:] {
			// A null is greatest for compareRows but wins here in both directions.
			if !best.Null(i) && (c.Null(i) || compareRows(c, i, best, i)*k.sign > 0) {
				best = c
			}
		}
		if !putRow(&k.out, i, best, limit) && outgrown(&k.out, b) {
			break
		}
	}
	if k.out.Type == expr.Float {
		nullWhereNotFinite(&k.out)
	}
	return endText(&k.out, b)
}

func nullWhereNotFinite(c *column.Column) {
	for i, v := range c.Floats {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			c.SetNull(i)
		}
	}
}
