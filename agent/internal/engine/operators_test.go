package engine

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// drawTable draws rows with many equal keys.
func drawTable(t *rapid.T, schema expr.Schema, most int) *table {
	data := &table{schema: schema}
	for range rapid.IntRange(0, most).Draw(t, "rows") {
		row := map[string]any{}
		for _, c := range schema {
			var v any
			switch c.Type { //nolint:exhaustive // the rest is text
			case expr.Timestamp:
				v = "2026-01-01T00:0" + strconv.Itoa(rapid.IntRange(0, 9).Draw(t, "minute")) + ":30Z"
			case expr.Float:
				v = rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 1.5, -2, math.NaN(), 3.25}).Draw(t, "float")
			case expr.Int:
				v = int64(rapid.IntRange(0, 3).Draw(t, "int"))
			case expr.Bool:
				v = rapid.Bool().Draw(t, "bool")
			default:
				v = rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "text")
			}
			if c.Type != expr.Timestamp && rapid.IntRange(0, 4).Draw(t, "null") == 0 {
				v = nil
			}
			row[c.Name] = v
		}
		data.rows = append(data.rows, row)
	}
	return data
}

const groupFlow = `
flow: groups
steps:
  - id: rows
    read: x
    schema: {at: timestamp, s: string, f: float, b: bool, i: int, x: float, y: string}
  - id: groups
    aggregate: {n: count(), nx: count(x), total: sum(i), mean: avg(x), low: min(x), high: max(x), first_y: first(y), last_y: last(y), low_y: min(y), dx: count_distinct(x), dy: count_distinct(y), db: count_distinct(b)}
    by: [s, f, b]
    window: {tumbling: 2m, time: at}
  - insight: groups
    key: [s, f, b]
`

// groupOracle is GROUP BY over whole rows, with maps and boxed values.
func groupOracle(data *table) []string {
	type group struct {
		start int64
		key   [3]any
		rows  []map[string]any
		times []int64
	}
	var groups []*group
	for _, row := range data.rows {
		at, _ := parseTime([]byte(as[string](row["at"])))
		start := at - at%120e6
		key := [3]any{row["s"], row["f"], row["b"]}
		if f, ok := key[1].(float64); ok && f == 0 {
			key[1] = 0.0
		}
		i := slices.IndexFunc(groups, func(g *group) bool {
			return g.start == start && sameBoxed(g.key[0], key[0]) && sameBoxed(g.key[1], key[1]) && sameBoxed(g.key[2], key[2])
		})
		if i < 0 {
			i, groups = len(groups), append(groups, &group{start: start, key: key})
		}
		groups[i].rows, groups[i].times = append(groups[i].rows, row), append(groups[i].times, at)
	}
	slices.SortFunc(groups, func(a, b *group) int {
		if a.start != b.start {
			return int((a.start - b.start) / 1e6)
		}
		for k := range a.key {
			an, bn := a.key[k] == nil, b.key[k] == nil
			if an || bn {
				if an != bn {
					return compareBool(an, bn)
				}
				continue
			}
			if order := oracleCompare(a.key[k], b.key[k]); order != 0 {
				return order
			}
		}
		return 0
	})
	var lines []string
	for _, g := range groups {
		out := column.NewBatch(expr.Schema{
			{Name: "s", Type: expr.String},
			{Name: "f", Type: expr.Float},
			{Name: "b", Type: expr.Bool},
			{Name: "window_start", Type: expr.Timestamp},
			{Name: "window_end", Type: expr.Timestamp},
			{Name: "n", Type: expr.Int},
			{Name: "nx", Type: expr.Int},
			{Name: "total", Type: expr.Int},
			{Name: "mean", Type: expr.Float},
			{Name: "low", Type: expr.Float},
			{Name: "high", Type: expr.Float},
			{Name: "first_y", Type: expr.String},
			{Name: "last_y", Type: expr.String},
			{Name: "low_y", Type: expr.String},
			{Name: "dx", Type: expr.Int},
			{Name: "dy", Type: expr.Int},
			{Name: "db", Type: expr.Int},
		})
		values := append([]any{g.key[0], g.key[1], g.key[2], instant(g.start), instant(g.start + 120e6)}, groupResults(g.rows, g.times)...)
		for i, v := range values {
			appendBoxed(&out.Cols[i], v)
		}
		key := appendObject(nil, members(out.Schema, []int{0, 1, 2}), out, 0)
		rest := make([]int, 0, 14)
		for i := 3; i < len(out.Schema); i++ {
			rest = append(rest, i)
		}
		lines = append(lines, "groups "+expr.FormatTimestamp(g.start)+" "+string(key)+" "+string(appendObject(nil, members(out.Schema, rest), out, 0)))
	}
	return lines
}

