package expr

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outfeed/outfeed/internal/excerpt"
)

// Layout is how a time is written: texts and the parts of a time between them. It is safe for concurrent use.
type Layout struct{ parts []layoutPart }

// layoutPart is a part of a time, or a text where verb is 0.
type layoutPart struct {
	verb byte
	text string
}

// LayoutPart documents a part of a layout.
type LayoutPart struct {
	// Code is how a layout writes it.
	Code string
	// Help says what it stands for.
	Help string
	// Readable says whether parse_time takes it.
	Readable bool
}

// LayoutParts lists the parts of layouts in the order of the documentation. The slice is the caller's.
func LayoutParts() []LayoutPart {
	return []LayoutPart{
		{"%Y", "the year in four digits", true},
		{"%y", "its last two digits; 69 to 99 are read as 1969 to 1999", true},
		{"%m", "the month, 01 to 12", true},
		{"%b", "the month's English short name, Jan to Dec", true},
		{"%B", "the month's English name", false},
		{"%d", "the day of the month, 01 to 31", true},
		{"%j", "the day of the year, 001 to 366", false},
		{"%H", "the hour, 00 to 23", true},
		{"%I", "the hour, 01 to 12, with %p", true},
		{"%p", "AM or PM", true},
		{"%M", "the minute, 00 to 59", true},
		{"%S", "the second, 00 to 59", true},
		{"%L", "the milliseconds in three digits", true},
		{"%f", "the decimals of the second: six digits, and one to nine are read", true},
		{"%z", "the distance from UTC, such as +01:00; +0100, +01 and Z are read too", true},
		{"%a", "the weekday's English short name, Mon to Sun", false},
		{"%A", "the weekday's English name", false},
		{"%u", "the weekday, 1 for Monday to 7 for Sunday", false},
		{"%G", "the year of the ISO week in four digits", false},
		{"%V", "the ISO week, 01 to 53", false},
		{"%s", "whole seconds since 1970", false},
		{"%%", "a percent sign", true},
	}
}

// maxLayout is the most bytes of a layout; no part writes more than ten times its length.
const maxLayout = 1000

// ParseLayout reads the layout of format_time.
func ParseLayout(text string) (*Layout, error) {
	if len(text) > maxLayout {
		return nil, fmt.Errorf("the layout has %d bytes; the most is %d", len(text), maxLayout)
	}
	known := ""
	for _, p := range LayoutParts() {
		known = strings.Join([]string{known, p.Code[1:]}, "")
	}
	l := &Layout{}
	for text != "" {
		at := strings.IndexByte(text, '%')
		if at < 0 {
			at = len(text)
		}
		if at > 0 {
			l.parts = append(l.parts, layoutPart{text: text[:at]})
		}
		if text = text[at:]; text == "" {
			break
		}
		if len(text) < 2 || strings.IndexByte(known, text[1]) < 0 {
			return nil, fmt.Errorf("the layout has the unknown part %s; the parts are %%%s", quote(excerpt.Of(text[:min(2, len(text))])), strings.Join(strings.Split(known, ""), " %"))
		}
		if text[1] == '%' {
			l.parts = append(l.parts, layoutPart{text: "%"})
		} else {
			l.parts = append(l.parts, layoutPart{verb: text[1]})
		}
		text = text[2:]
	}
	switch {
	case len(l.parts) == 0:
		return nil, errors.New(`the layout is empty; write one such as "%Y-%m-%d %H:%M:%S"`)
	case !slices.ContainsFunc(l.parts, func(p layoutPart) bool { return p.verb != 0 }):
		return nil, errors.New(`the layout has no part of a time; its parts begin with %, as in "%Y-%m-%d %H:%M:%S"`)
	}
	return l, nil
}

func (l *Layout) has(verb byte) bool {
	for _, p := range l.parts {
		if p.verb == verb {
			return true
		}
	}
	return false
}

