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

var pressSchema = expr.Schema{
	{Name: "ts", Type: expr.Timestamp},
	{Name: "machine", Type: expr.String},
	{Name: "state", Type: expr.String},
	{Name: "temp", Type: expr.Float},
	{Name: "vibration", Type: expr.Float},
	{Name: "count", Type: expr.Int},
	{Name: "scrap", Type: expr.Int},
}

func pressText(format string) []byte {
	var text strings.Builder
	for i := range 4000 {
		fmt.Fprintf(&text, format+"\n", i%60, i%8, 60+float64(i%400)/10, 0.1+float64(i%17)/100, i%5, i%2)
	}
	return []byte(text.String())
}

func benchmark(b *testing.B, d decode.Decoder, schema expr.Schema, text []byte) {
	b.Helper()
	batch := column.NewBatch(schema)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if r := d.Decode(batch, decode.Input{Text: text, Final: true, MaxRows: column.TargetRows}); r.Failed.Count > 0 || batch.Len != 4000 {
			b.Fatal(r.Failed, batch.Len)
		}
	}
}

const (
	pressJSON = `{"ts":"2026-01-01T00:00:%02dZ","machine":"M%d","order_id":"WO-10023","state":"RUN","temp":%.2f,"vibration":%.4f,"count":%d,"scrap":%d}`
	pressCSV  = `2026-01-01T00:00:%02dZ;M%d;WO-10023;RUN;%.2f;%.4f;%d;%d`
)

func BenchmarkJSON(b *testing.B) {
	text := pressText(pressJSON)
	b.Run("all", func(b *testing.B) { benchmark(b, decode.NewJSON(pressSchema, time.UTC), pressSchema, text) })
	b.Run("three", func(b *testing.B) {
		schema := expr.Schema{pressSchema[0], pressSchema[1], pressSchema[3]}
		benchmark(b, decode.NewJSON(schema, time.UTC), schema, text)
	})
}

func BenchmarkCSV(b *testing.B) {
	names := []string{"ts", "machine", "order_id", "state", "temp", "vibration", "count", "scrap"}
	text := pressText(pressCSV)
	b.Run("all", func(b *testing.B) {
		benchmark(b, decode.NewCSV(pressSchema, names, ';', time.UTC), pressSchema, text)
	})
	b.Run("three", func(b *testing.B) {
		schema := expr.Schema{pressSchema[0], pressSchema[1], pressSchema[3]}
		benchmark(b, decode.NewCSV(schema, names, ';', time.UTC), schema, text)
	})
}

func TestDecodingAllocatesNothingPerRecord(t *testing.T) {
	names := []string{"ts", "machine", "order_id", "state", "temp", "vibration", "count", "scrap"}
	for name, d := range map[string]decode.Decoder{
		pressJSON: decode.NewJSON(pressSchema, time.UTC), pressCSV: decode.NewCSV(pressSchema, names, ';', time.UTC),
	} {
		text, batch := pressText(name), column.NewBatch(pressSchema)
		in := decode.Input{Text: text, Final: true, MaxRows: column.TargetRows}
		d.Decode(batch, in)
		if n := testing.AllocsPerRun(5, func() { d.Decode(batch, in) }); n > 0 {
			t.Errorf("%s: %v allocations for 4000 records", name, n)
		}
	}
}