func groupResults(rows []map[string]any, times []int64) []any {
	var nx, total, withI int64
	var sum float64
	var low, high, first, last, lowY, sumI, mean any
	var firstAt, lastAt int64
	distinct := map[string][]any{}
	for i, row := range rows {
		if x, ok := row["x"].(float64); ok {
			nx, sum = nx+1, sum+x
			if low == nil || oracleCompare(x, low) < 0 {
				low = x
			}
			if high == nil || oracleCompare(x, high) > 0 {
				high = x
			}
		}
		if v, ok := row["i"].(int64); ok {
			total, withI = total+v, withI+1
		}
		if y := row["y"]; y != nil {
			if first == nil || times[i] < firstAt {
				first, firstAt = y, times[i]
			}
			if last == nil || times[i] >= lastAt {
				last, lastAt = y, times[i]
			}
			if lowY == nil || as[string](y) < as[string](lowY) {
				lowY = y
			}
		}
		for _, name := range []string{"x", "y", "b"} {
			v := row[name]
			if v != nil && !slices.ContainsFunc(distinct[name], func(o any) bool { return oracleCompare(o, v) == 0 }) {
				distinct[name] = append(distinct[name], v)
			}
		}
	}
	if withI > 0 {
		sumI = total
	}
	if nx > 0 {
		mean = sum / float64(nx)
	}
	return []any{int64(len(rows)), nx, sumI, mean, low, high, first, last, lowY, int64(len(distinct["x"])), int64(len(distinct["y"])), int64(len(distinct["b"]))}
}

