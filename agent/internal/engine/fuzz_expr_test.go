package engine

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// edgeBatch is rows of the values at which functions break, with the same rows boxed for the oracle.
func edgeBatch() (*column.Batch, [][]any) {
	schema := oracleSchema()
	values := map[expr.Type][]any{
		expr.Bool:  {nil, true, false},
		expr.Int:   {int64(0), nil, int64(-1), int64(1), int64(63), int64(-1 << 63), int64(1<<63 - 1)},
		expr.Float: {0.5, nil, math.Copysign(0, -1), 1e300, 5e-324, -60.25, math.NaN(), math.Inf(1), math.Inf(-1), 60.0},
	}
	for _, s := range edgeTexts() {
		values[expr.String] = append(values[expr.String], s)
	}
	for _, s := range edgeJSON() {
		values[expr.JSON] = append(values[expr.JSON], jsonText(s))
	}
	for _, v := range edgeTimes() {
		values[expr.Timestamp] = append(values[expr.Timestamp], instant(v))
	}
	batch, rows := column.NewBatch(schema), [][]any{}
	for i := range 40 {
		row := make([]any, len(schema))
		for c := range schema {
			list := values[schema[c].Type]
			if row[c] = list[(i*(c+1)+c)%len(list)]; i%7 == c%7 {
				row[c] = nil
			}
			appendBoxed(&batch.Cols[c], row[c])
		}
		batch.Len++
		rows = append(rows, row)
	}
	return batch, rows
}

// oracleKnows says whether the oracle can compute the tree: it reads the constants that the templates use, and it does
// not bound texts.
func oracleKnows(n *expr.Node) bool {
	if n.Op == expr.OpCall {
		switch n.Name {
		case "truncate", "format_time", "parse_time", "timestamp", "add_time", "convert", "repeat", "pad_left", "pad_right", "string":
			return false
		}
	}
	for _, a := range n.Args {
		if !oracleKnows(a) {
			return false
		}
	}
	return true
}

// FuzzExpression holds that no text makes the parser, the checker, the compiler or a kernel panic, that a kernel gives
// the same twice, and that it agrees with the oracle.
func FuzzExpression(f *testing.F) {
	for _, fn := range expr.Functions() {
		f.Add(fn.Example)
	}
	leaves, inner := templates()
	for _, list := range inner {
		for _, template := range list {
			text := template
			for letter, typ := range map[string]expr.Type{"#b": expr.Bool, "#i": expr.Int, "#f": expr.Float, "#s": expr.String, "#u": expr.Timestamp, "#k": expr.JSON} {
				text = strings.ReplaceAll(text, letter, leaves[typ][0])
			}
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := expr.Parse(text)
		if err != nil {
			return
		}
		node, err := expr.Check(parsed, oracleSchema())
		if err != nil || node.Type == expr.Null {
			return
		}
		k, err := compileExpr(node, node.Type)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		batch, rows := edgeBatch()
		k.eval(batch)
		got := k.eval(batch)
		known := oracleKnows(node)
		for i, row := range rows {
			value := boxed(got, i)
			if s, ok := value.(string); ok && len(s) > expr.MaxText {
				t.Fatalf("%s gives %d bytes", text, len(s))
			}
			if !known {
				continue
			}
			if want := interpret(node, row); !sameBoxed(value, want) && !tooLong(want) {
				t.Fatalf("%s on %v gives %v, want %v", text, row, value, want)
			}
		}
	})
}

func tooLong(v any) bool { return len(fmt.Sprint(v)) > expr.MaxText/4 }
