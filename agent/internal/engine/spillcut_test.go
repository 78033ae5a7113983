package engine

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// minutes has a row a minute for each of so many keys, in the order of time, but for every hundredth row, which is late.
func minutes(keys, n int) map[string]*table {
	data := &table{}
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		for k := range keys {
			at := base.Add(time.Duration(i)*time.Minute + time.Duration(k)*time.Second)
			if (i+k)%100 == 99 {
				at = at.Add(-3 * time.Hour)
			}
			row := map[string]any{
				"k": int64(k), "k2": "m" + strconv.Itoa(k), "at": at.Format(time.RFC3339), "n": int64(i * (k + 3) % 100),
				"f": float64(i%17) / 7, "ok": (i/5+k)%3 == 0, "s": "s" + strconv.Itoa(i%9),
			}
			if (i+k)%500 == 7 {
				delete(row, "at")
			}
			data.rows = append(data.rows, row)
		}
	}
	return map[string]*table{"l": data}
}

// TestAggregatesAlongTimeSpill holds that what keeps something of a key over its windows spills, with few keys and many
// windows, and gives the same as in memory.
func TestAggregatesAlongTimeSpill(t *testing.T) {
	t.Parallel()
	timed := ", i: increase(n), w: time_weighted_avg(f), u: duration_where(ok), r: rate(f)"
	tumbling := "window: {tumbling: 1m, time: at}"
	shift := `window: {shift: {a: "06:00-14:00", b: "14:00-22:00"}, timezone: Europe/Berlin, time: at}`
	for _, c := range []struct {
		name, by, more, window string
		keys, rows             int
		limit                  int64
	}{
		{"many keys", "by: [k]", timed, tumbling, 64, 100, 200_000},
		{"few keys", "by: [k2, k]", timed, tumbling, 5, 1500, 100_000},
		{"one key", "by: [k]", timed, tumbling, 1, 6000, 100_000},
		{"no key", "", timed, tumbling, 3, 2000, 100_000},
		{"shifts", "", timed, shift, 1, 20_000, 600_000},
		{"hops", "by: [k]", "", "window: {hopping: 4m, every: 1m, time: at}", 20, 300, 200_000},
		{"hops along time", "by: [k]", timed, "window: {hopping: 2m, every: 1m, time: at}", 20, 300, 200_000},
		{"sessions", "by: [k]", "", "window: {session: 45s, time: at}", 20, 300, 200_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := strings.NewReplacer("KEY", "int", "BY", c.by, "MORE", c.more, "WINDOW", c.window).Replace(spillAggregate)
			tables := minutes(c.keys, c.rows)
			want, report := runBounded(t, text, tables, 4096)
			scratch, memory, store := &memScratch{}, NewMemory(c.limit), newStore()
			got, err := Run(t.Context(), RunSettings{
				Program: program(t, text), Open: opener(tables, 70), Store: store, Scratch: scratch, Memory: memory, Started: time.Unix(0, 0),
			})
			if err != nil {
				t.Fatal(err)
			}
			if scratch.created < spillFan || scratch.open != 0 || memory.held() != 0 {
				t.Errorf("%d scratch files were made, %d are open, and %d bytes are reserved", scratch.created, scratch.open, memory.held())
			}
			sameLines(t, c.name, store.lines(), want)
			for i := range report.Steps {
				if got.Steps[i] != report.Steps[i] {
					t.Errorf("the step counts %+v, want %+v", got.Steps[i], report.Steps[i])
				}
			}
		})
	}
}

// TestWhatCannotBeCutEndsTheRunAtTwiceTheMemory holds that one group, and one key that must stay together, cannot grow
// without bound, and that the error says which.
func TestWhatCannotBeCutEndsTheRunAtTwiceTheMemory(t *testing.T) {
	t.Parallel()
	data := &table{}
	for i := range 300_000 {
		at := time.Unix(int64(i)*300, 0).UTC()
		data.rows = append(data.rows, map[string]any{"k": int64(7), "at": at, "f": float64(i), "s": strconv.Itoa(i)})
	}
	tables := map[string]*table{"l": data}
	for _, c := range []struct{ name, by, more, window, want string }{
		{"one group", "", ", q: median(f), d: count_distinct(s)", "", "step agg: one group takes "},
		{"one group of a key", "by: [k]", ", q: median(f), d: count_distinct(s)", "", "step agg: one group (k = 7) takes "},
		{"sessions", "by: [k]", "", "window: {session: 45s, time: at}", "windows of one key (k = 7), which must be together, take "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := strings.NewReplacer("KEY", "int", "BY", c.by, "MORE", c.more, "WINDOW", c.window).Replace(spillAggregate)
			_, _, err := runLimited(t, RunSettings{Program: program(t, text), Open: opener(tables, 1000)}, 600_000)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "raise memory_limit") {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
		})
	}
}

// TestWhatStepsRememberOfABoundedInputIsBounded holds that limit by group, unique and distinct with within, which do not
// spill, end a run whose keys do not fit, and let one alone whose keys do.
func TestWhatStepsRememberOfABoundedInputIsBounded(t *testing.T) {
	t.Parallel()
	data := &table{}
	for i := range 60_000 {
		data.rows = append(data.rows, map[string]any{"k": int64(i), "at": time.Unix(int64(i), 0).UTC()})
	}
	tables := map[string]*table{"l": data}
	for _, c := range []struct{ name, step, want string }{
		{"limit", "limit: 1\n    by: [k]", "step s: the groups that limit counts take "},
		{"unique", "validate: {k: {unique: true}}", "step s: the values that unique rules remember take "},
		{"distinct", "distinct: [k]\n    within: 1m\n    time: at", "step s: the keys that distinct remembers take "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := "flow: f\nsteps:\n  - id: l\n    read: a\n    schema: {k: int, at: timestamp}\n  - id: s\n    " + c.step + "\n  - insight: out\n"
			_, _, err := runLimited(t, RunSettings{Program: program(t, text), Open: opener(tables, 1000)}, 500_000)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "raise memory_limit") {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			_, lines, err := runLimited(t, RunSettings{Program: program(t, text), Open: opener(tables, 1000)}, 20_000_000)
			if err != nil || len(lines) != len(data.rows) {
				t.Errorf("got %d lines and %v", len(lines), err)
			}
		})
	}
}
