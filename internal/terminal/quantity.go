package terminal

import (
	"fmt"
	"strings"
	"time"
)

// Bytes writes a size for people, in binary units.
func Bytes(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, i := float64(n), -1
	for value >= unit && i < 4 {
		value /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[i])
}

// Long writes how long something lasts for people, in its two largest units: "3 days and 4 h", "12 min", "40 s". What is
// longer than a year is "more than a year".
func Long(d time.Duration) string {
	const day = 24 * time.Hour
	if d > 365*day {
		return "more than a year"
	}
	units := []struct {
		size      time.Duration
		one, many string
	}{{day, "day", "days"}, {time.Hour, "h", "h"}, {time.Minute, "min", "min"}, {time.Second, "s", "s"}}
	for i, u := range units {
		n := d / u.size
		if n == 0 && i < len(units)-1 {
			continue
		}
		parts := []string{counted(int64(n), u.one, u.many)}
		if i+1 < len(units) {
			if rest := (d - n*u.size) / units[i+1].size; rest > 0 {
				parts = append(parts, counted(int64(rest), units[i+1].one, units[i+1].many))
			}
		}
		return strings.Join(parts, " and ")
	}
	return ""
}

func counted(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
