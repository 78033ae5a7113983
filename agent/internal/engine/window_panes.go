package engine

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// panes cuts time into stretches without a hole between them.
type panes interface {
	// pane gives the stretch that holds t, a time within the years 1 to 9999; its bounds may lie outside of them.
	pane(t int64) (start, end int64)
}

// newPanes cuts time into pieces of one length: since 1970 in UTC or, in a time zone, since midnight. It is nil for a
// length of less than a microsecond.
func newPanes(length time.Duration, loc *time.Location) panes {
	size := length.Microseconds()
	switch {
	case size <= 0:
		return nil
	case loc == nil:
		return grid(size)
	}
	z := &zonedPanes{zone: zone{loc: loc}, size: size}
	if size%(7*microsPerDay) == 0 {
		z.origin = 4 * microsPerDay // 1970-01-05 was a Monday
	}
	return z
}

// grid is panes of a fixed length since 1970.
type grid int64

func (g grid) pane(t int64) (start, end int64) {
	start = t - floorMod(t, int64(g))
	return start, start + int64(g)
}

// wholeTime is one pane.
type wholeTime struct{}

func (wholeTime) pane(int64) (start, end int64) { return minTime, maxTime }

// zone is a time zone with the stretch of time of one offset that was asked for last. Local times are microseconds as
// if the clock on the wall showed UTC.
type zone struct {
	loc              *time.Location
	known            bool
	from, to, offset int64
}

// at gives the offset from UTC at an instant, and from when to when it holds.
func (z *zone) at(t int64) (from, to, offset int64) {
	if !z.known || t < z.from || t >= z.to {
		at := time.UnixMicro(t).In(z.loc)
		_, seconds := at.Zone()
		z.known, z.offset = true, int64(seconds)*microsPerSec
		z.from, z.to = zoneBounds(at)
	}
	return z.from, z.to, z.offset
}

// zoneBounds is the stretch of one offset that holds an instant in its zone.
//
// Of years behind the changes that a zone lists, from 2038 on, the standard library has 365 days: the last stretch of a
// leap year ends a day too early there, so that on 31 December it does not hold the instant. No rule of a zone changes
// clocks on that day.
func zoneBounds(at time.Time) (from, to int64) {
	from, to = math.MinInt64, math.MaxInt64
	start, end := at.ZoneBounds()
	if !start.IsZero() {
		from = start.UnixMicro()
	}
	if !end.IsZero() {
		to = end.UnixMicro()
	}
	if t := at.UnixMicro(); t < from || t >= to {
		from = t - floorMod(t, microsPerDay)
		to = from + microsPerDay
	}
	return from, to
}

// reached is the first instant at which the clock on the wall shows a local time or a later one.
func (z *zone) reached(local int64) int64 {
	// No zone is a day away from UTC, so this is before it.
	t := local - microsPerDay
	for {
		from, to, offset := z.at(t)
		if c := max(local-offset, from); c < to {
			return c
		}
		t = to
	}
}

// zonedPanes are panes of one length since midnight of a time zone. Those of up to an hour are counted in time that
// passes, so that the hour that comes twice has its panes twice; longer ones go by the clock on the wall, so that a
// clock change makes one of them shorter or longer.
type zonedPanes struct {
	zone
	size, origin int64
}

func (z *zonedPanes) pane(t int64) (start, end int64) {
	from, to, offset := z.at(t)
	if z.size <= microsPerHour {
		start = t - floorMod(t+offset, z.size)
		return max(start, from), min(start+z.size, to)
	}
	local := t + offset - z.origin
	local -= floorMod(local, z.size) - z.origin
	for z.reached(local+z.size) <= t {
		local += z.size
	}
	for z.reached(local) > t {
		local -= z.size
	}
	return z.reached(local), z.reached(local + z.size)
}

// shiftPanes are the shifts of a calendar and the stretches between them.
type shiftPanes struct {
	zone
	shifts []flowdef.Shift
	// blocks are the panes that touch a block of time, sorted; they are made when a time asks for them.
	blocks map[int64][]shiftPane
}

type shiftPane struct {
	start, end int64
	// shift is a place in shiftPanes.shifts, noEntry between shifts.
	shift int
}

const (
	shiftBlock = 32 * microsPerDay
	// maxShiftBlocks bounds the memory for times far apart.
	maxShiftBlocks = 16
)

func newShiftPanes(shifts []flowdef.Shift, loc *time.Location) *shiftPanes {
	return &shiftPanes{zone: zone{loc: loc}, shifts: shifts, blocks: map[int64][]shiftPane{}}
}

func (s *shiftPanes) pane(t int64) (start, end int64) {
	p := s.find(t)
	return p.start, p.end
}

func (s *shiftPanes) outside(t int64) bool { return s.find(t).shift == noEntry }

// name is the name of the shift at a time, which must be in one.
func (s *shiftPanes) name(t int64) string { return s.shifts[s.find(t).shift].Name }

func (s *shiftPanes) find(t int64) shiftPane {
	at := t - floorMod(t, shiftBlock)
	block, ok := s.blocks[at]
	if !ok {
		if len(s.blocks) >= maxShiftBlocks {
			clear(s.blocks)
		}
		block = s.build(at)
		s.blocks[at] = block
	}
	return block[sort.Search(len(block), func(i int) bool { return block[i].end > t })]
}

// build makes the panes around a block. Every shift comes once a week, or after two where the clock skips its hour, so a margin of 16 days on both sides
// holds the shifts before and after.
func (s *shiftPanes) build(at int64) []shiftPane {
	const margin = 16 * microsPerDay
	var list []shiftPane
	for midnight := at - margin; midnight < at+shiftBlock+margin; midnight += microsPerDay {
		weekday := floorMod(midnight/microsPerDay+4, 7) // 1970-01-01 was a Thursday
		for i := range s.shifts {
			shift := &s.shifts[i]
			if !shift.Days[weekday] {
				continue
			}
			from := midnight + int64(shift.Start)*60*microsPerSec
			p := shiftPane{start: s.reached(from), end: s.reached(from + int64(shift.Minutes())*60*microsPerSec), shift: i}
			if p.start < p.end { // an hour that the clock skips is no shift
				list = append(list, p)
			}
		}
	}
	slices.SortFunc(list, func(a, b shiftPane) int { return cmp.Compare(a.start, b.start) })
	tiled := make([]shiftPane, 0, 2*len(list))
	for i, p := range list {
		if i > 0 && list[i-1].end < p.start {
			tiled = append(tiled, shiftPane{start: list[i-1].end, end: p.start, shift: noEntry})
		}
		tiled = append(tiled, p)
	}
	return tiled
}
