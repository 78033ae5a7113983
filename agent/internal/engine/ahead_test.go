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

const aheadHead = "flow: f\nTRIGGERsteps:\n  - id: rows\n    read: x\n    schema: {ts: timestamp, k: string, v: float}\n"

// aheadFlows are a flow for every step that goes by event time. %s is the place of `ahead`.
func aheadFlows() map[string]string {
	return map[string]string{
		"window":   "  - id: it\n    aggregate: {n: count(), s: sum(v)}\n    by: [k]\n    window: {tumbling: 1m, time: ts%s}\n",
		"session":  "  - id: it\n    aggregate: {n: count()}\n    by: [k]\n    window: {session: 30s, time: ts%s}\n",
		"deadband": "  - {id: it, detect: v, by: [k], time: ts, deadband: {change: 0.5}%s}\n",
		"silence":  "  - {id: it, detect: , by: [k], time: ts, silence: {for: 2m}%s}\n",
		"distinct": "  - {id: it, distinct: [k], within: 1m, time: ts%s}\n",
		"unique":   "  - {id: it, validate: {k: {unique: {within: 10s, time: ts%s}}}}\n",
	}
}

func aheadFlow(trigger, step, ahead string) string {
	text := strings.Replace(aheadHead, "TRIGGER", trigger, 1) + fmt.Sprintf(step, ahead)
	if strings.Contains(step, "tumbling") || strings.Contains(step, "session") || strings.Contains(step, "silence") {
		return text + "  - insight: out\n"
	}
	return text + "  - insight: out\n    time: ts\n"
}

// aheadNow is the clock of these tests.
var aheadNow = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC) //nolint:gochecknoglobals // a constant

// aheadRows are rows of ten minutes up to now, with one of another century among them unless clean.
func aheadRows(clean bool) *table {
	data := &table{}
	begin := aheadNow.Add(-10 * time.Minute)
	for i := range 60 {
		at := begin.Add(time.Duration(i) * 10 * time.Second)
		if i == 20 && !clean {
			data.rows = append(data.rows, map[string]any{"ts": "2099-01-01T00:00:00Z", "k": "a", "v": 1.0})
		}
		data.rows = append(data.rows, map[string]any{"ts": at, "k": string(rune('a' + i%3)), "v": float64(i % 7)})
	}
	return data
}

// aheadCase is rows of a source that ends or does not, a run that stops behind row stop if there is one, and its clock.
type aheadCase struct {
	data *table
	ends span
	stop int
	now  time.Time
}

func aheadRun(tb testing.TB, text string, c aheadCase, store *memStore) (Report, error) {
	tb.Helper()
	ctx, cancel := context.WithCancelCause(tb.Context())
	defer cancel(nil)
	done := errors.New("all read")
	report, err := Run(ctx, RunSettings{
		Program: program(tb, text), Store: store, CommitRows: 1, Clock: func() time.Time { return c.now },
		Open: func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
			m := newMemory(need, from, c.data, 7)
			m.traits.Bounded = c.ends == bounded
			m.onNext = func(at int) {
				if c.ends == endless && at >= min(c.stop, len(c.data.rows)) {
					cancel(done)
				}
			}
			return m, nil
		},
	})
	if errors.Is(err, done) {
		err = nil
	}
	return report, err
}

// TestOneTimeFarAheadDoesNotSilenceAContinuousFlow wants the insights that the flow gives without that record, and the
// record failed, also when the flow is restarted right behind it.
func TestOneTimeFarAheadDoesNotSilenceAContinuousFlow(t *testing.T) {
	t.Parallel()
	for name, step := range aheadFlows() {
		text := aheadFlow("trigger: continuous\n", step, "")
		clean := newStore()
		if _, err := aheadRun(t, text, aheadCase{aheadRows(true), endless, 1000, aheadNow}, clean); err != nil {
			t.Fatal(err)
		}
		want := clean.lines()
		if len(want) == 0 && name != "silence" {
			t.Fatalf("%s: the rows give no insight", name)
		}
		for _, stop := range []int{1000, 21} {
			store := newStore()
			failed := int64(0)
			var sample []FailedRecord
			for _, at := range []int{stop, 1000} {
				report, err := aheadRun(t, text, aheadCase{aheadRows(false), endless, at, aheadNow}, store)
				if err != nil {
					t.Fatal(err)
				}
				failed += report.Failed
				sample = append(sample, report.Sample...)
				if report.Late != 0 && name != "unique" {
					t.Errorf("%s: %d rows are late", name, report.Late)
				}
			}
			sameLines(t, fmt.Sprintf("%s, stopped at %d", name, stop), store.lines(), want)
			if failed != 1 && name != "unique" {
				t.Errorf("%s: %d records failed, not the one", name, failed)
			}
			const reason = "its time in column ts is 26337 days ahead of the agent's clock, and this step takes at most 1h0m0s (ahead); correct the source's clock, or this machine's"
			if len(sample) == 0 || sample[0].Reason != reason || sample[0].Step != "it" {
				t.Errorf("%s: the sample is %v", name, sample)
			}
		}
	}
}

