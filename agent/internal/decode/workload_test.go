package decode_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/protocol/expr"
)

// workloadSchema is what the flow of the benchmark workloads W1 and W2 reads: everything but the line.
var workloadSchema = expr.Schema{
	{Name: "ts", Type: expr.Timestamp},
	{Name: "machine", Type: expr.String},
	{Name: "temp", Type: expr.Float},
	{Name: "vibration", Type: expr.Float},
	{Name: "state", Type: expr.String},
	{Name: "count", Type: expr.Int},
	{Name: "scrap", Type: expr.Int},
}

var workloadNames = []string{"ts", "line", "machine", "temp", "vibration", "state", "count", "scrap"}

const (
	workloadJSON   = `{"ts":%d,"line":"L%d","machine":"M%03d","temp":%.2f,"vibration":%.4f,"state":"%s","count":%d,"scrap":%d}`
	workloadSpaced = `{"ts": %d, "line": "L%d", "machine": "M%03d", "temp": %.2f, "vibration": %.4f, "state": "%s", "count": %d, "scrap": %d}`
	workloadCSV    = `%d,L%d,M%03d,%.2f,%.4f,%s,%d,%d`
	workloadQuoted = `%d,"L%d","M%03d",%.2f,%.4f,"%s",%d,%d`
)

const workloadRows = 4000

// workload writes records with numbers of varying length, so that nothing is easier to predict than in a plant.
func workload(format string) []byte {
	var text strings.Builder
	seed := uint32(1)
	next := func(n uint32) int {
		seed = seed*1664525 + 1013904223
		return int(seed>>8) % int(n)
	}
	states := []string{"RUN", "RUN", "RUN", "IDLE", "DOWN"}
	for i := range workloadRows {
		machine := next(64)
		fmt.Fprintf(&text, format+"\n", 1767225600000+int64(i)*15, machine/8+1, machine+1,
			40+float64(next(6000))/100, float64(next(20000))/10000, states[next(5)], next(200), next(4))
	}
	return []byte(text.String())
}

func benchmarkWorkload(b *testing.B, d decode.Decoder, format string) {
	b.Helper()
	text, batch := workload(format), column.NewBatch(workloadSchema)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if r := d.Decode(batch, decode.Input{Text: text, Final: true, MaxRows: column.TargetRows}); r.Failed.Count > 0 || batch.Len != workloadRows {
			b.Fatal(r.Failed, batch.Len)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/workloadRows, "ns/record")
}

func BenchmarkWorkload(b *testing.B) {
	for name, format := range map[string]string{"W1": workloadJSON, "W1 spaced": workloadSpaced} {
		b.Run(name, func(b *testing.B) { benchmarkWorkload(b, decode.NewJSON(workloadSchema, time.UTC), format) })
	}
	for name, format := range map[string]string{"W2": workloadCSV, "W2 quoted": workloadQuoted} {
		b.Run(name, func(b *testing.B) {
			benchmarkWorkload(b, decode.NewCSV(workloadSchema, workloadNames, ',', time.UTC), format)
		})
	}
}
