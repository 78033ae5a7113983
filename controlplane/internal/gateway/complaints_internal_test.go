package gateway

import (
	"testing"
	"time"
)

func TestComplaints(t *testing.T) {
	t.Parallel()
	var c complaints
	start := time.Unix(1_700_000_000, 0)
	status, report := complaint{"status", "invalid"}, complaint{"run report", "invalid"}
	for _, step := range []struct {
		about complaint
		after time.Duration
		left  uint64
		due   bool
	}{
		{status, 0, 0, true},
		{status, time.Second, 0, false},
		{report, time.Second, 0, true},
		{complaint{"status", "internal"}, 2 * time.Second, 0, true},
		{status, 59 * time.Second, 0, false},
		{status, time.Minute, 2, true},
		{status, time.Minute, 0, false},
		{status, time.Hour, 1, true},
		{report, time.Hour, 0, true},
	} {
		if left, due := c.due(step.about, start.Add(step.after)); left != step.left || due != step.due {
			t.Errorf("%v after %s: %d were left out, due %t; want %d, %t", step.about, step.after, left, due, step.left, step.due)
		}
	}
}
