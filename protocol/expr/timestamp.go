package expr

import "time"

// ParseTimestamp reads RFC 3339, `YYYY-MM-DD hh:mm:ss[.ffffff]` (a T may stand for the space) or `YYYY-MM-DD`, the last
// two in loc. Decimals beyond microseconds are cut off. Years go from 1 to 9999. The result is in microseconds since
// 1970-01-01T00:00:00Z; ok is false for any other text.
func ParseTimestamp(text string, loc *time.Location) (micros int64, ok bool) {
	r := timeReader{text: text}
	year, month, day := r.date()
	if r.bad {
		return 0, false
	}
	var hour, minute, second, fraction int
	zone := loc
	if r.text != "" {
		if !r.take('T') && !r.take(' ') {
			return 0, false
		}
		hour, minute, second, fraction = r.clock()
		zone = r.zone(loc)
	}
	if r.bad || r.text != "" || year == 0 || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, fraction*int(time.Microsecond), zone)
	if d := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC); d.Day() != day || int(d.Month()) != month {
		return 0, false
	}
	if y := t.UTC().Year(); y < 1 || y > 9999 {
		return 0, false
	}
	return t.UnixMicro(), true
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

func (r *timeReader) date() (year, month, day int) {
	year = r.digits(4)
	r.expect('-')
	month = r.digits(2)
	r.expect('-')
	return year, month, r.digits(2)
}

func (r *timeReader) clock() (hour, minute, second, micros int) {
	hour = r.digits(2)
	r.expect(':')
	minute = r.digits(2)
	r.expect(':')
	second = r.digits(2)
	if !r.take('.') {
		return hour, minute, second, 0
	}
	n := 0
	for n < len(r.text) && r.text[n] >= '0' && r.text[n] <= '9' {
		if n < 6 {
			micros = micros*10 + int(r.text[n]-'0')
		}
		n++
	}
	for i := n; i < 6; i++ {
		micros *= 10
	}
	r.bad = r.bad || n == 0
	r.text = r.text[n:]
	return hour, minute, second, micros
}

func (r *timeReader) zone(loc *time.Location) *time.Location {
	sign := 1
	switch {
	case r.text == "":
		return loc
	case r.take('Z'), r.take('z'):
		return time.UTC
	case r.take('-'):
		sign = -1
	default:
		r.expect('+')
	}
	hours := r.digits(2)
	r.expect(':')
	minutes := r.digits(2)
	r.bad = r.bad || hours > 23 || minutes > 59
	return time.FixedZone("", sign*(hours*3600+minutes*60))
}
