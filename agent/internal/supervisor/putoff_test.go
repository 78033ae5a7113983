package supervisor_test

import (
	"testing"
	"testing/synctest"
	"time"
)

// putOff is a flow whose agent was killed four times in the run that makes up for its time at 1 o'clock, at two minutes past it.
func putOff(t *testing.T, trigger string) *schedules {
	t.Helper()
	s := newSchedules(t)
	s.source.do(hangs)
	s.deploy(trigger, 1)
	s.pass(time.Hour)
	for range 4 {
		s.down(trigger, 0)
	}
	s.want("it is put off", 4)
	return s
}

// TestARunThatIsPutOff begins at the time that was said at first, however often the agent starts meanwhile and whatever its
// clock does, and at its next due time when that is earlier.
func TestARunThatIsPutOff(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]func(s *schedules){
		"the agent starts every 7 minutes": func(s *schedules) {
			until := s.sup.NextRuns()["a"]
			s.down(hourlyOnce, 0)
			s.pass(7 * time.Minute)
			s.down(hourlyOnce, 0)
			s.pass(7 * time.Minute)
			s.down(hourlyOnce, 0)
			s.want("before the pause is over", 4)
			if again := s.sup.NextRuns()["a"]; !again.Equal(until) {
				s.t.Errorf("the next run was to be at %s and now at %s", until, again)
			}
			s.pass(7 * time.Minute)
			s.want("when it is", 5)
			s.down(hourlyOnce, 0)
			s.want("another end puts it off anew", 5)
			s.pass(19 * time.Minute)
			s.want("for as long", 5)
			s.pass(2 * time.Minute)
			s.want("and no longer", 6)
		},
		"the agent is away for longer": func(s *schedules) {
			s.down(hourlyOnce, 21*time.Minute)
			s.want("at its start", 5)
		},
		"the clock is set ahead": func(s *schedules) {
			s.set(24 * time.Hour)
			if next := s.sup.NextRuns()["a"]; next.Before(time.Now().Add(24*time.Hour - time.Second)) {
				s.t.Errorf("the next run was at %s", next)
			}
			s.pass(2 * time.Minute)
			s.want("it is time by the clock", 5)
		},
		"the clock is set back": func(s *schedules) {
			s.set(-3*24*time.Hour - 30*time.Minute)
			s.pass(21 * time.Minute)
			s.want("after the pause", 5)
		},
		"the clock is set back between two starts": func(s *schedules) {
			s.down(hourlyOnce, -30*time.Second)
			s.pass(21 * time.Minute)
			s.want("after the pause", 5)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { c(putOff(t, hourlyOnce)) })
		})
	}
	t.Run("its next due time comes first", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := putOff(t, `{cron: "*/10 * * * *", missed: once}`)
			if next := s.sup.NextRuns()["a"]; next.Minute() != 10 {
				t.Errorf("the next run is at %s", next)
			}
			s.source.do(nil)
			s.pass(10 * time.Minute)
			s.want("the due time", 5)
			s.pass(10 * time.Minute)
			s.want("the one after", 6)
			if r := s.h.LoadRecord("a").Served; r.Begun != 0 || !r.PutOff.IsZero() {
				t.Errorf("after a run that came to its end there is %+v", r)
			}
		})
	})
}
