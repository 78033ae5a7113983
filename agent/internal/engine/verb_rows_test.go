package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// errStopped ends a run on purpose.
var errStopped = errors.New("stopped")

// restartedRun runs a flow in many runs, each stopped after its first commit, over sources that end or do not.
func restartedRun(tb testing.TB, text string, tables map[string]*table, size int, ends span) *memStore {
	tb.Helper()
	store := newStore()
	for range 100_000 {
		ctx, cancel := context.WithCancelCause(tb.Context())
		store.onCommit = func(*memStore) { cancel(errStopped) }
		over := 0
		_, err := Run(ctx, RunSettings{
			Program: program(tb, text), Store: store, CommitRows: 1, Started: time.Unix(0, 0),
			Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
				m := newMemory(need, from, tables[need.Step], size)
				m.traits.Bounded = ends == bounded
				m.onNext = func(at int) {
					if ends == endless && at >= len(tables[need.Step].rows) {
						over++
						cancel(nil)
					}
				}
				return m, nil
			},
		})
		cancel(nil)
		switch {
		case err == nil, over > 0 && !errors.Is(err, errStopped):
			store.onCommit = nil
			return store
		case !errors.Is(err, errStopped):
			tb.Fatalf("Run: %v", err)
		}
	}
	tb.Fatal("the runs do not come to an end")
	return nil
}

// orderRows are rows with few different values, nulls, and times that come out of order.
func orderRows(n int, seed uint64) *table {
	rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // test data
	data := &table{}
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	floats := []float64{0, math.Copysign(0, -1), 1.5, -2, math.NaN(), math.Inf(1), math.Inf(-1), 1e300, 3}
	texts := []string{"", "a", "ab", "a\x00", "prefix-long-A", "prefix-long-B", "prefix-long", "äöü", "prefix-", "prefix-l", strings.Repeat("x", maxOffset) + "tail-b", strings.Repeat("x", maxOffset) + "tail-a", strings.Repeat("x", maxOffset), strings.Repeat("x", 3*exactText)}
	for i := range n {
		row := map[string]any{
			"ts": base.Add(time.Duration(i)*time.Second - time.Duration(rng.IntN(20))*time.Second), "n": int64(i),
			"k": texts[rng.IntN(len(texts))], "f": floats[rng.IntN(len(floats))], "i": int64(rng.IntN(7)) - 3, "b": rng.IntN(2) == 0,
			"tools": []any{map[string]any{"id": fmt.Sprintf("T%d", rng.IntN(9)), "wear": float64(rng.IntN(9)) / 2}, map[string]any{"id": strconv.Itoa(i)}},
		}
		if rng.IntN(50) == 0 {
			row["i"] = int64(math.MinInt64)
		}
		for _, name := range []string{"k", "f", "i", "b"} {
			if rng.IntN(8) == 0 {
				delete(row, name)
			}
		}
		if rng.IntN(40) == 0 {
			row["ts"] = base.Add(time.Duration(i-300) * time.Second)
		}
		data.rows = append(data.rows, row)
	}
	return data
}

const rowsRead = `
flow: f
trigger: %s
steps:
  - id: rows
    read: x
    schema: {ts: timestamp, n: int, k: string, f: float, i: int, b: bool, tools: json}
`

