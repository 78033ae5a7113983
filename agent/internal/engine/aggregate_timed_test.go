package engine

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// timedRow is a reading at seconds after 06:00 on the first day of 2026.
type timedRow struct {
	at int64
	v  any
}

func timedTable(rows []timedRow) *table {
	base := time.Date(2026, 1, 1, 6, 0, 0, 0, time.UTC)
	data := &table{}
	for _, r := range rows {
		data.rows = append(data.rows, map[string]any{"at": base.Add(time.Duration(r.at) * time.Second), "v": r.v})
	}
	return data
}

// TestAggregatesAlongTime has results worked by hand. Windows are of 60 seconds and without by; a row of another window
// gives a result of its own.
func TestAggregatesAlongTime(t *testing.T) {
	t.Parallel()
	const day = 86400
	for _, c := range []struct {
		name, call, kind, window string
		rows                     []timedRow
		want                     string
	}{
		{"a counter that goes up", "increase(v)", "int", "", []timedRow{{0, int64(5)}, {10, int64(7)}, {50, int64(12)}}, "7"},
		{"one reading", "increase(v)", "int", "", []timedRow{{30, int64(5)}}, "0"},
		{"the reading before the window", "increase(v)", "int", "", []timedRow{{30, int64(5)}, {90, int64(8)}}, "0 3"},
		{"a counter that begins again", "increase(v)", "int", "", []timedRow{{0, int64(100)}, {10, int64(4)}, {20, int64(6)}}, "6"},
		{"two resets", "increase(v)", "int", "", []timedRow{{0, int64(9)}, {10, int64(3)}, {11, int64(4)}, {20, int64(0)}}, "4"},
		{"a counter below zero", "increase(v)", "int", "", []timedRow{{0, int64(1)}, {10, int64(-3)}, {20, int64(2)}}, "5"},
		{"more than 64 bits", "increase(v)", "int", "", []timedRow{{0, int64(math.MinInt64)}, {10, int64(math.MaxInt64)}}, "null"},
		{"just 64 bits", "increase(v)", "int", "", []timedRow{{0, int64(0)}, {10, int64(math.MaxInt64)}}, "9223372036854775807"},
		{"nulls alone", "increase(v)", "int", "", []timedRow{{0, nil}}, "null"},
		{"a null goes on with the value before", "increase(v)", "float", "", []timedRow{{0, 1.5}, {10, nil}, {20, 4.0}}, "2.5"},
		{"a window of nulls after a value", "time_weighted_avg(v)", "float", "", []timedRow{{50, 4.0}, {70, nil}}, "4 4"},
		{"not a number", "increase(v)", "float", "", []timedRow{{0, 1.0}, {10, math.NaN()}}, `"NaN"`},
		// From 30 on 30 seconds are known: 6 in 30 s. The next window is known as a whole: 12 in 60 s.
		{"a rate", "rate(v)", "float", "", []timedRow{{30, 0.0}, {40, 6.0}, {119, 18.0}}, "0.2 0.2"},
		// 10 for 15 s, 20 for 30 s, 40 for 15 s: (150 + 600 + 600) / 60.
		{"a mean along time, out of order", "time_weighted_avg(v)", "float", "", []timedRow{{45, 40.0}, {0, 10.0}, {15, 20.0}}, "22.5"},
		// 7 for 20 s from the start, then 1 for 40 s: (140 + 40) / 60.
		{"the value before counts from the start", "time_weighted_avg(v)", "float", "", []timedRow{{-5, 7.0}, {20, 1.0}}, "7 3"},
		{"what does not change is its own mean", "time_weighted_avg(v)", "float", "", []timedRow{{0, 0.1}, {7, 0.1}, {31, 0.1}}, "0.1"},
		{"infinity", "time_weighted_avg(v)", "float", "", []timedRow{{0, math.Inf(1)}, {30, 1.0}}, `"Infinity"`},
		{"true for 20 s, then for 5 s", "duration_where(v)", "bool", "", []timedRow{{0, true}, {20, false}, {55, true}}, "25"},
		{"true over the window's end", "duration_where(v)", "bool", "", []timedRow{{50, true}, {75, false}}, "10 15"},
		{"a window without a row between two", "duration_where(v)", "bool", "", []timedRow{{50, true}, {130, false}}, "10 10"},
		{"seven days before", "duration_where(v)", "bool", "", []timedRow{{0, true}, {7 * day, false}, {7*day + 30, true}}, "60 30"},
		{"carried for seven days", "time_weighted_avg(v)", "float", "", []timedRow{{0, 6.0}, {7*day + 30, 2.0}}, "6 4"},
		{"carried no longer", "time_weighted_avg(v)", "float", "", []timedRow{{0, 6.0}, {7*day + 90, 2.0}}, "6 2"},
		// Windows from -60, 0 and 60 on; in the second 4 from 30 on, then 8 from 90 on; the third looks back to 4.
		{"hopping windows look back", "time_weighted_avg(v)", "float", "hopping: 2m, every: 1m", []timedRow{{30, 4.0}, {90, 8.0}}, "4 5.333333333333333 7"},
		{"sessions end a gap after their last row", "duration_where(v)", "bool", "session: 20s", []timedRow{{0, true}, {10, true}, {40, true}}, "30 20"},
		{"sessions look back", "increase(v)", "int", "session: 20s", []timedRow{{0, int64(1)}, {10, int64(2)}, {40, int64(7)}}, "1 5"},
		// A shift of one minute a day; at 05:00 it is outside of it, and still known at 06:00.
		{"shifts know what was outside", "duration_where(v)", "bool", `shift: {s: "06:00-06:01"}, timezone: UTC`, []timedRow{{-3600, true}, {20, false}}, "20"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			window := c.window
			if window == "" {
				window = "tumbling: 1m"
			}
			text := "flow: f\nsteps:\n  - id: rows\n    read: x\n    schema: {at: timestamp, v: " + c.kind + "}\n" +
				"  - aggregate: {r: " + c.call + "}\n    window: {time: at, " + window + "}\n  - select: [r, window_start]\n  - insight: out\n    time: window_start\n"
			rows := slices.Clone(c.rows)
			for range 2 {
				lines, _ := runBounded(t, text, map[string]*table{"rows": timedTable(rows)}, 2)
				if got := timedResults(lines); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
				slices.Reverse(rows) // the order of arrival does not matter where no times are equal
			}
		})
	}
}

