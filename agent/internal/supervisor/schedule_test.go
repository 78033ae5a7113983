package supervisor

import (
	"testing"
	"time"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

func TestScheduleNext(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ cron, zone, after, want string }{
		{"0 6 * * 1-5", "Europe/Berlin", "2026-01-02T06:00:00+01:00", "2026-01-05T06:00:00+01:00"},
		{"*/15 * * * *", "UTC", "2026-01-01T00:14:59Z", "2026-01-01T00:15:00Z"},
		{"*/15 * * * *", "UTC", "2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"},
		{"5,35 22-23 * * *", "UTC", "2026-01-01T22:36:00Z", "2026-01-01T23:05:00Z"},
		{"0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"0 0 1 * 0", "UTC", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"},
		{"0 0 * * 7", "UTC", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"},
		{"0 0 31 2 *", "UTC", "2026-01-01T00:00:00Z", ""},
		// Summer time begins: 02:30 is left out that day.
		{"30 2 * * *", "Europe/Berlin", "2026-03-28T02:30:00+01:00", "2026-03-30T02:30:00+02:00"},
		// Summer time ends: 02:30 comes twice and counts once.
		{"30 2 * * *", "Europe/Berlin", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"},
		{"30 * * * *", "Europe/Berlin", "2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"},
		// The clock is set back by half an hour on Lord Howe Island, and by two in Antarctica.
		{"45 1 * * *", "Australia/Lord_Howe", "2026-04-05T01:45:00+11:00", "2026-04-06T01:45:00+10:30"},
		{"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T02:15:00+10:30", "2026-10-05T02:15:00+11:00"},
		{"30 1 * * *", "Antarctica/Troll", "2026-10-25T01:30:00+02:00", "2026-10-26T01:30:00Z"},
		{"30 2 * * *", "Antarctica/Troll", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00Z"},
		// Midnight came twice in Amman, where the day is looked for.
		{"30 0 * * 5", "Asia/Amman", "2021-10-22T00:30:00+03:00", "2021-10-29T00:30:00+03:00"},
		{"30 0 * * 5", "Asia/Amman", "2021-10-29T00:30:00+03:00", "2021-11-05T00:30:00+02:00"},
		{"0 0 * * 0", "America/Havana", "2026-10-25T00:00:00-04:00", "2026-11-01T00:00:00-04:00"},
		// Midnight is left out in Cairo when summer time begins.
		{"0 5 * * *", "Africa/Cairo", "2026-04-23T05:00:00+02:00", "2026-04-24T05:00:00+03:00"},
		{"0 6 * * *", "Asia/Kolkata", "2026-01-01T06:00:00+05:30", "2026-01-02T06:00:00+05:30"},
	} {
		s, err := parseSchedule(flowdef.Trigger{Cron: c.cron, Timezone: c.zone})
		if err != nil {
			t.Errorf("%s: %v", c.cron, err)
			continue
		}
		after, err := time.Parse(time.RFC3339, c.after)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if at, ok := s.next(after); ok {
			got = at.Format(time.RFC3339)
		}
		if got != c.want {
			t.Errorf("%s in %s after %s is %s, want %s", c.cron, c.zone, c.after, got, c.want)
		}
	}
}

func TestScheduleRefuses(t *testing.T) {
	t.Parallel()
	for _, trigger := range []flowdef.Trigger{
		{Cron: "0 6 * *"},
		{Cron: "60 6 * * *"},
		{Cron: "0 6 * * 1-"},
		{Cron: "0 6-5 * * *"},
		{Cron: "*/0 6 * * *"},
		{Cron: "0 6 * * *", Timezone: "Europe/Nowhere"},
	} {
		if _, err := parseSchedule(trigger); err == nil {
			t.Errorf("%+v was accepted", trigger)
		}
	}
}

func TestNextPeriod(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct{ took, want time.Duration }{
		{0, time.Minute}, {time.Second, time.Minute}, {time.Minute, 2 * time.Minute}, {150 * time.Second, 3 * time.Minute}, {-time.Hour, time.Minute},
	} {
		if got := nextPeriod(start, start.Add(c.took), time.Minute).Sub(start); got != c.want {
			t.Errorf("after a run of %v the next is at %v, want %v", c.took, got, c.want)
		}
	}
}
