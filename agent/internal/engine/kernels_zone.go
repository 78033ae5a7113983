package engine

import (
	"fmt"
	"math"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// zoneClock knows the distance of a zone from UTC. It keeps the stretch between two changes of the clocks that it saw
// last, since the times of a stream are near one another.
type zoneClock struct {
	loc              *time.Location
	from, to, offset int64
}

// zoneArgument is the clock of the constant zone at a position of a call's arguments; UTC's when there is none.
func zoneArgument(n *expr.Node, i int) (*zoneClock, error) {
	if i >= len(n.Args) {
		return &zoneClock{loc: time.UTC, from: math.MinInt64, to: math.MaxInt64}, nil
	}
	loc, err := expr.LoadZone(n.Args[i].Value.Str)
	if err != nil {
		return nil, fmt.Errorf("%s at offset %d: %w", n.Name, n.Pos, err)
	}
	return &zoneClock{loc: loc}, nil
}

// at is the distance from UTC at an instant.
func (z *zoneClock) at(v int64) int64 {
	if v >= z.from && v < z.to {
		return z.offset
	}
	t := time.UnixMicro(v).In(z.loc)
	_, seconds := t.Zone()
	z.offset = int64(seconds) * microsPerSec
	z.from, z.to = zoneBounds(t)
	return z.offset
}

// written says whether the year of an instant has at most four digits; the zones of others are nobody's business.
func written(v int64) bool { return v >= minTime && v <= maxTime }

// timePart builds a function that takes something off a calendar or clock; local is what they show, as if in UTC.
func timePart(part func(local int64) int64) builder {
	return func(n *expr.Node) (kernel, error) {
		if len(n.Args) < 2 {
			return convert(expr.Int, ints, ints, func(v int64) (int64, bool) { return part(v), true })(n)
		}
		zone, err := zoneArgument(n, 1)
		if err != nil {
			return nil, err
		}
		return convert(expr.Int, ints, ints, func(v int64) (int64, bool) {
			if !written(v) {
				return 0, false
			}
			local := v + zone.at(v)
			return part(local), written(local)
		})(n)
	}
}

// weekdayOf is 0 for Monday; 1970 began on a Thursday.
func weekdayOf(local int64) int64 { return floorMod(floorDiv(local, microsPerDay)+3, 7) }

func buildTruncate(n *expr.Node) (kernel, error) {
	unit, err := expr.ParseTimeUnit(n.Args[1].Value.Str)
	if err != nil {
		return nil, fmt.Errorf("truncate at offset %d: %w", n.Pos, err)
	}
	if len(n.Args) < 3 {
		return convert(expr.Timestamp, ints, ints, func(v int64) (int64, bool) {
			start := unitStart(unit, v)
			return start, start <= v
		})(n)
	}
	zone, err := zoneArgument(n, 2)
	if err != nil {
		return nil, err
	}
	t := truncater{zone: zone, unit: unit, local: math.MinInt64}
	return convert(expr.Timestamp, ints, ints, t.start)(n)
}

// unitStart is the start of the unit, both as a clock shows them. It wraps around where 64 bits do not reach.
func unitStart(unit expr.TimeUnit, local int64) int64 {
	switch {
	case unit.Months > 0:
		year, month, _ := utc(local).Date()
		month -= (month - 1) % time.Month(unit.Months)
		return time.Date(year, month, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	case unit.Days == 7:
		return local - floorMod(local, microsPerDay) - weekdayOf(local)*microsPerDay
	case unit.Days > 0:
		return local - floorMod(local, microsPerDay)
	}
	return local - floorMod(local, unit.Micros)
}

// truncater truncates in a zone. Up to an hour the distance from UTC at the instant counts, so that an hour that comes
// twice is two hours. A longer unit begins when the clocks first show its start.
type truncater struct {
	zone *zoneClock
	unit expr.TimeUnit
	// local and instant are the last start, as the clocks show it and in UTC.
	local, instant int64
}

func (t *truncater) start(v int64) (int64, bool) {
	if !written(v) {
		return 0, false
	}
	offset := t.zone.at(v)
	local := unitStart(t.unit, v+offset)
	if t.unit.Micros > 0 && t.unit.Micros <= microsPerHour {
		return local - offset, local-offset >= minTime
	}
	if t.local != local {
		t.local, t.instant = local, expr.FirstInstant(local, t.zone.loc)
	}
	return t.instant, t.instant >= minTime
}

func buildAddTime(n *expr.Node) (kernel, error) {
	last := n.Args[len(n.Args)-1].Value.Str
	if len(n.Args) == 2 {
		span, err := expr.ParseSpan(last)
		if err != nil {
			return nil, fmt.Errorf("add_time at offset %d: %w", n.Pos, err)
		}
		return convert(expr.Timestamp, ints, ints, func(v int64) (int64, bool) { return addTime(v, span, 1) })(n)
	}
	unit, err := expr.ParseClockUnit(last)
	if err != nil {
		return nil, fmt.Errorf("add_time at offset %d: %w", n.Pos, err)
	}
	return rows(expr.Timestamp, ints, func(c []*column.Column, i int) (int64, bool) {
		return addTime(c[0].Ints[i], c[1].Ints[i], unit)
	}, expr.Timestamp, expr.Int)(n)
}

func addTime(v, count, unit int64) (int64, bool) {
	span, fits := mulInt(count, unit)
	sum := v + span
	return sum, fits && (sum > v) == (span > 0) && written(sum)
}

func prepareBetween(n *expr.Node) (rowOf[float64], error) {
	unit, err := expr.ParseClockUnit(n.Args[2].Value.Str)
	if err != nil {
		return nil, fmt.Errorf("time_between at offset %d: %w", n.Pos, err)
	}
	return func(c []*column.Column, i int) (float64, bool) {
		from, to := c[0].Ints[i], c[1].Ints[i]
		span := to - from
		return float64(span) / float64(unit), (span < to) == (from > 0)
	}, nil
}

func buildFormatTime(n *expr.Node) (kernel, error) {
	layout, zone, err := layoutArguments(n)
	if err != nil {
		return nil, err
	}
	return toText(ints, func(dst []byte, v int64) ([]byte, bool) {
		if !written(v) {
			return dst, false
		}
		return layout.Append(dst, v, zone.at(v))
	})(n)
}

func layoutArguments(n *expr.Node) (*expr.Layout, *zoneClock, error) {
	layout, err := expr.ParseLayout(n.Args[1].Value.Str)
	if err != nil {
		return nil, nil, fmt.Errorf("%s at offset %d: %w", n.Name, n.Pos, err)
	}
	zone, err := zoneArgument(n, 2)
	return layout, zone, err
}

func buildParseTime(n *expr.Node) (kernel, error) {
	layout, zone, err := layoutArguments(n)
	if err != nil {
		return nil, err
	}
	return fromText(expr.Timestamp, ints, func(s []byte) (int64, bool) { return layout.Read(string(s), zone.loc) })(n)
}

// buildTimestamp reads the texts that expr.ParseTimestamp takes.
func buildTimestamp(n *expr.Node) (kernel, error) {
	zone, err := zoneArgument(n, 1)
	if err != nil {
		return nil, err
	}
	return fromText(expr.Timestamp, ints, func(s []byte) (int64, bool) { return expr.ParseTimestamp(s, zone.loc) })(n)
}