// TestWhatIsAheadOfTheClock holds the bound against the trigger, what is written, and the clock.
func TestWhatIsAheadOfTheClock(t *testing.T) {
	t.Parallel()
	const continuous = "trigger: continuous\n"
	step := aheadFlows()["window"]
	for name, c := range map[string]struct {
		trigger, ahead string
		ends           span
		now            time.Time
		failed         int64
	}{
		"the default":                                     {continuous, "", endless, aheadNow, 1},
		"a stated bound":                                  {continuous, ", ahead: 10m", endless, aheadNow, 1},
		"none":                                            {continuous, ", ahead: none", endless, aheadNow, 0},
		"a clock that is five minutes slow":               {continuous, ", ahead: 1m", endless, aheadNow.Add(-5 * time.Minute), 1 + 23},
		"a slow clock within the default":                 {continuous, "", endless, aheadNow.Add(-45 * time.Minute), 1},
		"a clock that was never set":                      {continuous, "", endless, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), 0},
		"a run of a continuous flow over what ends":       {continuous, "", bounded, aheadNow, 0},
		"a manual run":                                    {"", "", bounded, aheadNow, 0},
		"a manual run with a bound":                       {"", ", ahead: 1h", bounded, aheadNow, 1},
		"a manual run without end, of which nothing said": {"", "", endless, aheadNow, 0},
	} {
		report, err := aheadRun(t, aheadFlow(c.trigger, step, c.ahead), aheadCase{aheadRows(false), c.ends, 1000, c.now}, newStore())
		if err != nil || report.Failed != c.failed {
			t.Errorf("%s: %d records failed, not %d: %v", name, report.Failed, c.failed, err)
		}
	}
	_, err := aheadRun(t, aheadFlow("on_error: stop\n"+continuous, step, ""), aheadCase{aheadRows(false), endless, 1000, aheadNow}, newStore())
	var stopped *StoppedError
	if !errors.As(err, &stopped) || !strings.Contains(stopped.Reason, "ahead of the agent's clock") {
		t.Errorf("with on_error: stop the run gives %v", err)
	}
}

// TestAheadInAJoinOfTwoStreams wants either side bounded.
func TestAheadInAJoinOfTwoStreams(t *testing.T) {
	t.Parallel()
	text := strings.Replace(aheadHead, "TRIGGER", "trigger: continuous\n", 1) + `  - {id: other, read: y, schema: {at: timestamp, k: string, w: float}}
  - {id: it, from: rows, join: other, on: [k], within: 1m, time: {ts: at}}
  - {insight: out, time: ts}
`
	data := aheadRows(false)
	for i := range data.rows {
		data.rows[i]["at"], data.rows[i]["w"] = data.rows[i]["ts"], 1.0
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	done := errors.New("all read")
	ended := make(chan struct{}, 2)
	open := func(need ReadNeed, from connector.Cursor) (connector.Source, error) {
		m := newMemory(need, from, data, 7)
		m.traits.Bounded = false
		told := false
		m.onNext = func(at int) {
			if at < len(data.rows) || told {
				return
			}
			told = true
			if ended <- struct{}{}; len(ended) == 2 {
				cancel(done)
			}
		}
		return m, nil
	}
	report, err := Run(ctx, RunSettings{Program: program(t, text), Store: newStore(), Clock: func() time.Time { return aheadNow }, Open: open})
	if !errors.Is(err, done) || report.Failed != 2 || report.Late != 0 || report.Insights < 60 {
		t.Errorf("%d failed, %d late, %d insights: %v", report.Failed, report.Late, report.Insights, err)
	}
}
