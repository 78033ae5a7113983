package engine

import (
	"strings"
	"testing"
)

// TestATestOfAContinuousFlowHasLateRows wants `late` to be testable, and the rows of a run that ends never late.
func TestATestOfAContinuousFlowHasLateRows(t *testing.T) {
	t.Parallel()
	const flow = `flow: f
trigger: TRIGGER
steps:
- {id: a, read: c, schema: {ts: timestamp, k: string}}
- {id: per, aggregate: {n: count()}, by: [k], window: {WINDOW, time: ts, late: 30s}}
- {insight: o, key: [k]}
tests:
- name: t
  ordered: true
  given: {a: [{ts: "2026-01-01T00:00:10Z", k: x}, {ts: "2026-01-01T00:01:20Z", k: x}, {ts: "2026-01-01T00:00:50Z", k: x}, {ts: "2026-01-01T00:01:30Z", k: y}, {ts: "2026-01-01T00:00:55Z", k: x}]}
  expect: {o: [EXPECT]}
`
	const rest = `{k: x, n: 1, window_start: "2026-01-01T00:01:00Z"}, {k: y, n: 1, window_start: "2026-01-01T00:01:00Z"}`
	for name, c := range map[string]struct{ trigger, window, expect string }{
		"continuous": {"continuous", "tumbling: 1m", `{k: x, n: 2, window_start: "2026-01-01T00:00:00Z"}, ` + rest},
		"manual":     {"manual", "tumbling: 1m", `{k: x, n: 3, window_start: "2026-01-01T00:00:00Z"}, ` + rest},
		"sessions":   {"continuous", "session: 20s", `{k: x, n: 1}, {k: x, n: 2}, {k: x, n: 1}, {k: y, n: 1}`},
	} {
		text := strings.NewReplacer("TRIGGER", c.trigger, "WINDOW", c.window, "EXPECT", c.expect).Replace(flow)
		if got := oneTest(t, text); !got.Passed {
			t.Errorf("%s: %s", name, got.Difference)
		}
	}
	wrong := strings.NewReplacer("TRIGGER", "continuous", "WINDOW", "tumbling: 1m", "EXPECT", "").Replace(flow)
	if got := oneTest(t, wrong); !strings.Contains(got.Difference, "rows that came too late in step per: 1") {
		t.Errorf("the difference says nothing of the late row: %s", got.Difference)
	}
	distinct := strings.Replace(wrong, "- {id: per, aggregate: {n: count()}, by: [k], window: {tumbling: 1m, time: ts, late: 30s}}", "- {id: per, distinct: [k], within: 20s, time: ts}", 1)
	if got := oneTest(t, distinct); !strings.Contains(got.Difference, "rows that came too late in step per: 2") {
		t.Errorf("distinct: %s", got.Difference)
	}
}
