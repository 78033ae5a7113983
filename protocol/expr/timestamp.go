package expr

import "time"

// clockTime is what a clock shows.
type clockTime struct{ hour, minute, second, micros int }

// instantOf is the instant at which a calendar and a clock in loc show these; ok is false where they show no such time.
func instantOf(year, month, day int, c clockTime, loc *time.Location) (micros int64, ok bool) {
	if year == 0 || c.hour > 23 || c.minute > 59 || c.second > 59 {
		return 0, false
	}
	local := time.Date(year, time.Month(month), day, c.hour, c.minute, c.second, c.micros*int(time.Microsecond), time.UTC)
	if local.Day() != day || int(local.Month()) != month {
		return 0, false
	}
	micros = local.UnixMicro() - LocalOffset(local.UnixMicro(), loc)
	if y := time.UnixMicro(micros).UTC().Year(); y < 1 || y > 9999 {
		return 0, false
	}
	return micros, true
}

// LocalOffset is the distance in microseconds from UTC of a time that a clock in loc shows; local is that time as if it
// were in UTC, in microseconds since 1970. When clocks change, it reads as PostgreSQL does: a time that comes twice is
// the second of the two, and one that is left out has the distance that held before the change. (time.Date promises
// neither, and differs from zone to zone.)
func LocalOffset(local int64, loc *time.Location) int64 {
	if loc == time.UTC {
		return 0
	}
	// No zone is a day away from UTC, so that these are before and after the instant whichever it is.
	const day = int64(24 * time.Hour / time.Microsecond)
	before, after := offsetAt(local-day, loc), offsetAt(local+day, loc)
	if before == after || offsetAt(local-after, loc) == after {
		return after
	}
	return before
}

// FirstInstant is when a clock in loc first shows a time, or a later one where it leaves that out. Both are in
// microseconds, the time as if it were in UTC. It differs from LocalOffset where a time comes twice, and is for what
// begins at a time of day, which must not begin twice.
func FirstInstant(local int64, loc *time.Location) int64 {
	if loc == time.UTC {
		return local
	}
	const day = int64(24 * time.Hour / time.Microsecond)
	before, after := offsetAt(local-day, loc), offsetAt(local+day, loc)
	switch {
	case before == after || offsetAt(local-before, loc) == before:
		return local - before
	case offsetAt(local-after, loc) == after:
		return local - after
	}
	change, _ := time.UnixMicro(local - before).In(loc).ZoneBounds()
	return change.UnixMicro()
}

// offsetAt is the distance of loc from UTC at an instant; both are in microseconds.
func offsetAt(instant int64, loc *time.Location) int64 {
	_, seconds := time.UnixMicro(instant).In(loc).Zone()
	return int64(seconds) * int64(time.Second/time.Microsecond)
}

// FormatTimestamp writes microseconds since 1970 in RFC 3339, in UTC, with as many decimals as needed.
func FormatTimestamp(micros int64) string {
	return time.UnixMicro(micros).UTC().Format("2006-01-02T15:04:05.999999Z07:00")
}

// timeReader takes the parts of a timestamp off the front of a text; bad is set by the first part that is not there.
type timeReader struct {
	text string
	bad  bool
}

func (r *timeReader) take(c byte) bool {
	if r.text == "" || r.text[0] != c {
		return false
	}
	r.text = r.text[1:]
	return true
}

func (r *timeReader) expect(c byte) {
	if !r.take(c) {
		r.bad = true
	}
}

func (r *timeReader) digits(n int) int {
	if len(r.text) < n {
		r.bad = true
		return 0
	}
	value := 0
	for i := range n {
		c := r.text[i]
		if c < '0' || c > '9' {
			r.bad = true
			return 0
		}
		value = value*10 + int(c-'0')
	}
	r.text = r.text[n:]
	return value
}
