//go:build unix

package agent_test

import (
	"os"
	"syscall"
)

// peak is the most memory that a process had resident, in kilobytes.
func peak(s *os.ProcessState) int64 {
	usage, ok := s.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return int64(usage.Maxrss) //nolint:unconvert // its type differs between systems
}
