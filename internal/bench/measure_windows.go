package bench

import (
	"errors"
	"os"
)

func peakBytes(*os.ProcessState) (int64, error) {
	return 0, errors.New("the benchmark of the whole path runs on Linux; go test -bench runs everywhere")
}
func maxFiles() int { return 0 }