func TestRowVerbsAreTheSameHoweverTheInputIsCut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		steps string
		ends  span
	}{
		"union of two ways":   {"  - {id: low, filter: i < 0, from: rows}\n  - {id: high, filter: i >= 0 or i < -1, from: rows}\n  - union: [high, low]\n", bounded},
		"union with a sort":   {"  - {id: low, filter: i < 0, from: rows}\n  - {id: high, sort: [i], from: rows}\n  - union: [high, low]\n", bounded},
		"union, endless":      {"  - {id: all, map: {f: f + 1}, from: rows}\n  - union: [rows, all]\n", endless},
		"union of a union":    {"  - {id: low, filter: i < 0, from: rows}\n  - {id: both, union: [low, rows]}\n  - {id: again, map: {i: i + 1}, from: rows}\n  - union: [both, again]\n", bounded},
		"sort":                {"  - sort: [{k: desc}, f, b]\n", bounded},
		"the first of a sort": {"  - sort: [{f: desc}, i]\n  - limit: 17\n", bounded},
		"limit":               {"  - limit: 30\n", bounded},
		"limit by":            {"  - limit: 3\n    by: [k, i]\n", bounded},
		"limit, endless":      {"  - limit: 33\n", endless},
		"limit by, endless":   {"  - limit: 2\n    by: [k, f]\n", endless},
		"distinct":            {"  - distinct: [k, f]\n", bounded},
		"distinct within":     {"  - distinct: [k]\n    within: 30s\n    time: ts\n", bounded},
		"distinct, endless":   {"  - distinct: [k]\n    within: 30s\n    time: ts\n", endless},
		"unnest":              {"  - unnest: tools\n    schema: {id: string, wear: float}\n    index: place\n", bounded},
		"validate":            {"  - validate: {i: {required: true, min: -2}, k: {unique: {with: [f], within: 1m, time: ts}}}\n", endless},
		"validate for ever":   {"  - validate: {i: {unique: {with: [f]}}, k: {unique: {with: [b]}}}\n", bounded},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			trigger := map[span]string{bounded: "manual", endless: "continuous"}[c.ends]
			text := fmt.Sprintf(rowsRead, trigger) + c.steps
			if !strings.Contains(c.steps, "unnest") {
				text += "  - select: [ts, n, k, f, i, b]\n"
			}
			text += "  - insight: out\n    key: [n]\n    time: ts\n"
			tables := map[string]*table{"rows": orderRows(300, 5)}
			var want []string
			for _, size := range []int{300, 1, 7, 64} {
				var got []string
				if c.ends == bounded {
					got, _ = runBounded(t, text, tables, size)
				} else {
					store := newStore()
					endlessRun(t, text, tables["rows"], size, store)
					got = store.lines()
				}
				if want == nil {
					if want = got; len(want) < 10 {
						t.Fatalf("only %d insights", len(want))
					}
				}
				sameLines(t, fmt.Sprintf("batches of %d", size), got, want)
				if size > 1 {
					store := restartedRun(t, text, tables, size, c.ends)
					sameLines(t, fmt.Sprintf("restarted after every batch of %d", size), store.lines(), want)
					if left := len(store.state.Operators); c.ends == bounded {
						for step, entries := range store.state.Operators {
							if len(entries) > 0 {
								t.Errorf("step %s left %d entries (%d steps)", step, len(entries), left)
							}
						}
					}
				}
			}
		})
	}
}

// naiveCompare orders two values of rows as the documentation of sort says.
func naiveCompare(a, b any, descending bool) int {
	if a == nil || b == nil {
		return cmp.Compare(map[bool]int{true: 1}[a == nil], map[bool]int{true: 1}[b == nil])
	}
	order := 0
	switch x := a.(type) {
	case int64:
		order = cmp.Compare(x, as[int64](b))
	case string:
		order = cmp.Compare(x, as[string](b))
	case time.Time:
		order = x.Compare(as[time.Time](b))
	case bool:
		order = cmp.Compare(map[bool]int{true: 1}[x], map[bool]int{true: 1}[as[bool](b)])
	case float64:
		y := as[float64](b)
		switch {
		case math.IsNaN(x) || math.IsNaN(y):
			order = cmp.Compare(map[bool]int{true: 1}[math.IsNaN(x)], map[bool]int{true: 1}[math.IsNaN(y)])
		case x < y:
			order = -1
		case x > y:
			order = 1
		}
	}
	if descending {
		return -order
	}
	return order
}

func numbersOf(rows []map[string]any) []string {
	list := make([]string, len(rows))
	for i, row := range rows {
		list[i] = fmt.Sprintf(`out 1970-01-01T00:00:00Z {"n":%d} {}`, row["n"])
	}
	return list
}

