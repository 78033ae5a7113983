package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
)

// risingClock is a clock that goes on whenever it is asked, by a minute for each batch of seven rows: the guard asks, and the report does.
func risingClock(from time.Time) connector.Clock {
	return func() time.Time {
		from = from.Add(30 * time.Second)
		return from
	}
}

// regularRows are rows of the keys, one every ten seconds from a time on; value gives the columns of the second stream too.
func regularRows(from time.Time, n int, keys string) *table {
	data := &table{}
	for i := range n {
		at := from.Add(time.Duration(i) * 10 * time.Second)
		data.rows = append(data.rows, map[string]any{"ts": at, "at": at, "k": keys[i%len(keys) : i%len(keys)+1], "v": float64(i % 7), "w": 1.0})
	}
	return data
}

// runToTheLast reads the rows from sources that do not end, until all have been read.
func runToTheLast(tb testing.TB, text string, data *table, clock connector.Clock, store *memStore) Report {
	tb.Helper()
	ctx, cancel := context.WithCancelCause(tb.Context())
	defer cancel(nil)
	done := errors.New("all read")
	p := program(tb, text)
	ended := make(chan struct{}, len(p.Reads()))
	report, err := Run(ctx, RunSettings{
		Program: p, Store: store, CommitRows: 1, Clock: clock,
		Open: func(need ReadNeed, _ connector.Cursor) (connector.Source, error) {
			m := newMemory(need, nil, data, 7)
			m.traits.Bounded = false
			told := false
			m.onNext = func(at int) {
				if at < len(data.rows) || told {
					return
				}
				told = true
				if ended <- struct{}{}; len(ended) == cap(ended) {
					cancel(done)
				}
			}
			return m, nil
		},
	})
	if !errors.Is(err, done) {
		tb.Fatal(err)
	}
	return report
}

// TestATimeOfAnotherCenturyThatWasLetInIsForgotten poisons the state of every step that goes by event time, as an agent
// without a bound has let it be poisoned. The flow must tell its own way out of that, and be right from then on, over
// restarts as well.
func TestATimeOfAnotherCenturyThatWasLetInIsForgotten(t *testing.T) {
	t.Parallel()
	flows := aheadFlows()
	flows["hopping"] = "  - id: it\n    aggregate: {n: count(), up: increase(v)}\n    by: [k]\n    window: {hopping: 2m, every: 1m, time: ts%s}\n"
	flows["zscore"] = "  - {id: it, detect: v, by: [k], time: ts, zscore: {above: 0.1, over: 10m, min: 5}%s}\n"
	flows["ewma"] = "  - {id: it, detect: v, by: [k], time: ts, ewma: {above: 0.1, half_life: 10s, over: 10m, min: 5}%s}\n"
	flows["rate"] = "  - {id: it, detect: v, by: [k], time: ts, rate: {above: 7, per: 1m}%s}\n"
	flows["stream join"] = ""
	for name, step := range flows {
		text := func(ahead string) string {
			if name == "stream join" {
				return strings.Replace(aheadHead, "TRIGGER", "trigger: continuous\n", 1) + fmt.Sprintf(`  - {id: other, read: y, schema: {at: timestamp, k: string, w: float}}
  - {id: it, from: rows, join: other, on: [k], type: left, within: 1m, time: {ts: at}%s}
  - {insight: out, time: ts}
`, ahead)
			}
			whole := aheadFlow("trigger: continuous\n", step, ahead)
			if strings.Contains(step, "hopping") || strings.Contains(step, "above") {
				whole = strings.TrimSuffix(whole, "    time: ts\n")
			}
			return whole
		}
		store := newStore()
		poison := regularRows(aheadNow.Add(-10*time.Minute), 12, "abc")
		far := regularRows(time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), 5, "abc")
		poison.rows = append(poison.rows, far.rows...)
		runToTheLast(t, text(", ahead: none"), poison, func() time.Time { return aheadNow }, store)

		// Twelve batches, so twelve minutes by the clock; the first ten are too late.
		before := len(store.lines())
		report := runToTheLast(t, text(""), regularRows(aheadNow, 12*7, "abc"), risingClock(aheadNow), store)
		var notes []string
		for _, s := range report.Sample {
			if s.Note {
				notes = append(notes, s.Step+": "+s.Reason)
			}
		}
		const want = "days ahead of the agent's clock, so that every record was late; it has forgotten that time"
		if len(notes) == 0 || !strings.Contains(notes[0], want) || !strings.HasPrefix(notes[0], "it: the step went by a time 263") {
			t.Errorf("%s: the notes are %q", name, notes)
		}
		for _, line := range store.lines()[before:] {
			if strings.Contains(line, "2099") {
				t.Errorf("%s: the time that was wrong comes out: %s", name, line)
			}
		}

		// What comes then is right, and a key that is silent is noticed.
		before = len(store.lines())
		report = runToTheLast(t, text(""), regularRows(aheadNow.Add(15*time.Minute), 12*7, "ab"), risingClock(aheadNow.Add(15*time.Minute)), store)
		after := len(store.lines()) - before
		if report.Late != 0 || after == 0 || report.Failed != 0 && name != "unique" {
			t.Errorf("%s: then %d are late, %d failed, %d insights come", name, report.Late, report.Failed, after)
		}
		for _, s := range report.Sample {
			if s.Note {
				t.Errorf("%s: it forgets again: %s", name, s.Reason)
			}
		}
	}
}

// TestATimeIsForgottenOnlyWhenItIsWrongForCertain holds the patience: a clock that is slow for a while must cost nothing.
func TestATimeIsForgottenOnlyWhenItIsWrongForCertain(t *testing.T) {
	t.Parallel()
	text := aheadFlow("trigger: continuous\n", aheadFlows()["window"], "")
	run := func(newest time.Time, minutes int) bool {
		store := newStore()
		runToTheLast(t, strings.Replace(text, "time: ts", "time: ts, ahead: none", 1), regularRows(newest, 2, "a"), func() time.Time { return aheadNow }, store)
		report := runToTheLast(t, text, regularRows(aheadNow.Add(-time.Hour), minutes*7, "a"), risingClock(aheadNow), store)
		return len(report.Sample) > 0
	}
	if run(aheadNow.Add(365*24*time.Hour), 9) {
		t.Error("a time is forgotten in nine minutes")
	}
	if !run(aheadNow.Add(365*24*time.Hour), 12) {
		t.Error("a time of the next year is not forgotten")
	}
	if run(aheadNow.Add(24*time.Hour), 30) {
		t.Error("a time of tomorrow is forgotten")
	}
}
