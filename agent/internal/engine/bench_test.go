package engine

import (
	"fmt"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/column"
)

// stepper makes a function that pushes one batch of an endless flow through its operators. Stepping the times forward
// closes windows as a stream would.
func stepper(tb testing.TB, text string, fill func(batch *column.Batch, row int)) func() {
	tb.Helper()
	p := program(tb, text)
	pipe, err := p.main.instantiate(func(int) span { return endless }, 0)
	if err != nil {
		tb.Fatal(err)
	}
	if len(pipe.joins) > 0 {
		builder, tableErr := p.main.joins[0].right.instantiate(func(int) span { return bounded }, 0)
		if tableErr != nil {
			tb.Fatal(tableErr)
		}
		right := column.NewBatch(p.main.joins[0].right.reads[0].need.Schema)
		for i := range 1000 {
			right.Cols[0].AppendInt(int64(i))
			right.Cols[1].AppendStr(fmt.Appendf(nil, "customer %d", i))
			right.Len++
		}
		if tableErr = builder.sources[0].push(right); tableErr != nil {
			tb.Fatal(tableErr)
		}
		if tableErr = builder.table.complete(); tableErr != nil {
			tb.Fatal(tableErr)
		}
		pipe.joins[0].table = builder.table.table
	}
	batch := column.NewBatch(p.Reads()[0].Schema)
	for i := range column.TargetRows {
		fill(batch, i)
		batch.Len++
	}
	return func() {
		if err = pipe.sources[0].push(batch); err != nil {
			tb.Fatal(err)
		}
		pipe.box.reset()
		for c := range batch.Cols {
			if batch.Schema[c].Name == "ts" {
				for i := range batch.Cols[c].Ints {
					batch.Cols[c].Ints[i] += int64(column.TargetRows) * 10_000
				}
			}
		}
	}
}

// benchmarkStep reports the time per row.
func benchmarkStep(b *testing.B, text string, fill func(batch *column.Batch, row int)) {
	b.Helper()
	step := stepper(b, text, fill)
	for range 20 {
		step()
	}
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/column.TargetRows, "ns/row")
}

// TestSteadyStateAllocatesNothing is not parallel, because it counts the allocations of the whole process. A batch has
// 4096 rows; growing a window's table now and then is allowed for.
func TestSteadyStateAllocatesNothing(t *testing.T) {
	for name, text := range map[string]string{
		"filter and map": benchRead + "  - filter: state == \"RUN\" and temp > 60\n  - map: {y: count / 2, l: upper(machine)}\n  - filter: y < 0 and l == \"\"\n" + dropAll,
		"aggregate": benchRead + "  - aggregate: {n: count(), a: avg(temp), m: max(vibration), s: sum(count), l: last(state)}\n    by: [machine]\n" +
			"    window: {tumbling: 1m, time: ts, late: 5s}\n  - insight: out\n    key: [machine]\n",
		"join": benchRead + "  - id: orders\n    read: mes\n    schema: {ord: int, customer: string}\n  - join: orders\n    from: readings\n    on: [ord]\n    type: left\n  - insight: out\n    time: ts\n",
	} {
		step := stepper(t, text, fillPress)
		for range 50 {
			step()
		}
		if n := testing.AllocsPerRun(200, step); n > 4 {
			t.Errorf("%s: %v allocations per batch", name, n)
		}
	}
}

func fillPress(b *column.Batch, i int) {
	states := []string{"RUN", "RUN", "RUN", "IDLE"}
	for c := range b.Cols {
		switch col := &b.Cols[c]; b.Schema[c].Name {
		case "ts":
			col.AppendInt(int64(i) * 10_000)
		case "machine":
			col.AppendStr(fmt.Appendf(nil, "press-%02d", i*7%50))
		case "state":
			col.AppendStr([]byte(states[i%4]))
		case "ord":
			col.AppendInt(int64(i % 1500))
		case "count", "scrap":
			col.AppendInt(int64(i % 5))
		default:
			col.AppendFloat(float64(50 + i%40))
		}
	}
}

const benchRead = `
flow: bench
trigger: continuous
steps:
  - id: readings
    read: x
    schema: {ts: timestamp, machine: string, state: string, temp: float, vibration: float, count: int, scrap: int, ord: int}
`

// dropAll is a filter in front of the insight, so that its JSON is not measured.
const dropAll = `
  - filter: temp < 0
  - insight: out
    time: ts
`

func BenchmarkFilterText(b *testing.B) {
	benchmarkStep(b, benchRead+"  - filter: state == \"RUN\" and temp > 60\n"+dropAll, fillPress)
}

func BenchmarkFilterNumbers(b *testing.B) {
	benchmarkStep(b, benchRead+"  - filter: temp > 60 and count >= 1\n"+dropAll, fillPress)
}

func BenchmarkMap(b *testing.B) {
	benchmarkStep(b, benchRead+"  - map:\n      yield: (count - scrap) / count\n      hot: \"temp > 80 ? temp : null\"\n  - filter: yield < 0 and hot < 0\n"+dropAll, fillPress)
}

func BenchmarkSelect(b *testing.B) {
	benchmarkStep(b, benchRead+"  - select: [machine, temp, ts]\n"+dropAll, fillPress)
}

func BenchmarkAggregateWindow(b *testing.B) {
	benchmarkStep(b, benchRead+`  - aggregate: {n: count(), temp_avg: avg(temp), vib_max: max(vibration), made: sum(count)}
    by: [machine]
    window: {tumbling: 1m, time: ts, late: 5s}
  - filter: n < 0
  - insight: out
    key: [machine]
`, fillPress)
}

func BenchmarkFilterMapAggregate(b *testing.B) {
	benchmarkStep(b, benchRead+`  - filter: state == "RUN" and temp > 60
  - map: {yield: (count - scrap) / count}
  - aggregate: {n: count(), temp_avg: avg(temp), vib_max: max(vibration), made: sum(count), yield_avg: avg(yield)}
    by: [machine]
    window: {tumbling: 1m, time: ts, late: 5s}
  - filter: n < 0
  - insight: out
    key: [machine]
`, fillPress)
}

func BenchmarkAggregateDistinctAndText(b *testing.B) {
	benchmarkStep(b, benchRead+`  - aggregate: {d: count_distinct(state), l: last(state), m: max(machine), s: stddev(temp)}
    by: [count]
    window: {tumbling: 1m, time: ts, late: 5s}
  - filter: d < 0
  - insight: out
    key: [count]
`, fillPress)
}

func BenchmarkJoinProbe(b *testing.B) {
	benchmarkStep(b, benchRead+`  - id: orders
    read: mes
    schema: {ord: int, customer: string}
  - join: orders
    from: readings
    on: [ord]
    type: left
  - filter: temp < 0 and customer == ""
`+dropAll, fillPress)
}

func BenchmarkInsight(b *testing.B) {
	benchmarkStep(b, benchRead+"  - insight: out\n    key: [machine]\n    time: ts\n", fillPress)
}
