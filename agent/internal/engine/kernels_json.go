package engine

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

func validJSON(dst, s []byte) ([]byte, bool) { return append(dst, s...), json.Valid(s) }

// jsonString is the text of a JSON string.
func jsonString(dst, s []byte) ([]byte, bool) {
	s = bytes.TrimSpace(s)
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return dst, false
	}
	return unescape(dst, s[1:len(s)-1])
}

func jsonNumber(s []byte) (float64, bool) {
	s = bytes.TrimSpace(s)
	if len(s) == 0 || (s[0] != '-' && (s[0] < '0' || s[0] > '9')) {
		return 0, false
	}
	return floatOfText(s)
}

// jsonGetKernel takes the value at a constant path out of each row.
type jsonGetKernel struct {
	arg  kernel
	path []expr.PathStep
	out  column.Column
}

func buildJSONGet(n *expr.Node) (kernel, error) {
	arg, err := compileExpr(n.Args[0], expr.JSON)
	if err != nil {
		return nil, err
	}
	path, err := expr.ParsePath(n.Args[1].Value.Str)
	if err != nil {
		return nil, fmt.Errorf("json_get at offset %d: %w", n.Pos, err)
	}
	return &jsonGetKernel{arg: arg, path: path, out: column.Column{Type: expr.JSON}}, nil
}

func (k *jsonGetKernel) eval(b *column.Batch) *column.Column {
	a, out := k.arg.eval(b), &k.out
	begin(out, b.Len)
	addNulls(out, a)
	for i := range b.Len {
		if out.Null(i) {
			out.Strs = append(out.Strs, column.Str{})
			continue
		}
		value, ok := findJSON(a.Bytes(i), k.path)
		start := len(out.Data)
		out.Data = append(out.Data, value...)
		finishText(out, start, ok)
	}
	return out
}
