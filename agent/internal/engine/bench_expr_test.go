package engine

import (
	"testing"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// kernelOver compiles an expression over the columns of the press, and gives a full batch of them. Every nth temperature
// and count is null; none for 0.
func kernelOver(tb testing.TB, text string, nth int) (kernel, *column.Batch) {
	tb.Helper()
	schema := expr.Schema{
		{Name: "ts", Type: expr.Timestamp},
		{Name: "machine", Type: expr.String},
		{Name: "state", Type: expr.String},
		{Name: "temp", Type: expr.Float},
		{Name: "count", Type: expr.Int},
		{Name: "scrap", Type: expr.Int},
		{Name: "payload", Type: expr.JSON},
	}
	batch := column.NewBatch(schema)
	for i := range column.TargetRows {
		fillPress(batchWithout(batch, "payload"), i)
		batch.Cols[6].AppendStr([]byte(`{"tool":{"id":17,"ok":true},"n":[1,2,3]}`))
		batch.Len++
		if nth > 0 && i%nth == 0 {
			batch.Cols[3].SetNull(i)
			batch.Cols[4].SetNull(i)
		}
	}
	parsed, err := expr.Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	node, err := expr.Check(parsed, schema)
	if err != nil {
		tb.Fatal(err)
	}
	k, err := compileExpr(node, node.Type)
	if err != nil {
		tb.Fatal(err)
	}
	return k, batch
}

// batchWithout is the batch without its last column, whose name is given for the reader.
func batchWithout(b *column.Batch, _ string) *column.Batch {
	last := len(b.Cols) - 1
	return &column.Batch{Schema: b.Schema[:last], Len: b.Len, Cols: b.Cols[:last]}
}

// families has an expression of every family of kernels.
func families() map[string]string {
	return map[string]string{
		"filter":     `state == "RUN" and temp > 60`,
		"yield":      `(count - scrap) / count`,
		"arithmetic": `temp * 1.8 + 32`,
		"compare":    `count >= scrap`,
		"in":         `state in ["RUN", "IDLE"]`,
		"matches":    `machine matches "^press-0"`,
		"cond":       `temp > 60 ? temp : 0`,
		"coalesce":   `temp ?? 0`,
		"text":       `split_part(machine, "-", 1)`,
		"upper":      `upper(state)`,
		"replace":    `regex_replace(state, "^X", "Y")`,
		"maths":      `sqrt(temp)`,
		"bits":       `bit(count, 2)`,
		"units":      `convert(temp, "degF", "degC")`,
		"hour":       `hour(ts, "Europe/Berlin")`,
		"truncate":   `truncate(ts, "1d", "Europe/Berlin")`,
		"format":     `format_time(ts, "%Y-%m-%d %H:%M", "Europe/Berlin")`,
		"json":       `json_int(payload, "tool.id")`,
		"sha256":     `sha256(machine)`,
	}
}

func BenchmarkExpression(b *testing.B) {
	for name, text := range families() {
		for variant, nth := range map[string]int{"": 0, "/nulls": 10} {
			b.Run(name+variant, func(b *testing.B) {
				k, batch := kernelOver(b, text, nth)
				k.eval(batch)
				b.ReportAllocs()
				for b.Loop() {
					k.eval(batch)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/column.TargetRows, "ns/row")
			})
		}
	}
}

// TestKernelsAllocateNothing is not parallel, because it counts the allocations of the whole process.
func TestKernelsAllocateNothing(t *testing.T) {
	for name, text := range families() {
		if raceOn && (name == "matches" || name == "replace") {
			continue
		}
		for _, nth := range []int{0, 10} {
			k, batch := kernelOver(t, text, nth)
			k.eval(batch)
			if n := testing.AllocsPerRun(20, func() { k.eval(batch) }); n > 1 {
				t.Errorf("%s: %v allocations per batch", name, n)
			}
		}
	}
}
