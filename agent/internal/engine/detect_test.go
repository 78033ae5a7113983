package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// detectFlow is a flow with one detect step over (ts, k, v).
func detectFlow(method string) string {
	value := "detect: v"
	if strings.Contains(method, "silence") {
		value = "detect:"
	}
	key := "  - insight: out\n    key: [k]\n"
	if strings.Contains(method, "deadband") {
		key += "    time: ts\n"
	}
	return "flow: f\ntrigger: continuous\nsteps:\n  - id: rows\n    read: x\n    schema: {ts: timestamp, k: string, v: float}\n" +
		"  - id: found\n    " + value + "\n    " + method + "\n    by: [k]\n    time: ts\n" + key
}

// detectMethods is one definition of each method, with small settings that make much happen.
func detectMethods() map[string]string {
	return map[string]string{
		"threshold":     "threshold: {above: {mild: 1, middling: 1.5, grave: 2}, clear: 0.5, for: 3s, clear_for: 2s}",
		"threshold low": "threshold: {below: -1, clear: -0.5}",
		"rate":          "rate: {above: 1, per: 1s, for: 1s}",
		"smoothed rate": "rate: {above: 0.4, per: 1s, half_life: 3s, direction: down}",
		"deadband":      "deadband: {change: 0.8, percent: 50, every: 20s}",
		"zscore":        "zscore: {above: 2, over: 2m, min: 10, clear: 1, relearn: 30s}",
		"zscore up":     "zscore: {above: {low: 1.5, high: 2.5}, over: 1h, floor: 0.1, direction: up, for: 2s}",
		"ewma":          "ewma: {above: 1.5, half_life: 5s, over: 3m, min: 5, relearn: 1m}",
		"cusum":         "cusum: {shift: 1, limit: {low: 3, high: 6}, over: 5m, min: 20, relearn: 1m}",
		"cusum both":    "cusum: {shift: 0.5, limit: {low: 2, high: 4}, clear: 0.5, target: 0, deviation: 1}",
		"cusum given":   "cusum: {shift: 0.5, limit: 4, target: 0, deviation: 1, direction: down}",
		"silence":       "silence: {for: 8s}",
	}
}

// wanderingRows are readings of four groups a second or two apart: noise, shifts, pauses, late rows, nulls, NaN,
// infinities and missing times.
func wanderingRows(n int, seed uint64) *table {
	rng := rand.New(rand.NewPCG(seed, 9)) //nolint:gosec // test data
	data := &table{}
	at, level := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), [4]float64{}
	for range n {
		at = at.Add(time.Duration(rng.IntN(700)) * time.Millisecond)
		k := rng.IntN(4)
		if rng.IntN(60) == 0 {
			level[k] = 3 * rng.NormFloat64()
		}
		if k == 3 && at.Second() > 30 { // pauses
			continue
		}
		row := map[string]any{"ts": at, "k": fmt.Sprintf("k%d", k), "v": level[k] + rng.NormFloat64()}
		switch rng.IntN(40) {
		case 0:
			row["ts"] = at.Add(-time.Duration(rng.IntN(20)) * time.Second)
		case 1:
			delete(row, "ts")
		case 2:
			delete(row, "v")
		case 3:
			row["v"] = []float64{math.NaN(), math.Inf(1), math.Inf(-1)}[rng.IntN(3)]
		case 4:
			delete(row, "k")
		}
		data.rows = append(data.rows, row)
	}
	return data
}

func TestDetectIsTheSameInOtherBatches(t *testing.T) {
	t.Parallel()
	data := wanderingRows(2000, 3)
	for name, method := range detectMethods() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := detectFlow(method)
			var want []string
			var first Report
			for i, size := range []int{2000, 1, 7, 64, 999} {
				store := newStore()
				report := endlessRun(t, text, data, size, store)
				if i == 0 {
					want, first = store.lines(), report
					if len(want) < 8 || report.Late == 0 || report.Failed == 0 {
						t.Fatalf("the input shows too little: %d insights, %d late, %d failed", len(want), report.Late, report.Failed)
					}
					continue
				}
				sameLines(t, fmt.Sprintf("batches of %d", size), store.lines(), want)
				if !slices.Equal(report.Steps, first.Steps) {
					t.Errorf("batches of %d: steps %+v, want %+v", size, report.Steps, first.Steps)
				}
			}
		})
	}
}

// TestDetectResumesAtEveryCommit restarts from every commit: the insights that follow must be exactly those missing.
func TestDetectResumesAtEveryCommit(t *testing.T) {
	t.Parallel()
	data := wanderingRows(700, 5)
	for name, method := range detectMethods() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resumeEverywhere(t, detectFlow(method), data)
		})
	}
}

