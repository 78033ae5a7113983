package sqloracle

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/outfeed/outfeed/protocol/expr"
)

// table is one source's rows. Values are nil, bool, int64 (timestamps as microseconds), float64 and string.
type table struct {
	Name   string
	Schema expr.Schema
	Rows   [][]any
}

// word is a text: mostly one of a few, so that groups and joins meet.
func word(r *rand.Rand) string {
	return pick(r, "", "M1", "M2", "M17", "RUN", "IDLE", "a'b", `\`, `"q"`, " x ", "Ö l", "😀", "z\u0301", "line\nbreak")
}

// moment is a time: mostly near a clock change of Europe, with many duplicates, and a few far away.
func moment(r *rand.Rand) time.Time {
	switch r.IntN(12) {
	case 0:
		return time.Date(1969, 12, 31, 23, 59, 59, 999_999_000, time.UTC)
	case 1:
		return time.Date(2, 1, 1, 0, 0, 0, 1000, time.UTC)
	case 2:
		return time.Date(9998, 12, 31, 23, 59, 59, 0, time.UTC)
	}
	base := time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC)
	return base.Add(time.Duration(r.IntN(240)) * 15 * time.Second).Add(time.Duration(r.IntN(2)*r.IntN(1_000_000)) * time.Microsecond)
}

// value is a random value; gentle ones add up without overflow.
func value(r *rand.Rand, t expr.Type) any {
	if r.IntN(7) == 0 {
		return nil
	}
	switch t { //nolint:exhaustive // the others have no column here
	case expr.Bool:
		return r.IntN(2) == 0
	case expr.Int:
		if r.IntN(8) == 0 {
			return pick[int64](r, math.MaxInt64, math.MinInt64, math.MaxInt64-1, 1<<53+1, -1)
		}
		return int64(r.IntN(12) - 4)
	case expr.Float:
		if r.IntN(6) == 0 {
			return pick(r, math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 1e15, 0.1)
		}
		return float64(r.IntN(400)-150) / 4
	case expr.Timestamp:
		return moment(r).UnixMicro()
	default:
		return word(r)
	}
}

// randomTable has a row number, a time that is never null, and a few more columns under the prefix.
func randomTable(r *rand.Rand, name, prefix string, schema expr.Schema) *table {
	if schema == nil {
		schema = expr.Schema{{Name: prefix + "rid", Type: expr.Int}, {Name: prefix + "ts", Type: expr.Timestamp}}
		for i := range 2 + r.IntN(5) {
			schema = append(schema, expr.Column{Name: prefix + string(rune('a'+i)), Type: pick(r, types()...)})
		}
		if r.IntN(3) == 0 {
			schema = append(schema, expr.Column{Name: prefix + "Werkzeug Nr.", Type: expr.String})
		}
	}
	t := &table{Name: name, Schema: schema}
	for i := range pick(r, 0, 1, 3, 20, 60, 200) {
		row := make([]any, len(schema))
		for c, col := range schema {
			row[c] = value(r, col.Type)
		}
		row[0] = int64(i)
		for row[1] == nil {
			row[1] = value(r, expr.Timestamp)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}
