package engine

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// maxCarryAge is how long before a window a reading can be and still say what held at the window's start.
const maxCarryAge = int64(7 * 24 * time.Hour / time.Microsecond)

// frames says where the groups lie in time and which belong to the same key. The aggregate fills it.
type frames struct {
	// starts and ends are the bounds of each group's window.
	starts, ends []int64
	// nexts is the start of the window behind it where windows hop, else nil: there it is the end.
	nexts []int64
	// keys numbers the grouping values of each group in the aggregate's keyring.
	keys []int32
}

// next is the start of the window behind the group's.
func (f *frames) next(g int32) int64 {
	if f.nexts == nil {
		return f.ends[g]
	}
	return f.nexts[g]
}

// reading is a value and when it was read.
type reading[T number] struct {
	at    int64
	value T
}

// compareTimes orders readings by time alone: of equal times the order of arrival stays.
func compareTimes[T number](a, b reading[T]) int { return cmp.Compare(a.at, b.at) }

// carried is the last reading of a key before the windows that are open.
type carried[T number] struct {
	reading[T]
	set bool
}

// holds says whether the reading can say what held in a window. It lies within the window itself only where an earlier run
// has closed that window before.
func (c *carried[T]) holds(start, end int64) bool {
	return c.set && c.at < end && (c.at >= start || start-c.at <= maxCarryAge)
}

// timedAcc is the aggregates along time. A group's readings are sorted by time when its window closes, so that the order
// of arrival matters only where times are equal; the last reading before the window stands at its start.
type timedAcc[T number] struct {
	samples[reading[T]]
	cells  cells[T]
	frames *frames
	value  func(c *column.Column, row int32) T
	// fold appends the result of readings in order, of which there is at least one, and the window's end.
	fold func(dst *column.Column, list []reading[T], end int64)

	carry []carried[T]
}

func newTimed[T number](c cells[T], f *frames) *timedAcc[T] {
	put := func(dst []byte, r, before reading[T]) []byte {
		return c.put(binary.AppendVarint(dst, r.at-before.at), r.value)
	}
	get := func(r *reader, before reading[T]) reading[T] {
		return reading[T]{at: before.at + r.varint(), value: c.get(r)}
	}
	return &timedAcc[T]{samples: samples[reading[T]]{put: put, get: get}, cells: c, frames: f}
}

// newTimedAccumulator makes the aggregates along time; ok is false when it is none of them.
func newTimedAccumulator(call *flowdef.AggregateCall, f *frames) (acc accumulator, ok bool) {
	ofFloat := func(c *column.Column, row int32) float64 { return c.Floats[row] }
	arg := expr.Invalid
	if call.Arg != nil {
		arg = call.Arg.Type
	}
	switch {
	case call.Func == "increase" && arg == expr.Int:
		a := newTimed(intCells(), f)
		a.value, a.fold = func(c *column.Column, row int32) int64 { return c.Ints[row] }, foldIntIncrease
		return a, true
	case call.Func == "duration_where" && arg == expr.Bool:
		a := newTimed(intCells(), f)
		a.value, a.fold = boolAsInt, foldDuration
		return a, true
	case arg != expr.Float:
		return nil, false
	}
	a := newTimed(floatCells(), f)
	a.value = ofFloat
	switch call.Func {
	case "increase":
		a.fold = foldFloatIncrease
	case "rate":
		a.fold = foldRate
	case "time_weighted_avg":
		a.fold = foldTimeWeighted
	default:
		return nil, false
	}
	return a, true
}

func boolAsInt(c *column.Column, row int32) int64 {
	if c.Bools[row] {
		return 1
	}
	return 0
}

func (a *timedAcc[T]) update(arg *column.Column, u updates) error {
	nulls := arg.HasNulls()
	for i, row := range u.rows {
		if !nulls || !arg.Null(int(row)) {
			a.add(u.groups[i], reading[T]{at: u.times[row], value: a.value(arg, row)})
		}
	}
	return nil
}

// result also notes the last reading before the next window. So it is called once for every group, for the windows of a
// key in the order of time.
func (a *timedAcc[T]) result(dst *column.Column, groups []int32) {
	for _, g := range groups {
		start, key := a.frames.starts[g], a.frames.keys[g]
		last := &a.carry[key]
		// The first place is for what is carried.
		list := a.of(append(a.scratch[:0], last.reading), g)
		a.scratch = list
		slices.Reverse(list[1:])
		if !slices.IsSortedFunc(list[1:], compareTimes[T]) {
			slices.SortStableFunc(list[1:], compareTimes[T])
		}
		before := 1
		if last.holds(start, a.frames.ends[g]) && (len(list) == 1 || last.at <= list[1].at) {
			list[0].at = max(start, last.at)
		} else {
			list, before = list[1:], 0
		}
		if len(list) == 0 {
			dst.AppendNull()
			continue
		}
		a.fold(dst, list, a.frames.ends[g])
		for _, r := range slices.Backward(list[before:]) {
			if r.at < a.frames.next(g) {
				if !last.set || r.at >= last.at {
					*last = carried[T]{reading: r, set: true}
				}
				break
			}
		}
	}
}

// foldIntIncrease adds in 128 bits, of which the differences of 64-bit counters can need more than 64.
func foldIntIncrease(dst *column.Column, list []reading[int64], _ int64) {
	var hi, lo, carry uint64
	for i := 1; i < len(list); i++ {
		from, to := list[i-1].value, list[i].value
		if to < from {
			from = min(0, to)
		}
		lo, carry = bits.Add64(lo, uint64Of(to)-uint64Of(from), 0)
		hi += carry
	}
	if hi > 0 || lo>>63 > 0 {
		dst.AppendNull()
		return
	}
	dst.AppendInt(int64(lo))
}

func increaseOf(list []reading[float64]) float64 {
	sum := 0.0
	for i := 1; i < len(list); i++ {
		from, to := list[i-1].value, list[i].value
		if to < from {
			from = min(0, to)
		}
		sum += to - from
	}
	return sum
}

func foldFloatIncrease(dst *column.Column, list []reading[float64], _ int64) {
	dst.AppendFloat(increaseOf(list))
}

func foldRate(dst *column.Column, list []reading[float64], end int64) {
	dst.AppendFloat(increaseOf(list) / seconds(end-list[0].at))
}

func seconds(micros int64) float64 { return float64(micros) / float64(microsPerSec) }

// foldTimeWeighted joins readings of one value first, so that what did not change is exactly its own mean.
func foldTimeWeighted(dst *column.Column, list []reading[float64], end int64) {
	total, from, varied := 0.0, list[0], false
	for _, r := range list[1:] {
		switch {
		case r.at == from.at:
			from = r
		case !equalFloat(r.value, from.value):
			total += from.value * float64(r.at-from.at)
			from, varied = r, true
		}
	}
	if !varied {
		dst.AppendFloat(from.value)
		return
	}
	total += from.value * float64(end-from.at)
	dst.AppendFloat(total / float64(end-list[0].at))
}

func foldDuration(dst *column.Column, list []reading[int64], end int64) {
	var held int64
	for i, r := range list {
		until := end
		if i+1 < len(list) {
			until = list[i+1].at
		}
		held += r.value * (until - r.at)
	}
	dst.AppendFloat(seconds(held))
}
