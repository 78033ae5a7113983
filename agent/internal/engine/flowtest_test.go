package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// idle is the processor time of a process that other tests do not share.
func idle() (time.Duration, error) { return 0, nil }

// oneTest runs the only test of a definition.
func oneTest(t *testing.T, text string) TestResult {
	t.Helper()
	results, err := testFlow(t.Context(), plan(t, text), idle)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 1 {
		t.Fatalf("got %d results", len(results))
	}
	return results[0]
}

// columns are assignments of an expression to so many columns. In the expression, # is the column's number.
func columns(n int, expression string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "c%d: \"%s\", ", i, strings.ReplaceAll(expression, "#", strconv.Itoa(i)))
	}
	return strings.TrimSuffix(b.String(), ", ")
}

func TestTestsAreBounded(t *testing.T) {
	t.Parallel()
	const (
		head = "flow: f\nsteps:\n- {id: a, read: c, schema: {ts: timestamp, k: int, x: string}}\n- {id: b, read: c, schema: {k: int, y: string}}\n"
		join = head + "- {from: a, join: b, on: [k]}\n"
		end  = "- {insight: o, key: [k]}\n"
	)
	rows := func(n int, row string) string { return strings.TrimSuffix(strings.Repeat(row+",", n), ",") }
	both := "tests:\n- {name: t, expect: {o: []}, given: {a: [" + rows(4000, "{ts: 1, k: 1, x: a}") + "], b: [" + rows(4000, "{k: 1, y: a}") + "]}}\n"
	one := func(steps, given string) string {
		return "flow: f\nsteps:\n- {id: a, read: c, schema: {ts: timestamp, k: int, x: string}}\n" + steps + "tests:\n- {name: t, expect: {o: []}, given: {a: [" + given + "]}}\n"
	}
	for name, c := range map[string]struct{ text, want string }{
		"insights":     {join + end + both, "more than 10000 insights and written rows"},
		"written rows": {join + "- {id: o, write: c}\n" + both, "more than 10000 insights and written rows"},
		"bytes": {
			one("- map: {x: 'replace(x, \"a\", \""+strings.Repeat("bc", 5000)+"\")'}\n"+end, rows(2000, "{ts: 1, k: 1, x: a}")), "more than 16 MiB",
		},
		"dropped rows": {join + "- filter: k > 5\n" + end + both, "more than 20000000 values"},
		"sort":         {join + "- sort: [x, y]\n" + end + both, "must hold more than 64 MiB"},
		"windows": {
			one("- {aggregate: {d: count_distinct(x)}, by: [k], window: {hopping: 1000s, every: 1s, time: ts}}\n- {insight: o}\n", rows(100, "{ts: 1, k: 1, x: a}")+",{ts: 9000000000, k: 2}"),
			"insight o: expected 0, came 2000",
		},
		"texts": {
			one(strings.Repeat("- map: {x: 'concat(x, x)'}\n", 17)+"- map: {"+columns(7, "concat(x, '')")+"}\n- map: {"+strings.ReplaceAll(columns(7, "upper(x)"), "c", "d")+"}\n"+end,
				rows(64, "{ts: 1, k: 1, x: abcdefgh}")), "the texts of a few rows grow to more than 16 MiB",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := oneTest(t, c.text); got.Passed || !strings.Contains(got.Difference, c.want) {
				t.Errorf("got %.300q, want %q", got.Difference, c.want)
			}
		})
	}
}