// TestOfEqualTimesTheOneThatCameLastHolds has results worked by hand for readings in one order of arrival, which says
// what of equal times came last.
func TestOfEqualTimesTheOneThatCameLastHolds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, call, kind, window string
		rows                     []timedRow
		want                     string
	}{
		{"stopped at once", "duration_where(v)", "bool", "", []timedRow{{0, true}, {0, false}, {30, false}}, "0"},
		{"started at once", "duration_where(v)", "bool", "", []timedRow{{0, false}, {0, true}, {30, false}}, "30"},
		{"stopped at once, out of order", "duration_where(v)", "bool", "", []timedRow{{30, true}, {30, false}, {0, true}, {10, false}}, "10"},
		{"the last of the three holds", "time_weighted_avg(v)", "float", "", []timedRow{{0, 9.0}, {0, 5.0}, {0, 3.0}, {30, 1.0}}, "2"},
		{"the last is carried on", "time_weighted_avg(v)", "float", "", []timedRow{{30, 9.0}, {30, 3.0}, {90, 5.0}}, "3 4"},
		// 9 to 2 is a counter that began again, and 2 to 3 is 1 more.
		{"a counter up", "increase(v)", "int", "", []timedRow{{0, int64(9)}, {10, int64(2)}, {10, int64(3)}}, "3"},
		{"a counter down", "increase(v)", "int", "", []timedRow{{0, int64(9)}, {10, int64(3)}, {10, int64(2)}}, "5"},
		{"a rate", "rate(v)", "float", "", []timedRow{{0, 0.0}, {30, 12.0}, {30, 6.0}}, "0.3"},
		// 20 makes one session of the two, and the order of the readings at 30 stays.
		{"sessions that become one", "duration_where(v)", "bool", "session: 20s", []timedRow{{0, false}, {30, true}, {30, false}, {15, false}}, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			window := c.window
			if window == "" {
				window = "tumbling: 1m"
			}
			text := "flow: f\nsteps:\n  - id: rows\n    read: x\n    schema: {at: timestamp, v: " + c.kind + "}\n" +
				"  - aggregate: {r: " + c.call + "}\n    window: {time: at, " + window + "}\n  - select: [r, window_start]\n  - insight: out\n    time: window_start\n"
			for size := 1; size <= len(c.rows); size++ {
				lines, _ := runBounded(t, text, map[string]*table{"rows": timedTable(c.rows)}, size)
				if got := timedResults(lines); got != c.want {
					t.Errorf("batches of %d: got %s, want %s", size, got, c.want)
				}
			}
		})
	}
}

// timedResults are the values of the column r, which window_start follows.
func timedResults(lines []string) string {
	var got []string
	for _, line := range lines {
		_, value, _ := strings.Cut(line, `"r":`)
		value, _, _ = strings.Cut(value, `,"window_start"`)
		got = append(got, value)
	}
	return strings.Join(got, " ")
}

func TestQuantiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values   []float64
		fraction float64
		want     float64
	}{
		{[]float64{7}, 0.5, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{4, 1, 3, 2}, 0, 1},
		{[]float64{4, 1, 3, 2}, 1, 4},
		{[]float64{10, 20, 30, 40, 50}, 0.9, 46},
		{[]float64{math.NaN(), 1, 2}, 0.5, 2},
		{[]float64{math.NaN(), 1, 2}, 1, math.NaN()},
		{[]float64{math.Inf(-1), 0, math.Inf(1)}, 0.5, 0},
		{[]float64{math.Inf(1), 0}, 0.5, math.Inf(1)},
	} {
		if got := percentile(slices.Clone(c.values), c.fraction); !equalFloat(got, c.want) {
			t.Errorf("the quantile %v of %v is %v, want %v", c.fraction, c.values, got, c.want)
		}
	}
}

func TestAnEmptyKeyHasSessionsToo(t *testing.T) {
	t.Parallel()
	text := "flow: f\nsteps:\n  - id: rows\n    read: x\n    schema: {at: timestamp, v: int}\n" +
		"  - aggregate: {n: count(), d: count_distinct(v), s: sum(v)}\n    window: {time: at, session: 10s}\n  - insight: out\n"
	// 0 and 16 are two sessions until 8 joins them; 30 is one of its own, a gap of 14 behind.
	got, _ := runBounded(t, text, map[string]*table{"rows": timedTable([]timedRow{{16, int64(1)}, {0, int64(1)}, {30, int64(4)}, {8, int64(2)}})}, 1)
	if len(got) != 2 || !strings.Contains(got[0], `"n":3,"d":2,"s":4`) || !strings.Contains(got[1], `"n":1,"d":1,"s":4`) {
		t.Errorf("got %s", strings.Join(got, "\n"))
	}
	if got, _ = runBounded(t, text, nil, 1); len(got) > 0 {
		t.Errorf("no rows give %v", got)
	}
}