func TestSortIsThatOfANaiveOne(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(11, 1)) //nolint:gosec // test data
	for round := range 40 {
		n := []int{0, 1, 2, 40, 700, 3000}[rng.IntN(6)]
		data := orderRows(n, uint64(round))
		columns := []string{"ts", "k", "f", "i", "b"}
		rng.Shuffle(len(columns), func(i, j int) { columns[i], columns[j] = columns[j], columns[i] })
		columns = columns[:1+rng.IntN(3)]
		descending := make([]bool, len(columns))
		keys := make([]string, len(columns))
		for i, name := range columns {
			descending[i] = rng.IntN(2) == 0
			keys[i] = fmt.Sprintf("{%s: %s}", name, map[bool]string{true: "desc", false: "asc"}[descending[i]])
		}
		text := fmt.Sprintf(rowsRead, "manual") + "  - sort: [" + strings.Join(keys, ", ") + "]\n"
		want := slices.Clone(data.rows)
		slices.SortStableFunc(want, func(a, b map[string]any) int {
			for i, name := range columns {
				if order := naiveCompare(a[name], b[name], descending[i]); order != 0 {
					return order
				}
			}
			return 0
		})
		if rng.IntN(2) == 0 {
			most := 1 + rng.IntN(100)
			text += fmt.Sprintf("  - limit: %d\n", most)
			want = want[:min(most, len(want))]
		}
		text += "  - select: [n]\n  - insight: out\n    key: [n]\n"
		got, _ := runBounded(t, text, map[string]*table{"rows": data}, 1+rng.IntN(1000))
		sameLines(t, text, got, numbersOf(want))
	}
}

