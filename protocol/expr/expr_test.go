package expr_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/outfeed/outfeed/protocol/expr"
)

func columns() expr.Schema {
	return expr.Schema{
		{Name: "ts", Type: expr.Timestamp},
		{Name: "machine", Type: expr.String},
		{Name: "state", Type: expr.String},
		{Name: "temp", Type: expr.Float},
		{Name: "count", Type: expr.Int},
		{Name: "scrap", Type: expr.Int},
		{Name: "ok", Type: expr.Bool},
		{Name: "payload", Type: expr.JSON},
		{Name: "Werkzeug Nr.", Type: expr.Int},
		{Name: "Öl", Type: expr.Float},
	}
}

func parse(t *testing.T, text string) *expr.Node {
	t.Helper()
	n, err := expr.Parse(text)
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return n
}

// shape writes a tree with every node's type, so that a test sees what Check has made.
func shape(n *expr.Node) string {
	var b strings.Builder
	switch n.Op { //nolint:exhaustive // the operators are in opNames
	case expr.OpLiteral, expr.OpColumn:
		b.WriteString(expr.Format(n))
	case expr.OpCast:
		b.WriteString("cast")
	case expr.OpCall:
		b.WriteString(n.Name)
	default:
		b.WriteString(opNames[n.Op])
	}
	b.WriteString(":" + n.Type.String())
	if len(n.Args) > 0 {
		b.WriteString("(")
		for i, a := range n.Args {
			if i > 0 {
				b.WriteString(" ")
			}
			b.WriteString(shape(a))
		}
		b.WriteString(")")
	}
	return b.String()
}

var opNames = map[expr.Op]string{
	expr.OpNot: "not", expr.OpNeg: "neg", expr.OpAnd: "and", expr.OpOr: "or", expr.OpEq: "eq", expr.OpNe: "ne",
	expr.OpLt: "lt", expr.OpLe: "le", expr.OpGt: "gt", expr.OpGe: "ge", expr.OpAdd: "add", expr.OpSub: "sub",
	expr.OpMul: "mul", expr.OpDiv: "div", expr.OpMod: "mod", expr.OpCond: "cond", expr.OpCoalesce: "coalesce",
	expr.OpIn: "in", expr.OpMatches: "matches",
}