// The definitions are short, and one that is not bounded takes gigabytes. This test is not parallel, so what is
// allocated meanwhile is its own.
//
//nolint:paralleltest // see above
func TestTestsTakeLittleMemory(t *testing.T) {
	const most = 200 << 20
	rows := func(n int, row string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(strings.ReplaceAll(row, "#", strconv.Itoa(i)) + ",")
		}
		return strings.TrimSuffix(b.String(), ",")
	}
	const head = "flow: f\nsteps:\n- {id: a, read: c, schema: {k: int, x: string}}\n"
	long := "- map: {b: 'repeat(x, 1048576)'}\n"
	given := "tests:\n- {name: t, expect: {o: []}, given: {a: [" + rows(200, "{k: #, x: a}") + "]}}\n"
	const tooMuch, tooLong = "16 MiB", "more than 8 MiB of texts of this row"
	for name, c := range map[string]struct{ text, want string }{
		"a map":          {head + long + "- map: {" + columns(1500, "repeat(b, 1)") + "}\n- insight: o\n" + given, tooLong},
		"a filter":       {head + long + "- filter: " + strings.TrimSuffix(strings.Repeat("length(repeat(b, 1)) == k or ", 1500), " or ") + "\n- insight: o\n" + given, tooLong},
		"a row for each": {head + "- map: {" + columns(200, "repeat(x, k == # ? 1048576 : 0)") + "}\n- insight: o\n" + given, tooMuch},
		"a join": {"flow: f\nsteps:\n- {id: a, read: c, schema: {k: int, x: string}}\n- {id: z, read: c, schema: {k: int, y: string}}\n" +
			"- {from: a, join: z, on: [k]}\n- map: {b: 'repeat(x, 1048576)'}\n- filter: length(b) > 5\n- insight: o\n" +
			strings.Replace(given, "given: {", "given: {z: ["+rows(200, "{k: #, y: a}")+"], ", 1), tooMuch},
	} {
		p := plan(t, c.text)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		results, err := testFlow(t.Context(), p, idle)
		runtime.ReadMemStats(&after)
		if err != nil || len(results) != 1 || results[0].Passed && results[0].Failed == 0 {
			t.Errorf("%s: got %v, %v", name, results, err)
			continue
		}
		t.Logf("%s: %d MiB, %.120s", name, (after.TotalAlloc-before.TotalAlloc)>>20, results[0].Difference)
		if took := after.TotalAlloc - before.TotalAlloc; took > most {
			t.Errorf("%s took %d MiB: %.200s", name, took>>20, results[0].Difference)
		}
		if !strings.Contains(results[0].Difference+results[0].FailedReason, c.want) {
			t.Errorf("%s: got %.200q, %.200q", name, results[0].Difference, results[0].FailedReason)
		}
	}
}

func TestTestsAreEndedInTime(t *testing.T) {
	t.Parallel()
	p := plan(t, "flow: f\nsteps:\n- {id: a, read: c, schema: {k: int}}\n- {insight: o, key: [k]}\ntests:\n- {name: t, given: {a: [{k: 1}]}, expect: {o: [{k: 1}]}}\n")
	program, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithDeadlineCause(t.Context(), time.Unix(0, 0), errTestTime)
	defer cancel()
	if _, err = runTest(ctx, program, &p.Flow.Tests[0]); !errors.Is(err, errTestTime) {
		t.Errorf("got %v", err)
	}
}

// TestTheTimeOfTestsIsThatOfTheProcessor wants a test ended by the processor time that it takes, or by the clock when it
// gets none.
func TestTheTimeOfTestsIsThatOfTheProcessor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		each time.Duration // of processor time at each look
		want error
		wall time.Duration
	}{
		"busy":    {30 * time.Millisecond, errTestTime, 17 * time.Second},
		"crowded": {time.Millisecond, errTestWall, testWall},
	} {
		synctest.Test(t, func(t *testing.T) {
			spent := time.Hour
			began := time.Now()
			ctx, end, err := withinTestTime(t.Context(), func() (time.Duration, error) { spent += c.each; return spent, nil })
			if err != nil {
				t.Fatal(err)
			}
			<-ctx.Done()
			if took := time.Since(began).Truncate(time.Second / 2); !errors.Is(context.Cause(ctx), c.want) || took < c.wall-time.Second || took > c.wall {
				t.Errorf("%s: %v after %v", name, context.Cause(ctx), took)
			}
			end()
		})
	}
	before, err := ProcessorTime()
	if after, errAfter := ProcessorTime(); err != nil || errAfter != nil || after < before || after == 0 {
		t.Errorf("the processor time goes from %v to %v: %v, %v", before, after, err, errAfter)
	}
}

func TestWhatTestsCompare(t *testing.T) {
	t.Parallel()
	const head = "flow: f\nsteps:\n- {id: a, read: c, schema: {k: int, v: float}}\n- map: {q: 'v / 3.0', part: '10 % k'}\n- {insight: o, key: [k]}\ntests:\n- {name: t, "
	for name, c := range map[string]struct{ test, difference string }{
		"near floats":       {test: `given: {a: [{k: 1, v: 1}]}, expect: {o: [{q: 0.3333333333}]}}`},
		"far floats":        {test: `given: {a: [{k: 1, v: 1}]}, expect: {o: [{q: 0.33333333}]}}`, difference: "missing: {q: 0.33333333}"},
		"whole floats":      {test: `given: {a: [{k: 3.0, v: 1}]}, expect: {o: [{k: 3.0}]}}`},
		"any order":         {test: `given: {a: [{k: 1}, {k: 2}]}, expect: {o: [{k: 2}, {k: 1}]}}`},
		"the order":         {test: `given: {a: [{k: 1}, {k: 2}]}, expect: {o: [{k: 1}, {k: 2}]}, ordered: true}`},
		"another order":     {test: `given: {a: [{k: 1}, {k: 2}]}, expect: {o: [{k: 2}, {k: 1}]}, ordered: true}`, difference: "number 1 differs in k: {k: 2}\n    k: expected 2, came 1"},
		"too few in order":  {test: `given: {a: [{k: 1}]}, expect: {o: [{k: 1}, {k: 2}]}, ordered: true}`, difference: "expected 2, came 1\n  missing: {k: 2}"},
		"too many in order": {test: `given: {a: [{k: 1}, {k: 2}]}, expect: {o: [{k: 1}]}, ordered: true}`, difference: "expected 1, came 2\n  not expected: {k: 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := oneTest(t, head+c.test+"\n")
			if got.Passed != (c.difference == "") || !strings.Contains(got.Difference, c.difference) {
				t.Errorf("got %q, want %q", got.Difference, c.difference)
			}
		})
	}
}

