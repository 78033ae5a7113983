package decode_test

import (
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/decode"
)

func TestLocalTimesWhenClocksChange(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ zone, local, want string }{
		{"America/New_York", "2026-03-08 01:59:59", "2026-03-08T06:59:59Z"},
		{"America/New_York", "2026-03-08 02:30:00", "2026-03-08T07:30:00Z"},
		{"America/New_York", "2026-03-08 03:00:00", "2026-03-08T07:00:00Z"},
		{"America/New_York", "2026-11-01 00:59:59", "2026-11-01T04:59:59Z"},
		{"America/New_York", "2026-11-01 01:30:00", "2026-11-01T06:30:00Z"},
		{"America/New_York", "2026-11-01 02:00:00", "2026-11-01T07:00:00Z"},
		{"America/St_Johns", "2026-03-08 02:30:00", "2026-03-08T06:00:00Z"},
		{"America/St_Johns", "2026-11-01 01:30:00", "2026-11-01T05:00:00Z"},
		{"Europe/Berlin", "2026-03-29 02:30:00", "2026-03-29T01:30:00Z"},
		{"Europe/Berlin", "2026-10-25 01:59:59", "2026-10-24T23:59:59Z"},
		{"Europe/Berlin", "2026-10-25 02:30:00", "2026-10-25T01:30:00Z"},
		{"Europe/Berlin", "2026-10-25 03:00:00", "2026-10-25T02:00:00Z"},
		{"Europe/London", "2026-03-29 01:30:00", "2026-03-29T01:30:00Z"},
		{"Europe/London", "2026-10-25 01:30:00", "2026-10-25T01:30:00Z"},
		{"Australia/Lord_Howe", "2026-04-05 01:45:00", "2026-04-04T15:15:00Z"},
		{"Pacific/Apia", "2011-12-29 23:00:00", "2011-12-30T09:00:00Z"},
		{"Pacific/Apia", "2011-12-30 12:00:00", "2011-12-30T22:00:00Z"},
		{"Pacific/Apia", "2011-12-31 00:00:00", "2011-12-30T10:00:00Z"},
	} {
		loc, err := time.LoadLocation(c.zone)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := decode.ParseTime([]byte(c.local), loc)
		if text := time.UnixMicro(got).UTC().Format(time.RFC3339); !ok || text != c.want {
			t.Errorf("%s in %s: got %s %v, want %s", c.local, c.zone, text, ok, c.want)
		}
	}
}
