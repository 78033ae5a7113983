package flowdef

import (
	"fmt"
	"strconv"
	"time"

	"github.com/outfeed/outfeed/internal/excerpt"
)

// MaxDuration is the longest duration that a definition can state: ten years.
const MaxDuration = 3650 * 24 * time.Hour

// ParseDuration reads a duration such as 500ms, 5s, 15m, 1h30m or 1d: whole numbers with the units d h m s ms, each at
// most once and from the longest to the shortest. It is more than zero and at most MaxDuration.
func ParseDuration(text string) (time.Duration, error) {
	units := []struct {
		name string
		unit time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}}
	var total time.Duration
	rest := text
	for rest != "" {
		digits := span(rest, '0', '9')
		letters := span(rest[digits:], 'a', 'z')
		name := rest[digits : digits+letters]
		for len(units) > 0 && units[0].name != name {
			units = units[1:]
		}
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if err != nil || len(units) == 0 || n > int64(MaxDuration/units[0].unit) {
			return 0, fmt.Errorf("%q is not a duration of at most 3650d; write it like 5s, 15m, 1h30m or 1d", excerpt.Of(text))
		}
		total += time.Duration(n) * units[0].unit
		units, rest = units[1:], rest[digits+letters:]
	}
	if total <= 0 || total > MaxDuration {
		return 0, fmt.Errorf("%q is not a duration of more than 0 and at most 3650d; write it like 5s, 15m, 1h30m or 1d", excerpt.Of(text))
	}
	return total, nil
}

// span is how many bytes at the front of text lie from lo to hi.
func span(text string, lo, hi byte) int {
	n := 0
	for n < len(text) && text[n] >= lo && text[n] <= hi {
		n++
	}
	return n
}
