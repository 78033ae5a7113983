package engine

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/outfeed/outfeed/protocol/expr"
)

// naiveReading is a reading of one group with its arrival among all rows.
type naiveReading struct {
	arrival int
	t       int64 // microseconds
	v       float64
}

// naiveGroups are the readings that count, by group: with a time and a finite value, each after the one before.
func naiveGroups(data *table) map[string][]naiveReading {
	groups := map[string][]naiveReading{}
	for i, row := range data.rows {
		at, hasTime := row["ts"].(time.Time)
		v, hasValue := row["v"].(float64)
		if !hasTime || !hasValue || math.IsNaN(v) || math.IsInf(v, 0) {
			continue
		}
		k := fmt.Sprint(row["k"])
		list := groups[k]
		if len(list) == 0 || list[len(list)-1].t < at.UnixMicro() {
			groups[k] = append(list, naiveReading{arrival: i, t: at.UnixMicro(), v: v})
		}
	}
	return groups
}

// naiveEvent is an event as the oracle tells it.
type naiveEvent struct {
	group      string
	start, end int64
	value      float64
}

// naiveRule is what makes an event: the bound and the bound of its end, the two durations or, for a baseline, its length
// and the least number of its values.
type naiveRule struct {
	bound, clear     float64
	hold, free, over int64
	least            int
	// extreme says that the event's value is the most extreme one and not that of the worst score.
	extreme bool
}

// naiveCourse finds the closed events of a course with one bound by looking back from every reading. out is the score on
// the scale of the bound, NaN where there is none.
func naiveCourse(k string, list []naiveReading, out []float64, rule naiveRule) []naiveEvent {
	bound, clear := rule.bound, rule.clear
	var events []naiveEvent
	// from is the first reading that an event may use.
	for from, i := 0, 0; i < len(list); i++ {
		first := i
		for first > from && out[first-1] > bound {
			first--
		}
		if !(out[i] > bound) || list[i].t-list[first].t < rule.hold {
			continue
		}
		e := naiveEvent{group: k, start: list[first].t, end: noTime}
		worst := math.Inf(-1)
		for j := first; j < len(list) && e.end == noTime; j++ {
			if out[j] > worst {
				worst, e.value = out[j], list[j].v
			}
			if j < i {
				continue
			}
			back := j
			for back > i && out[back-1] <= clear {
				back--
			}
			if out[j] <= clear && list[j].t-list[back].t >= rule.free {
				e.end = list[back].t
				from, i = j+1, j
			}
		}
		if e.end == noTime {
			return events
		}
		events = append(events, e)
	}
	return events
}

// naiveBaseline scores a course against what it has learned, keeping every value, and gives the closed events.
func naiveBaseline(k string, list []naiveReading, values []float64, rule naiveRule) []naiveEvent {
	bound, clear, over := rule.bound, rule.clear, rule.over
	type learned struct {
		part int64
		v    float64
	}
	var normal []learned
	var events []naiveEvent
	var open *naiveEvent
	worst, low, width := 0.0, false, over/32
	for i, r := range list {
		n, mean := 0.0, 0.0
		for _, l := range normal {
			n, mean = n+1, mean+l.v
		}
		mean /= n
		sum := 0.0
		for _, l := range normal {
			sum += (l.v - mean) * (l.v - mean)
		}
		out := math.Abs(values[i]-mean) / math.Sqrt(sum/(n-1))
		switch {
		case len(normal) < rule.least || sum == 0:
		case open == nil && out > bound:
			open, worst, low = &naiveEvent{group: k, start: r.t, value: r.v}, out, values[i] < mean
			continue
		case open != nil:
			if out > worst {
				worst, low = out, values[i] < mean
				if !rule.extreme {
					open.value = r.v
				}
			}
			if rule.extreme && (low && r.v < open.value || !low && r.v > open.value) {
				open.value = r.v
			}
			if out > clear && r.t-open.start < over {
				continue
			}
			if out > clear {
				normal = nil
			}
			open.end = r.t
			events, open = append(events, *open), nil
		}
		part := int64(math.Floor(float64(r.t) / float64(width)))
		normal = append(normal, learned{part, values[i]})
		normal = slices.DeleteFunc(normal, func(l learned) bool { return l.part <= part-32 })
	}
	return events
}

