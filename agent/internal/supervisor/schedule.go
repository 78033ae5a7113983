package supervisor

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// schedule is a cron expression in a time zone: a set of bits per field.
type schedule struct {
	minute, hour, day, month, weekday uint64
	// anyDay and anyWeekday say that the field is a star: with both given either one may match, as in every cron.
	anyDay, anyWeekday bool
	anyHour            bool
	zone               *time.Location
}

// parseSchedule reads the trigger of a checked definition.
func parseSchedule(t flowdef.Trigger) (*schedule, error) {
	zone, err := time.LoadLocation(t.Timezone)
	if err != nil {
		return nil, fmt.Errorf("the trigger's time zone %s is not known on this machine: %w", t.Timezone, err)
	}
	fields := strings.Fields(t.Cron)
	if len(fields) != 5 {
		return nil, fmt.Errorf("the trigger's cron expression %q has %d fields instead of 5", t.Cron, len(fields))
	}
	s := &schedule{zone: zone, anyHour: fields[1] == "*", anyDay: strings.HasPrefix(fields[2], "*"), anyWeekday: strings.HasPrefix(fields[4], "*")}
	for i, f := range []struct {
		to       *uint64
		min, max int
	}{{&s.minute, 0, 59}, {&s.hour, 0, 23}, {&s.day, 1, 31}, {&s.month, 1, 12}, {&s.weekday, 0, 7}} {
		if *f.to, err = cronBits(fields[i], f.min, f.max); err != nil {
			return nil, fmt.Errorf("the trigger's cron expression %q: %w", t.Cron, err)
		}
	}
	if s.weekday&(1<<7) != 0 {
		s.weekday |= 1 // Sunday is 0 and 7
	}
	return s, nil
}

// cronBits reads one field: a list of *, n or n-m, each with an optional /step.
func cronBits(field string, low, high int) (uint64, error) {
	var bits uint64
	for part := range strings.SplitSeq(field, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		step := 1
		var err error
		if stepped {
			step, err = strconv.Atoi(stepText)
		}
		from, to := low, high
		if err == nil && span != "*" {
			first, last, ranged := strings.Cut(span, "-")
			from, err = strconv.Atoi(first)
			switch {
			case err == nil && ranged:
				to, err = strconv.Atoi(last)
			case !stepped:
				to = from
			}
		}
		if err != nil || step < 1 || from < low || to > high || from > to {
			return 0, fmt.Errorf("%q is not valid", part)
		}
		for n := from; n <= to; n += step {
			bits |= 1 << uint(n)
		}
	}
	return bits, nil
}

// horizon is how far ahead a time is looked for: 29 February comes every eight years at the latest.
const horizon = 9 * 366 * 24 * time.Hour

// next is the first time behind t that matches; ok is false when none ever does (31 February). A time that the change
// to summer time leaves out is skipped, and one that the change back repeats counts once, unless the hour is a star.
func (s *schedule) next(t time.Time) (at time.Time, ok bool) {
	end := t.Add(horizon)
	at = t.In(s.zone).Truncate(time.Minute).Add(time.Minute)
	for at.Before(end) {
		switch {
		case s.month&(1<<uint(at.Month())) == 0 || !s.onDay(at):
			// Midnight may not exist where summer time begins then; Date gives the hour behind it. Where it comes twice, Date may
			// give the second.
			tomorrow := time.Date(at.Year(), at.Month(), at.Day()+1, 0, 0, 0, 0, s.zone)
			tomorrow = tomorrow.Add(-shownBefore(tomorrow))
			if !tomorrow.After(at) {
				tomorrow = at.Add(time.Hour)
			}
			at = tomorrow
		case s.hour&(1<<uint(at.Hour())) == 0:
			at = at.Add(time.Duration(60-at.Minute()) * time.Minute)
		case s.minute&(1<<uint(at.Minute())) == 0 || s.repeated(at):
			at = at.Add(time.Minute)
		default:
			return at, true
		}
	}
	return time.Time{}, false
}

// last is the newest time up to now that matches, of which there is one behind from.
func (s *schedule) last(from, now time.Time) time.Time {
	for now.Sub(from) > time.Minute {
		half := from.Add(now.Sub(from) / 2)
		if at, ok := s.next(half); ok && !at.After(now) {
			from = half
			continue
		}
		now = half
	}
	at, _ := s.next(from)
	return at
}

func (s *schedule) onDay(at time.Time) bool {
	day, weekday := s.day&(1<<uint(at.Day())) != 0, s.weekday&(1<<uint(at.Weekday())) != 0
	switch {
	case s.anyDay || s.anyWeekday:
		return day && weekday
	default:
		return day || weekday
	}
}

// repeated says that the wall clock showed this time before already, and that it counted then.
func (s *schedule) repeated(at time.Time) bool { return !s.anyHour && shownBefore(at) > 0 }

// shownBefore is how long ago the wall clock showed the same time, because it was set back since by the rules of its zone; 0
// when it did not. That is an hour nearly everywhere, half of one on Lord Howe Island and two in Antarctica.
func shownBefore(at time.Time) time.Duration {
	start, _ := at.ZoneBounds()
	if start.IsZero() {
		return 0
	}
	_, before := start.Add(-time.Second).Zone()
	_, now := at.Zone()
	back := time.Duration(before-now) * time.Second
	if !at.Before(start.Add(back)) {
		return 0
	}
	return back
}