func TestCheckTypes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`state == "RUN" and temp > 60`: `and:bool(eq:bool(state:string "RUN":string) gt:bool(temp:float 60.0:float))`,
		`(count - scrap) / count`:      `div:float(cast:float(sub:int(count:int scrap:int)) cast:float(count:int))`,
		`count % 2`:                    `mod:int(count:int 2:int)`,
		`count + temp`:                 `add:float(cast:float(count:int) temp:float)`,
		`state + "-" + machine`:        `add:string(add:string(state:string "-":string) machine:string)`,
		`ts >= "2026-01-01"`:           `ge:bool(ts:timestamp timestamp("2026-01-01T00:00:00Z"):timestamp)`,
		`"2026-01-01 01:00:00" < ts`:   `lt:bool(timestamp("2026-01-01T01:00:00Z"):timestamp ts:timestamp)`,
		`ts in ["2026-01-01"]`:         `in:bool(ts:timestamp timestamp("2026-01-01T00:00:00Z"):timestamp)`,
		`timestamp("2026-01-01")`:      `timestamp("2026-01-01T00:00:00Z"):timestamp`,
		`count in [1, 2]`:              `in:bool(count:int 1:int 2:int)`,
		`count in [1, 2.5]`:            `in:bool(cast:float(count:int) 1.0:float 2.5:float)`,
		`temp in [1, -2]`:              `in:bool(temp:float 1.0:float -2.0:float)`,
		`state not in ["A"]`:           `not:bool(in:bool(state:string "A":string))`,
		`state matches "^M\\d+$"`:      `matches:bool(state:string "^M\\d+$":string)`,
		`ok ? count : 0.5`:             `cond:float(ok:bool cast:float(count:int) 0.5:float)`,
		`ok ? null : count`:            `cond:int(ok:bool null:int count:int)`,
		`temp ?? 0 > 60`:               `gt:bool(coalesce:float(temp:float 0.0:float) 60.0:float)`,
		`null`:                         `null:null`,
		`null + null`:                  `null:null`,
		`count + null`:                 `add:int(count:int null:int)`,
		`null < null`:                  `null:bool`,
		`null < count`:                 `lt:bool(null:int count:int)`,
		`not null`:                     `not:bool(null:bool)`,
		`coalesce(null, temp, 1)`:      `coalesce:float(null:float temp:float 1.0:float)`,
		`least(count, 2.5)`:            `least:float(cast:float(count:int) 2.5:float)`,
		`sqrt(count)`:                  `sqrt:float(cast:float(count:int))`,
		`round(temp, 2)`:               `round:float(temp:float 2:int)`,
		`-count`:                       `neg:int(count:int)`,
		`- 5`:                          `-5:int`,
		"`Werkzeug Nr.` + 1":           "add:int(`Werkzeug Nr.`:int 1:int)",
		`Öl > 1`:                       `gt:bool(Öl:float 1.0:float)`,
		`json_number(json_get(payload, "a.b[0]"))`: `json_number:float(json_get:json(payload:json "a.b[0]":string))`,
		`-9223372036854775808`:                     `-9223372036854775808:int`,
		`string(null)`:                             `string:string(null:string)`,
		`not ok and ok or ok`:                      `or:bool(and:bool(not:bool(ok:bool) ok:bool) ok:bool)`,
		`'it''s' == state`:                         ``,
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			n, err := expr.Parse(text)
			if want == "" {
				if err == nil {
					t.Fatal("parsed, want an error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			before := expr.Format(n)
			checked, err := expr.Check(n, columns())
			if err != nil {
				t.Fatal(err)
			}
			if got := shape(checked); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if after := expr.Format(n); after != before {
				t.Errorf("Check changed its input from %s to %s", before, after)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("(", 300) + "1" + strings.Repeat(")", 300)
	for _, tt := range []struct {
		text string
		pos  int
		want string
	}{
		{`tmep > 60`, 0, `unknown column "tmep"; did you mean "temp"?`},
		{`temp > 60 and Temperature > 1`, 14, `did you mean "temp"?`},
		{`zzz9qqqqq`, 0, `there is ts, machine`},
		{`temp > 60 and state == RUNNING`, 23, `unknown column "RUNNING"; if it is a text, write it in quotes: "RUNNING"`},
		{`RUNNING != state`, 0, `write it in quotes: "RUNNING"`},
		{`temp == RUNNING`, 8, `there is ts`},
		{`convert(temp, degF, degC)`, 14, `unknown column "degF"; if it is a text, write it in quotes: "degF"`},
		{`convert(temp, "degF", degC)`, 22, `write it in quotes: "degC"`},
		{`coalesce(state, IDLE)`, 16, `write it in quotes: "IDLE"`},
		{`starts_with(lower(state), R)`, 26, `write it in quotes: "R"`},
		{`coalesce(temp, IDLE)`, 15, `there is ts`},
		{`upper(zzz9qqqqq)`, 6, `there is ts`},
		{`contains(zzz9qqqqq, "x")`, 9, `there is ts`},
		{`starts_with(machin, zzz9qqqqq)`, 12, `did you mean "machine"?`},
		{`starts_with(lower(zzz9qqqqq), R)`, 18, `there is ts`},
		{`starts_with(state, machin)`, 19, `did you mean "machine"?`},
		{`state in [RUN, IDLE]`, 10, `a list of in holds constants only; write "RUN" for a text`},
		{`uper(state)`, 0, `unknown function "uper"; did you mean "upper"?`},
		{`avg(temp) > 1`, 0, `avg is an aggregate`},
		{`min(temp, 1)`, 0, `or least`},
		{`temp + state`, 5, `string(…)`},
		{`temp - state`, 5, `- needs two numbers; column temp is a float, column state is a string`},
		{`state == 1`, 6, `== needs two values of one type; column state is a string, 1 is an int`},
		{`temp and ok`, 0, `and needs a bool; column temp is a float`},
		{`ok > true`, 3, `does not compare bools`},
		{`payload == "x"`, 8, `one type`},
		{`payload == payload`, 8, `json_string`},
		{`temp == null`, 5, `is_null`},
		{`temp = 1`, 5, `write ==`},
		{`temp =~ "x"`, 5, `write matches`},
		{`ok && ok`, 3, `write and`},
		{`!ok`, 0, `write not`},
		{`1 < temp < 3`, 9, `do not chain`},
		{`ts > "yesterday"`, 5, `is not a timestamp`},
		{`timestamp("2026-02-30")`, 10, `is not a timestamp`},
		{`ts - ts`, 3, `write time_between(a, b, "s")`},
		{`state matches "("`, 14, `missing closing )`},
		{`state matches machine`, 14, `constant`},
		{`state matches "((a{500}){500}){2}"`, 14, `invalid repeat count`},
		{`state matches "` + strings.Repeat("a{900}", 20) + `"`, 14, `too large`},
		{`temp matches "x"`, 0, `needs a string`},
		{`count in [temp]`, 10, `constants only`},
		{`count in ["a"]`, 10, `one type`},
		{`count in [null]`, 10, `is_null`},
		{`count in []`, 10, `unexpected ]`},
		{`temp ? 1 : 2`, 0, `must be a bool`},
		{`ok ? 1 : "a"`, 3, `one type`},
		{`ok ? 1`, 6, `the : of condition`},
		{`round(state)`, 0, `round takes (int) or (float) or (float, constant int), not (string)`},
		{`round(temp, count)`, 12, `argument 2 of round must be a constant`},
		{`round(temp, 99)`, 12, `0 to 15`},
		{`truncate(ts, "7m")`, 13, `a day cannot be cut into lengths of 7m`},
		{`truncate(ts, "1q")`, 13, `the units are s, m, h, d, w, mo and y`},
		{`truncate(ts, "2d")`, 13, `write "1d"`},
		{`truncate(ts, "1d", "Berlin")`, 19, `"Berlin" is no time zone`},
		{`hour(ts, "Local")`, 9, `IANA name`},
		{`hour(ts, state)`, 9, `must be a constant`},
		{`add_time(ts, "1x")`, 13, `"1x" is no duration`},
		{`add_time(ts, 1, "mo")`, 16, `did you mean "m"`},
		{`time_between(ts, ts, "hours")`, 21, `unknown unit "hours"`},
		{`format_time(ts, "%Q")`, 16, `unknown part "%Q"`},
		{`parse_time(state, "%d.%m.")`, 18, `needs a year`},
		{`parse_time(state, "%Y %A")`, 18, `cannot be read from %A`},
		{`parse_time(state, "%Y %I")`, 18, `belong together`},
		{`parse_time(state, "%Y %y")`, 18, `both %Y and %y`},
		{`parse_time(state, "%Y %Y")`, 18, `%Y twice`},
		{`regex_extract(state, "(")`, 21, `the pattern of regex_extract is not RE2 syntax`},
		{`regex_extract(state, "(a)", 2)`, 28, `the pattern has 1 groups; 2 is none`},
		{`regex_replace(state, "(a)", "$2")`, 28, `no group for "$2"`},
		{`regex_replace(state, "(a)", "5$")`, 28, `$$ for a dollar sign`},
		{`regex_replace(state, "(a)", "$1x")`, 28, `write ${1}`},
		{`convert(temp, "degf", "degC")`, 14, `unknown unit "degf"; did you mean "degF"?`},
		{`convert(temp, "degF", "degc")`, 22, `did you mean "degC"?`},
		{`convert(temp, "degF", "bar")`, 22, `"degF" is a unit of temperature and "bar" one of pressure; there is K, degC, degF, degR`},
		{`json_int(payload, "$.a")`, 18, `without $`},
		{`json_get(payload, "$.a")`, 18, `without $`},
		{`json_get(payload, "a..b")`, 18, `name is missing`},
		{`lower()`, 0, `lower takes (string), not ()`},
		{`lower(state,)`, 12, `another argument`},
		{`lower(state state)`, 12, `a comma`},
		{``, 0, `empty`},
		{`temp >`, 6, `the expression ends too early; expected a value`},
		{`temp > 1 AND temp < 3`, 9, `unexpected AND; expected an operator or the end; write and in lower case`},
		{`temp > 1 Or ok`, 9, `write or in lower case`},
		{`NOT ok`, 4, `unexpected ok; expected an operator or the end after NOT; write not in lower case`},
		{`temp <> 1`, 5, `unknown operator <>; write !=`},
		{`temp > 1 && ok`, 9, `unknown operator &&; write and`},
		{`!ok`, 0, `unknown operator !; write not`},
		{`temp = 1`, 5, `unknown operator =; write ==`},
		{`if(ok, 1, 2)`, 0, `unknown function "if"; write condition ? a : b`},
		{`iif(ok, 1, 2)`, 0, `write condition ? a : b`},
		{`CASE WHEN ok THEN 1 ELSE 2 END`, 5, `write condition ? a : b`},
		{`now()`, 0, `the language has no clock`},
		{`temp ** 2`, 5, "unknown operator **; write pow(a, b)"},
		{`temp ^ 2`, 5, "unknown operator ^; write pow(a, b)"},
		{`count(*)`, 6, "unexpected *; expected a value; count() counts all rows"},
		{`len(state)`, 0, `unknown function "len"; write length(text)`},
		{`state == “RUN”`, 9, "write texts in straight quotes"},
		{`raw.a`, 3, "json_get(column"},
		{`format_time(ts, "yyyy-MM-dd")`, 16, "the layout has no part of a time"},
		{`temp temp`, 5, `expected an operator or the end`},
		{`"abc`, 0, `no closing "`},
		{`"a\d"`, 2, `unknown escape`},
		{`"\ud800"`, 1, `hexadecimal`},
		{"`abc", 0, `no closing backquote`},
		{"``", 0, `is empty`},
		{"`` + 1", 0, `is empty`},
		{`9223372036854775808`, 0, `64 bits`},
		{`1e999`, 0, `64 bits`},
		{`1.`, 2, `digit`},
		{`1e`, 2, `exponent`},
		{`1x`, 0, `cannot begin with a digit`},
		{`a # b`, 2, `unexpected character '#'`},
		{`1 + not ok`, 4, `parentheses`},
		{"\xff", 0, `UTF-8`},
		{long, 200, `nested more than 200`},
		{strings.Repeat("1+", 2001) + "1", 4001, `more than 2000 operators in a row`},
		{strings.Repeat("ok?1:", 300) + "1", 998, `nested more than 200`},
		{strings.Repeat("temp??", 300) + "1", 1200, `nested more than 200`},
		{strings.Repeat("-(", 150) + "1" + strings.Repeat(")", 150), 200, `nested more than 200`},
		{strings.Repeat("x", 65<<10), 0, `bytes`},
	} {
		t.Run(tt.text[:min(len(tt.text), 40)], func(t *testing.T) {
			t.Parallel()
			n, err := expr.Parse(tt.text)
			if err == nil {
				_, err = expr.Check(n, columns())
			}
			e, ok := errors.AsType[*expr.Error](err)
			if !ok {
				t.Fatalf("got error %v, want an *expr.Error", err)
			}
			if !strings.Contains(e.Message, tt.want) || e.Pos != tt.pos {
				t.Errorf("got  %d: %s\nwant %d: …%s…", e.Pos, e.Message, tt.pos, tt.want)
			}
		})
	}
}

func TestChains(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		strings.Repeat("ok and ", 2000) + "ok",
		strings.Repeat("temp > 1 and count == 2 or ", 999) + "ok",
		strings.Repeat("1 + ", 1000) + strings.Repeat("temp * 2 - ", 999) + "1",
		strings.Repeat("(", 150) + strings.Repeat("ok or ", 1000) + "ok" + strings.Repeat(")", 150),
	} {
		n, err := expr.Parse(text)
		if err != nil {
			t.Errorf("%.40s: %v", text, err)
			continue
		}
		if n, err = expr.Check(n, columns()); err != nil || n.Type == expr.Invalid {
			t.Errorf("%.40s: %v", text, err)
			continue
		}
		if again, err := expr.Parse(expr.Format(n)); err != nil || expr.Format(again) != expr.Format(n) {
			t.Errorf("%.40s: its canonical text reads differently: %v", text, err)
		}
	}
}

func TestCheckAggregate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`count()`:                 `count int`,
		`count(temp)`:             `count int temp:float`,
		`count(payload)`:          `count int payload:json`,
		`sum(count)`:              `sum int count:int`,
		`sum(temp * 2)`:           `sum float mul:float(temp:float 2.0:float)`,
		`avg(count)`:              `avg float cast:float(count:int)`,
		`min(ts)`:                 `min timestamp ts:timestamp`,
		`last(state)`:             `last string state:string`,
		`stddev(temp)`:            `stddev float temp:float`,
		`count_distinct(state)`:   `count_distinct int state:string`,
		`max(least(temp, 1))`:     `max float least:float(temp:float 1.0:float)`,
		`avg(tmep)`:               `4: unknown column "tmep"; did you mean "temp"?`,
		`averge(temp)`:            `0: unknown aggregate "averge"; did you mean "avg"?`,
		`sum(temp) / count()`:     `10: a result of an aggregate step is one call such as avg(x); compute with it in a map step after this one`,
		`round(temp)`:             `0: round is not an aggregate; a result of an aggregate step is a call such as max(round(x))`,
		`max(temp, 1)`:            `0: max takes one value of every row; for several values of one row use least or greatest`,
		`sum(state)`:              `0: sum takes (int) or (float), not (string)`,
		`sum(avg(temp))`:          `4: avg is an aggregate; use it as a result of an aggregate step`,
		`first(payload)`:          `0: first takes (int) or (float) or (string) or (timestamp), not (json)`,
		`increases(count)`:        `0: unknown aggregate "increases"; did you mean "increase"?`,
		`count_distinct(payload)`: `0: count_distinct takes (bool) or (int) or (float) or (string) or (timestamp), not (json)`,
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			var got string
			call, err := expr.CheckAggregate(parse(t, text), columns(), &expr.Patterns{})
			if e, ok := errors.AsType[*expr.Error](err); ok {
				got = fmt.Sprintf("%d: %s", e.Pos, e.Message)
			} else {
				got = call.Func.Name + " " + call.Result.String()
				if call.Arg != nil {
					got += " " + shape(call.Arg)
				}
			}
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestFormat(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`((a))+(b*c)`:                 `a + b * c`,
		`(a+b)*c`:                     `(a + b) * c`,
		`a-(b-c)`:                     `a - (b - c)`,
		`a ?? (b ?? c)`:               `a ?? b ?? c`,
		`(a ?? b) ?? c`:               `(a ?? b) ?? c`,
		`a?b:c?d:e`:                   `a ? b : c ? d : e`,
		`(a?b:c)?d:e`:                 `(a ? b : c) ? d : e`,
		`not (a == b)`:                `not a == b`,
		`(not a) == b`:                `(not a) == b`,
		`not not a`:                   `not not a`,
		`a not in [1,-2,'x']`:         `not a in [1, -2, "x"]`,
		`-(5)`:                        `-(5)`,
		`- -5`:                        `--5`,
		`-(a+b)`:                      `-(a + b)`,
		`f( a ,b )`:                   `f(a, b)`,
		"`odd ``name` + `plain`+`in`": "`odd ``name` + plain + `in`",
		`1.0 + 1e21 + 2`:              `1.0 + 1e+21 + 2`,
		`"a\n\t\"\u0001é"`:            `"a\n\t\"\u0001é"`,
		`(a < b) == (c < d)`:          `(a < b) == (c < d)`,
		`a and (b or c)`:              `a and (b or c)`,
	} {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			got := expr.Format(parse(t, text))
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if again := expr.Format(parse(t, got)); again != got {
				t.Errorf("formatting again gives %s, not %s", again, got)
			}
		})
	}
}

