package decode

import (
	"time"

	"github.com/outfeed/outfeed/protocol/expr"
)

// clock turns the written times of one connection into instants.
type clock struct {
	loc *time.Location
	// minute and offset cache the last local minute and its distance from UTC in microseconds.
	minute, offset int64
	known          bool
	// The first sixteen bytes of the last written time, in two words, and the local minute that they are.
	prefix [2]uint64
	local  int64
}

const (
	microsecond = int64(1)
	second      = 1_000_000 * microsecond
	minute      = 60 * second
	hour        = 60 * minute
	day         = 24 * hour
)

// The instants that can be written with a four-digit year, in microseconds.
const (
	minTime = -62135596800 * second
	maxTime = 253402300800*second - 1
)

// ParseTime reads a time as it is written in records: RFC 3339, or `YYYY-MM-DD hh:mm:ss[.ffffff]` with or without a
// zone, in loc when there is none. It gives UTC microseconds; further digits are cut off.
func ParseTime(text []byte, loc *time.Location) (int64, bool) {
	c := clock{loc: loc}
	return c.parse(text)
}

func two(s []byte) int64 {
	a, b := s[0]-'0', s[1]-'0'
	if a > 9 || b > 9 {
		return -1 << 20
	}
	return int64(a)*10 + int64(b)
}

// layout is the part of a written time that is always there.
const layout = "2006-01-02 15:04:05"

// parse reads a written time.
func (c *clock) parse(s []byte) (int64, bool) {
	if len(s) < len(layout) || (s[10] != ' ' && s[10] != 'T' && s[10] != 't') {
		return 0, false
	}
	t, good := c.toSecond(s)
	rest, fraction, fractionGood := fractionOf(s[len(layout):])
	if !good || !fractionGood {
		return 0, false
	}
	var offset int64
	if len(rest) == 0 {
		offset = c.offsetAt(t)
	} else if offset, good = zoneOf(rest); !good {
		return 0, false
	}
	t += fraction - offset
	return t, t >= minTime && t <= maxTime
}

// toSecond reads YYYY-MM-DD hh:mm:ss. Most records are of the same minute as the one before.
func (c *clock) toSecond(s []byte) (int64, bool) {
	prefix := [2]uint64{load8(s, 0), load8(s, 8)}
	if prefix == c.prefix && s[16] == ':' {
		sec := two(s[17:])
		return c.local + sec*second, sec >= 0 && sec <= 59
	}
	date, good := dateOf(s)
	inDay, alsoGood := timeOf(s[11:])
	t := date + inDay
	if good && alsoGood {
		c.prefix, c.local = prefix, t-t%minute
		if t%minute < 0 { // before 1970
			c.local -= minute
		}
	}
	return t, good && alsoGood
}

// dateOf reads YYYY-MM-DD.
func dateOf(s []byte) (int64, bool) {
	year, month, dayOfMonth := two(s)*100+two(s[2:]), two(s[5:]), two(s[8:])
	if s[4] != '-' || s[7] != '-' || year < 1 || month < 1 || month > 12 || dayOfMonth < 1 || dayOfMonth > daysIn(year, month) {
		return 0, false
	}
	return daysSinceEpoch(year, month, dayOfMonth) * day, true
}

// timeOf reads hh:mm:ss.
func timeOf(s []byte) (int64, bool) {
	h, m, sec := two(s), two(s[3:]), two(s[6:])
	if s[2] != ':' || s[5] != ':' || h < 0 || h > 23 || m < 0 || m > 59 || sec < 0 || sec > 59 {
		return 0, false
	}
	return h*hour + m*minute + sec*second, true
}

// fractionOf reads `.ffffff` in microseconds and gives what follows.
func fractionOf(s []byte) (rest []byte, fraction int64, good bool) {
	if len(s) == 0 || s[0] != '.' {
		return s, 0, true
	}
	p, unit := 1, second/10
	for p < len(s) && s[p]-'0' <= 9 {
		fraction += int64(s[p]-'0') * unit
		unit /= 10
		p++
	}
	return s[p:], fraction, p > 1
}

// zoneOf reads Z, ±hh, ±hhmm or ±hh:mm in microseconds.
func zoneOf(s []byte) (int64, bool) {
	if len(s) == 1 && s[0]|0x20 == 'z' {
		return 0, true
	}
	if len(s) < 3 || (s[0] != '+' && s[0] != '-') {
		return 0, false
	}
	h, m := two(s[1:]), int64(0)
	switch {
	case len(s) == 5:
		m = two(s[3:])
	case len(s) == 6 && s[3] == ':':
		m = two(s[4:])
	case len(s) != 3:
		return 0, false
	}
	if h < 0 || h > 23 || m < 0 || m > 59 {
		return 0, false
	}
	offset := h*hour + m*minute
	if s[0] == '-' {
		offset = -offset
	}
	return offset, true
}

// offsetAt is the zone's distance from UTC at a local time.
func (c *clock) offsetAt(local int64) int64 {
	if c.loc == nil || c.loc == time.UTC {
		return 0
	}
	if local -= (local%minute + minute) % minute; !c.known || c.minute != local {
		c.minute, c.offset, c.known = local, expr.LocalOffset(local, c.loc), true
	}
	return c.offset
}

// epochMillis is the instant of a count of milliseconds.
func epochMillis(ms int64) (int64, bool) {
	if ms < minTime/1000 || ms > maxTime/1000 {
		return 0, false
	}
	return ms * 1000, true
}

func daysIn(year, month int64) int64 {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSinceEpoch counts the days from 1970-01-01 in the proleptic Gregorian calendar, for years from 1 on. Counting
// years from March puts the leap day last, so that the days before a month follow from 153 days in five months.
func daysSinceEpoch(year, month, dayOfMonth int64) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	return year*365 + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + dayOfMonth - 1 - 719468
}