// TestManyGroupsResume has groups in several blocks of the state, new ones in every part of the run.
func TestManyGroupsResume(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(77, 7)) //nolint:gosec // test data
	data := &table{}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 900 {
		at = at.Add(time.Duration(rng.IntN(300)) * time.Millisecond)
		data.rows = append(data.rows, map[string]any{"ts": at, "k": fmt.Sprintf("k%d", rng.IntN(4+i/6)), "v": 3 * rng.NormFloat64()})
	}
	for _, method := range []string{
		"threshold: {above: 2, clear: 1}", "zscore: {above: 1.2, over: 20s, min: 2}", "silence: {for: 15s}", "deadband: {change: 2}",
	} {
		resumeEverywhere(t, detectFlow(method), data)
	}
}

// resumeEverywhere runs a flow as a whole and from the state of each of its commits.
func resumeEverywhere(t *testing.T, text string, data *table) {
	t.Helper()
	type cut struct {
		state    State
		insights []string
	}
	var cuts []cut
	whole := newStore()
	whole.onCommit = func(s *memStore) {
		cuts = append(cuts, cut{cloneState(s.state), insightLines(s.insights)})
	}
	report := endlessRun(t, text, data, 23, whole)
	want := whole.lines()
	if len(cuts) < 20 || len(want) < 8 {
		t.Fatalf("%d commits with %d insights", len(cuts), len(want))
	}
	for i, c := range cuts {
		store := newStore()
		store.state = cloneState(c.state)
		resumed := endlessRun(t, text, data, 31, store)
		sameLines(t, fmt.Sprintf("%s resumed after commit %d", text, i), append(slices.Clone(c.insights), store.lines()...), want)
		if got := resumed.Steps[1].LateTotal; got != report.Late {
			t.Fatalf("resumed after commit %d: %d late in all, want %d", i, got, report.Late)
		}
		if got, all := store.state.Operators["found"], whole.state.Operators["found"]; !maps.EqualFunc(got, all, bytes.Equal) {
			t.Fatalf("resumed after commit %d: the state is another one", i)
		}
	}
}

// detectEvents runs a bounded flow and gives its insights as values, time among them.
func detectEvents(tb testing.TB, text string, data *table) []map[string]any {
	tb.Helper()
	store := newStore()
	_, err := Run(tb.Context(), RunSettings{
		Program: program(tb, text), Store: store, Open: opener(map[string]*table{"rows": data}, 100), Started: time.Unix(0, 0),
	})
	if err != nil {
		tb.Fatal(err)
	}
	list := make([]map[string]any, 0, len(store.insights))
	for _, in := range store.insights {
		members := map[string]any{}
		for _, part := range [][]byte{in.Key, in.Values} {
			if err := json.Unmarshal(part, &members); err != nil {
				tb.Fatal(err)
			}
		}
		members["time"] = expr.FormatTimestamp(in.Time)
		list = append(list, members)
	}
	return list
}

// secondRows has one row for each text "second value" of the group a.
func secondRows(tb testing.TB, texts ...string) *table {
	tb.Helper()
	data := &table{}
	for _, text := range texts {
		var second int
		var value float64
		if _, err := fmt.Sscan(text, &second, &value); err != nil {
			tb.Fatal(err)
		}
		data.rows = append(data.rows, map[string]any{
			"ts": time.Date(2026, 1, 1, 0, 0, second, 0, time.UTC), "k": "a", "v": value,
		})
	}
	return data
}

