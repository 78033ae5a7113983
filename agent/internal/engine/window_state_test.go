package engine

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// streamRows are windowRows in the order of a stream: some out of order within the lateness, some too late.
func streamRows(n int, seed uint64) *table {
	rows, data := windowRows(time.Date(2026, 3, 28, 10, 0, 0, 0, time.UTC), n, seed)
	rng := rand.New(rand.NewPCG(seed, 3)) //nolint:gosec // test data
	arrival := make([]int64, n)
	order := make([]int, n)
	for i := range rows {
		arrival[i], order[i] = rows[i].at+rng.Int64N(50*60e6), i
		if rng.IntN(15) == 0 {
			arrival[i] += 4 * 3600e6
		}
	}
	slices.SortFunc(order, func(a, b int) int { return int(arrival[a]/1000 - arrival[b]/1000) })
	sortedData := &table{}
	for _, from := range order {
		sortedData.rows = append(sortedData.rows, data.rows[from])
	}
	return sortedData
}

// TestWindowsHoldOverBatchesAndRestarts runs every kind of window over an endless stream cut into other batches, and
// from the state of every commit.
func TestWindowsHoldOverBatchesAndRestarts(t *testing.T) {
	t.Parallel()
	for _, c := range windowCases(t) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			data := streamRows(240, 5)
			text := fmt.Sprintf(windowFlow, "continuous", c.text+", late: 30m")
			type cut struct {
				state    State
				insights []string
			}
			var cuts []cut
			whole := newStore()
			whole.onCommit = func(s *memStore) {
				cuts = append(cuts, cut{cloneState(s.state), insightLines(s.insights)})
			}
			report := endlessRun(t, text, data, 7, whole)
			want := whole.lines()
			if len(want) < 3 || report.Late == 0 {
				t.Fatalf("the input shows too little: %d insights, %d late", len(want), report.Late)
			}
			for _, size := range []int{1, 19, 4096} {
				store := newStore()
				again := endlessRun(t, text, data, size, store)
				sameLines(t, fmt.Sprintf("batches of %d", size), store.lines(), want)
				if !slices.Equal(again.Steps, report.Steps) {
					t.Errorf("batches of %d: steps %+v, want %+v", size, again.Steps, report.Steps)
				}
			}
			for i, c := range cuts {
				store := newStore()
				store.state = cloneState(c.state)
				resumed := endlessRun(t, text, data, 11, store)
				sameLines(t, fmt.Sprintf("resumed after commit %d", i), append(slices.Clone(c.insights), store.lines()...), want)
				if got := resumed.Steps[1].LateTotal; got != report.Late {
					t.Fatalf("resumed after commit %d: %d late in all, want %d", i, got, report.Late)
				}
			}
		})
	}
}

// TestAStreamWithoutLateRowsIsABoundedRun holds that nothing but lateness makes the two different.
func TestAStreamWithoutLateRowsIsABoundedRun(t *testing.T) {
	t.Parallel()
	for _, c := range windowCases(t) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			data := streamRows(300, 8)
			// A last row far behind closes all windows but its own.
			last := time.Date(2026, 4, 9, 0, 0, 0, 0, time.UTC)
			data.rows = append(data.rows, map[string]any{"at": last, "k": "end"})
			endless, bounded := newStore(), []string(nil)
			report := endlessRun(t, fmt.Sprintf(windowFlow, "continuous", c.text+", late: 6h"), data, 33, endless)
			all, _ := runBounded(t, fmt.Sprintf(windowFlow, "manual", c.text), map[string]*table{"rows": data}, 70)
			for _, line := range all {
				if !strings.Contains(line, `{"k":"end"}`) {
					bounded = append(bounded, line)
				}
			}
			if report.Late > 0 || len(bounded) < 5 {
				t.Fatalf("%d late, %d insights", report.Late, len(bounded))
			}
			got, want := endless.lines(), bounded
			slices.Sort(got) // sessions close in the order of their ends
			slices.Sort(want)
			sameLines(t, "the stream", got, want)
			if n := len(endless.state.Operators["agg"]); n == 0 || n > 1+3+3 {
				t.Errorf("%d entries of state remain; only the last groups, what the keys carry and the watermark should", n)
			}
		})
	}
}