// readable says what keeps parse_time from reading times of the layout.
func (l *Layout) readable() error {
	for _, p := range LayoutParts() {
		if !p.Readable && l.has(p.Code[1]) {
			return fmt.Errorf("a time cannot be read from %s", p.Code)
		}
	}
	seen := map[byte]bool{}
	for _, p := range l.parts {
		if p.verb != 0 && seen[p.verb] {
			return fmt.Errorf("the layout has %%%c twice", p.verb)
		}
		seen[p.verb] = true
	}
	for _, pair := range [...]string{"Yy", "mb", "HI", "Lf"} {
		if seen[pair[0]] && seen[pair[1]] {
			return fmt.Errorf("the layout has both %%%c and %%%c", pair[0], pair[1])
		}
	}
	switch {
	case !seen['Y'] && !seen['y']:
		return errors.New("the layout needs a year, %Y or %y")
	case seen['I'] != seen['p']:
		return errors.New("%I and %p belong together")
	}
	return nil
}

// Append writes an instant, in microseconds since 1970, whose zone is offset microseconds from UTC. ok is false outside
// the years 1 to 9999.
func (l *Layout) Append(dst []byte, micros, offset int64) (written []byte, ok bool) {
	t := time.UnixMicro(micros).Add(time.Duration(offset) * time.Microsecond).UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		return dst, false
	}
	for _, p := range l.parts {
		switch p.verb {
		case 0:
			dst = append(dst, p.text...)
		case 'z':
			dst = appendOffset(dst, offset)
		case 's':
			dst = strconv.AppendInt(dst, time.UnixMicro(micros).Unix(), 10)
		case 'G', 'V':
			year, week := t.ISOWeek()
			if p.verb == 'G' {
				dst = appendPadded(dst, year, 4)
			} else {
				dst = appendPadded(dst, week, 2)
			}
		default:
			dst = appendPart(dst, p.verb, t)
		}
	}
	return dst, true
}

func appendPart(dst []byte, verb byte, t time.Time) []byte {
	switch verb {
	case 'Y':
		return appendPadded(dst, t.Year(), 4)
	case 'y':
		return appendPadded(dst, t.Year()%100, 2)
	case 'm':
		return appendPadded(dst, int(t.Month()), 2)
	case 'd':
		return appendPadded(dst, t.Day(), 2)
	case 'j':
		return appendPadded(dst, t.YearDay(), 3)
	case 'b':
		return append(dst, t.Month().String()[:3]...)
	case 'B':
		return append(dst, t.Month().String()...)
	case 'a':
		return append(dst, t.Weekday().String()[:3]...)
	case 'A':
		return append(dst, t.Weekday().String()...)
	case 'u':
		return appendPadded(dst, (int(t.Weekday())+6)%7+1, 1)
	}
	return appendClock(dst, verb, t)
}

func appendClock(dst []byte, verb byte, t time.Time) []byte {
	switch verb {
	case 'H':
		return appendPadded(dst, t.Hour(), 2)
	case 'I':
		return appendPadded(dst, (t.Hour()+11)%12+1, 2)
	case 'p':
		if t.Hour() < 12 {
			return append(dst, "AM"...)
		}
		return append(dst, "PM"...)
	case 'M':
		return appendPadded(dst, t.Minute(), 2)
	case 'S':
		return appendPadded(dst, t.Second(), 2)
	case 'L':
		return appendPadded(dst, t.Nanosecond()/1_000_000, 3)
	}
	return appendPadded(dst, t.Nanosecond()/1000, 6)
}

func appendPadded(dst []byte, v, width int) []byte {
	for limit := 10; width > 1; width, limit = width-1, limit*10 {
		if v < limit {
			dst = append(dst, '0')
		}
	}
	return strconv.AppendInt(dst, int64(v), 10)
}

func appendOffset(dst []byte, micros int64) []byte {
	minutes := int(micros / 60_000_000)
	sign := byte('+')
	if micros < 0 {
		sign, minutes = '-', -minutes
	}
	dst = appendPadded(append(dst, sign), minutes/60, 2)
	return appendPadded(append(dst, ':'), minutes%60, 2)
}

