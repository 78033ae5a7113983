// Package clockskew says in words how far a machine's clock is off, what that does, and how it is set. The agent's status and
// the client say the same.
//
// It must not look at any clock itself. Its functions may be called at once.
package clockskew

import (
	"fmt"
	"time"

	"github.com/outfeed/outfeed/internal/terminal"
)

// Tolerable is how far a clock may be off, in seconds, before it is worth a line: no network explains more.
const Tolerable = 5

const day, year = 24 * 60 * 60, 365 * 24 * 60 * 60

// Meanwhile is what a clock that is off does until it is set. docs/tunnel.md has it at length.
const Meanwhile = "nothing is lost: the connection and what waits do not depend on this clock. But cron triggers fire at wrong times, " +
	"flows stamp what they read with wrong times, and TLS connections to plant systems may be refused"

// IsOff says whether a clock is off by more than is tolerable. Seconds are positive for one that is ahead.
func IsOff(seconds int64) bool { return seconds > Tolerable || seconds < -Tolerable }

// Length writes how far a clock is off, on either side: "56 years", "3 days", "2 h and 1 min". A duration would not hold the
// greatest.
func Length(seconds int64) string {
	off := uint64(seconds) //nolint:gosec // the sign is seen to in the next line
	if seconds < 0 {
		off = -off
	}
	switch {
	case off >= 2*year:
		return fmt.Sprintf("%d years", off/year)
	case off >= 2*day:
		return fmt.Sprintf("%d days", off/day)
	}
	return terminal.Long(time.Duration(off) * time.Second)
}

// Side says on which side a clock is: "ahead" or "behind".
func Side(seconds int64) string {
	if seconds < 0 {
		return "behind"
	}
	return "ahead"
}

// Against is Side with the control plane's clock: "behind the control plane's".
func Against(seconds int64) string {
	if seconds < 0 {
		return "behind the control plane's"
	}
	return "ahead of the control plane's"
}

// Remedy is how the clock of a machine with that operating system (a GOOS) is set.
func Remedy(goos string) string {
	if goos == "windows" {
		return "w32tm /resync as administrator; it may refuse to mend many hours: set about the right time with Set-Date before"
	}
	return "sudo timedatectl set-ntp true; where no time server is in reach: sudo timedatectl set-time 'YYYY-MM-DD hh:mm:ss'"
}
