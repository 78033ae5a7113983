package engine

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/big"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// The oracle: a naive interpreter of the operators of an expression over one row of boxed values. nil is null; a
// timestamp is an instant.

type instant int64

type jsonText string

// as is a type assertion for values whose type the checker has decided.
func as[T any](v any) T {
	x, ok := v.(T)
	if !ok {
		panic(fmt.Sprintf("%v is a %T", v, v))
	}
	return x
}

func interpret(n *expr.Node, row []any) any {
	args := make([]any, len(n.Args))
	for i, a := range n.Args {
		args[i] = interpret(a, row)
	}
	switch n.Op { //nolint:exhaustive // the rest is handled around it
	case expr.OpLiteral:
		return boxLiteral(n)
	case expr.OpColumn:
		return row[n.Column]
	case expr.OpAnd, expr.OpOr:
		return oracleLogic(n.Op, args[0], args[1])
	case expr.OpCond:
		if args[0] == true {
			return args[1]
		}
		return args[2]
	case expr.OpCoalesce:
		if args[0] != nil {
			return args[0]
		}
		return args[1]
	case expr.OpCall:
		return oracleCall(n, args)
	}
	for _, a := range args {
		if a == nil {
			return nil
		}
	}
	switch n.Op { //nolint:exhaustive // the rest is handled around it
	case expr.OpNot:
		return !as[bool](args[0])
	case expr.OpNeg:
		if f, ok := args[0].(float64); ok {
			return -f
		}
		return fromBig(new(big.Int).Neg(big.NewInt(as[int64](args[0]))))
	case expr.OpEq:
		return oracleCompare(args[0], args[1]) == 0
	case expr.OpNe:
		return oracleCompare(args[0], args[1]) != 0
	case expr.OpLt:
		return oracleCompare(args[0], args[1]) < 0
	case expr.OpLe:
		return oracleCompare(args[0], args[1]) <= 0
	case expr.OpGt:
		return oracleCompare(args[0], args[1]) > 0
	case expr.OpGe:
		return oracleCompare(args[0], args[1]) >= 0
	case expr.OpIn:
		for _, a := range args[1:] {
			if oracleCompare(args[0], a) == 0 {
				return true
			}
		}
		return false
	case expr.OpMatches:
		return regexp.MustCompile(as[string](args[1])).MatchString(as[string](args[0]))
	case expr.OpCast:
		return float64(as[int64](args[0]))
	}
	return oracleArith(n.Op, args[0], args[1])
}

func boxLiteral(n *expr.Node) any {
	switch n.Value.Type { //nolint:exhaustive // the rest is handled around it
	case expr.Bool:
		return n.Value.Bool
	case expr.Int:
		return n.Value.Int
	case expr.Float:
		return n.Value.Float
	case expr.String:
		return n.Value.Str
	case expr.Timestamp:
		return instant(n.Value.Int)
	}
	return nil
}

func oracleLogic(op expr.Op, a, b any) any {
	decisive := op == expr.OpOr
	switch {
	case a == decisive || b == decisive:
		return decisive
	case a == nil || b == nil:
		return nil
	}
	return !decisive
}

func oracleCompare(a, b any) int {
	switch x := a.(type) {
	case bool:
		return compareBool(x, as[bool](b))
	case int64:
		return cmp.Compare(x, as[int64](b))
	case instant:
		return cmp.Compare(x, as[instant](b))
	case string:
		return strings.Compare(x, as[string](b))
	case float64:
		y := as[float64](b)
		if math.IsNaN(x) || math.IsNaN(y) {
			return compareBool(math.IsNaN(x), math.IsNaN(y))
		}
		return cmp.Compare(x, y)
	}
	panic(fmt.Sprintf("compare %T", a))
}

func fromBig(v *big.Int) any {
	if v.IsInt64() {
		return v.Int64()
	}
	return nil
}