func TestWindowsOfManyKeysAreForgotten(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"tumbling: 1m", "session: 30s"} {
		p := plan(t, fmt.Sprintf(windowFlow, "continuous", "late: 1s, "+text))
		a, err := newAggregate(&p.Steps[1], p.Steps[0].Output, endless)
		if err != nil {
			t.Fatal(err)
		}
		a.counts = &stepCounts{sample: new([]FailedRecord)}
		a.keys.limit = 5000
		b := column.NewBatch(p.Steps[0].Output)
		entries := map[string][]byte{}
		for i := range 40_000 {
			b.Cols[0].AppendInt(int64(i) * 10_000)
			b.Cols[1].AppendStr(fmt.Appendf(nil, "k%d", i))
			b.Cols[2].AppendFloat(1)
			b.Cols[3].AppendInt(1)
			b.Cols[4].AppendBool(true)
			if b.Len++; b.Len == 1000 {
				if err = a.push(b); err != nil {
					t.Fatal(err)
				}
				b.Reset()
				b.Len = 0
				applyChanges(entries, a.state.changes(nil))
			}
		}
		carried := a.keys.contents()
		if got := carriedByStream(t, p, entries); !maps.Equal(got, carried) {
			t.Errorf("%s: %d keys carry something according to what was written, and other %d did", text, len(got), len(carried))
		}
		if n := a.keys.table.len(); n > 30_000 {
			t.Errorf("%s: %d keys are kept", text, n)
		}
		if a.keys.carrying > 5000+6000 || a.keys.carrying < 2500 {
			t.Errorf("%s: %d keys carry a reading", text, a.keys.carrying)
		}
		if n := len(a.dead); n > 25_000 {
			t.Errorf("%s: %d groups are kept", text, n)
		}
	}
}

// TestWhatFewOfManyKeysCarryIsPacked holds that blocks of which little is left are written anew as few.
func TestWhatFewOfManyKeysCarryIsPacked(t *testing.T) {
	t.Parallel()
	p := plan(t, fmt.Sprintf(windowFlow, "continuous", "late: 1s, tumbling: 1m"))
	a, err := newAggregate(&p.Steps[1], p.Steps[0].Output, endless)
	if err != nil {
		t.Fatal(err)
	}
	a.counts = &stepCounts{sample: new([]FailedRecord)}
	entries := map[string][]byte{}
	b := column.NewBatch(p.Steps[0].Output)
	push := func(minute int64, every int) {
		for k := 0; k < 100*groupsPerEntry; k += every {
			b.Cols[0].AppendInt(minute*60_000_000 + 2_000_000)
			b.Cols[1].AppendStr(fmt.Appendf(nil, "k%04d", k))
			b.Cols[2].AppendFloat(float64(k))
			b.Cols[3].AppendInt(minute)
			b.Cols[4].AppendBool(true)
			b.Len++
		}
		if err := a.push(b); err != nil {
			t.Fatal(err)
		}
		b.Reset()
		b.Len = 0
		applyChanges(entries, a.state.changes(nil))
	}
	blocks := func() (n int) {
		for key := range entries {
			if key[0] == carryPrefix {
				n++
			}
		}
		return n
	}
	push(0, 1)
	push(1, groupsPerEntry/2)
	if n := blocks(); n != 100 {
		t.Fatalf("there are %d blocks of carries, want 100", n)
	}
	a.keys.limit = 300
	push(2, groupsPerEntry)
	if n, want := blocks(), 225/groupsPerEntry+1; n != want || a.keys.carrying != 225 {
		t.Errorf("%d keys carry something in %d blocks, want 225 in %d", a.keys.carrying, n, want)
	}
	for minute := range int64(2) {
		if got := carriedByStream(t, p, entries); !maps.Equal(got, a.keys.contents()) {
			t.Errorf("what was written is not what the keys carry: %d keys", len(got))
		}
		push(3+minute, 1)
	}
}

func applyChanges(entries map[string][]byte, changes []StateChange) {
	for _, c := range changes {
		if c.Value == nil {
			delete(entries, c.Key)
		} else {
			entries[c.Key] = slices.Clone(c.Value)
		}
	}
}

func carriedByStream(tb testing.TB, p *flowdef.Plan, entries map[string][]byte) map[string]string {
	tb.Helper()
	a, err := newAggregate(&p.Steps[1], p.Steps[0].Output, endless)
	if err != nil {
		tb.Fatal(err)
	}
	a.counts = &stepCounts{sample: new([]FailedRecord)}
	if err = a.restore(entries); err != nil {
		tb.Fatal(err)
	}
	return a.keys.contents()
}

func TestTimesAtTheEndsOfTheCalendarFail(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"tumbling: 1h", "tumbling: 1d, timezone: America/New_York", "tumbling: 1h, timezone: Asia/Tokyo", "hopping: 2h, every: 1h",
		"session: 1h", "session: 1h, max: 1d, timezone: America/New_York", `shift: {all: "00:00-24:00"}, timezone: America/New_York`,
	} {
		data := &table{}
		for _, at := range []string{"9999-12-31T23:59:59.999999Z", "2026-01-01T00:00:00Z", "0001-01-01T00:00:00Z"} {
			data.rows = append(data.rows, map[string]any{"at": at, "k": "a"})
		}
		got, report := runBounded(t, fmt.Sprintf(windowFlow, "manual", text), map[string]*table{"rows": data}, 2)
		for _, line := range got {
			if strings.Contains(line, "10000-") || strings.Contains(line, ` 0000-`) {
				t.Errorf("%s: %s", text, line)
			}
		}
		if report.Failed < 1 || !strings.Contains(report.Sample[0].Reason, "9999") {
			t.Errorf("%s: %d failed: %+v", text, report.Failed, report.Sample)
		}
	}
}

