package clockskew_test

import (
	"math"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/internal/clockskew"
)

func TestWords(t *testing.T) {
	t.Parallel()
	const day = 24 * 60 * 60
	for seconds, want := range map[int64]string{
		6: "6 s ahead", -6: "6 s behind", 7200: "2 h ahead", -90: "1 min and 30 s behind", 2*day - 1: "1 day and 23 h ahead",
		-2 * day: "2 days behind", 730*day - 1: "729 days ahead", -56 * 365 * day: "56 years behind",
		math.MaxInt64: "292471208677 years ahead", math.MinInt64: "292471208677 years behind",
	} {
		if got := clockskew.Length(seconds) + " " + clockskew.Side(seconds); got != want || !strings.HasPrefix(clockskew.Against(seconds), clockskew.Side(seconds)) {
			t.Errorf("%d s is %q, want %q", seconds, got, want)
		}
	}
}

func TestIsOff(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[int64]bool{0: false, 5: false, -5: false, 6: true, -6: true, math.MinInt64: true} {
		if clockskew.IsOff(seconds) != want {
			t.Errorf("%d s: off is %v", seconds, !want)
		}
	}
}

func TestRemedy(t *testing.T) {
	t.Parallel()
	for goos, want := range map[string]string{"windows": "w32tm /resync", "linux": "timedatectl set-ntp true", "": "timedatectl set-ntp true"} {
		if got := clockskew.Remedy(goos); !strings.Contains(got, want) {
			t.Errorf("on %q: %s", goos, got)
		}
	}
}
