package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

const carryFlow = "flow: f\ntrigger: {every: 15m}\nsteps:\n  - id: rows\n    read: x\n    schema: {at: timestamp, k: int, q: int, on: bool}\n" +
	"  - id: agg\n    aggregate: {n: count(), made: increase(q), mean: time_weighted_avg(q), run: duration_where(on)}\n    by: [k]\n    window: {tumbling: 1h, time: at}\n" +
	"  - insight: out\n    key: [k]\n"

// runParts runs a flow once for each part of the rows, each run going on from the state of the one before.
func runParts(t *testing.T, text string, limit int64, parts ...[]map[string]any) (store *memStore, spilled int) {
	t.Helper()
	store, data := newStore(), &table{}
	for _, part := range parts {
		data.rows = append(data.rows, part...)
		set := RunSettings{Program: program(t, text), Store: store, Open: opener(map[string]*table{"rows": data}, 100)}
		scratch, _, err := runLimited(t, set, limit)
		if err != nil {
			t.Fatal(err)
		}
		spilled += scratch.created
	}
	return store, spilled
}

// TestRunsCarryReadingsOn has results worked by hand for the runs of a scheduled flow.
func TestRunsCarryReadingsOn(t *testing.T) {
	t.Parallel()
	row := func(minute, q int64, on bool) map[string]any {
		return map[string]any{"at": time.Date(2026, 1, 1, 6, int(minute), 0, 0, time.UTC), "k": int64(1), "q": q, "on": on}
	}
	first := []map[string]any{row(0, 1, true), row(10, 5, true)}
	for _, c := range []struct {
		name  string
		parts [][]map[string]any
		want  []string
	}{
		// The second run goes on at 06:10 with 5 and on: 5 for 20 minutes and 9 for 30, on for 20 minutes.
		{"the same window", [][]map[string]any{first, {row(30, 9, false)}}, []string{"2 4 4.333333333333333 3600", "1 4 7.4 1200"}},
		// From 07:00 on 5 for 30 minutes, then 9.
		{"the next window", [][]map[string]any{first, {row(90, 9, false)}}, []string{"2 4 4.333333333333333 3600", "1 4 7 1800"}},
		{"a run without rows between", [][]map[string]any{first, nil, {row(30, 9, false)}}, []string{"2 4 4.333333333333333 3600", "1 4 7.4 1200"}},
		{"a reading of the same time", [][]map[string]any{first, {row(10, 7, true)}}, []string{"2 4 4.333333333333333 3600", "1 2 7 3000"}},
		{"rows before what is carried", [][]map[string]any{first, {row(5, 3, true), row(7, 4, false)}}, []string{"2 4 4.333333333333333 3600", "2 1 3.963636363636364 120"}},
		{"after more than seven days", [][]map[string]any{first, {row(8*24*60, 9, true)}}, []string{"2 4 4.333333333333333 3600", "1 0 9 3600"}},
	} {
		store, _ := runParts(t, carryFlow, 1<<30, c.parts...)
		var got []string
		for _, in := range store.insights {
			values, _, _ := strings.Cut(string(in.Values), `,"window`)
			if strings.HasPrefix(values, `{"window`) {
				_, values, _ = strings.Cut(string(in.Values), `"n":`)
			}
			values = strings.NewReplacer(`{"n":`, "", `"made":`, "", `"mean":`, "", `"run":`, "", ",", " ", "}", "").Replace(values)
			got = append(got, values)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// TestRunsThatSpillCarryReadingsOn holds that runs over parts of the rows that end with a window give what one run over
// all of them does, whether their groups fit in the memory or not, and that what they leave behind is the same.
func TestRunsThatSpillCarryReadingsOn(t *testing.T) {
	t.Parallel()
	var parts [][]map[string]any
	base := time.Date(2026, 1, 1, 6, 0, 0, 0, time.UTC)
	for part := range 3 {
		var rows []map[string]any
		for i := range 6000 {
			k := int64(i * 7919 % 2500)
			if part == 1 {
				k = k%900 + 2000
			}
			at := base.Add(time.Duration(part)*time.Hour + time.Duration(i*599)*time.Millisecond)
			rows = append(rows, map[string]any{"at": at, "k": k, "q": int64(part*1000 + i%97), "on": i%3 > 0})
		}
		parts = append(parts, rows)
	}
	whole, _ := runParts(t, carryFlow, 1<<30, slices.Concat(parts...))
	for _, limit := range []int64{1 << 30, 1 << 18} {
		store, spilled := runParts(t, carryFlow, limit, parts...)
		if (spilled > 0) != (limit < 1<<30) {
			t.Fatalf("with a limit of %d bytes %d files were spilled", limit, spilled)
		}
		sameLines(t, fmt.Sprintf("with a limit of %d bytes", limit), store.lines(), whole.lines())
		entries := store.state.Operators["agg"]
		if want := 1 + (2900+groupsPerEntry-1)/groupsPerEntry; len(entries) != want {
			t.Errorf("with a limit of %d bytes %d entries of state remain, want %d", limit, len(entries), want)
		}
		if got, want := carriedBy(t, carryFlow, entries), carriedBy(t, carryFlow, whole.state.Operators["agg"]); len(want) != 2900 || !maps.Equal(got, want) {
			t.Errorf("with a limit of %d bytes %d keys carry something else than the %d of one run", limit, len(got), len(want))
		}
	}
}

// TestAKeyThatIsCutByTimeCarriesReadingsOn is the same for few keys whose windows do not fit in the memory, which are cut
// by time.
func TestAKeyThatIsCutByTimeCarriesReadingsOn(t *testing.T) {
	t.Parallel()
	text := strings.Replace(carryFlow, "tumbling: 1h", "tumbling: 1s", 1)
	var parts [][]map[string]any
	base := time.Date(2026, 1, 1, 6, 0, 0, 0, time.UTC)
	for part := range 3 {
		var rows []map[string]any
		for i := range 8000 {
			at := base.Add(time.Duration(part)*time.Hour + time.Duration(i*7919%8000*400)*time.Millisecond)
			rows = append(rows, map[string]any{"at": at, "k": int64(i % 2), "q": int64(part*1000 + i%97), "on": i%3 > 0})
		}
		parts = append(parts, rows)
	}
	whole, _ := runParts(t, text, 1<<30, slices.Concat(parts...))
	store, spilled := runParts(t, text, 100_000, parts...)
	if spilled < 3*3*spillFan/2 {
		t.Errorf("only %d files were spilled", spilled)
	}
	sameLines(t, "cut by time", store.lines(), whole.lines())
	entries := store.state.Operators["agg"]
	if len(entries) != 1+1 {
		t.Errorf("%d entries of state remain, want 2", len(entries))
	}
	if got, want := carriedBy(t, text, entries), carriedBy(t, text, whole.state.Operators["agg"]); len(want) != 2 || !maps.Equal(got, want) {
		t.Errorf("carried is %q, want %q", got, want)
	}
}

// carriedBy is what the keys carry according to the entries of the second step of a flow.
func carriedBy(tb testing.TB, text string, entries map[string][]byte) map[string]string {
	tb.Helper()
	p := plan(tb, text)
	a, err := newAggregate(&p.Steps[1], p.Steps[0].Output, bounded)
	if err != nil {
		tb.Fatal(err)
	}
	a.counts = &stepCounts{sample: new([]FailedRecord)}
	if err = a.restore(entries); err != nil {
		tb.Fatal(err)
	}
	return a.keys.contents()
}

// contents is what the keys carry, by their grouping values.
func (k *keyring) contents() map[string]string {
	list := map[string]string{}
	for key, carries := range k.carries {
		if !carries {
			continue
		}
		var name, value []byte
		for i := range k.table.cols {
			name = putCell(name, &k.table.cols[i], key)
		}
		for _, c := range k.carriers {
			value = c.encodeCarry(value, i32(key))
		}
		list[string(name)] = string(value)
	}
	return list
}