func TestEveryTimeHasOnePane(t *testing.T) {
	t.Parallel()
	zones := []string{"Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu", "Africa/Casablanca", "America/St_Johns"}
	rng := rand.New(rand.NewPCG(4, 4)) //nolint:gosec // test data
	for _, name := range zones {
		loc, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		all := []panes{newShiftPanes([]flowdef.Shift{{Name: "n", Start: 22 * 60, End: 6 * 60, Days: [7]bool{1: true, 4: true}}}, loc)}
		for _, size := range []time.Duration{time.Minute, 15 * time.Minute, time.Hour, 2 * time.Hour, 8 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour} {
			all = append(all, newPanes(size, loc))
		}
		for _, p := range all {
			for range 300 {
				// A stretch with all the odd changes of these zones.
				at := time.Date(2005, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro() + rng.Int64N(20*365*microsPerDay)
				start, end := p.pane(at)
				if at < start || at >= end {
					t.Fatalf("%s %T: %d is not in its pane %d to %d", name, p, at, start, end)
				}
				for _, same := range []int64{start, end - 1} {
					if s, e := p.pane(same); s != start || e != end {
						t.Fatalf("%s %+v: %d is in %d to %d, %d in %d to %d", name, p, at, start, end, same, s, e)
					}
				}
				if s, _ := p.pane(end); s != end {
					t.Fatalf("%s %T: the pane behind %d begins at %d", name, p, end, s)
				}
			}
		}
	}
}

// TestWindowsAtTheEndsOfTime has records whose hopping windows begin in the first one of all, or end in the last. They
// count, and those count as failed of which a window would lie outside of the years 1 to 9999.
func TestWindowsAtTheEndsOfTime(t *testing.T) {
	t.Parallel()
	const text = "flow: f\nsteps:\n  - id: l\n    read: a\n    schema: {ts: timestamp}\n  - aggregate: {n: count(), first: min(ts)}\n    window: {%s, time: ts}\n  - insight: out\n"
	data := &table{}
	for _, ts := range []string{
		"0001-01-01T00:00:00Z", "0001-01-01T03:00:00Z", "0001-01-01T04:30:00Z", "0001-01-01T06:00:00Z", "0001-01-02T00:00:00Z",
		"9999-12-31T23:00:00Z", "9999-12-31T19:59:00Z", "9999-12-31T12:00:00Z",
	} {
		data.rows = append(data.rows, map[string]any{"ts": ts})
	}
	for window, want := range map[string]struct{ windows, failed int }{
		"hopping: 4h, every: 1h":                            {windows: 19, failed: 2},
		"hopping: 4h, every: 2h":                            {windows: 10, failed: 2},
		"hopping: 4h, every: 1h, timezone: America/Chicago": {windows: 18, failed: 3},
		"tumbling: 4h":                                      {windows: 5, failed: 1},
		"session: 1h":                                       {windows: 7, failed: 1},
	} {
		got, report := runBounded(t, fmt.Sprintf(text, window), map[string]*table{"l": data}, 3)
		failed := 0
		for _, s := range report.Steps {
			failed += int(s.Failed)
		}
		if len(got) != want.windows || failed != want.failed {
			t.Errorf("%s: %d windows, %d records failed\n%s", window, len(got), failed, strings.Join(got, "\n"))
		}
	}
}

// TestTheLastDayOfALeapYear is one that the standard library does not find in the stretches of a zone's offsets, from 2040
// on: windows in a time zone must be found there all the same.
func TestTheLastDayOfALeapYear(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Tokyo"} {
		loc, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, year := range []int{2039, 2040, 2044, 2100, 2400, 9996} {
			hours := newShiftPanes([]flowdef.Shift{{Name: "day", Start: 6 * 60, End: 18 * 60, Days: [7]bool{true, true, true, true, true, true, true}}}, loc)
			days := newPanes(24*time.Hour, loc)
			for day := -2; day < 3; day++ {
				local := time.Date(year, 12, 31+day, 12, 0, 0, 0, loc)
				start, end := days.pane(local.UnixMicro())
				if want := time.Date(year, 12, 31+day, 0, 0, 0, 0, loc); start != want.UnixMicro() || end != want.AddDate(0, 0, 1).UnixMicro() {
					t.Errorf("the day of %s is from %s to %s", local, time.UnixMicro(start).In(loc), time.UnixMicro(end).In(loc))
				}
				start, end = hours.pane(local.UnixMicro())
				if want := time.Date(year, 12, 31+day, 6, 0, 0, 0, loc); start != want.UnixMicro() || end != want.Add(12*time.Hour).UnixMicro() {
					t.Errorf("the shift of %s is from %s to %s", local, time.UnixMicro(start).In(loc), time.UnixMicro(end).In(loc))
				}
			}
		}
	}
}
