package supervisor

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// TestAScheduleGoesOnWhenTheClockIsSet sets the clock by ten years while a schedule waits for its next time.
func TestAScheduleGoesOnWhenTheClockIsSet(t *testing.T) {
	t.Parallel()
	const tenYears = 10 * 365 * 24 * time.Hour
	for name, jump := range map[string]time.Duration{"forward": tenYears, "back": -tenYears, "not": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var set atomic.Int64
				// As the real one after it was set: the wall clock alone tells it.
				u := &unit{s: &Supervisor{settings: Settings{Clock: func() time.Time { return time.Now().Round(0).Add(time.Duration(set.Load())) }}}}
				daily, err := parseSchedule(flowdef.Trigger{Cron: "0 6 * * *"})
				if err != nil {
					t.Fatal(err)
				}
				next := func() (time.Time, bool) { return daily.next(u.now()) }
				at, ok := next()
				if !ok {
					t.Fatal("there is no next time")
				}
				timer := time.AfterFunc(time.Hour+time.Second, func() { set.Store(int64(jump)) })
				defer timer.Stop()
				began := time.Now()
				err = u.waitFor(t.Context(), at, next)
				if took := time.Since(began); err != nil || took > 25*time.Hour || errors.Is(err, errSetBack) {
					t.Errorf("the wait for the next day ends after %s with %v", took, err)
				}
			})
		})
	}
}
