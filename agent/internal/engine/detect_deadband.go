package engine

import (
	"math"

	"github.com/outfeed/outfeed/agent/internal/column"
)

// deadband passes the rows on whose value differs from the last one passed by more than the tolerance, or that come when
// the last one is old enough.
type deadband struct {
	*detector
	change, fraction float64
	every            int64
	live             []int
	group            []passed
	sel              []int32
	kept             *column.Batch
}

// passed is the last row of a group that was passed on; before the first, at is noTime.
type passed struct {
	value float64
	at    int64
}

func newDeadband(d *detector) *deadband {
	s := d.plan.Detect
	b := &deadband{
		detector: d, change: s.Change, fraction: s.Percent / 100, every: math.MaxInt64, kept: column.NewBatch(d.plan.Output),
	}
	if s.Every > 0 {
		b.every = s.Every.Microseconds()
	}
	return b
}

func (b *deadband) groupSize() int { return 16 }

func (b *deadband) grow(n int) {
	old := len(b.group)
	b.group = growTo(b.group, n)
	for g := old; g < n; g++ {
		b.group[g].at = noTime
	}
}

func (b *deadband) run(r readings) error {
	b.sel = b.sel[:0]
	for i, g := range r.groups {
		row := r.rows[i]
		p, v, t := &b.group[g], r.floats[row], r.times[row]
		if p.at != noTime && math.Abs(v-p.value) <= max(b.change, b.fraction*math.Abs(p.value)) && t-p.at < b.every {
			continue
		}
		p.value, p.at = v, t
		b.sel = append(b.sel, row)
	}
	b.counts.out += int64(len(b.sel))
	if len(b.sel) == r.batch.Len {
		return b.emit(r.batch)
	}
	for _, pos := range b.live {
		b.kept.Cols[pos].Gather(&r.batch.Cols[pos], b.sel)
	}
	b.kept.Len = len(b.sel)
	return b.emit(b.kept)
}

func (b *deadband) finish([]int32) error { return nil }

func (b *deadband) encode(dst []byte, g int32) []byte {
	return putInt(putFloat(dst, b.group[g].value), b.group[g].at)
}

func (b *deadband) decode(r *reader, g int32) {
	b.group[g] = passed{value: r.float(), at: r.int()}
	if v := b.group[g].value; v-v != 0 {
		r.err = errCorruptState
	}
}

// describe leaves the width out: the last value passed means the same whatever comes next.
func (b *deadband) describe() string { return "deadband" }
