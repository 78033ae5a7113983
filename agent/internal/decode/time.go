package decode

import (
	"time"

	"github.com/outfeed/outfeed/protocol/expr"
)

// The instants that can be written with a four-digit year, in milliseconds since 1970.
const (
	minMillis = -62135596800 * 1000
	maxMillis = 253402300800*1000 - 1
)

// ParseTime reads a time as it is written in records, in loc when it has no zone: what expr.ParseTimestamp reads. It
// gives UTC microseconds.
func ParseTime(text []byte, loc *time.Location) (int64, bool) { return expr.ParseTimestamp(text, loc) }

// epochMillis is the instant of a count of milliseconds.
func epochMillis(ms int64) (int64, bool) {
	if ms < minMillis || ms > maxMillis {
		return 0, false
	}
	return ms * 1000, true
}
