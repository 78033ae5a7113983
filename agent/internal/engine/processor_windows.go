package engine

import (
	"syscall"
	"time"
)

// ProcessorTime is how long the processors have worked for this process. It may be called from any goroutine.
func ProcessorTime() (time.Duration, error) {
	self, err := syscall.GetCurrentProcess()
	if err != nil {
		return 0, err //nolint:wrapcheck // the caller says what it was for
	}
	var created, ended, kernel, user syscall.Filetime
	if err := syscall.GetProcessTimes(self, &created, &ended, &kernel, &user); err != nil {
		return 0, err //nolint:wrapcheck // the caller says what it was for
	}
	return ticks(kernel) + ticks(user), nil
}

// ticks reads a length of time, which is in units of 100 ns; Filetime.Nanoseconds is for a date.
func ticks(t syscall.Filetime) time.Duration {
	return time.Duration(int64(t.HighDateTime)<<32|int64(t.LowDateTime)) * 100
}
