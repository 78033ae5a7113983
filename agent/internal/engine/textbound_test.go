package engine

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// TestASpilledBlockEndsAtItsRowsOrItsText holds that what is read back at once is bounded however long the texts are, and
// that no row is lost at the ends of blocks.
func TestASpilledBlockEndsAtItsRowsOrItsText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		// lengths are the lengths of the texts, over and over; a block may have the longest of them at least.
		lengths    []int
		rows, most int
	}{
		{"short", []int{3}, 3 * spillRows, batchText},
		{"some KB", []int{1000, 3000}, spillRows, batchText},
		{"30 KB", []int{30_000}, 200, batchText},
		{"longer than a block", []int{5, 300_000, 0}, 60, 300_000 + spillText},
		{"8 MiB", []int{10, 8 << 20, 10}, 7, 8<<20 + spillText},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var cols [2]column.Column
			cols[0].Type, cols[1].Type = expr.Int, expr.String
			for i := range c.rows {
				cols[0].AppendInt(int64(i))
				cols[1].AppendStr(bytes.Repeat([]byte{byte('a' + i%26)}, c.lengths[i%len(c.lengths)]))
			}
			w := newSpillWriter(&resources{scratch: &memScratch{}}, []expr.Type{expr.Int, expr.String})
			if err := errors.Join(w.append([]*column.Column{&cols[0], &cols[1]}, sequence(nil, c.rows)), w.finish()); err != nil {
				t.Fatal(err)
			}
			row := 0
			for r := w.reader(); ; {
				b, err := r.next()
				if errors.Is(err, io.EOF) {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				if b.Len > spillRows || len(b.Cols[1].Data) > c.most {
					t.Errorf("a block has %d rows and %d bytes of text, want %d and %d at most", b.Len, len(b.Cols[1].Data), spillRows, c.most)
				}
				for i := range b.Len {
					if b.Cols[0].Ints[i] != int64(row) || !bytes.Equal(b.Cols[1].Bytes(i), cols[1].Bytes(row)) {
						t.Fatalf("row %d came back as another", row)
					}
					row++
				}
			}
			if row != c.rows || w.rows != int64(row) {
				t.Errorf("%d rows came back of %d", row, c.rows)
			}
		})
	}
}

func TestOneLongRowThatManyMatchIsPassedOnInParts(t *testing.T) {
	t.Parallel()
	store := newRowStore([]expr.Type{expr.Int, expr.String})
	var cols [2]column.Column
	cols[0].Type, cols[1].Type = expr.Int, expr.String
	for _, n := range []int{10, batchText / 4, 3 * batchText} {
		cols[0].AppendInt(int64(n))
		cols[1].AppendStr(bytes.Repeat([]byte("x"), n))
	}
	if err := store.append([]*column.Column{&cols[0], &cols[1]}, []int32{0, 1, 2}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		rows []int32
		want int
	}{
		{"none", nil, 0},
		{"short ones", []int32{0, 0, 0}, 3},
		{"long ones", []int32{1, 1, 1, 1, 1, 1}, 4},
		{"no match", []int32{noEntry, 1, 1, 1, 1, noEntry, noEntry}, 7},
		{"one too long", []int32{2, 0, 0}, 1},
		{"one too long behind", []int32{0, 0, 2}, 2},
	} {
		if got := store.fitText([]int{0, 1}, c.rows); got != c.want {
			t.Errorf("%s: %d rows fit, want %d", c.name, got, c.want)
		}
	}
}