// TestDetectByHand has small courses whose events were worked out by hand: start, end (or -), severity, value and score.
func TestDetectByHand(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		method string
		rows   []string
		want   []string
	}{
		"a threshold is passed when the value is beyond it, not at it": {
			"threshold: {above: 5}", []string{"0 5", "1 6", "2 5"}, []string{"1 - warning 6", "1 2 warning 6"},
		},
		"a dip starts the duration anew": {
			"threshold: {above: 5, for: 3s}",
			[]string{"0 6", "2 6", "3 5", "4 6", "6 9", "7 6", "8 0"},
			[]string{"4 - warning 9", "4 8 warning 9"},
		},
		"the graver level needs its own duration": {
			"threshold: {above: {low: 5, high: 8}, for: 2s}",
			[]string{"0 6", "2 9", "3 6", "4 9", "6 9", "7 1"},
			[]string{"0 - low 9", "0 - high 9", "0 7 high 9"},
		},
		"a return that does not last does not end it": {
			"threshold: {above: 5, clear: 3, clear_for: 2s}",
			[]string{"0 6", "1 3", "2 4", "3 2", "4 3", "5 3", "6 3"},
			[]string{"0 - warning 6", "0 3 warning 6"},
		},
		"below": {
			"threshold: {below: {low: 2, lowest: 1}, clear: 3}",
			[]string{"0 2", "1 1.5", "2 0.5", "3 2.5", "4 3"},
			[]string{"1 - low 1.5", "1 - lowest 0.5", "1 4 lowest 0.5"},
		},
		"a rate is the change for each unit of time": {
			"rate: {above: 30, per: 1m}",
			[]string{"0 0", "2 1", "4 3", "6 1", "8 1"},
			[]string{"4 - warning 3 60", "4 8 warning 3 60"},
		},
		"a rate in one direction": {
			"rate: {above: 30, per: 1m, direction: down}",
			[]string{"0 0", "2 2", "4 0", "5 0"},
			[]string{"4 - warning 0 -60", "4 5 warning 0 -60"},
		},
		"a smoothed rate goes half the way in a half-life": {
			"rate: {above: 1.4, per: 1s, half_life: 1s}",
			[]string{"0 0", "1 0", "2 2", "3 4"},
			[]string{"3 - warning 4 1.5"},
		},
		"values of an event are no part of the baseline": {
			"zscore: {above: 3, over: 1h, min: 3}",
			[]string{"0 9", "1 10", "2 11", "3 14", "4 16", "5 12"},
			[]string{"3 - warning 14 4", "3 5 warning 16 6"},
		},
		"what lasts becomes normal": {
			"zscore: {above: 3, over: 1h, min: 3, relearn: 3s}",
			[]string{"0 9", "1 10", "2 11", "3 20", "4 20", "5 20", "6 20", "7 19", "8 21", "9 24"},
			[]string{"3 - warning 20 10", "3 6 warning 20 10", "9 - warning 24 4"},
		},
		"a constant baseline scores nothing": {
			"zscore: {above: 3, over: 1h, min: 3}", []string{"0 5", "1 5", "2 5", "3 9"}, nil,
		},
		"unless there is a floor": {
			"zscore: {above: 3, over: 1h, min: 3, floor: 1}", []string{"0 5", "1 5", "2 5", "3 9"}, []string{"3 - warning 9 4"},
		},
		"cusum begins where its sum left zero": {
			"cusum: {shift: 2, limit: 3, target: 0, deviation: 1}",
			[]string{"0 0", "1 3", "2 0.5", "3 3", "4 -1"},
			[]string{"1 - warning 3 3.5", "1 4 warning 3 3.5"},
		},
		"cusum ends one direction and begins the other": {
			"cusum: {shift: 1, limit: 5, target: 0, deviation: 1}",
			[]string{"0 4", "1 4", "2 -6", "3 -6", "4 -6", "5 -6"},
			[]string{"0 - warning 4 7", "0 2 warning 4 7", "2 - warning -6 -5.5"},
		},
		"cusum ends and begins at one reading": {
			"cusum: {shift: 1, limit: 5, target: 0, deviation: 1}",
			[]string{"0 4", "1 4", "2 -8", "3 8", "4 8"},
			[]string{"0 - warning 4 7", "0 2 warning 4 7", "2 - warning -8 -7.5", "2 3 warning -8 -7.5", "3 - warning 8 7.5"},
		},
		"cusum has events in both directions at once": {
			"cusum: {shift: 1, limit: {low: 5, high: 8}, clear: 0.5, target: 0, deviation: 1}",
			[]string{"0 5", "1 9", "2 -6", "3 -6", "4 0", "5 12", "6 0", "7 -20"},
			[]string{
				"0 - high 9 13", "2 - low -6 -5.5", "0 3 high 9 13", "2 - high -6 -11",
				"2 5 high -6 -11", "5 - high 12 11.5", "5 7 high 12 11.5", "7 - high -20 -16",
			},
		},
		"cusum is held at twice its limit": {
			"cusum: {shift: 2, limit: 3, target: 0, deviation: 1, direction: down}",
			[]string{"0 -9", "1 -9", "2 0", "3 0", "4 0", "5 0", "6 0"},
			[]string{"0 - warning -9 -6", "0 6 warning -9 -6"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, e := range detectEvents(t, detectFlow(tt.method), secondRows(t, tt.rows...)) {
				second := func(v any) string {
					if v == nil {
						return "-"
					}
					at, ok := parseTime(fmt.Append(nil, v))
					if !ok {
						t.Fatalf("%v is no time", v)
					}
					return strconv.FormatInt(at/1e6%60, 10)
				}
				line := fmt.Sprintf("%s %s %v %v", second(e["time"]), second(e["event_end"]), e["severity"], e["value"])
				if s, ok := e["score"]; ok {
					line += fmt.Sprintf(" %.6g", s)
				}
				if open := e["event_state"] == flowdef.EventOpen; open != (e["event_end"] == nil) {
					t.Errorf("%v", e)
				}
				got = append(got, line)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(tt.want, "\n  "))
			}
		})
	}
}