// TestTheFirstOfASortNeedLittleMemory sorts more rows than it may keep.
func TestTheFirstOfASortNeedLittleMemory(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf(rowsRead, "manual") + "  - {id: sorted, sort: [{i: desc}, f]}\n  - limit: 25\n  - select: [n]\n  - insight: out\n    key: [n]\n"
	data := orderRows(3*topSlack, 3)
	whole, _ := runBounded(t, strings.Replace(text, "  - limit: 25\n", "", 1), map[string]*table{"rows": data}, 1000)
	first, _ := runBounded(t, text, map[string]*table{"rows": data}, 1000)
	sameLines(t, "the first rows", first, whole[:25])
	store := restartedRun(t, text, map[string]*table{"rows": data}, 900, bounded)
	sameLines(t, "the first rows after restarts", store.lines(), whole[:25])

	p, err := program(t, text).main.instantiate(func(int) span { return bounded }, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, ok := p.keepers[0].(*sortStep)
	if !ok || s.top != 25 {
		t.Fatalf("the sort keeps %d rows", s.top)
	}
}

// TestASortGoesOnInTheMiddleOfItsEnd stores a sort between two of the batches that it ends with.
func TestASortGoesOnInTheMiddleOfItsEnd(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf(rowsRead, "manual") + "  - sort: [k, {i: desc}]\n  - select: [n]\n  - insight: out\n    key: [n]\n"
	prog := program(t, text)
	data := orderRows(10_000, 4)
	fresh := func() (*pipeline, *sortStep) {
		p, err := prog.main.instantiate(func(int) span { return bounded }, 0)
		if err != nil {
			t.Fatal(err)
		}
		return p, as[*sortStep](p.keepers[0])
	}
	first, s := fresh()
	source := newMemory(prog.Reads()[0], nil, data, 4000)
	for range 3 {
		d, err := source.Next(t.Context())
		if err == nil {
			err = first.sources[0].push(d.Batch)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if more, err := s.finish(); err != nil || !more {
		t.Fatalf("finish gives %t, %v", more, err)
	}
	entries := map[string][]byte{}
	for _, ch := range s.changes(nil) {
		entries[ch.Key] = ch.Value
	}
	second, s2 := fresh()
	if err := s2.restore(entries); err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		var err error
		if more, err = s2.finish(); err != nil {
			t.Fatal(err)
		}
	}
	for _, ch := range s2.changes(nil) {
		if delete(entries, ch.Key); ch.Value != nil {
			t.Errorf("the end stores %q", ch.Key)
		}
	}
	if len(entries) > 0 {
		t.Errorf("%d entries are left", len(entries))
	}
	whole, _ := runBounded(t, text, map[string]*table{"rows": data}, 4000)
	sameLines(t, "both parts", append(insightLines(first.box.take()), insightLines(second.box.take())...), whole)
}

func TestASortNeedsAnEnd(t *testing.T) {
	t.Parallel()
	steps := fmt.Sprintf(rowsRead, "continuous") + "  - sort: [n]\n  - insight: out\n    time: ts\n"
	if _, err := flowdef.CheckText([]byte(steps), flowdef.Environment{}); err == nil || !strings.Contains(err.Error(), "a continuous flow has no end") {
		t.Errorf("a sort in a continuous flow gives %v", err)
	}
	text := strings.Replace(steps, "continuous", "manual", 1)
	for _, change := range []string{"", "distinct: all\n", "validate: {n: {unique: true}}\n"} {
		if change != "" {
			text = strings.Replace(fmt.Sprintf(rowsRead, "manual"), ", tools: json", "", 1) + "  - " + change + "  - insight: out\n    time: ts\n"
		}
		_, err := Run(t.Context(), RunSettings{Program: program(t, text), Store: newStore(), Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
			m := newMemory(need, from, &table{}, 1)
			m.traits.Bounded = false
			return m, nil
		}})
		if err == nil || !strings.Contains(err.Error(), "the input has no end") {
			t.Errorf("%s with an endless source gives %v", change, err)
		}
	}
}

// TestDistinctWithinIsThatOfANaiveOne keeps all kept rows and looks at all of them.
func TestDistinctWithinIsThatOfANaiveOne(t *testing.T) {
	t.Parallel()
	for _, ends := range []span{bounded, endless} {
		data := orderRows(2000, 9)
		const within = 45 * time.Second
		var want []map[string]any
		late := 0
		var newest time.Time
		for _, row := range data.rows {
			ts := as[time.Time](row["ts"])
			if ends == endless && !newest.IsZero() && !ts.After(newest.Add(-within)) {
				late++
				continue
			}
			if ts.After(newest) {
				newest = ts
			}
			if !slices.ContainsFunc(want, func(o map[string]any) bool {
				return o["k"] == row["k"] && ts.Sub(as[time.Time](o["ts"])).Abs() < within
			}) {
				want = append(want, row)
			}
		}
		text := fmt.Sprintf(rowsRead, map[span]string{bounded: "manual", endless: "continuous"}[ends]) +
			"  - distinct: [k]\n    within: 45s\n    time: ts\n  - select: [n]\n  - insight: out\n    key: [n]\n"
		var got []string
		var report Report
		if ends == bounded {
			got, report = runBounded(t, text, map[string]*table{"rows": data}, 90)
		} else {
			store := newStore()
			report = endlessRun(t, text, data, 90, store)
			got = store.lines()
			for i := range got { // an endless run of these tests has no start
				at := strings.Index(got[i], " {")
				got[i] = "out 1970-01-01T00:00:00Z" + got[i][at:]
			}
		}
		sameLines(t, "distinct", got, numbersOf(want))
		if report.Late != int64(late) || ends == endless && late == 0 {
			t.Errorf("%d rows are late, want %d", report.Late, late)
		}
	}
}

// TestDistinctForgets holds that what can matter no more is taken out of memory and of the store.
func TestDistinctForgets(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf(rowsRead, "continuous") + "  - distinct: [n]\n    within: 10s\n    time: ts\n  - insight: out\n    key: [n]\n    time: ts\n"
	data := &table{}
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 6 * sweepFloor {
		data.rows = append(data.rows, map[string]any{"ts": base.Add(time.Duration(i) * time.Second), "n": int64(i)})
	}
	store := newStore()
	endlessRun(t, text, data, 1000, store)
	if n := len(store.lines()); n != len(data.rows) {
		t.Fatalf("%d insights", n)
	}
	if n := len(store.state.Operators["distinct_2"]); n > 2*sweepFloor {
		t.Errorf("the store has %d entries for %d keys within the time", n, 20)
	}
}

func TestUnnestFailsElementsAlone(t *testing.T) {
	t.Parallel()
	text := `
flow: f
steps:
  - id: rows
    read: x
    schema: {n: int, list: json}
  - unnest: list
    schema: {v: int}
    index: at
    type: %s
  - insight: out
    key: [n, at]
`
	data := &table{}
	for _, v := range []any{
		[]any{int64(1), map[string]any{"v": int64(2)}, "x", []any{}, nil, map[string]any{}, map[string]any{"v": 1.5}, int64(3)},
		[]any{},
		nil,
		map[string]any{"v": int64(1)},
		int64(7),
		"text",
		true,
	} {
		row := map[string]any{"n": int64(len(data.rows))}
		if v != nil {
			row["list"] = v
		}
		data.rows = append(data.rows, row)
	}
	const t0 = "out 1970-01-01T00:00:00Z "
	want := []string{
		t0 + `{"n":0,"at":0} {"v":1}`, t0 + `{"n":0,"at":1} {"v":2}`, t0 + `{"n":0,"at":4} {"v":null}`,
		t0 + `{"n":0,"at":5} {"v":null}`, t0 + `{"n":0,"at":7} {"v":3}`,
	}
	got, report := runBounded(t, fmt.Sprintf(text, "inner"), map[string]*table{"rows": data}, 3)
	sameLines(t, "inner", got, want)
	if report.Failed != 7 {
		t.Errorf("%d records failed: %v", report.Failed, report.Sample)
	}
	var reasons []string
	for _, s := range report.Sample {
		reasons = append(reasons, s.Reason+" "+s.Record)
	}
	sameLines(t, "reasons", reasons, []string{
		`element 2 of column list: column v: the value is not of type int "x"`,
		`element 3 of column list: column v: the value is not of type int []`,
		`element 6 of column list: column v: the number has a fraction and the column is of type int {"v":1.5}`,
		`column list holds no array {"n":3,"list":{"v":1}}`,
		`column list holds no array {"n":4,"list":7}`,
		`column list holds no array {"n":5,"list":"text"}`,
		`column list holds no array {"n":6,"list":true}`,
	})
	got, _ = runBounded(t, fmt.Sprintf(text, "left"), map[string]*table{"rows": data}, 100)
	sameLines(t, "left", got, append(want, t0+`{"n":1,"at":null} {"v":null}`, t0+`{"n":2,"at":null} {"v":null}`))
}

// TestUnnestOfManyElements makes more rows of one than a batch has.
func TestUnnestOfManyElements(t *testing.T) {
	t.Parallel()
	list := make([]any, 10_000)
	for i := range list {
		list[i] = map[string]any{"id": fmt.Sprintf("tool \"%d\"\n", i)}
	}
	data := &table{rows: []map[string]any{{"n": int64(1), "list": list}, {"n": int64(2), "list": list[:5]}}}
	text := `
flow: f
steps:
  - id: rows
    read: x
    schema: {n: int, list: json}
  - unnest: list
    schema: {id: string, other: json}
    index: at
  - aggregate: {ids: count_distinct(id), rows: count(), last: max(at), len: max(length(id)), others: count(other)}
    by: [n]
  - insight: out
    key: [n]
`
	got, _ := runBounded(t, text, map[string]*table{"rows": data}, 2)
	sameLines(t, "aggregates", got, []string{
		`out 1970-01-01T00:00:00Z {"n":1} {"ids":10000,"rows":10000,"last":9999,"len":12,"others":0}`,
		`out 1970-01-01T00:00:00Z {"n":2} {"ids":5,"rows":5,"last":4,"len":9,"others":0}`,
	})
}

func TestValidateSaysWhy(t *testing.T) {
	t.Parallel()
	text := `
flow: f
steps:
  - id: rows
    read: x
    schema: {ts: timestamp, name: string, v: float, i: int, "odd ` + "`" + `name": string}
  - validate:
      name: {required: true, pattern: "^[A-Z]", max_length: 40, in: [A1, "B\"2", C, Z], unique: {within: 1h, time: ts}}
      v: {min: -1.5, max: 2}
      ts: {max: "2026-02-01"}
      "odd ` + "`" + `name": {type: timestamp}
      i:
        min: 0
        rule: {small: i < 10, "not v": i != v}
  - insight: out
    key: [name]
    time: ts
`
	at := func(minute int) time.Time { return time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }
	good := func(change map[string]any) map[string]any {
		row := map[string]any{"ts": at(0), "name": "Z", "v": 1.0, "i": int64(3), "odd `name": "2026-01-01"}
		for k, v := range change {
			if v == nil {
				delete(row, k)
			} else {
				row[k] = v
			}
		}
		return row
	}
	data := &table{rows: []map[string]any{
		good(map[string]any{"name": "A1"}),
		good(map[string]any{"name": nil}),
		good(map[string]any{"name": "a"}),
		good(map[string]any{"name": strings.Repeat("Ä", 41)}),
		good(map[string]any{"name": "D"}),
		good(map[string]any{"name": "A1", "ts": at(59)}),
		good(map[string]any{"name": "B\"2", "v": -2.0}),
		good(map[string]any{"v": math.NaN()}),
		good(map[string]any{"ts": at(60 * 24 * 40)}),
		good(map[string]any{"odd `name": "yesterday"}),
		good(map[string]any{"i": int64(-1)}),
		good(map[string]any{"i": int64(11)}),
		good(map[string]any{"v": 2.0, "i": int64(2)}),
		good(map[string]any{"ts": nil}),
		good(map[string]any{"name": "C", "v": nil, "i": nil, "odd `name": nil}),
		good(map[string]any{"name": "A1", "ts": at(60)}),
	}}
	got, report := runBounded(t, text, map[string]*table{"rows": data}, 5)
	if len(got) != 3 || !strings.Contains(got[1], `"C"`) || report.Failed != 13 {
		t.Errorf("%d failed, came: %v", report.Failed, got)
	}
	var reasons []string
	for _, s := range report.Sample {
		reasons = append(reasons, s.Reason)
	}
	sameLines(t, "reasons", reasons, []string{
		`column name is null, which breaks the rule required`,
		`column name is "a", which breaks the rule in: ["A1", "B\"2", "C", "Z"]`,
		`column name is "` + strings.Repeat("Ä", 30) + `…, which breaks the rule in: ["A1", "B\"2", "C", "Z"]`,
		`column name is "D", which breaks the rule in: ["A1", "B\"2", "C", "Z"]`,
		`column name is "A1", which breaks the rule unique`,
		`column v is -2, which breaks the rule min: -1.5`,
		`column v is "NaN", which breaks the rule max: 2`,
		`column ts is "2026-02-10T00:00:00Z", which breaks the rule max: 2026-02-01`,
		`column odd ` + "`" + `name is "yesterday", which breaks the rule type: timestamp`,
		`column i is -1, which breaks the rule min: 0`,
		`column i is 11, which breaks the rule small (i < 10)`,
		`column i is 2, which breaks the rule not v (i != v)`,
		`the rule unique of column name cannot be judged: the time column ts is null`,
	})
}

// TestValidateStopsAFlow holds that on_error: stop ends the run at the first record that breaks a rule.
func TestValidateStopsAFlow(t *testing.T) {
	t.Parallel()
	text := "on_error: stop\n" + strings.TrimPrefix(fmt.Sprintf(rowsRead, "manual"), "\n") + "  - validate: {n: {max: 3}}\n  - insight: out\n    time: ts\n"
	data := orderRows(10, 1)
	_, err := Run(t.Context(), RunSettings{Program: program(t, text), Store: newStore(), Open: opener(map[string]*table{"rows": data}, 10)})
	var stopped *StoppedError
	if !errors.As(err, &stopped) || !strings.Contains(stopped.Reason, "column n is 4, which breaks the rule max: 3") {
		t.Errorf("Run gives %v", err)
	}
}

// TestUniqueLetsNullsPass holds that a null breaks no rule but required.
func TestUniqueLetsNullsPass(t *testing.T) {
	t.Parallel()
	at := func(s int) time.Time { return time.Date(2026, 1, 1, 0, 0, s, 0, time.UTC) }
	data := &table{rows: []map[string]any{
		{"ts": at(0), "k": "a", "v": nil},
		{"ts": at(1), "k": "a", "v": nil},
		{"ts": at(2), "k": "a", "v": "x"},
		{"ts": at(3), "k": "a", "v": "x"},
		{"ts": nil, "k": "a", "v": nil},
		{"ts": at(9), "k": "b", "v": nil},
	}}
	for _, rule := range []string{"true", "{with: [k]}", "{within: 1m, time: ts}", "{with: [k], within: 1m, time: ts}"} {
		text := "flow: f\nsteps:\n  - id: rows\n    read: x\n    schema: {ts: timestamp, k: string, v: string}\n" +
			"  - validate: {v: {unique: " + rule + "}}\n  - insight: out\n"
		_, report := runBounded(t, text, map[string]*table{"rows": data}, 2)
		if step := report.Steps[1]; step.Out != 5 || step.Failed != 1 {
			t.Errorf("unique: %s: %d pass and %d fail, want 5 and 1: %+v", rule, step.Out, step.Failed, report.Sample)
		}
	}
}

func TestEachRuleHasItsOwnSamples(t *testing.T) {
	t.Parallel()
	text := fmt.Sprintf(rowsRead, "manual") + "  - validate: {n: {max: 100, rule: n != 300}, ts: {required: true}}\n  - insight: out\n    time: ts\n"
	data := orderRows(200, 1)
	delete(data.rows[50], "ts")
	_, report := runBounded(t, text, map[string]*table{"rows": data}, 64)
	if report.Failed != 100 || len(report.Sample) != ruleSamples+1 {
		t.Errorf("%d failed, %d sampled", report.Failed, len(report.Sample))
	}
}
