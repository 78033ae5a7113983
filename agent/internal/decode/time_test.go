package decode_test

import (
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/protocol/expr"
)

// TestLocalTimesWhenClocksChange holds that records are read by the rule of expr.LocalOffset, whose own test has the
// instants of PostgreSQL.
func TestLocalTimesWhenClocksChange(t *testing.T) {
	t.Parallel()
	for zone, days := range map[string][]string{
		"America/New_York":    {"2026-03-08", "2026-11-01"},
		"America/St_Johns":    {"2026-03-08", "2026-11-01"},
		"Europe/Berlin":       {"2026-03-29", "2026-10-25"},
		"Europe/London":       {"2026-03-29", "2026-10-25"},
		"Australia/Lord_Howe": {"2026-04-05", "2026-10-04"},
		"Pacific/Apia":        {"2011-12-29", "2011-12-30", "2011-12-31"},
	} {
		loc, err := time.LoadLocation(zone)
		if err != nil {
			t.Fatal(err)
		}
		for _, day := range days {
			start, err := time.Parse(time.DateOnly, day)
			if err != nil {
				t.Fatal(err)
			}
			for at := start; at.Before(start.Add(24 * time.Hour)); at = at.Add(7*time.Minute + 30*time.Second) {
				local := at.Format(time.DateTime)
				got, ok := decode.ParseTime([]byte(local), loc)
				if want, wantOK := expr.ParseTimestamp(local, loc); got != want || ok != wantOK {
					t.Errorf("%s in %s: got %s %v, want %s %v", local, zone, expr.FormatTimestamp(got), ok, expr.FormatTimestamp(want), wantOK)
				}
			}
		}
	}
}