// closedEvents runs a method and gives its closed events by group.
func closedEvents(tb testing.TB, method string, data *table) map[string][]naiveEvent {
	tb.Helper()
	text := detectFlow(method)
	found := map[string][]naiveEvent{}
	for _, e := range detectEvents(tb, text, data) {
		if e["event_end"] == nil {
			continue
		}
		at := func(v any) int64 {
			us, ok := parseTime(fmt.Append(nil, v))
			if !ok {
				tb.Fatalf("%v is no time", v)
			}
			return us
		}
		n := naiveEvent{group: fmt.Sprint(e["k"]), start: at(e["time"]), end: at(e["event_end"])}
		n.value, _ = e["value"].(float64)
		found[n.group] = append(found[n.group], n)
	}
	return found
}

// TestDetectAgreesWithNaiveCode compares random series with code that looks at the whole course for every reading.
func TestDetectAgreesWithNaiveCode(t *testing.T) {
	t.Parallel()
	const second = 1_000_000
	for name, tt := range map[string]struct {
		method string
		naive  func(k string, list []naiveReading) []naiveEvent
	}{
		"threshold": {
			"threshold: {above: 1, clear: 0.5, for: 3s, clear_for: 2s}",
			func(k string, list []naiveReading) []naiveEvent {
				out := make([]float64, len(list))
				for i := range list {
					out[i] = list[i].v
				}
				return naiveCourse(k, list, out, naiveRule{bound: 1, clear: 0.5, hold: 3 * second, free: 2 * second})
			},
		},
		"below": {
			"threshold: {below: -1}",
			func(k string, list []naiveReading) []naiveEvent {
				out := make([]float64, len(list))
				for i := range list {
					out[i] = -list[i].v
				}
				return naiveCourse(k, list, out, naiveRule{bound: 1, clear: 1})
			},
		},
		"rate": {
			"rate: {above: 1.5, per: 2s, clear: 1, for: 1s}",
			func(k string, list []naiveReading) []naiveEvent {
				out := make([]float64, len(list))
				out[0] = math.NaN()
				for i := 1; i < len(list); i++ {
					out[i] = math.Abs(2 * second * (list[i].v - list[i-1].v) / float64(list[i].t-list[i-1].t))
				}
				return naiveCourse(k, list, out, naiveRule{bound: 1.5, clear: 1, hold: second})
			},
		},
		"zscore": {
			"zscore: {above: 2, clear: 1, over: 64s, min: 8}",
			func(k string, list []naiveReading) []naiveEvent {
				values := make([]float64, len(list))
				for i := range list {
					values[i] = list[i].v
				}
				return naiveBaseline(k, list, values, naiveRule{bound: 2, clear: 1, over: 64 * second, least: 8})
			},
		},
		"ewma": {
			"ewma: {above: 2, clear: 1, half_life: 4s, over: 64s, min: 8}",
			func(k string, list []naiveReading) []naiveEvent {
				values := make([]float64, len(list))
				values[0] = list[0].v
				for i := 1; i < len(list); i++ {
					old := math.Exp2(-float64(list[i].t-list[i-1].t) / (4 * second))
					values[i] = old*values[i-1] + (1-old)*list[i].v
				}
				return naiveBaseline(k, list, values, naiveRule{bound: 2, clear: 1, over: 64 * second, least: 8, extreme: true})
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			total := 0
			for seed := range uint64(30) {
				data := wanderingRows(600, seed)
				got := closedEvents(t, tt.method, data)
				for k, list := range naiveGroups(data) {
					want := tt.naive(k, list)
					total += len(want)
					if !slices.Equal(got[k], want) {
						t.Fatalf("seed %d, group %s:\n got %v\nwant %v", seed, k, got[k], want)
					}
				}
			}
			if total < 50 {
				t.Errorf("only %d events", total)
			}
		})
	}
}

// naiveSum finds the closed events of one sum; sign is -1 for the falling one.
func naiveSum(k string, list []naiveReading, sign float64) []naiveEvent {
	var events []naiveEvent
	sum, value, open := 0.0, 0.0, false
	since, began := int64(0), int64(0)
	for _, r := range list {
		if sum == 0 {
			since = r.t
		}
		sum = math.Min(math.Max(0, sum+sign*r.v/1.5-0.5), 10)
		if sum > 5 && !open {
			open, value, began = true, sign*r.v, since
		}
		if open {
			value = max(value, sign*r.v)
		}
		if open && sum <= 2 {
			events, open = append(events, naiveEvent{k, began, r.t, sign * value}), false
		}
	}
	return events
}

