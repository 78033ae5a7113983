package engine

import (
	"fmt"
	"math"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// baselineParts is how many parts of equal length a rolling baseline is made of. The oldest goes when a new one begins,
// so that the baseline reaches back between 31/32 of `over` and the whole of it.
const baselineParts = 32

// spread is the number, the mean and the sum of squared deviations of values, kept as in B. P. Welford, "Note on a
// method for calculating corrected sums of squares and products", Technometrics 4 (1962).
type spread struct {
	n        int64
	mean, m2 float64
}

func (m *spread) add(v float64) {
	m.n++
	d := v - m.mean
	m.mean += d / float64(m.n)
	m.m2 += d * (v - m.mean)
}

// merge adds the values of o; see T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating formulae and a pairwise algorithm
// for computing sample variances", COMPSTAT 1982.
func (m *spread) merge(o *spread) {
	switch {
	case o.n == 0:
		return
	case m.n == 0:
		*m = *o
		return
	}
	n := m.n + o.n
	d := o.mean - m.mean
	share := float64(o.n) / float64(n)
	m.mean += d * share
	m.m2 += o.m2 + d*d*share*float64(m.n)
	m.n = n
}

// baselines are the rolling baselines of the groups. A baseline moves on only with the values that it learns: while an
// event lasts it stands still.
type baselines struct {
	width, min int64
	floor      float64
	group      []baseline
	// ring has baselineParts complete parts of each group; that of the current part is empty.
	ring []spread
	// moved says which groups' rings have changed since the last commit.
	moved []bool
}

type baseline struct {
	// part is the number of the current part since 1970, or noTime before the first value.
	part int64
	// current has the values of the current part, past all complete ones.
	current, past spread
}

func newBaselines(def *flowdef.DetectStep) baselines {
	return baselines{
		width: max(def.Over.Microseconds()/baselineParts, 1), min: max(def.Min, 2), floor: def.Floor,
	}
}

func (b *baselines) grow(n int) {
	old := len(b.group)
	b.group = growTo(b.group, n)
	for g := old; g < n; g++ {
		b.group[g].part = noTime
	}
	b.ring = growTo(b.ring, n*baselineParts)
	b.moved = growTo(b.moved, n)
}

func (b *baselines) groupSize() int { return 56 + 1 + 24*baselineParts }

// distance is how many standard deviations a value is away from the mean.
func (b *baselines) distance(g int32, t int64, v float64) (score, bool) {
	o := &b.group[g]
	all := o.past
	all.merge(&o.current)
	if all.n < b.min {
		return score{}, false
	}
	deviation := max(math.Sqrt(all.m2/float64(all.n-1)), b.floor)
	if deviation == 0 {
		return score{}, false
	}
	return score{value: (v - all.mean) / deviation, baseline: all.mean, since: t}, true
}

func (b *baselines) learn(g int32, t int64, v float64) {
	o := &b.group[g]
	part := (t - floorMod(t, b.width)) / b.width
	if o.part == noTime {
		o.part = part
	} else if part > o.part {
		b.turn(g, part)
	}
	o.current.add(v)
}

// turn makes another part the current one and drops what is too old.
func (b *baselines) turn(g int32, part int64) {
	o := &b.group[g]
	ring := b.parts(g)
	ring[floorMod(o.part, baselineParts)] = o.current
	if part-o.part >= baselineParts {
		clear(ring)
	}
	for q := max(o.part+1, part-baselineParts+1); q <= part; q++ {
		ring[floorMod(q, baselineParts)] = spread{}
	}
	o.part, o.current = part, spread{}
	b.moved[g] = true
	b.combine(g)
}

func (b *baselines) parts(g int32) []spread {
	return b.ring[int(g)*baselineParts : (int(g)+1)*baselineParts]
}

// combine computes past from the parts, oldest first, so that it is the same after a restart.
func (b *baselines) combine(g int32) {
	o := &b.group[g]
	ring := b.parts(g)
	o.past = spread{}
	for q := o.part - baselineParts + 1; q < o.part; q++ {
		o.past.merge(&ring[floorMod(q, baselineParts)])
	}
}

func (b *baselines) forget(g int32) {
	b.group[g] = baseline{part: noTime}
	clear(b.parts(g))
	b.moved[g] = true
}

func (b *baselines) describe() string { return fmt.Sprintf("%d %d %v", b.width, b.min, b.floor) }

func putSpread(dst []byte, m *spread) []byte {
	return putFloat(putFloat(putInt(dst, m.n), m.mean), m.m2)
}

func (r *reader) spread() spread {
	m := spread{n: r.int(), mean: r.float(), m2: r.float()}
	if m.n < 0 || m.n > 1<<53 {
		r.err = errCorruptState
	}
	return m
}

func (b *baselines) encode(dst []byte, g int32) []byte {
	return putSpread(putInt(dst, b.group[g].part), &b.group[g].current)
}

func (b *baselines) decode(r *reader, g int32) {
	b.group[g] = baseline{part: r.int(), current: r.spread()}
	if b.group[g].part == noTime && b.group[g].current.n > 0 {
		r.err = errCorruptState
	}
}

// ringMoved says whether a group's complete parts have changed since the last call.
func (b *baselines) ringMoved(g int32) bool {
	moved := b.moved[g]
	b.moved[g] = false
	return moved
}

// encodeRing appends the complete parts that hold something, each behind its place.
func (b *baselines) encodeRing(dst []byte, g int32) []byte {
	for i, m := range b.parts(g) {
		if m.n > 0 {
			dst = putSpread(append(dst, byte(i)), &m)
		}
	}
	return dst
}

func (b *baselines) decodeRing(r *reader, g int32) {
	ring := b.parts(g)
	for r.err == nil && len(r.s) > 0 {
		place := r.take(1)[0]
		m := r.spread()
		if int(place) >= len(ring) || m.n == 0 || ring[place].n > 0 {
			r.err = errCorruptState
			return
		}
		ring[place] = m
	}
	if b.group[g].part == noTime {
		r.err = errCorruptState
		return
	}
	ring[floorMod(b.group[g].part, baselineParts)] = spread{}
	b.combine(g)
}
