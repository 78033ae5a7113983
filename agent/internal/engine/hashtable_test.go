package engine

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

var keyTestTypes = []expr.Type{expr.String, expr.Int, expr.Float, expr.Bool}

// drawKeys draws a batch of keys, few different ones, and how each reads.
func drawKeys(t *rapid.T) (k keyRows, texts []string) {
	n := rapid.IntRange(0, 80).Draw(t, "rows")
	schema := make(expr.Schema, len(keyTestTypes))
	for i, typ := range keyTestTypes {
		schema[i] = expr.Column{Name: strconv.Itoa(i), Type: typ}
	}
	b := column.NewBatch(schema)
	for row := range n {
		v := rapid.IntRange(0, 40).Draw(t, "v")
		text := strconv.Itoa(v)
		for i := range b.Cols {
			c := &b.Cols[i]
			switch null := v%7 == i; {
			case null:
				c.AppendNull()
			case i == 0:
				c.AppendStr([]byte("key " + text))
			case i == 1:
				c.Ints = append(c.Ints, int64(v))
			case i == 2:
				c.Floats = append(c.Floats, float64(v)/2)
			default:
				c.Bools = append(c.Bools, v%2 == 0)
			}
		}
		prefix := int64(rapid.IntRange(0, 1).Draw(t, "prefix"))
		k.rows, k.prefix = append(k.rows, i32(row)), append(k.prefix, prefix)
		texts = append(texts, fmt.Sprint(prefix, " ", text))
	}
	k.cols = pointersTo(b.Cols)
	return k, texts
}

func TestKeysAreNumberedInTheOrderOfTheirRowsHoweverTheirHashesCollide(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		table := newKeyTable(keyTestTypes)
		mask := rapid.SampledFrom([]uint64{0, 1, 3 << 62, 63}).Draw(rt, "mask")
		collide := func(k keyRows) []uint64 {
			h := table.hash(k)
			for i := range h {
				h[i] &= mask
			}
			return h
		}
		want := map[string]int32{}
		for range rapid.IntRange(1, 8).Draw(rt, "batches") {
			k, texts := drawKeys(rt)
			found := slices.Clone(table.lookupHashed(k, collide(k), nil))
			for i, text := range texts {
				entry, known := want[text]
				if !known {
					entry = noEntry
				}
				if found[i] != entry {
					rt.Fatalf("lookup of %q gives %d, want %d", text, found[i], entry)
				}
			}
			entries, err := table.assignHashed(k, collide(k), nil)
			if err != nil {
				rt.Fatal(err)
			}
			for i, text := range texts {
				if _, known := want[text]; !known {
					want[text] = i32(len(want))
				}
				if entries[i] != want[text] {
					rt.Fatalf("row %d with key %q is entry %d, want %d", i, text, entries[i], want[text])
				}
			}
			if table.len() != len(want) {
				rt.Fatalf("the table has %d keys, want %d", table.len(), len(want))
			}
			if !table.verify(k, entries) || !slices.Equal(table.lookupHashed(k, collide(k), nil), entries) {
				rt.Fatal("the keys are not found again")
			}
		}
	})
}

func TestTheWordOfAShortTextIsTheTextAndItsLength(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		s := rapid.SliceOfN(rapid.Byte(), 0, 7).Draw(rt, "text")
		want := uint64(len(s)) << 56
		for i, c := range s {
			want |= uint64(c) << (8 * i)
		}
		if got := shortWord(s); got != want {
			rt.Fatalf("the word of %x is %x, want %x (%d bits differ)", s, got, want, bits.OnesCount64(got^want))
		}
	})
}

// BenchmarkHashText hashes names of the lengths that are usual.
func BenchmarkHashText(b *testing.B) {
	for _, format := range []string{"s%d", "M%06d", "PO-2026-%d", "order number %08d of line A"} {
		b.Run(fmt.Sprintf(format, 1), func(b *testing.B) {
			const n = 4096
			c := column.Column{Type: expr.String}
			for i := range n {
				c.AppendStr(fmt.Appendf(nil, format, i))
			}
			table, k := newKeyTable([]expr.Type{expr.String}), keyRows{cols: []*column.Column{&c}, rows: sequence(nil, n), prefix: make([]int64, n)}
			b.ReportAllocs()
			for b.Loop() {
				table.hash(k)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n*b.N), "ns/row")
		})
	}
}
