package stage

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// TestAnArenaKeepsItsValuesApart fills it again and again, looks at every value until the reset, and holds that it keeps what
// two rounds need, and no more.
func TestAnArenaKeepsItsValuesApart(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // test data
	var a arena
	fill := func(total int) {
		var want, got [][]byte
		for size := 0; size < total; {
			value := bytes.Repeat([]byte("abcdefgh")[r.IntN(8):][:1], r.IntN(2*arenaLargest))
			want, got = append(want, value), append(got, a.copyOf(value))
			size += len(value)
		}
		for i := range want {
			if got[i] == nil || !bytes.Equal(got[i], want[i]) {
				t.Fatalf("value %d of %d has changed", i, len(want))
			}
			if n := len(got[i]); n > 0 {
				got[i] = append(got[i][:n], 0xff) // nobody else's
			}
		}
	}
	fill(10 * arenaChunk)
	few := len(a.chunks)
	a.reset()
	fill(10 * arenaChunk)
	a.reset()
	if len(a.chunks) < few-1 {
		t.Errorf("%d chunks are left of %d that were used twice", len(a.chunks), few)
	}
	fill(100 * arenaChunk)
	if len(a.chunks) <= 2*few {
		t.Errorf("100 times a chunk lies in %d chunks", len(a.chunks))
	}
	a.reset()
	if len(a.chunks) > few+1 {
		t.Errorf("%d chunks are left of a round that needed many, want about %d", len(a.chunks), few)
	}
	fill(arenaChunk / 2)
	a.reset()
	if len(a.chunks) > 2 {
		t.Errorf("%d chunks are left of a round that needed one", len(a.chunks))
	}
}
