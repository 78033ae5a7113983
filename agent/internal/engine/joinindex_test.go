package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// indexedRows is a store of n rows with keys of the types and a number, and its index. keys is how many keys there are.
func indexedRows(tb testing.TB, r *rand.Rand, types []expr.Type, n, keys int) (*rowStore, *joinIndex) {
	tb.Helper()
	rows := newRowStore(append(slices.Clone(types), expr.Int))
	for at := 0; at < n; at += column.TargetRows {
		size := min(column.TargetRows, n-at)
		cols := keyColumns(types, size, func(int) int { return r.IntN(keys) })
		number := column.Column{Type: expr.Int}
		for i := range size {
			number.AppendInt(int64(at + i))
		}
		if err := rows.append(append(cols, &number), sequence(nil, size)); err != nil {
			tb.Fatal(err)
		}
	}
	return rows, indexRows(rows, len(types), newHasher(types))
}

// keyColumns are the columns of keys by number; every seventh key has a null in its last column.
func keyColumns(types []expr.Type, n int, key func(i int) int) []*column.Column {
	cols := make([]*column.Column, len(types))
	for c, t := range types {
		cols[c] = &column.Column{Type: t}
	}
	for i := range n {
		k := key(i)
		for c, t := range types {
			switch {
			case k%7 == 6 && c == len(types)-1:
				cols[c].AppendNull()
			case t == expr.String:
				cols[c].AppendStr(fmt.Appendf(nil, "order-%d", k))
			case t == expr.Float:
				cols[c].AppendFloat(float64(k) / 2)
			default:
				cols[c].AppendInt(int64(k / (c + 1)))
			}
		}
	}
	return cols
}

// TestJoinIndexFindsEveryRow holds the index against a map, with keys that come once, often, and never.
func TestJoinIndexFindsEveryRow(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 3)) //nolint:gosec // the numbers of a test
	for _, types := range [][]expr.Type{{expr.Int}, {expr.String}, {expr.Float}, {expr.Timestamp, expr.String}} {
		for _, size := range [][2]int{{0, 5}, {1, 5}, {100, 10_000}, {5_000, 5_000}, {70_000, 300}, {140_000, 10_000_000}} {
			n, keys := size[0], size[1]
			if testing.Short() || hashMask < 1<<30 {
				n = min(n, 200)
			}
			rows, x := indexedRows(t, r, types, n, keys)
			want := map[string][]int32{}
			text := func(cols []*column.Column, row int) (key string, whole bool) {
				var all []byte
				for _, c := range cols {
					if c.Null(row) {
						return "", false
					}
					all = append(column.AppendJSON(all, c, row), ' ')
				}
				return string(all), true
			}
			for row := range i32(rows.n) {
				var cols []*column.Column
				at := 0
				for c := range types {
					var col *column.Column
					col, at = rows.column(c, row)
					cols = append(cols, col)
				}
				if key, whole := text(cols, at); whole {
					want[key] = append(want[key], row)
				}
			}
			probes := keyColumns(types, 4096, func(int) int { return r.IntN(keys) })
			side := newKeySide(ordinals(len(types)))
			whole := side.among(probes, sequence(nil, 4096))
			found := x.find(&whole, x.hasher.hash(whole), nil)
			for i, row := range whole.rows {
				var got []int32
				for m := found[i]; m != noEntry; m = x.match(&whole, i, x.after(m)) {
					got = append(got, m)
				}
				if key, _ := text(probes, int(row)); !slices.Equal(got, want[key]) {
					t.Fatalf("%v, %d rows of %d keys: %s is in %v, not in %v", types, n, keys, key, got, want[key])
				}
			}
		}
	}
}

// BenchmarkJoinLookup finds the rows of random keys in tables of several sizes, and gathers a text and a number of each.
func BenchmarkJoinLookup(b *testing.B) {
	for _, n := range []int{50_000, 500_000, 5_000_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			types := []expr.Type{expr.Int, expr.String, expr.Int}
			rows := newRowStore(types)
			for at := 0; at < n; at += 1000 {
				cols := []*column.Column{{Type: expr.Int}, {Type: expr.String}, {Type: expr.Int}}
				for i := at; i < at+1000; i++ {
					cols[0].AppendInt(int64(i))
					cols[1].AppendStr(fmt.Appendf(nil, "C%03d", i%1000))
					cols[2].AppendInt(int64(i % 977))
				}
				if err := rows.append(cols, sequence(nil, 1000)); err != nil {
					b.Fatal(err)
				}
			}
			x := indexRows(rows, 1, newHasher(types[:1]))
			r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the numbers of a benchmark
			keys := column.Column{Type: expr.Int, Ints: make([]int64, 1<<20)}
			for i := range keys.Ints {
				keys.Ints[i] = r.Int64N(int64(n))
			}
			side, all := newKeySide([]int{0}), sequence(nil, 1<<20)
			var found []int32
			text, number := column.Column{Type: expr.String}, column.Column{Type: expr.Int}
			b.ReportAllocs()
			done := 0
			for b.Loop() {
				at := done & (1<<20 - 1)
				k := side.among([]*column.Column{&keys}, all[at:at+column.TargetRows])
				found = x.find(&k, x.hasher.hash(k), found)
				rows.gather(&text, 1, found)
				rows.gather(&number, 2, found)
				done += column.TargetRows
			}
			b.ReportMetric(float64(done)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