func oracleArith(op expr.Op, a, b any) any {
	switch x := a.(type) {
	case string:
		return x + as[string](b)
	case int64:
		p, q := big.NewInt(x), big.NewInt(as[int64](b))
		switch op { //nolint:exhaustive // the rest is handled around it
		case expr.OpAdd:
			return fromBig(p.Add(p, q))
		case expr.OpSub:
			return fromBig(p.Sub(p, q))
		case expr.OpMul:
			return fromBig(p.Mul(p, q))
		case expr.OpMod:
			if q.Sign() == 0 {
				return nil
			}
			return fromBig(p.Rem(p, q))
		}
	case float64:
		y := as[float64](b)
		switch op { //nolint:exhaustive // the rest is handled around it
		case expr.OpAdd:
			return x + y
		case expr.OpSub:
			return x - y
		case expr.OpMul:
			return x * y
		case expr.OpDiv:
			if y == 0 {
				return nil
			}
			return x / y
		case expr.OpMod:
			if y == 0 {
				return nil
			}
			return math.Mod(x, y)
		}
	}
	panic(fmt.Sprintf("arith %d on %T", op, a))
}

func finiteOrNil(v any) any {
	if f, ok := v.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return nil
	}
	return v
}

func oracleSchema() expr.Schema {
	return expr.Schema{
		{Name: "b", Type: expr.Bool},
		{Name: "c", Type: expr.Bool},
		{Name: "i", Type: expr.Int},
		{Name: "j", Type: expr.Int},
		{Name: "f", Type: expr.Float},
		{Name: "g", Type: expr.Float},
		{Name: "s", Type: expr.String},
		{Name: "t", Type: expr.String},
		{Name: "u", Type: expr.Timestamp},
		{Name: "v", Type: expr.Timestamp},
		{Name: "k", Type: expr.JSON},
	}
}

func drawValue(t *rapid.T, typ expr.Type) any {
	if rapid.IntRange(0, 4).Draw(t, "null") == 0 {
		return nil
	}
	switch typ { //nolint:exhaustive // the rest is handled around it
	case expr.Bool:
		return rapid.Bool().Draw(t, "bool")
	case expr.Int:
		return rapid.OneOf(rapid.Int64Range(-3, 3), rapid.Int64(), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64})).Draw(t, "int")
	case expr.Float:
		return rapid.OneOf(rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 1, -2.5, math.NaN(), math.Inf(1), math.Inf(-1), 1e300}), rapid.Float64()).Draw(t, "float")
	case expr.Timestamp:
		return instant(rapid.OneOf(rapid.Int64Range(-3e15, 3e15), rapid.SampledFrom(edgeTimes())).Draw(t, "time"))
	case expr.JSON:
		return jsonText(rapid.SampledFrom(edgeJSON()).Draw(t, "json"))
	}
	return rapid.SampledFrom(edgeTexts()).Draw(t, "text")
}

func appendBoxed(c *column.Column, v any) {
	switch x := v.(type) {
	case nil:
		c.AppendNull()
	case bool:
		c.AppendBool(x)
	case int64:
		c.AppendInt(x)
	case instant:
		c.AppendInt(int64(x))
	case float64:
		c.AppendFloat(x)
	case string:
		c.AppendStr([]byte(x))
	case jsonText:
		c.AppendStr([]byte(x))
	}
}

func boxed(c *column.Column, i int) any {
	if c.Null(i) {
		return nil
	}
	switch c.Type { //nolint:exhaustive // the rest is handled around it
	case expr.Bool:
		return c.Bools[i]
	case expr.Int:
		return c.Ints[i]
	case expr.Timestamp:
		return instant(c.Ints[i])
	case expr.Float:
		return c.Floats[i]
	case expr.JSON:
		return jsonText(c.Bytes(i))
	}
	return string(c.Bytes(i))
}

func sameBoxed(a, b any) bool {
	x, ok := a.(float64)
	y, both := b.(float64)
	if ok && both {
		return math.Float64bits(x) == math.Float64bits(y) || (math.IsNaN(x) && math.IsNaN(y))
	}
	return a == b
}

