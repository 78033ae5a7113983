package column_test

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

func schema() expr.Schema {
	return expr.Schema{
		{Name: "b", Type: expr.Bool},
		{Name: "i", Type: expr.Int},
		{Name: "f", Type: expr.Float},
		{Name: "s", Type: expr.String},
		{Name: "t", Type: expr.Timestamp},
		{Name: "j", Type: expr.JSON},
	}
}

// row is one row as text, for comparing.
func row(b *column.Batch, i int) string {
	out := ""
	for k := range b.Cols {
		c := &b.Cols[k]
		switch {
		case c.Null(i):
			out += "|null"
		case c.Type == expr.Bool:
			out += fmt.Sprintf("|%t", c.Bools[i])
		case c.Type == expr.Float:
			out += fmt.Sprintf("|%v", c.Floats[i])
		case c.Type == expr.Int || c.Type == expr.Timestamp:
			out += fmt.Sprintf("|%d", c.Ints[i])
		default:
			out += fmt.Sprintf("|%q", c.Bytes(i))
		}
	}
	return out
}

func drawBatch(t *rapid.T) (b *column.Batch, rows []string) {
	b = column.NewBatch(schema())
	for n := range rapid.IntRange(0, 200).Draw(t, "rows") {
		for k := range b.Cols {
			c := &b.Cols[k]
			v := rapid.IntRange(0, 9).Draw(t, "value")
			switch {
			case v == 0:
				c.AppendNull()
			case c.Type == expr.Bool:
				c.AppendBool(v > 4)
			case c.Type == expr.Float:
				c.AppendFloat(float64(v) / 2)
			case c.Type == expr.Int || c.Type == expr.Timestamp:
				c.AppendInt(int64(v))
			default:
				c.AppendStr(bytes.Repeat([]byte{'x'}, v))
			}
		}
		b.Len++
		rows = append(rows, row(b, n))
	}
	return b, rows
}

func drawSelection(t *rapid.T, n int) []int32 {
	var sel []int32
	for i := range n {
		if rapid.Bool().Draw(t, "keep") {
			sel = append(sel, int32(i))
		}
	}
	return sel
}

func TestRowsSurviveEveryWayOfMovingThem(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b, rows := drawBatch(t)
		sel := drawSelection(t, b.Len)
		gathered, appended, single, copied := column.NewBatch(schema()), column.NewBatch(schema()), column.NewBatch(schema()), column.NewBatch(schema())
		appended.AppendRow(nullRow(), 0)
		for k := range b.Cols {
			gathered.Cols[k].Gather(&b.Cols[k], sel)
			if err := appended.Cols[k].AppendRows(&b.Cols[k], sel); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range sel {
			single.AppendRow(b, int(r))
		}
		copied.CopyFrom(b)
		compacted := column.NewBatch(schema())
		compacted.CopyFrom(b)
		compacted.Compact(sel)
		if compacted.Len != len(sel) || single.Len != len(sel) || copied.Len != b.Len {
			t.Fatalf("the lengths are %d, %d and %d", compacted.Len, single.Len, copied.Len)
		}
		for i, r := range sel {
			for name, got := range map[string]string{
				"Gather": row(gathered, i), "AppendRows": row(appended, i+1), "AppendRow": row(single, i), "Compact": row(compacted, i), "CopyFrom": row(copied, int(r)),
			} {
				if got != rows[r] {
					t.Fatalf("%s makes row %d of %s, want %s", name, i, got, rows[r])
				}
			}
		}
		for k := range compacted.Cols {
			// What is added after a Compact must not inherit nulls.
			c := &compacted.Cols[k]
			if n := c.Rows(); n != len(sel) || c.Null(n) {
				t.Fatalf("column %d has %d rows", k, n)
			}
		}
	})
}

func nullRow() *column.Batch {
	b := column.NewBatch(schema())
	for k := range b.Cols {
		b.Cols[k].AppendNull()
	}
	b.Len = 1
	return b
}