// sameTree compares trees without where they stand. (cmp.Diff takes exponential time in the depth of slices.)
func sameTree(a, b *expr.Node) bool {
	if a.Op != b.Op || a.Name != b.Name || a.Value != b.Value || len(a.Args) != len(b.Args) {
		return false
	}
	for i := range a.Args {
		if !sameTree(a.Args[i], b.Args[i]) {
			return false
		}
	}
	return true
}

func TestFormatParsesBackToTheSameTree(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tree := randomTree(4).Draw(t, "tree")
		text := expr.Format(tree)
		again, err := expr.Parse(text)
		if err != nil {
			t.Fatalf("Parse(%q): %v", text, err)
		}
		if !sameTree(tree, again) {
			t.Fatalf("%s parses to another tree", text)
		}
	})
}

func randomLiteral() *rapid.Generator[*expr.Node] {
	value := func(v expr.Value) *expr.Node { return &expr.Node{Op: expr.OpLiteral, Value: v} }
	return rapid.OneOf(
		rapid.Map(rapid.Int64(), func(i int64) *expr.Node { return value(expr.Value{Type: expr.Int, Int: i}) }),
		rapid.Map(rapid.Float64(), func(f float64) *expr.Node { return value(expr.Value{Type: expr.Float, Float: f}) }),
		rapid.Map(rapid.String(), func(s string) *expr.Node { return value(expr.Value{Type: expr.String, Str: s}) }),
		rapid.Map(rapid.Bool(), func(b bool) *expr.Node { return value(expr.Value{Type: expr.Bool, Bool: b}) }),
		rapid.Just(value(expr.Value{Type: expr.Null})),
	)
}

