package expr

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/outfeed/outfeed/internal/excerpt"
)

// LoadZone finds an IANA time zone by its name. The zone of the machine (Local) is refused, since a flow must give the
// same on every one.
func LoadZone(name string) (*time.Location, error) {
	if loc, ok := zones().Load(name); ok {
		if zone, isZone := loc.(*time.Location); isZone {
			return zone, nil
		}
	}
	if name == "" || name == "Local" {
		return nil, errors.New("the time zone must have an IANA name such as \"Europe/Berlin\" or \"UTC\"")
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%s is no time zone; write an IANA name such as \"Europe/Berlin\" or \"UTC\"", quote(excerpt.Of(name)))
	}
	if name == "UTC" {
		zone = time.UTC
	}
	zones().Store(name, zone)
	return zone, nil
}

// zones keeps the zones that were found, of which there are some 600: a definition may name one thousands of times, and
// finding one reads a file. A zone never changes, so that nobody can tell whether it was kept.
var zones = sync.OnceValue(func() *sync.Map { return &sync.Map{} })

// TimeUnit is a length of truncate: some microseconds that divide a day, some days, or some months that divide a year.
// One of the three is not zero.
type TimeUnit struct {
	Micros int64
	// Days is 1 or, for weeks from Monday, 7.
	Days int
	// Months is 12 for a year.
	Months int
}

const microsPerDay = int64(24 * time.Hour / time.Microsecond)

// ParseTimeUnit reads a length such as "15m", "8h", "1d", "1w", "3mo" or "1y".
func ParseTimeUnit(text string) (TimeUnit, error) {
	digits := len(text) - len(strings.TrimLeft(text, "0123456789"))
	n, err := strconv.ParseInt(text[:digits], 10, 32)
	name := text[digits:]
	if err != nil || n < 1 {
		return TimeUnit{}, fmt.Errorf("the length %s must be a number and a unit, such as \"15m\", \"1h\", \"1d\", \"1w\", \"1mo\" or \"1y\"", quote(excerpt.Of(text)))
	}
	switch name {
	case "s", "m", "h":
		micros, _ := ParseClockUnit(name)
		if n > microsPerDay/micros || microsPerDay%(n*micros) != 0 {
			return TimeUnit{}, fmt.Errorf("a day cannot be cut into lengths of %s", text)
		}
		return TimeUnit{Micros: n * micros}, nil
	case "mo":
		if n > 12 || 12%n != 0 {
			return TimeUnit{}, fmt.Errorf("a year cannot be cut into lengths of %s", text)
		}
		return TimeUnit{Months: int(n)}, nil
	case "d", "w", "y":
		if n != 1 {
			return TimeUnit{}, fmt.Errorf("write \"1%s\": several days, weeks or years have no natural start", name)
		}
	}
	switch name {
	case "d":
		return TimeUnit{Days: 1}, nil
	case "w":
		return TimeUnit{Days: 7}, nil
	case "y":
		return TimeUnit{Months: 12}, nil
	}
	return TimeUnit{}, fmt.Errorf("%s is no length; the units are s, m, h, d, w, mo and y", quote(excerpt.Of(text)))
}

// ParseClockUnit is how many microseconds a unit of time has: d, h, m, s, ms or us. A day has 24 hours.
func ParseClockUnit(text string) (micros int64, err error) {
	switch text {
	case "us":
		return 1, nil
	case "ms":
		return 1000, nil
	case "s":
		return 1_000_000, nil
	case "m":
		return 60_000_000, nil
	case "h":
		return 3_600_000_000, nil
	case "d":
		return microsPerDay, nil
	}
	return 0, errors.New(Unknown("unit", text, []string{"d", "h", "m", "s", "ms", "us"}))
}

// ParseSpan reads a duration in microseconds: whole numbers with the units of ParseClockUnit, such as "1h30m", with an
// optional minus sign in front.
func ParseSpan(text string) (micros int64, err error) {
	bad := fmt.Errorf("%s is no duration; write whole numbers with the units d, h, m, s, ms and us, such as \"1h30m\" or \"-5s\"", quote(excerpt.Of(text)))
	rest, negative := strings.CutPrefix(text, "-")
	if rest == "" {
		return 0, bad
	}
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		name := rest[digits:]
		if end := strings.IndexAny(name, "0123456789"); end >= 0 {
			name = name[:end]
		}
		n, numberErr := strconv.ParseInt(rest[:digits], 10, 64)
		unit, unitErr := ParseClockUnit(name)
		if numberErr != nil || unitErr != nil || n > (math.MaxInt64-micros)/unit {
			return 0, bad
		}
		micros += n * unit
		rest = rest[digits+len(name):]
	}
	if negative {
		micros = -micros
	}
	return micros, nil
}