func TestGroupsAgreeWithTheOracle(t *testing.T) {
	t.Parallel()
	p := plan(t, groupFlow)
	rapid.Check(t, func(rt *rapid.T) {
		data := drawTable(rt, p.Steps[0].Output, 60)
		got, _ := runBounded(t, groupFlow, map[string]*table{"rows": data}, rapid.IntRange(1, 70).Draw(rt, "size"))
		want := groupOracle(data)
		if !slices.Equal(got, want) {
			rt.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

const joinFlow = `
flow: scrap
steps:
  - id: counts
    read: plc
    schema: {at: timestamp, ord: int, part: string, n: int}
  - id: orders
    read: mes
    schema: {number: int, part: string, customer: string, due: timestamp}
  - id: joined
    join: orders
    from: counts
    on: {ord: number, part: part}
    type: KIND
  - insight: scrap
    key: [ord]
    time: at
`

func TestJoin(t *testing.T) {
	t.Parallel()
	at := "2026-01-01T00:00:00Z"
	tables := map[string]*table{
		"counts": {rows: []map[string]any{
			{"at": at, "ord": int64(1), "part": "a", "n": int64(10)},
			{"at": at, "ord": int64(2), "part": "a", "n": int64(20)},
			{"at": at, "part": "a", "n": int64(30)},
			{"at": at, "ord": int64(3), "part": "b", "n": int64(40)},
			{"at": at, "ord": int64(1), "part": "a", "n": int64(50)},
		}},
		"orders": {rows: []map[string]any{
			{"number": int64(3), "part": "b", "customer": "C3"},
			{"number": int64(1), "part": "a", "customer": "C1"},
			{"part": "a", "customer": "null matches nothing"},
			{"number": int64(1), "part": "a", "customer": "C2", "due": at},
			{"number": int64(9), "part": "a"},
		}},
	}
	line := func(ord, n, part, customer, due string) string {
		return `scrap 2026-01-01T00:00:00Z {"ord":` + ord + `} {"part":"` + part + `","n":` + n + `,"customer":` + customer + `,"due":` + due + `}`
	}
	inner := []string{
		line("1", "10", "a", `"C1"`, "null"), line("1", "10", "a", `"C2"`, `"`+at+`"`),
		line("3", "40", "b", `"C3"`, "null"),
		line("1", "50", "a", `"C1"`, "null"), line("1", "50", "a", `"C2"`, `"`+at+`"`),
	}
	outer := []string{inner[0], inner[1], line("2", "20", "a", "null", "null"), line("null", "30", "a", "null", "null"), inner[2], inner[3], inner[4]}
	for _, size := range []int{1, 2, 100} {
		got, report := runBounded(t, strings.Replace(joinFlow, "KIND", "inner", 1), tables, size)
		sameLines(t, fmt.Sprintf("inner, batches of %d", size), got, inner)
		if report.Read != 10 || report.Steps[1].Out != 5 || report.Steps[2].In != 5 || report.Steps[2].Out != 5 {
			t.Errorf("the report is %+v", report)
		}
		got, _ = runBounded(t, strings.Replace(joinFlow, "KIND", "left", 1), tables, size)
		sameLines(t, fmt.Sprintf("left, batches of %d", size), got, outer)
	}
	got, _ := runBounded(t, strings.Replace(joinFlow, "KIND", "left", 1), map[string]*table{"counts": tables["counts"]}, 10)
	if len(got) != 5 {
		t.Errorf("a left join with an empty table gives %d rows, want 5", len(got))
	}
}

func TestJoinWithManyMatchesSplitsItsOutput(t *testing.T) {
	t.Parallel()
	left, right := &table{}, &table{}
	for i := range 100 {
		left.rows = append(left.rows, map[string]any{"at": "2026-01-01", "ord": int64(1), "part": "a", "n": int64(i)})
		right.rows = append(right.rows, map[string]any{"number": int64(1), "part": "a", "customer": strconv.Itoa(i)})
	}
	got, _ := runBounded(t, strings.Replace(joinFlow, "KIND", "inner", 1), map[string]*table{"counts": left, "orders": right}, 100)
	if len(got) != 10000 || !strings.Contains(got[9999], `"customer":"99"`) || !strings.Contains(got[4200], `"n":42,`) || !strings.Contains(got[4200], `"customer":"0"`) {
		t.Errorf("%d rows; row 4200 is %s", len(got), got[4200])
	}
}

const selfJoinFlow = `
flow: share
steps:
  - id: rows
    read: x
    schema: {machine: string, n: int}
  - id: totals
    aggregate: {total: sum(n)}
    by: [machine]
  - id: joined
    join: totals
    from: rows
    on: [machine]
  - map: {share: n / total}
  - insight: share
    key: [machine]
`

func TestAReadOnBothSidesOfAJoinIsReadTwice(t *testing.T) {
	t.Parallel()
	data := &table{rows: []map[string]any{{"machine": "A", "n": int64(1)}, {"machine": "B", "n": int64(5)}, {"machine": "A", "n": int64(3)}}}
	got, _ := runBounded(t, selfJoinFlow, map[string]*table{"rows": data}, 2)
	want := []string{
		`share 1970-01-01T00:00:00Z {"machine":"A"} {"n":1,"total":4,"share":0.25}`,
		`share 1970-01-01T00:00:00Z {"machine":"B"} {"n":5,"total":5,"share":1}`,
		`share 1970-01-01T00:00:00Z {"machine":"A"} {"n":3,"total":4,"share":0.75}`,
	}
	sameLines(t, "self join", got, want)
	reads := program(t, selfJoinFlow).Reads()
	if len(reads) != 2 || reads[0].Role != RoleStream || reads[1].Role != RoleTable || reads[1].Refresh != DefaultRefresh {
		t.Errorf("the reads are %+v", reads)
	}
}

func TestInsightJSON(t *testing.T) {
	t.Parallel()
	text := `
flow: all-types
steps:
  - id: rows
    read: x
    schema: {z: float, b: bool, i: int, s: string, "a b": timestamp, k: json, f: float}
  - map: {twice: f * 2}
  - select: [z, b, i, s, a b, k, f, twice]
  - insight: all
    key: [s, i]
    time: a b
`
	data := &table{rows: []map[string]any{
		{"z": 1e21, "b": true, "i": int64(-9007199254740993), "s": "q\"\n", "a b": "2026-01-01T00:00:00.5Z", "k": map[string]any{"a": []any{int64(1), nil}}, "f": 0.1},
		{"a b": "2026-01-01", "z": math.Inf(-1), "f": math.NaN()},
		{"s": "no time"},
	}}
	got, report := runBounded(t, text, map[string]*table{"rows": data}, 10)
	want := []string{
		`all 2026-01-01T00:00:00.5Z {"s":"q\"\n","i":-9007199254740993} {"z":1e+21,"b":true,"k":{"a":[1,null]},"f":0.1,"twice":0.2}`,
		`all 2026-01-01T00:00:00Z {"s":null,"i":null} {"z":"-Infinity","b":null,"k":null,"f":"NaN","twice":"NaN"}`,
	}
	sameLines(t, "insights", got, want)
	if report.Failed != 1 || len(report.Sample) != 1 || !strings.Contains(report.Sample[0].Record, `"s":"no time"`) {
		t.Errorf("the record without a time: %+v", report.Sample)
	}
}

func TestSumOfIntsDependsOnTheTotalOnly(t *testing.T) {
	t.Parallel()
	text := "flow: sums\nsteps:\n  - id: rows\n    read: x\n    schema: {k: string, i: int}\n  - aggregate: {s: sum(i)}\n    by: [k]\n  - insight: sums\n    key: [k]\n"
	data := &table{}
	for k, values := range map[string][]int64{
		"fits": {math.MaxInt64, math.MaxInt64, math.MinInt64, math.MinInt64, 7}, "over": {math.MaxInt64, 1}, "under": {math.MinInt64, -1}, "edge": {math.MinInt64},
	} {
		for _, v := range values {
			data.rows = append(data.rows, map[string]any{"k": k, "i": v})
		}
	}
	got, _ := runBounded(t, text, map[string]*table{"rows": data}, 3)
	at := "sums 1970-01-01T00:00:00Z "
	sameLines(t, "sums", got, []string{
		at + `{"k":"edge"} {"s":-9223372036854775808}`, at + `{"k":"fits"} {"s":5}`, at + `{"k":"over"} {"s":null}`, at + `{"k":"under"} {"s":null}`,
	})
}

func TestStddevAgreesWithTwoPasses(t *testing.T) {
	t.Parallel()
	text := "flow: d\nsteps:\n  - id: rows\n    read: x\n    schema: {k: string, x: float}\n  - aggregate: {d: stddev(x)}\n    by: [k]\n  - insight: d\n    key: [k]\n"
	data := &table{rows: []map[string]any{{"k": "one", "x": 4.0}, {"k": "inf", "x": math.Inf(1)}, {"k": "inf", "x": 1.0}}}
	for _, v := range []float64{1e9 + 2, 1e9 + 4, 1e9 + 4, 1e9 + 4, 1e9 + 5, 1e9 + 5, 1e9 + 7, 1e9 + 9} {
		data.rows = append(data.rows, map[string]any{"k": "many", "x": v})
	}
	got, _ := runBounded(t, text, map[string]*table{"rows": data}, 3)
	// The sample standard deviation of 2 4 4 4 5 5 7 9 is the square root of 32/7.
	at := "d 1970-01-01T00:00:00Z "
	sameLines(t, "stddev", got, []string{
		at + `{"k":"inf"} {"d":"NaN"}`, at + `{"k":"many"} {"d":` + string(column.AppendFloatText(nil, math.Sqrt(32.0/7))) + `}`, at + `{"k":"one"} {"d":null}`,
	})
}

// TestKeysWithEqualHashesStayApart gives every key the same hash.
func TestKeysWithEqualHashesStayApart(t *testing.T) {
	t.Parallel()
	table := newKeyTable([]expr.Type{expr.Int})
	c := column.Column{Type: expr.Int}
	var k keyRows
	for i := range 100 {
		c.AppendInt(int64(i % 7))
		k.rows, k.prefix = append(k.rows, i32(i)), append(k.prefix, 0)
	}
	k.cols = []*column.Column{&c}
	for range 2 {
		entries, err := table.assignHashed(k, make([]uint64, 100), nil)
		if err != nil {
			t.Fatal(err)
		}
		if table.len() != 7 {
			t.Fatalf("%d entries, want 7", table.len())
		}
		for i, e := range entries {
			if table.cols[0].Ints[e] != int64(i%7) {
				t.Errorf("row %d is in the group of %d", i, table.cols[0].Ints[e])
			}
		}
	}
}