// drawExpr writes an expression of a type. In the templates #b, #i, #f, #s and #u stand for expressions of those types
// and #. for one of the wanted type.
func drawExpr(t *rapid.T, typ expr.Type, depth int) string {
	letters := map[byte]expr.Type{'b': expr.Bool, 'i': expr.Int, 'f': expr.Float, 's': expr.String, 'u': expr.Timestamp, 'k': expr.JSON, '.': typ}
	leaves, inner := templates()
	any := []string{"(#b ? #. : #.)", "(#. ?? #.)", "(#b ? #. : null)", "coalesce(#., null, #.)"}
	if depth == 0 || rapid.IntRange(0, 5).Draw(t, "leaf") == 0 {
		return rapid.SampledFrom(leaves[typ]).Draw(t, "leaf")
	}
	template := rapid.SampledFrom(append(any, inner[typ]...)).Draw(t, "template")
	var out strings.Builder
	for i := 0; i < len(template); i++ {
		if template[i] != '#' {
			out.WriteByte(template[i])
			continue
		}
		i++
		out.WriteString(drawExpr(t, letters[template[i]], depth-1))
	}
	return out.String()
}

func TestKernelsAgreeWithTheOracle(t *testing.T) {
	t.Parallel()
	schema := oracleSchema()
	rapid.Check(t, func(t *rapid.T) {
		typ := rapid.SampledFrom(oracleTypes()).Draw(t, "type")
		text := drawExpr(t, typ, rapid.IntRange(0, 4).Draw(t, "depth"))
		parsed, err := expr.Parse(text)
		if err != nil {
			t.Skip("too deep")
		}
		node, err := expr.Check(parsed, schema)
		if err != nil || node.Type == expr.Null {
			t.Skip("not an expression")
		}
		k, err := compileExpr(node, node.Type)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		batch := column.NewBatch(schema)
		// The second and third batch go through the same scratch memory.
		for range 3 {
			batch.Reset()
			var rows [][]any
			for range rapid.IntRange(0, 70).Draw(t, "rows") {
				row := make([]any, len(schema))
				for c := range schema {
					row[c] = drawValue(t, schema[c].Type)
					appendBoxed(&batch.Cols[c], row[c])
				}
				rows = append(rows, row)
				batch.Len++
			}
			got := k.eval(batch)
			for i, row := range rows {
				if want := interpret(node, row); !sameBoxed(boxed(got, i), want) {
					t.Fatalf("%s on %v gives %v, want %v", text, row, boxed(got, i), want)
				}
			}
		}
	})
}

func TestEveryFunctionHasAKernel(t *testing.T) {
	t.Parallel()
	kernels := maps.Clone(functionKernels())
	for _, f := range expr.Functions() {
		if _, ok := kernels[f.Name]; !ok {
			t.Errorf("%s has no kernel", f.Name)
		}
		delete(kernels, f.Name)
	}
	for name := range kernels {
		t.Errorf("the kernel %s is of no function", name)
	}
}

// evalText computes an expression on one row without columns.
func evalText(t *testing.T, text string) any {
	t.Helper()
	parsed, err := expr.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	node, err := expr.Check(parsed, oracleSchema())
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if node.Type == expr.Null {
		return nil
	}
	k, err := compileExpr(node, node.Type)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	b := column.NewBatch(oracleSchema())
	for range 3 {
		for i := range b.Cols {
			b.Cols[i].AppendNull()
		}
		b.Len++
	}
	return boxed(k.eval(b), 2)
}

// constantFor is a constant that the function takes at the place.
func constantFor(function string, place, count int) string {
	switch function {
	case "round":
		return "2"
	case "truncate":
		return [...]string{1: `"1h"`, 2: `"Asia/Tokyo"`}[place]
	case "add_time":
		return [...]string{2: `"1h"`, 3: `"s"`}[count]
	case "time_between":
		return `"s"`
	case "format_time", "parse_time":
		return [...]string{1: `"%Y-%m-%d"`, 2: `"Europe/Berlin"`}[place]
	case "convert":
		return `"bar"`
	case "regex_extract":
		return [...]string{1: `"(a)"`, 2: "1"}[place]
	case "regex_replace":
		return [...]string{1: `"(a)"`, 2: `"$1$1"`}[place]
	case "timestamp", "year", "quarter", "month", "day", "hour", "minute", "second", "weekday", "day_of_year", "week", "week_year":
		return `"Europe/Berlin"`
	}
	return `"a[0]"`
}

