package engine

import (
	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// rowsKernel computes the rows in which no argument is null, each by a plain function of the arguments' columns.
type rowsKernel[R any] struct {
	args []kernel
	cols []*column.Column
	to   func(*column.Column) []R
	row  rowOf[R]
	out  column.Column
}

// rowOf computes row i; ok false makes it null.
type rowOf[R any] func(cols []*column.Column, i int) (value R, ok bool)

// rows builds a rowsKernel whose arguments have these types; of those at the end, a call may leave some out.
func rows[R any](t expr.Type, to func(*column.Column) []R, row rowOf[R], types ...expr.Type) builder {
	return rowsWith(t, to, func(*expr.Node) (rowOf[R], error) { return row, nil }, types...)
}

// rowsWith is rows where the function follows from constants behind the arguments of these types.
func rowsWith[R any](t expr.Type, to func(*column.Column) []R, prepare func(n *expr.Node) (rowOf[R], error), types ...expr.Type) builder {
	return func(n *expr.Node) (kernel, error) {
		args, err := leading(n, types)
		if err != nil {
			return nil, err
		}
		row, err := prepare(n)
		if err != nil {
			return nil, err
		}
		return &rowsKernel[R]{args: args, cols: make([]*column.Column, len(args)), to: to, row: row, out: column.Column{Type: t}}, nil
	}
}

// leading compiles the first arguments to these types.
func leading(n *expr.Node, types []expr.Type) ([]kernel, error) {
	args := make([]kernel, min(len(types), len(n.Args)))
	for i := range args {
		var err error
		if args[i], err = compileExpr(n.Args[i], types[i]); err != nil {
			return nil, err
		}
	}
	return args, nil
}

func (k *rowsKernel[R]) eval(b *column.Batch) *column.Column {
	begin(&k.out, b.Len)
	for i, a := range k.args {
		k.cols[i] = a.eval(b)
		addNulls(&k.out, k.cols[i])
	}
	out, nulls := k.to(&k.out), k.out.HasNulls()
	for i := range out {
		if nulls && k.out.Null(i) {
			continue
		}
		v, ok := k.row(k.cols, i)
		out[i] = v
		if !ok {
			k.out.SetNull(i)
		}
	}
	return &k.out
}

// textRowsKernel is rowsKernel for results of text, which row appends.
type textRowsKernel struct {
	args []kernel
	cols []*column.Column
	row  textOf
	out  column.Column
}

// textOf appends the text of row i; ok false makes it null.
type textOf func(dst []byte, cols []*column.Column, i int) (text []byte, ok bool)

func textRows(row textOf, types ...expr.Type) builder {
	return textRowsWith(func(*expr.Node) (textOf, error) { return row, nil }, types...)
}

func textRowsWith(prepare func(n *expr.Node) (textOf, error), types ...expr.Type) builder {
	return func(n *expr.Node) (kernel, error) {
		args, err := leading(n, types)
		if err != nil {
			return nil, err
		}
		row, err := prepare(n)
		if err != nil {
			return nil, err
		}
		return &textRowsKernel{args: args, cols: make([]*column.Column, len(args)), row: row, out: column.Column{Type: n.Type}}, nil
	}
}

func (k *textRowsKernel) eval(b *column.Batch) *column.Column {
	out := &k.out
	for i, a := range k.args {
		k.cols[i] = a.eval(b)
	}
	limit := beginText(out, b)
	for _, c := range k.cols {
		addNulls(out, c)
	}
	for i := range b.Len {
		start, ok := len(out.Data), false
		if !out.Null(i) {
			out.Data, ok = k.row(out.Data, k.cols, i)
		}
		if !finishText(out, start, limit, ok) && outgrown(out, b) {
			break
		}
	}
	return endText(out, b)
}