// TestTestsKnowInfinity states results that JSON has no number for, as insights write them.
func TestTestsKnowInfinity(t *testing.T) {
	t.Parallel()
	const text = "flow: f\nsteps:\n- {id: a, read: c, schema: {k: int, v: float}}\n- map: {w: v * 2.0}\n- {insight: o, key: [k]}\n" +
		"tests:\n- name: t\n  given: {a: [{k: 1, v: Infinity}, {k: 2, v: '-Infinity'}, {k: 3, v: 'NaN'}, {k: 4, v: 1.0e+308}]}\n" +
		"  expect: {o: [{k: 1, w: Infinity}, {k: 2, w: '-Infinity'}, {k: 3, v: 'NaN', w: 'NaN'}, {k: 4, w: Infinity}]}\n"
	if r := oneTest(t, text); r.Difference != "" {
		t.Errorf("the test fails: %s", r.Difference)
	}
	wrong := strings.Replace(text, "k: 4, w: Infinity", "k: 4, w: '-Infinity'", 1)
	if r := oneTest(t, wrong); !strings.Contains(r.Difference, "differs in w") {
		t.Errorf("a wrong infinity gives %q", r.Difference)
	}
}

// TestTimesReadTheSameInEveryStep reads the texts of one time as a column, as text and as a constant.
func TestTimesReadTheSameInEveryStep(t *testing.T) {
	t.Parallel()
	const text = "flow: f\nsteps:\n- {id: a, read: c, schema: {at: timestamp, s: string}}\n- validate: {s: {type: timestamp}}\n" +
		"- map: {t: timestamp(s), c: 'timestamp(\"2026-01-01t06:00:00z\")'}\n- map: {same: t == at and t == c}\n- {insight: o, key: [s], time: c}\n" +
		"tests:\n- name: t\n  given: {a: [{at: 2026-01-01t06:00:00z, s: 2026-01-01t06:00:00z}, {at: 2026-01-01t07:00:00+01:00, s: 2026-01-01t07:00:00+01:00},\n" +
		"    {s: '2026-06-30T23:59:60Z'}]}\n  expect: {o: [{same: true}, {same: true}]}\n  failed: 1\n"
	if r := oneTest(t, text); r.Difference != "" {
		t.Errorf("the test fails: %s", r.Difference)
	}
}

func TestTestsCountFailedRecords(t *testing.T) {
	t.Parallel()
	const head = "flow: f\nsteps:\n- {id: a, read: c, schema: {ts: timestamp, k: int}}\n- {insight: o, key: [k], time: ts}\ntests:\n- {name: t, given: {a: [{k: 1}, {ts: 1, k: 2}, {k: 3}]}, expect: {o: [{k: 2}]}"
	for name, c := range map[string]struct {
		test, difference string
		expected         bool
	}{
		"not said": {test: "}"},
		"as said":  {test: ", failed: 2}", expected: true},
		"more":     {test: ", failed: 0}", expected: true, difference: "failed records: expected 0, came 2\n  a record failed in step insight_2: the time column ts is null"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := oneTest(t, head+c.test+"\n")
			if got.Passed != (c.difference == "") || !strings.HasPrefix(got.Difference, c.difference) || got.FailedExpected != c.expected {
				t.Errorf("got %+v", got)
			}
			if got.Failed != 2 || got.FailedReason != "the time column ts is null" {
				t.Errorf("got %d failed: %s", got.Failed, got.FailedReason)
			}
		})
	}
}

// TestDifferencesAreShort wants the columns that differ named, and long texts cut.
func TestDifferencesAreShort(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ä", 20_000)
	got := oneTest(t, "flow: f\nsteps:\n- {id: a, read: c, schema: {k: int, x: string, y: string}}\n- {insight: o, key: [k]}\n"+
		"tests:\n- {name: t, given: {a: [{k: 1, x: "+long+", y: b}]}, expect: {o: [{k: 1, x: "+long+"c, y: b}]}}\n")
	if len(got.Difference) > 4*maxShown || !strings.Contains(got.Difference, "differs in x: {") || !strings.Contains(got.Difference, "bytes)") {
		t.Errorf("the difference has %d bytes: %.600s", len(got.Difference), got.Difference)
	}
}
