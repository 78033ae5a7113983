package connector_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
)

func TestAppendRowJSON(t *testing.T) {
	t.Parallel()
	b := column.NewBatch(expr.Schema{
		{Name: `a"b`, Type: expr.Bool},
		{Name: "n", Type: expr.Int},
		{Name: "f", Type: expr.Float},
		{Name: "at", Type: expr.Timestamp},
		{Name: "s", Type: expr.String},
		{Name: "j", Type: expr.JSON},
	})
	b.Cols[0].AppendBool(true)
	b.Cols[1].AppendInt(math.MinInt64)
	b.Cols[2].AppendFloat(-0.5)
	b.Cols[3].AppendInt(1_000_000)
	b.Cols[4].AppendStr([]byte("ä\n\"\\\x01\xff"))
	b.Cols[5].AppendStr([]byte("{\"x\":\n [1, 2]}"))
	for i := range b.Cols {
		b.Cols[i].AppendNull()
	}
	b.Cols[2].Floats[1] = 0
	b.Len = 2
	const want = `{"a\"b":true,"n":-9223372036854775808,"f":-0.5,"at":"1970-01-01T00:00:01Z","s":"ä\n\"\\\u0001\ufffd","j":{"x":[1,2]}}`
	if got := string(connector.AppendRowJSON(nil, b, 0)); got != want || !json.Valid([]byte(got)) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := string(connector.AppendRowJSON(nil, b, 1)), `{"a\"b":null,"n":null,"f":null,"at":null,"s":null,"j":null}`; got != want {
		t.Errorf("got %s", got)
	}
}

// FuzzRowJSON holds that any text gives valid JSON on one line.
func FuzzRowJSON(f *testing.F) {
	f.Add("plain", `{"a": 1}`, 1.5)
	f.Add("\x00\xff\n", "{", math.Inf(1))
	f.Add("\u2028", "[1,\n2]", math.NaN())
	f.Fuzz(func(t *testing.T, s, j string, v float64) {
		b := column.NewBatch(expr.Schema{{Name: s, Type: expr.String}, {Name: s + "j", Type: expr.JSON}, {Name: "v", Type: expr.Float}})
		b.Cols[0].AppendStr([]byte(s))
		b.Cols[1].AppendStr([]byte(j))
		b.Cols[2].AppendFloat(v)
		b.Len = 1
		line := connector.AppendRowJSON(nil, b, 0)
		if !json.Valid(line) {
			t.Fatalf("%q is no JSON", line)
		}
		for _, c := range line {
			if c < ' ' {
				t.Fatalf("%q is more than a line", line)
			}
		}
	})
}

func BenchmarkRowJSON(b *testing.B) {
	batch := column.NewBatch(expr.Schema{{Name: "machine", Type: expr.String}, {Name: "at", Type: expr.Timestamp}, {Name: "temp", Type: expr.Float}, {Name: "n", Type: expr.Int}})
	batch.Cols[0].AppendStr([]byte("press-07"))
	batch.Cols[1].AppendInt(1_767_225_600_000_000)
	batch.Cols[2].AppendFloat(61.25)
	batch.Cols[3].AppendInt(12)
	batch.Len = 1
	var line []byte
	b.ReportAllocs()
	for b.Loop() {
		line = connector.AppendRowJSON(line[:0], batch, 0)
	}
}
