//go:build unix

package engine

import (
	"syscall"
	"time"
)

// ProcessorTime is how long the processors have worked for this process. It may be called from any goroutine.
func ProcessorTime() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err //nolint:wrapcheck // the caller says what it was for
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}
