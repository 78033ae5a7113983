//go:build !collide

package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

const hashedKeys = 1_000_000

// hashTexts gives the sorted hashes of texts as a key column behind a prefix.
func hashTexts(text func(dst []byte, i int) []byte) []uint64 {
	c := column.Column{Type: expr.String}
	var buf []byte
	for i := range hashedKeys {
		buf = text(buf[:0], i)
		c.AppendStr(buf)
	}
	return hashColumns(&c)
}

func hashColumns(cols ...*column.Column) []uint64 {
	types := make([]expr.Type, len(cols))
	for i, c := range cols {
		types[i] = c.Type
	}
	h := newKeyTable(types).hash(keyRows{cols: cols, rows: sequence(nil, hashedKeys), prefix: make([]int64, hashedKeys)})
	slices.Sort(h)
	return h
}

func intKeys(value func(i int) int64) *column.Column {
	c := &column.Column{Type: expr.Int, Ints: make([]int64, hashedKeys)}
	for i := range hashedKeys {
		c.Ints[i] = value(i)
	}
	return c
}

// The keys are different, so that two equal hashes are a collision. Of a million keys whose hashes were random one in
// thirty million sets would have one.
func TestHashesOfPlainKeysDoNotCollide(t *testing.T) {
	t.Parallel()
	const n = hashedKeys
	number := func(format string) func() []uint64 {
		return func() []uint64 {
			return hashTexts(func(dst []byte, i int) []byte { return fmt.Appendf(dst, format, i) })
		}
	}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the numbers of a test
	for name, hashes := range map[string]func() []uint64{
		"s1":           number("s%d"),
		"M001":         number("M%03d"),
		"orders":       number("PO-2026-%d"),
		"long orders":  number("order number %08d of line A"),
		"plain digits": number("%d"),
		"repeats": func() []uint64 {
			return hashTexts(func(dst []byte, i int) []byte {
				dst = append(dst, 'x')
				for i++; i > 0; i /= 4 { // the leading digit is never 0, so that the texts differ
					dst = append(dst, '1'+byte(i%4))
				}
				return append(dst, '9')
			})
		},
		"sequential": func() []uint64 { return hashColumns(intKeys(func(i int) int64 { return int64(i) })) },
		"times": func() []uint64 {
			return hashColumns(intKeys(func(i int) int64 { return 1_760_000_000_000_000 + 60_000_000*int64(i) }))
		},
		"high bits": func() []uint64 { return hashColumns(intKeys(func(i int) int64 { return int64(i) << 44 })) },
		"random": func() []uint64 {
			return hashColumns(intKeys(func(i int) int64 { return int64(i) ^ random.Int64N(1<<40)<<20 }))
		},
		"pairs": func() []uint64 {
			return hashColumns(intKeys(func(i int) int64 { return int64(i % 1000) }), intKeys(func(i int) int64 { return int64(i / 1000) }))
		},
		"floats": func() []uint64 {
			c := &column.Column{Type: expr.Float}
			for i := range n {
				c.Floats = append(c.Floats, float64(i))
			}
			return hashColumns(c)
		},
	} {
		h := hashes()
		for i := 1; i < len(h); i++ {
			if h[i] == h[i-1] {
				t.Errorf("%s: two of %d keys have the hash %x", name, n, h[i])
				break
			}
		}
		spreadsEvenly(t, name, h)
	}
}

// spreadsEvenly checks both ends of the hashes: the low bits choose places in a table, the high ones the part of what is
// spilled.
func spreadsEvenly(t *testing.T, name string, hashes []uint64) {
	t.Helper()
	low, high := map[uint64]int{}, map[uint64]int{}
	for _, v := range hashes {
		low[v&0xffff]++
		high[v>>48]++
	}
	for end, used := range map[string]map[uint64]int{"low": low, "high": high} {
		most := 0
		for _, count := range used {
			most = max(most, count)
		}
		if len(used) < 1<<15 || most > 10*len(hashes)>>16 {
			t.Errorf("%s: the %s 16 bits have %d values, one of them %d times", name, end, len(used), most)
		}
	}
}