func randomTree(depth int) *rapid.Generator[*expr.Node] {
	name := rapid.OneOf(rapid.SampledFrom([]string{"a", "in", "_x1", "odd name", "`"}), rapid.StringN(1, 8, -1))
	leaf := rapid.OneOf(randomLiteral(), rapid.Map(name, func(s string) *expr.Node { return &expr.Node{Op: expr.OpColumn, Name: s} }))
	if depth == 0 {
		return leaf
	}
	sub := rapid.Deferred(func() *rapid.Generator[*expr.Node] { return randomTree(depth - 1) })
	inner := rapid.Custom(func(t *rapid.T) *expr.Node {
		op := rapid.SampledFrom(slices.Concat(slices.Sorted(maps.Keys(opNames)), []expr.Op{expr.OpCall})).Draw(t, "op")
		n := &expr.Node{Op: op}
		switch op { //nolint:exhaustive // all others take two operands
		case expr.OpNot, expr.OpNeg:
			n.Args = []*expr.Node{sub.Draw(t, "arg")}
			if arg := n.Args[0]; op == expr.OpNeg && arg.Op == expr.OpLiteral {
				n.Args = []*expr.Node{{Op: expr.OpColumn, Name: "a"}}
			}
		case expr.OpCond:
			n.Args = []*expr.Node{sub.Draw(t, "if"), sub.Draw(t, "then"), sub.Draw(t, "else")}
		case expr.OpIn:
			n.Args = append([]*expr.Node{sub.Draw(t, "x")}, rapid.SliceOfN(randomLiteral(), 1, 3).Draw(t, "list")...)
		case expr.OpCall:
			n.Name = rapid.SampledFrom([]string{"f", "lower"}).Draw(t, "function")
			n.Args = rapid.SliceOfN(sub, 0, 3).Draw(t, "args")
		default:
			n.Args = []*expr.Node{sub.Draw(t, "left"), sub.Draw(t, "right")}
		}
		return n
	})
	return rapid.OneOf(leaf, inner, inner)
}

