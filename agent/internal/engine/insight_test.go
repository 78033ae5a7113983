package engine

import (
	"slices"
	"testing"
	"time"
)

// insightRows has a row without a time.
func insightRows() *table {
	return &table{rows: []map[string]any{
		{"at": "2026-01-01T00:00:01Z", "k": "a", "v": int64(1)},
		{"k": "a", "v": int64(50)},
		{"at": "2026-01-01T00:00:02Z", "k": "b", "v": int64(9)},
		{"at": "2026-01-01T00:01:03Z", "k": "a", "v": int64(7)},
	}}
}

const insightRead = `
flow: f
steps:
  - id: rows
    read: x
    schema: {at: timestamp, k: string, v: int}
`

func TestAnInsightStepPassesItsRowsOn(t *testing.T) {
	t.Parallel()
	windowed := insightRead + `
  - id: sums
    aggregate: {total: sum(v)}
    by: [k]
    window: {tumbling: 1m, time: at}
`
	sums := []string{
		`one 2026-01-01T00:00:00Z {"k":"a"} {"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:01:00Z","total":1}`,
		`one 2026-01-01T00:00:00Z {"k":"b"} {"window_start":"2026-01-01T00:00:00Z","window_end":"2026-01-01T00:01:00Z","total":9}`,
		`one 2026-01-01T00:01:00Z {"k":"a"} {"window_start":"2026-01-01T00:01:00Z","window_end":"2026-01-01T00:02:00Z","total":7}`,
	}
	second := func(of ...int) []string {
		var lines []string
		for _, i := range of {
			lines = append(lines, "two"+sums[i][3:])
		}
		return lines
	}
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"a chain of two": {
			windowed + "  - insight: one\n    key: [k]\n  - insight: two\n    key: [k]\n",
			append(slices.Clone(sums), second(0, 1, 2)...),
		},
		"a filter between": {
			windowed + "  - insight: one\n    key: [k]\n  - filter: total > 5\n  - insight: two\n    key: [k]\n",
			append(slices.Clone(sums), second(1, 2)...),
		},
		"an explicit from": {
			windowed + "  - insight: one\n    key: [k]\n  - id: high\n    filter: total > 5\n    from: insight_3\n  - insight: two\n    from: insight_3\n    key: [k]\n  - insight: three\n    from: high\n    key: [k]\n",
			append(append(slices.Clone(sums), second(0, 1, 2)...), "three"+sums[1][3:], "three"+sums[2][3:]),
		},
		"a window behind, without the row that failed": {
			insightRead + "  - insight: raw\n    key: [k]\n    time: at\n  - aggregate: {n: count(), top: max(v)}\n    by: [k]\n  - insight: top\n    key: [k]\n",
			[]string{
				`raw 2026-01-01T00:00:01Z {"k":"a"} {"v":1}`,
				`raw 2026-01-01T00:00:02Z {"k":"b"} {"v":9}`,
				`raw 2026-01-01T00:01:03Z {"k":"a"} {"v":7}`,
				`top 1970-01-01T00:00:00Z {"k":"a"} {"n":2,"top":7}`,
				`top 1970-01-01T00:00:00Z {"k":"b"} {"n":1,"top":9}`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{1, 2, 100} {
				got, report := runBounded(t, c.text, map[string]*table{"rows": insightRows()}, size)
				slices.Sort(got)
				want := slices.Sorted(slices.Values(c.want))
				sameLines(t, name, got, want)
				if report.Insights != int64(len(want)) || report.Failed != 1 {
					t.Errorf("the report has %d insights and %d failed, want %d and 1", report.Insights, report.Failed, len(want))
				}
			}
		})
	}
}

func TestATableBehindAnInsightMakesItsInsightsOnce(t *testing.T) {
	t.Parallel()
	text := insightRead + `  - insight: raw
    key: [k]
    time: at
  - id: left
    read: y
    schema: {k: string, w: int}
  - join: insight_2
    on: [k]
  - insight: joined
    key: [k]
`
	rows := insightRows()
	rows.rows = rows.rows[:3]
	left := &table{rows: []map[string]any{{"k": "b", "w": int64(3)}}}
	got, report := runBounded(t, text, map[string]*table{"rows": rows, "left": left}, 10)
	slices.Sort(got)
	sameLines(t, "joined", got, []string{
		`joined 2026-01-01T00:00:02Z {"k":"b"} {"w":3,"v":9}`,
		`raw 2026-01-01T00:00:01Z {"k":"a"} {"v":1}`,
		`raw 2026-01-01T00:00:02Z {"k":"b"} {"v":9}`,
	})
	if report.Insights != 3 {
		t.Errorf("the report has %d insights, want 3", report.Insights)
	}
}

// TestInsightsOfAFlowWithoutEndHaveTheTimeAtWhichTheyAreMade has rows without a time: a run that ends gives its start, and one that
// does not end could have begun years ago.
func TestInsightsOfAFlowWithoutEndHaveTheTimeAtWhichTheyAreMade(t *testing.T) {
	t.Parallel()
	const text = "flow: untimed\ntrigger: continuous\nsteps:\n  - read: in\n    schema: {k: string, v: float}\n  - insight: out\n    key: [k]\n"
	store := newStore()
	begun := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	runToTheLast(t, text, regularRows(begun, 28, "ab"), risingClock(begun), store)
	times := map[int64]int{}
	last := begun.UnixMicro()
	for _, i := range store.insights {
		if i.Time < last {
			t.Errorf("an insight of %d comes behind one of %d", i.Time, last)
		}
		last = i.Time
		times[last]++
	}
	if len(store.insights) != 28 || len(times) != 4 {
		t.Errorf("%d insights have %d times, want 28 and one for each batch of 7: %v", len(store.insights), len(times), times)
	}
}
