package main

import (
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent"
)

func TestATimeOfAnotherDayHasItsDate(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 23, 50, 0, 0, time.Local) //nolint:gosmopolitan // what a person reads on this machine
	for after, want := range map[time.Duration]string{
		5 * time.Minute:                  "23:55:00",
		15 * time.Minute:                 "2026-03-02 00:05:00",
		-time.Hour:                       "22:50:00",
		24*time.Hour + 5*time.Minute:     "2026-03-02 23:55:00",
		-24 * time.Hour:                  "2026-02-28 23:50:00",
		365*24*time.Hour + 5*time.Minute: "2027-03-01 23:55:00",
	} {
		if got := clock(now.Add(after), now.UTC()); got != want {
			t.Errorf("%s later: %s, want %s", after, got, want)
		}
	}
	next := time.Now().Add(48 * time.Hour)
	if got := connection(agent.TunnelStatus{Error: "no way", NextTry: next}); !strings.HasSuffix(got, "next try at "+next.Local().Format(time.DateTime)) {
		t.Errorf("in two days: %s", got)
	}
}
