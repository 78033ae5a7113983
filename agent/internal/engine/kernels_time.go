package engine

import (
	"time"

	"github.com/outfeed/outfeed/protocol/expr"
)

const (
	microsPerMilli = int64(time.Millisecond / time.Microsecond)
	microsPerSec   = int64(time.Second / time.Microsecond)
	microsPerHour  = 3600 * microsPerSec
	microsPerDay   = 24 * microsPerHour
	// minTime and maxTime are the first and the last microsecond of the years 1 to 9999.
	minTime = -62135596800 * microsPerSec
	maxTime = 253402300800*microsPerSec - 1
)

func utc(micros int64) time.Time { return time.UnixMicro(micros).UTC() }

// timeKernels are the functions of instants.
func timeKernels() map[string]builder {
	return map[string]builder{
		"year":        timePart(func(local int64) int64 { return int64(utc(local).Year()) }),
		"quarter":     timePart(func(local int64) int64 { return int64(utc(local).Month()+2) / 3 }),
		"month":       timePart(func(local int64) int64 { return int64(utc(local).Month()) }),
		"day":         timePart(func(local int64) int64 { return int64(utc(local).Day()) }),
		"hour":        timePart(func(local int64) int64 { return floorMod(local, microsPerDay) / microsPerHour }),
		"minute":      timePart(func(local int64) int64 { return floorMod(local, microsPerHour) / (60 * microsPerSec) }),
		"second":      timePart(func(local int64) int64 { return floorMod(local, 60*microsPerSec) / microsPerSec }),
		"weekday":     timePart(func(local int64) int64 { return weekdayOf(local) + 1 }),
		"day_of_year": timePart(func(local int64) int64 { return int64(utc(local).YearDay()) }),
		"week": timePart(func(local int64) int64 {
			_, week := utc(local).ISOWeek()
			return int64(week)
		}),
		"week_year": timePart(func(local int64) int64 {
			year, _ := utc(local).ISOWeek()
			return int64(year)
		}),
		"truncate": buildTruncate, "add_time": buildAddTime,
		"time_between": rowsWith(expr.Float, floats, prepareBetween, expr.Timestamp, expr.Timestamp),
		"format_time":  buildFormatTime, "parse_time": buildParseTime,
		"epoch_s":  convert(expr.Int, ints, ints, func(v int64) (int64, bool) { return floorDiv(v, microsPerSec), true }),
		"epoch_ms": convert(expr.Int, ints, ints, millisOf),
		"epoch_us": convert(expr.Int, ints, ints, func(v int64) (int64, bool) { return v, true }),
	}
}

func millisOf(v int64) (int64, bool) { return floorDiv(v, microsPerMilli), true }

func timeOfMillis(v int64) (int64, bool) {
	if v < minTime/microsPerMilli || v > maxTime/microsPerMilli {
		return 0, false
	}
	return v * microsPerMilli, true
}

// floorDiv rounds towards minus infinity; d is more than zero.
func floorDiv(v, d int64) int64 {
	q := v / d
	if v%d < 0 {
		q--
	}
	return q
}

func floorMod(v, d int64) int64 {
	m := v % d
	if m < 0 {
		m += d
	}
	return m
}

// parseTime reads the texts that expr.ParseTimestamp takes, those without a zone in UTC.
func parseTime(s []byte) (int64, bool) { return expr.ParseTimestamp(s, time.UTC) }