func TestFunctionListsAreSound(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, f := range append(expr.Functions(), expr.Aggregates()...) {
		if seen[f.Name] || !expr.IsName(f.Name) {
			t.Errorf("the name %q is there twice or is no name", f.Name)
		}
		seen[f.Name] = true
		if !strings.HasSuffix(f.Help, ".") || len(f.Signatures) == 0 || f.Example == "" {
			t.Errorf("%s lacks a help sentence, a signature or an example", f.Name)
		}
	}
	for _, f := range expr.Functions() {
		example, err := expr.Check(parse(t, f.Example), nil)
		if err != nil {
			t.Fatalf("the example of %s: %v", f.Name, err)
		}
		result, err := expr.Check(parse(t, f.Result), nil)
		if err != nil || result.Op != expr.OpLiteral || result.Type != example.Type {
			t.Errorf("%s gives %s %s, and its example %s is a %s (%v)", f.Name, f.Result, result.Type, f.Example, example.Type, err)
		}
		if !strings.Contains(f.Example, f.Name+"(") {
			t.Errorf("the example of %s does not call it", f.Name)
		}
	}
	for _, f := range expr.Aggregates() {
		if _, err := expr.CheckAggregate(parse(t, f.Example), append(columns(), expr.Column{Name: "vibration", Type: expr.Float}), &expr.Patterns{}); err != nil {
			t.Errorf("the example of %s: %v", f.Name, err)
		}
	}
}