// TestCUSUMAgreesWithNaiveCode compares the sums at which events open with a plain computation. In both directions the
// events are those of the two sums, each by itself.
func TestCUSUMAgreesWithNaiveCode(t *testing.T) {
	t.Parallel()
	byTime := func(a, b naiveEvent) int {
		return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.start, b.start), cmp.Compare(a.value, b.value))
	}
	for name, signs := range map[string][]float64{"up": {1}, "down": {-1}, "both": {1, -1}} {
		total := 0
		for seed := range uint64(20) {
			data := wanderingRows(500, seed)
			got := closedEvents(t, "cusum: {shift: 1, limit: 5, target: 0, deviation: 1.5, clear: 2, direction: "+name+"}", data)
			for k, list := range naiveGroups(data) {
				var want []naiveEvent
				for _, sign := range signs {
					want = append(want, naiveSum(k, list, sign)...)
				}
				slices.SortFunc(want, byTime)
				slices.SortFunc(got[k], byTime)
				total += len(want)
				if !slices.Equal(got[k], want) {
					t.Fatalf("%s, seed %d, group %s:\n got %v\nwant %v", name, seed, k, got[k], want)
				}
			}
		}
		if total < 10 {
			t.Errorf("%s: only %d events", name, total)
		}
	}
}

func TestDeadbandAgreesWithNaiveCode(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		data := wanderingRows(500, seed)
		var want []string
		type passed struct {
			v float64
			t int64
		}
		last := map[string]passed{}
		groups := naiveGroups(data)
		var all []naiveReading
		names := map[int]string{}
		for k, list := range groups {
			all = append(all, list...)
			for _, r := range list {
				names[r.arrival] = k
			}
		}
		slices.SortFunc(all, func(a, b naiveReading) int { return a.arrival - b.arrival })
		for _, r := range all {
			k := names[r.arrival]
			p, has := last[k]
			if !has || math.Abs(r.v-p.v) > math.Max(0.8, 0.5*math.Abs(p.v)) || r.t-p.t >= 20_000_000 {
				last[k] = passed{r.v, r.t}
				want = append(want, fmt.Sprintf("%s %v", expr.FormatTimestamp(r.t), r.v))
			}
		}
		var got []string
		for _, e := range detectEvents(t, detectFlow("deadband: {change: 0.8, percent: 50, every: 20s}"), data) {
			got = append(got, fmt.Sprintf("%s %v", e["time"], e["v"]))
		}
		sameLines(t, fmt.Sprintf("seed %d", seed), got, want)
	}
}

// TestSilenceAgreesWithNaiveCode compares with code that looks at all groups whenever time passes.
func TestSilenceAgreesWithNaiveCode(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(4, 4)) //nolint:gosec // test data
	for round := range 20 {
		data := &table{}
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for range 400 {
			at = at.Add(time.Duration(rng.IntN(3)) * time.Second)
			data.rows = append(data.rows, map[string]any{
				"ts": at.Add(-time.Duration(rng.IntN(4)) * time.Second), "k": fmt.Sprintf("k%d", rng.IntN(1+rng.IntN(12))), "v": 1.0,
			})
		}
		var want []string
		last, silent := map[string]int64{}, map[string]bool{}
		newest := int64(math.MinInt64)
		for _, row := range data.rows {
			ts, _ := row["ts"].(time.Time)
			k, t := fmt.Sprint(row["k"]), ts.UnixMicro()
			if l, has := last[k]; has && t <= l {
				continue
			}
			if newest = max(newest, t); newest == t {
				for _, name := range sortedKeys(last) {
					if !silent[name] && t-last[name] > 8_000_000 {
						silent[name] = true
						want = append(want, fmt.Sprintf("%s open %s %v", name, expr.FormatTimestamp(last[name]), float64(t-last[name])/1e6))
					}
				}
			}
			if silent[k] {
				want = append(want, fmt.Sprintf("%s closed %s %v", k, expr.FormatTimestamp(last[k]), float64(t-last[k])/1e6))
			}
			last[k], silent[k] = t, false
		}
		var got []string
		for _, e := range detectEvents(t, detectFlow("silence: {for: 8s}"), data) {
			got = append(got, fmt.Sprintf("%s %s %s %v", e["k"], e["event_state"], e["time"], e["seconds"]))
		}
		if len(want) < 5 {
			t.Fatalf("round %d: only %d events", round, len(want))
		}
		sameLines(t, fmt.Sprintf("round %d", round), got, want)
	}
}