// Read reads a time of the layout, in loc where the layout has no %z, in microseconds since 1970; ok is false for any
// other text.
func (l *Layout) Read(text string, loc *time.Location) (micros int64, ok bool) {
	r := layoutReader{timeReader: timeReader{text: text}, month: 1, day: 1, loc: loc}
	for _, p := range l.parts {
		if p.verb != 0 {
			r.part(p.verb)
		} else if rest, found := strings.CutPrefix(r.text, p.text); found {
			r.text = rest
		} else {
			return 0, false
		}
	}
	if r.bad || r.text != "" {
		return 0, false
	}
	if r.twelve {
		if r.hour < 1 || r.hour > 12 {
			return 0, false
		}
		r.hour = r.hour%12 + r.half
	}
	return instantOf(r.year, r.month, r.day, clockTime{r.hour, r.minute, r.second, r.micros}, r.loc)
}

type layoutReader struct {
	timeReader

	year, month, day, hour, minute, second, micros int
	// twelve says that hour counts to twelve; half is 12 in the afternoon.
	twelve bool
	half   int
	loc    *time.Location
}

func (r *layoutReader) part(verb byte) {
	switch verb {
	case 'Y':
		r.year = r.digits(4)
	case 'y':
		if r.year = 1900 + r.digits(2); r.year < 1969 {
			r.year += 100
		}
	case 'm':
		r.month = r.oneOrTwo()
	case 'b':
		r.month = r.monthName()
	case 'd':
		r.day = r.oneOrTwo()
	case 'H':
		r.hour = r.oneOrTwo()
	case 'I':
		r.hour, r.twelve = r.oneOrTwo(), true
	case 'p':
		r.half = r.halfDay()
	case 'M':
		r.minute = r.oneOrTwo()
	case 'S':
		r.second = r.oneOrTwo()
	case 'L':
		r.micros = 1000 * r.digits(3)
	case 'f':
		r.micros = r.fraction()
	case 'z':
		r.loc = r.anyZone()
	}
}

// oneOrTwo takes a number of one or two digits.
func (r *layoutReader) oneOrTwo() int {
	count := 0
	for count < 2 && count < len(r.text) && r.text[count] >= '0' && r.text[count] <= '9' {
		count++
	}
	if count == 0 {
		r.bad = true
	}
	return r.digits(count)
}

func (r *layoutReader) fraction() int {
	before := len(r.text)
	rest := strings.TrimLeft(r.text, "0123456789")
	count := before - len(rest)
	if count < 1 || count > 9 {
		r.bad = true
		return 0
	}
	value := r.digits(min(count, 6))
	for range 6 - count {
		value *= 10
	}
	r.text = rest
	return value
}

func (r *layoutReader) monthName() int {
	for m := time.January; m <= time.December; m++ {
		if len(r.text) >= 3 && strings.EqualFold(r.text[:3], m.String()[:3]) {
			r.text = r.text[3:]
			return int(m)
		}
	}
	r.bad = true
	return 0
}

func (r *layoutReader) halfDay() int {
	half := 0
	switch {
	case len(r.text) < 2:
		r.bad = true
		return 0
	case strings.EqualFold(r.text[:2], "PM"):
		half = 12
	case !strings.EqualFold(r.text[:2], "AM"):
		r.bad = true
	}
	r.text = r.text[2:]
	return half
}

// anyZone takes Z, ±hh, ±hhmm or ±hh:mm.
func (r *layoutReader) anyZone() *time.Location {
	sign := 1
	switch {
	case r.take('Z'), r.take('z'):
		return time.UTC
	case r.take('-'):
		sign = -1
	default:
		r.expect('+')
	}
	hours, minutes := r.digits(2), 0
	if r.take(':') || r.text != "" && r.text[0] >= '0' && r.text[0] <= '9' {
		minutes = r.digits(2)
	}
	r.bad = r.bad || hours > 23 || minutes > 59
	return time.FixedZone("", sign*(hours*3600+minutes*60))
}
