//go:build unix

package bench

import (
	"errors"
	"math"
	"os"
	"runtime"
	"syscall"
)

// maxFiles is how many files a process may open.
func maxFiles() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil || limit.Max > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Max)
}

// peakBytes is the peak of a process that has ended.
func peakBytes(p *os.ProcessState) (int64, error) {
	u, ok := p.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0, errors.New("this system does not say how much memory a process had")
	}
	if runtime.GOOS == "darwin" {
		return u.Maxrss, nil
	}
	return int64(u.Maxrss) << 10, nil //nolint:unconvert // an int32 on 32-bit systems
}
