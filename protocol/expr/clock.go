package expr

import (
	"encoding/binary"
	"time"
)

// Clock reads written times one after the other; most are of the same minute as the one before. Make it with NewClock.
// One goroutine uses it.
type Clock struct {
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

// NewClock makes a Clock that reads times without a zone in loc.
func NewClock(loc *time.Location) Clock { return Clock{loc: loc} }

// ParseTimestamp reads one time as Clock.Parse does.
func ParseTimestamp[T string | []byte](text T, loc *time.Location) (micros int64, ok bool) {
	c := NewClock(loc)
	return c.Parse([]byte(text))
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

// Parse reads RFC 3339, `YYYY-MM-DD hh:mm:ss[.ffffff]` with or without a zone, or `YYYY-MM-DD`, which is midnight. The T
// between date and time and the Z may be small letters, a space may stand for the T, and a zone is Z, ±hh:mm, ±hhmm or
// ±hh. A time without a zone is read as LocalOffset says. Decimals beyond microseconds are cut off. Years go from 1 to
// 9999, and seconds from 0 to 59: an instant counts no leap seconds, so the text of one is no time. The result is in
// microseconds since 1970-01-01T00:00:00Z; ok is false for any other text.
func (c *Clock) Parse(s []byte) (micros int64, ok bool) {
	if len(s) == len(time.DateOnly) {
		return c.midnight(s)
	}
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
	} else if offset, good = distanceOf(rest); !good {
		return 0, false
	}
	t += fraction - offset
	return t, t >= minTime && t <= maxTime
}

// midnight reads YYYY-MM-DD.
func (c *Clock) midnight(s []byte) (int64, bool) {
	t, good := dateOf(s)
	if !good {
		return 0, false
	}
	t -= c.offsetAt(t)
	return t, t >= minTime && t <= maxTime
}

// toSecond reads YYYY-MM-DD hh:mm:ss. Most records are of the same minute as the one before.
func (c *Clock) toSecond(s []byte) (int64, bool) {
	prefix := [2]uint64{binary.LittleEndian.Uint64(s[:8]), binary.LittleEndian.Uint64(s[8:16])}
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

// distanceOf reads Z, ±hh, ±hhmm or ±hh:mm in microseconds.
func distanceOf(s []byte) (int64, bool) {
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
func (c *Clock) offsetAt(local int64) int64 {
	if c.loc == nil || c.loc == time.UTC {
		return 0
	}
	if local -= (local%minute + minute) % minute; !c.known || c.minute != local {
		c.minute, c.offset, c.known = local, LocalOffset(local, c.loc), true
	}
	return c.offset
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