// TestEveryExampleHolds computes the documentation's examples, and every signature with nulls.
func TestEveryExampleHolds(t *testing.T) {
	t.Parallel()
	columns := map[expr.Type]string{expr.Bool: "b", expr.Int: "i", expr.Float: "f", expr.String: "s", expr.Timestamp: "u", expr.JSON: "k"}
	for _, f := range expr.Functions() {
		if got, want := evalText(t, f.Example), evalText(t, f.Result); !sameBoxed(got, want) {
			t.Errorf("%s gives %v, want %v", f.Example, got, want)
		}
		for _, s := range f.Signatures {
			args := make([]string, len(s.Args))
			for i, a := range s.Args {
				if args[i] = columns[a]; i < len(s.Literal) && s.Literal[i] {
					args[i] = constantFor(f.Name, i, len(args))
				}
			}
			got := evalText(t, f.Name+"("+strings.Join(args, ", ")+")")
			if f.Name != "is_null" && f.Name != "pi" && got != nil {
				t.Errorf("%s of nulls gives %v", f.Name, got)
			}
		}
	}
}

func TestFunctionsAtTheirEdges(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]any{
		`int("9223372036854775808")`: nil, `int(" -7 ")`: int64(-7), `int("1.5")`: nil, `int(-1.9)`: int64(-1), `int(1e19)`: nil, `int(true)`: int64(1),
		`float("0x10")`: nil, `float("inf")`: nil, `float("1e999")`: nil, `float("1_0")`: nil, `float(".5")`: .5,
		`bool(" True ")`: true, `bool("yes")`: nil, `bool(0.0)`: false, `bool("1")`: true,
		`string(1e21)`: "1e+21", `string(1e-7)`: "1e-7", `string(0.1 + 0.2)`: "0.30000000000000004", `string(100.0)`: "100",
		`string(timestamp("2026-01-01 00:00:00.25"))`: "2026-01-01T00:00:00.25Z", `string(true)`: "true",
		`timestamp("2026-02-" + "30")`: nil, `timestamp("2026-01-01T01:00:00+01:00") == timestamp("2026-01-01")`: true, `timestamp(1500)`: instant(1500000),
		`substring("Öl", 1)`: "l", `substring("abc", 1, 1)`: "b", `substring("abc", 9)`: "", `substring("abc", -1)`: nil,
		`replace("aaa", "a", "bb")`: "bbbbbb", `replace("aaa", "", "b")`: "aaa", `lower("ÄB")`: "äb", `trim(" \tx ")`: "x",
		`round(-2.5)`: -3.0, `round(1e300, 15)`: 1e300, `round(2.345, 2)`: math.Round(2.345*100) / 100, `sqrt(-1)`: nil, `pow(10, 400)`: nil, `pow(-8, 0.5)`: nil,
		`floor(-7)`: int64(-7), `abs(-9223372036854775807 - 1)`: nil, `epoch_ms(timestamp("1969-12-31T23:59:59.9999Z"))`: int64(-1),
		`truncate(timestamp("1969-12-31T23:59:59Z"), "1m") == timestamp("1969-12-31T23:59:00Z")`: true,
		`string(json_get(json("{\"a\": {\"b\": [1, {\"c\": \" x \"}]}}"), "a.b[1].c"))`:          `" x "`,
		`json_get(json("{\"a\": null}"), "a")`:                                                   nil,
		`json_type(json("{\"a\": null}"), "a")`:                                                  "null", `json_type(json("{\"a\": [1, null]}"), "a[1]")`: "null", `json_type(json("{\"a\": null}"), "b")`: nil, `json_type(json("null"))`: "null",
		`json_type(json("{\"a\": null}"), "a.b")`: nil, `json_string(json("{\"a\": null}"), "a")`: nil, `json_bool(json("{\"a\": null}"), "a")`: nil, `json_length(json("[null]"), "[0]")`: nil,
		`json_number(json("[null]"), "[0]")`: nil, `json_int(json("[null]"), "[0]")`: nil,
		`json_string(json("\"a\\ud83d\""))`: nil, `json_string(json("{\"a\": \"\\ude00\\ud83d\"}"), "a")`: nil, `json_string(json("\"\\ud83d\\ude00\""))`: "😀", `json_string(json("\"�\""))`: "�",
		`string(json_get(json("{\"a\": \"\\ud83d\"}"), "a"))`: `"\ud83d"`, `json_type(json("\"\\ud83d\""))`: "string", `json_get(json("{\"\\ud83d\": 1}"), "[\"�\"]")`: nil,
		`string(json_get(json("{\"a\": 1, \"a\": 2}"), "a"))`: "2", `json_number(json("\"1\""))`: nil,
		`json_string(json("\"a\\u00e9\\n\""))`: "aé\n", `json("{")`: nil, `json_number(json(" -1.5e3 "))`: -1500.0,
		`year(timestamp("0001-01-01"))`: int64(1), `-7 % 3`: int64(-1), `7 % 0`: nil, `1 / 0`: nil, `5 / 2`: 2.5,
		`9223372036854775807 + 1`: nil, `(-9223372036854775807 - 1) % -1`: int64(0), `(-9223372036854775807 - 1) * -1`: nil,
	} {
		if got := evalText(t, text); !sameBoxed(got, want) {
			t.Errorf("%s gives %#v, want %#v", text, got, want)
		}
	}
}

