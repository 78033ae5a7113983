package terminal_test

import (
	"testing"
	"time"

	"github.com/outfeed/outfeed/internal/terminal"
)

func TestLong(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		0: "0 s", 999 * time.Millisecond: "0 s", 40 * time.Second: "40 s", 90 * time.Second: "1 min and 30 s", 12 * time.Minute: "12 min",
		time.Hour: "1 h", 76*time.Hour + 59*time.Minute: "3 days and 4 h", day: "1 day", 25 * time.Hour: "1 day and 1 h", 365 * day: "365 days",
		366 * day: "more than a year",
	} {
		if got := terminal.Long(d); got != want {
			t.Errorf("%s is written as %q, want %q", d, got, want)
		}
	}
}

func TestBytes(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536 << 10: "1.5 MiB", 1 << 30: "1.0 GiB", 1<<64 - 1: "16384.0 PiB"} {
		if got := terminal.Bytes(n); got != want {
			t.Errorf("%d is written as %q, want %q", n, got, want)
		}
	}
}