func TestParseTimestamp(t *testing.T) {
	t.Parallel()
	berlin := time.FixedZone("", 3600)
	for text, want := range map[string]string{
		"2026-01-01T06:00:00Z":             "2026-01-01T06:00:00Z",
		"2026-01-01T06:00:00+02:30":        "2026-01-01T03:30:00Z",
		"2026-01-01T06:00:00.123456789Z":   "2026-01-01T06:00:00.123456Z",
		"2026-01-01 06:00:00":              "2026-01-01T05:00:00Z",
		"2026-01-01 06:00:00.5":            "2026-01-01T05:00:00.5Z",
		"2026-01-01":                       "2025-12-31T23:00:00Z",
		"1969-12-31T23:59:59.999999Z":      "1969-12-31T23:59:59.999999Z",
		"0001-01-02T00:00:00Z":             "0001-01-02T00:00:00Z",
		"2024-02-29":                       "2024-02-28T23:00:00Z",
		"2026-02-29":                       "",
		"2026-13-01":                       "",
		"2026-00-01":                       "",
		"2026-01-01T24:00:00Z":             "",
		"2026-01-01T23:60:00Z":             "",
		"2026-01-01T23:59:60Z":             "",
		"2026-01-01T6:00:00Z":              "",
		"2026-01-01T06:00Z":                "",
		"2026-01-01T06:00:00.Z":            "",
		"2026-01-01T06:00:00X":             "",
		"2026-01-01T06:00:00+0200":         "2026-01-01T04:00:00Z",
		"2026-01-01T06:00:00-02":           "2026-01-01T08:00:00Z",
		"2026-01-01t06:00:00z":             "2026-01-01T06:00:00Z",
		"2026-01-01t06:00:00+02:00":        "2026-01-01T04:00:00Z",
		"2026-01-01t06:00:00.5z":           "2026-01-01T06:00:00.5Z",
		"2026-06-30T23:59:60Z":             "",
		"2026-06-30t23:59:60z":             "",
		"2026-01-01x06:00:00Z":             "",
		"2026-01-01T06:00:00+24:00":        "",
		"2026/01/01":                       "",
		"0000-01-01":                       "",
		"26-01-01":                         "",
		"":                                 "",
		"2026-01-01 06:00:00 ":             "",
		"0001-01-01T00:00:00+23:00":        "",
		"9999-12-31T23:59:59.999999-01:00": "",
	} {
		micros, ok := expr.ParseTimestamp(text, berlin)
		got := ""
		if ok {
			got = expr.FormatTimestamp(micros)
		}
		if got != want {
			t.Errorf("ParseTimestamp(%q) gives %q, want %q", text, got, want)
		}
	}
}

