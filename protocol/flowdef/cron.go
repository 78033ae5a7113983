package flowdef

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/outfeed/outfeed/internal/excerpt"
)

// maxCronGap is the most days between two on which a flow runs: 29 February comes every eight years at the latest.
const maxCronGap = 8*366 + 1

// checkCron checks the five fields of a cron expression: lists of *, n or n-m, each with an optional /step, which
// together have a day.
func checkCron(text string) error {
	fields := strings.Fields(text)
	ranges := [...]struct {
		name     string
		from, to int
	}{{"minute", 0, 59}, {"hour", 0, 23}, {"day of the month", 1, 31}, {"month", 1, 12}, {"day of the week", 0, 7}}
	if len(fields) != len(ranges) {
		return fmt.Errorf("it has %d fields; write minute, hour, day of the month, month and day of the week, as in \"0 6 * * 1-5\"", len(fields))
	}
	var bits [len(ranges)]uint64
	for i, r := range ranges {
		for part := range strings.SplitSeq(fields[i], ",") {
			set := cronPart(part, r.from, r.to)
			if set == 0 {
				return fmt.Errorf("%q is no %s; write *, numbers from %d to %d, ranges such as %d-%d, or steps such as */2, joined by commas",
					excerpt.Of(part), r.name, r.from, r.to, r.from, r.to)
			}
			bits[i] |= set
		}
	}
	days := cronDays{
		day: bits[2], month: bits[3], weekday: bits[4] | bits[4]>>7, // Sunday is 0 and 7
		both: strings.HasPrefix(fields[2], "*") || strings.HasPrefix(fields[4], "*"),
	}
	if !days.often() {
		return errors.New("there is no such day within eight years, so the flow would run never or hardly ever; choose a day that the month has")
	}
	return nil
}

// cronPart gives the numbers of a part of a field as bits, none when it is wrong.
func cronPart(part string, from, to int) uint64 {
	span, stepText, stepped := strings.Cut(part, "/")
	step := 1
	if stepped {
		n, ok := number(stepText)
		if !ok || n < 1 || n > to {
			return 0
		}
		step = n
	}
	first, last := from, to
	if span != "*" {
		low, high, ranged := strings.Cut(span, "-")
		n, ok := number(low)
		first, last = n, n
		if ranged && ok {
			last, ok = number(high)
		}
		if !ok || first < from || last < first || last > to || stepped && !ranged {
			return 0
		}
	}
	var bits uint64
	for n := first; n <= last; n += step {
		bits |= 1 << uint(n)
	}
	return bits
}

// cronDays are the days of a cron expression. Where neither the day of the month nor that of the week begins with a star
// one of them is enough; else both must fit.
type cronDays struct {
	day, month, weekday uint64
	both                bool
}

// often says whether there is such a day in every eight years. It looks at the 28 years after which days of the week
// come again on the same days of the month.
func (c cronDays) often() bool {
	begin := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	gap := 0
	for at := range 36 * 366 {
		d := begin.AddDate(0, 0, at)
		day, weekday := c.day>>uint(d.Day())&1 != 0, c.weekday>>uint(d.Weekday())&1 != 0
		if c.month>>uint(d.Month())&1 != 0 && (day && weekday || !c.both && (day || weekday)) {
			gap = 0
			continue
		}
		if gap++; gap > maxCronGap {
			return false
		}
	}
	return true
}

// number reads digits alone, without a sign.
func number(text string) (n int, ok bool) {
	u, err := strconv.ParseUint(text, 10, 16)
	return int(u), err == nil
}
