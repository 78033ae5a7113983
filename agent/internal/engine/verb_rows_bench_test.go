package engine

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// rowSteps are steps of the row verbs whose steady state is measured.
func rowSteps() map[string]string {
	return map[string]string{
		"union":           "  - {id: low, filter: count < 3, from: readings}\n  - {id: all, read: y, schema: {ts: timestamp, machine: string, state: string, temp: float, vibration: float, count: int, scrap: int, ord: int}}\n  - union: [low, all]\n" + dropAll,
		"limit by":        "  - limit: 1000000\n    by: [machine, state]\n" + dropAll,
		"distinct within": "  - distinct: [machine]\n    within: 10s\n    time: ts\n" + dropAll,
		"validate":        "  - validate: {temp: {required: true, min: 0, max: 88}, state: {in: [RUN, IDLE]}, machine: {min_length: 3}}\n" + dropAll,
		"unique":          "  - validate: {machine: {unique: {within: 1s, time: ts}}}\n" + dropAll,
	}
}

// TestRowVerbsAllocateNothing is not parallel, because it counts the allocations of the whole process.
func TestRowVerbsAllocateNothing(t *testing.T) {
	for name, text := range rowSteps() {
		step := stepper(t, benchRead+text, fillPress)
		for range 20 {
			step()
		}
		if n := testing.AllocsPerRun(20, step); n > 8 {
			t.Errorf("%s: %v allocations per batch of %d rows", name, n, column.TargetRows)
		}
	}
	step := stepper(t, unnestRead, fillTools)
	for range 20 {
		step()
	}
	if n := testing.AllocsPerRun(20, step); n > 8 {
		t.Errorf("unnest: %v allocations per batch", n)
	}
}

func BenchmarkRowVerbs(b *testing.B) {
	for name, text := range rowSteps() {
		b.Run(name, func(b *testing.B) { benchmarkStep(b, benchRead+text, fillPress) })
	}
	b.Run("validate a pattern", func(b *testing.B) {
		benchmarkStep(b, benchRead+"  - validate: {machine: {pattern: \"^press-[0-9]+$\"}}\n"+dropAll, fillPress)
	})
	b.Run("union of two ways", func(b *testing.B) {
		benchmarkStep(b, benchRead+"  - {id: low, filter: count < 3, from: readings}\n  - union: [low, readings]\n"+dropAll, fillPress)
	})
}

const unnestRead = `
flow: bench
trigger: continuous
steps:
  - id: states
    read: x
    schema: {ts: timestamp, machine: string, tools: json}
  - unnest: tools
    schema: {id: string, wear: float, temp: float}
    index: place
  - filter: wear < 0 and id == "" and place < 0
  - insight: out
    time: ts
`

func fillTools(b *column.Batch, i int) {
	for c := range b.Cols {
		switch col := &b.Cols[c]; b.Schema[c].Name {
		case "ts":
			col.AppendInt(int64(i) * 10_000)
		case "machine":
			col.AppendStr(fmt.Appendf(nil, "press-%02d", i%50))
		default:
			col.AppendStr(fmt.Appendf(nil, `[{"id":"T1","wear":%d.25,"temp":61.5},{"id":"T2","wear":0.5,"temp":60},{"id":"T3","wear":0.75,"temp":59.125}]`, i%10))
		}
	}
}

func BenchmarkUnnestThreeElements(b *testing.B) { benchmarkStep(b, unnestRead, fillTools) }

// BenchmarkSortRows orders a million rows that are in memory.
func BenchmarkSortRows(b *testing.B) {
	const rows = 1 << 20
	rng := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // test data
	run := sortRun{rows: rows, cols: []column.Column{{Type: expr.Int}, {Type: expr.Float}, {Type: expr.String}, {Type: expr.String}}}
	for range rows {
		run.cols[0].AppendInt(1_767_225_600_000_000 + rng.Int64N(86_400_000_000))
		run.cols[1].AppendFloat(rng.NormFloat64() * math.Pi)
		run.cols[2].AppendStr(fmt.Appendf(nil, "M%03d", rng.IntN(64)))
		run.cols[3].AppendStr(fmt.Appendf(nil, "order-%07d", rng.IntN(rows)))
	}
	for name, keys := range map[string][]sortKey{
		"time": {{col: 0}}, "float": {{col: 1, descending: true}}, "machine and time": {{col: 2}, {col: 0}}, "long text": {{col: 3}},
	} {
		b.Run(name, func(b *testing.B) {
			s := sorter{keys: keys}
			s.sortRows(&run)
			b.ReportAllocs()
			for b.Loop() {
				s.sortRows(&run)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
		})
	}
}