func TestParsePath(t *testing.T) {
	t.Parallel()
	got, err := expr.ParsePath(`tool.offsets[12]["a.\"b"][0].x y`)
	if err != nil {
		t.Fatal(err)
	}
	want := []expr.PathStep{{"tool", -1}, {"offsets", -1}, {"", 12}, {`a."b`, -1}, {"", 0}, {"x y", -1}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if first, err := expr.ParsePath(`[0]`); err != nil || len(first) != 1 {
		t.Errorf("got %v, %v for [0]", first, err)
	}
	for _, bad := range []string{"", ".", "a.", ".a", "a[", "a[x]", "a[-1]", `a["b`, `a["b"`, "a[0]b", "a]", "$", strings.Repeat("a.", 65) + "a"} {
		if path, err := expr.ParsePath(bad); err == nil {
			t.Errorf("ParsePath(%q) gives %v, want an error", bad, path)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	valid := []string{"temp", "vibration", "machine", "ts", "count"}
	for name, want := range map[string]string{
		"tmep": "temp", "TEMP": "temp", "vibraton": "vibration", "machines": "machine", "st": "ts", "temperature": "temp",
		"cuont": "count", "pressure": "", "x": "", "moment": "", "cnt": "count", "tops": "", "vib": "vibration", strings.Repeat("m", 100): "",
	} {
		if got, _ := expr.Nearest(name, valid); got != want {
			t.Errorf("Nearest(%q) gives %q, want %q", name, got, want)
		}
	}
}

// FuzzParse holds that no text makes the parser or the checker panic, that a checked tree is fully typed, and that the
// canonical text of what parses gives the same tree.
func FuzzParse(f *testing.F) {
	for _, fn := range expr.Functions() {
		f.Add(fn.Example)
	}
	for _, seed := range []string{
		`state == "RUN" and temp > 60`, `(count - scrap) / count`, `a ? b : c ?? d`, "`x`", `x not in [1, -2.5, null]`,
		`count(temp)`, `not not ok`, `--1`, `state matches "a{2,3}"`, `ts > '2026-01-01'`, `"\u00e9`, `null ?? null + 1`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := expr.Parse(text)
		if err != nil {
			mustPointInto(t, err, text)
			return
		}
		if canonical := expr.Format(n); len(canonical) <= expr.MaxLength {
			if again := parse(t, canonical); !sameTree(n, again) {
				t.Fatalf("the canonical text %q gives another tree", canonical)
			}
		}
		if _, err = expr.CheckAggregate(n, columns(), &expr.Patterns{}); err != nil {
			mustPointInto(t, err, text)
		}
		checked, err := expr.Check(n, columns())
		if err != nil {
			mustPointInto(t, err, text)
			return
		}
		if checked.Type != expr.Null || checked.Op != expr.OpLiteral {
			mustBeTyped(t, checked)
		}
	})
}

func mustPointInto(t *testing.T, err error, text string) {
	t.Helper()
	e, ok := errors.AsType[*expr.Error](err)
	if !ok || e.Pos < 0 || e.Pos > len(text) || e.Message == "" {
		t.Fatalf("%#v is not an *expr.Error at a place in %q", err, text)
	}
}

func mustBeTyped(t *testing.T, n *expr.Node) {
	t.Helper()
	if n.Type == expr.Invalid || n.Type == expr.Null {
		t.Fatalf("%s has the type %s", expr.Format(n), n.Type)
	}
	for _, a := range n.Args {
		mustBeTyped(t, a)
	}
}

// What takes more than linear time in one of these runs into the time limit of go test.
func TestLongInputIsCheap(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"negations":   strings.Repeat("-", 150) + "Mim()",
		"nots":        strings.Repeat("not ", 150) + "ok",
		"parentheses": strings.Repeat("(", 60000),
		"conditions":  strings.Repeat("ok?", 20000),
		"list":        "count in [" + strings.Repeat("1,", 32000) + "1]",
		"strings":     "state in [" + strings.Repeat(`"",`, 21000) + "temp]",
		"arguments":   "coalesce(" + strings.Repeat("1,", 32000) + "temp)",
		"calls":       strings.Repeat("abs(", 150) + "count" + strings.Repeat(")", 150),
		"backquotes":  strings.Repeat("`", 65000),
		"patterns":    "coalesce(" + strings.Repeat(`state matches "(a{900}){1}",`, 2300) + "ok)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, err := expr.Parse(text)
			if err == nil {
				_, err = expr.Check(n, columns())
			}
			if err != nil && len(err.Error()) > 300 {
				t.Errorf("the message has %d bytes", len(err.Error()))
			}
		})
	}
}