func TestLongTextsAreNull(t *testing.T) {
	t.Parallel()
	half := strings.Repeat("x", expr.MaxText/2+1)
	b := column.NewBatch(oracleSchema())
	for i := range b.Cols {
		if b.Cols[i].Type == expr.String {
			b.Cols[i].AppendStr([]byte(half))
		} else {
			b.Cols[i].AppendNull()
		}
	}
	b.Len = 1
	for _, text := range []string{`s + t`, `concat(s, t)`, `replace(s, "x", "xxx")`, `upper(replace(s, "x", "ßß"))`} {
		parsed, err := expr.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		node, err := expr.Check(parsed, oracleSchema())
		if err != nil {
			t.Fatal(err)
		}
		k, err := compileExpr(node, expr.String)
		if err != nil {
			t.Fatal(err)
		}
		if got := k.eval(b); !got.Null(0) {
			t.Errorf("%s gives %d bytes", text, got.Strs[0].Len)
		}
	}
}

func FuzzFindJSON(f *testing.F) {
	f.Add([]byte(`{"a": [1, {"b": "x\"y"}]}`), "a[1].b")
	f.Add([]byte(`[[[`), "[0][0]")
	f.Add([]byte(`{"a"`), "a")
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		steps, err := expr.ParsePath(path)
		if err != nil {
			return
		}
		got, ok := findJSON(text, steps)
		if !json.Valid(text) || !ok {
			return
		}
		if !json.Valid(got) {
			t.Errorf("%s of %s gives %s", path, text, got)
		}
		var compact bytes.Buffer
		if err = json.Compact(&compact, got); err != nil || !bytes.Equal(compact.Bytes(), inline(got)) {
			t.Errorf("inline gives %s, want %s", inline(got), compact.Bytes())
		}
	})
}

func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("q\"\\\n\x00\xff Öl \u2028")
	f.Fuzz(func(t *testing.T, text string) {
		var back string
		if err := json.Unmarshal(column.AppendJSONString(nil, []byte(text)), &back); err != nil {
			t.Fatal(err)
		}
		if want := strings.ToValidUTF8(text, "\ufffd"); len([]rune(back)) != len([]rune(text)) || (want == text && back != text) {
			t.Errorf("%q becomes %q", text, back)
		}
	})
}

// inline is a json value as an insight has it.
func inline(text []byte) []byte {
	c := column.Column{Type: expr.JSON}
	c.AppendStr(text)
	return column.AppendJSON(nil, &c, 0)
}
