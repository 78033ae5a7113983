package engine

import (
	"fmt"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/column"
)

// fillTags has one reading of each of 4,096 tags; every further batch is 41 seconds later.
func fillTags(b *column.Batch, i int) {
	for c := range b.Cols {
		switch col := &b.Cols[c]; b.Schema[c].Name {
		case "ts":
			col.AppendInt(int64(i % 7))
		case "k":
			col.AppendStr(fmt.Appendf(nil, "plant.line-%d.tag-%04d", i%8, i))
		default:
			col.AppendFloat(float64(i%100) / 10)
		}
	}
}

// benchmarkDetect drops the events behind the step, so that their JSON is not measured. The values stand still: almost
// all rows of a plant are like that.
func benchmarkDetect(b *testing.B, method string) {
	b.Helper()
	benchmarkStep(b, detectBenchFlow(method), fillTags)
}

func detectBenchFlow(method string) string {
	value, drop := "detect: v", "severity == \"\""
	switch method[:7] {
	case "silence":
		value = "detect:"
	case "deadban":
		drop = "v < 0"
	}
	return "flow: bench\ntrigger: continuous\nsteps:\n  - id: readings\n    read: x\n    schema: {ts: timestamp, k: string, v: float}\n" +
		"  - " + value + "\n    " + method + "\n    by: [k]\n    time: ts\n  - filter: '" + drop + "'\n  - insight: out\n    key: [k]\n"
}

func BenchmarkDetectThreshold(b *testing.B) {
	benchmarkDetect(b, "threshold: {above: 90, clear: 85, for: 30s}")
}

// BenchmarkDetectThresholdOpen has an event open in nine groups of ten.
func BenchmarkDetectThresholdOpen(b *testing.B) {
	benchmarkDetect(b, "threshold: {above: 1, clear: 0.5, for: 30s}")
}

func BenchmarkDetectRate(b *testing.B) { benchmarkDetect(b, "rate: {above: 5, per: 1m}") }
func BenchmarkDetectDeadband(b *testing.B) {
	benchmarkDetect(b, "deadband: {change: 0.5, percent: 1, every: 10m}")
}

func BenchmarkDetectZScore(b *testing.B) {
	benchmarkDetect(b, "zscore: {above: 4, over: 24h, floor: 0.1}")
}

func BenchmarkDetectEWMA(b *testing.B) {
	benchmarkDetect(b, "ewma: {above: 4, half_life: 1h, over: 7d, floor: 0.1}")
}

func BenchmarkDetectCUSUM(b *testing.B) {
	benchmarkDetect(b, "cusum: {shift: 1, limit: 8, over: 7d, floor: 0.1}")
}
func BenchmarkDetectSilence(b *testing.B) { benchmarkDetect(b, "silence: {for: 5m}") }

// BenchmarkDetectCommit is what a commit makes of 4,096 groups that have all changed.
func BenchmarkDetectCommit(b *testing.B) {
	p := program(b, detectBenchFlow("threshold: {above: 90}"))
	pipe, err := p.main.instantiate(func(int) span { return endless }, 0)
	if err != nil {
		b.Fatal(err)
	}
	batch := column.NewBatch(p.Reads()[0].Schema)
	for i := range column.TargetRows {
		fillTags(batch, i)
		batch.Len++
	}
	var changes []StateChange
	b.ReportAllocs()
	for b.Loop() {
		for i := range batch.Cols[0].Ints {
			batch.Cols[0].Ints[i] += 1_000_000
		}
		if err = pipe.sources[0].push(batch); err != nil {
			b.Fatal(err)
		}
		changes = pipe.keepers[0].changes(changes[:0])
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/column.TargetRows, "ns/group")
}

// TestDetectAllocatesNothing is not parallel, because it counts the allocations of the whole process.
func TestDetectAllocatesNothing(t *testing.T) {
	for _, method := range []string{
		"threshold: {above: 5, clear: 3, for: 30s}", "rate: {above: 5, per: 1m, half_life: 1m}", "deadband: {change: 0.5, every: 1m}",
		"zscore: {above: 4, over: 24h, floor: 0.1}", "ewma: {above: 4, half_life: 1h, over: 7d, floor: 0.1}",
		"cusum: {shift: 1, limit: 8, over: 7d, floor: 0.1}", "silence: {for: 30s}",
	} {
		step := stepper(t, detectBenchFlow(method), fillTags)
		for range 50 {
			step()
		}
		if n := testing.AllocsPerRun(100, step); n > 0 {
			t.Errorf("%s: %v allocations per batch", method, n)
		}
	}
}
