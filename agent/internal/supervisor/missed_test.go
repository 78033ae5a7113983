package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
)

// The triggers of these tests.
const (
	hourlyOnce = `{cron: "0 * * * *", missed: once}`
	hourlySkip = `{cron: "0 * * * *"}`
)

func TestMissedRunsAreMadeUpForByOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSchedules(t)
		s.set(time.Hour)
		s.deploy(hourlyOnce, 1)
		s.want("a flow that is new has missed nothing", 0)
		s.pass(time.Hour)
		s.want("its first time", 1)
		s.down(hourlyOnce, 5*time.Hour)
		s.want("after five times that were missed", 2)
		s.pass(50 * time.Minute)
		s.want("before the next time", 2)
		s.pass(10 * time.Minute)
		s.want("the next time", 3)
		s.down(hourlyOnce, 0)
		s.want("after a start that missed nothing", 3)
		notes := s.notes()
		if len(notes) != 3 || notes[0] != "" || !strings.Contains(notes[1], "5 due times missed since 2000-01-01T03:00:00Z") || notes[2] != "" {
			t.Errorf("the reports say %q", notes)
		}
		if !strings.Contains(s.log.String(), "missed=5 since=2000-01-01T03:00:00.000Z") {
			t.Errorf("the log is\n%s", s.log.String())
		}
	})
}

// TestManyMissedTimesAreNotCounted wants the first and the last of the times of three years, and no more of the others than that
// there were many.
func TestManyMissedTimesAreNotCounted(t *testing.T) {
	t.Parallel()
	for trigger, last := range map[string]string{
		hourlyOnce: "last=2002-12-31T02:00:00.000Z",
		`{cron: "*/7 3 1 * *", timezone: Europe/Berlin, missed: once}`: "missed=324 since=2000-01-01T03:00:00.000+01:00 last=2002-12-01T03:56:00.000+01:00",
		`{cron: "* 3 1 * *", timezone: Europe/Berlin, missed: once}`:   "missed_at_least=1000 since=2000-01-01T03:00:00.000+01:00 last=2002-12-01T03:59:00.000+01:00",
		`{cron: "*/7 * * * *", missed: once}`:                          "last=2002-12-31T02:00:00.000Z",
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSchedules(t)
			s.deploy(trigger, 1)
			s.pass(30 * time.Minute)
			s.down(trigger, 3*years+90*time.Minute)
			if !strings.Contains(s.log.String(), last) || !strings.Contains(last, "missed=") && !strings.Contains(s.log.String(), "missed_at_least=1000") {
				t.Errorf("%s: the log is\n%s", trigger, s.log.String())
			}
		})
	}
}

func TestMissedRunsAreSkipped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSchedules(t)
		s.deploy(hourlySkip, 1)
		s.pass(time.Hour)
		s.want("its first time", 1)
		s.down(hourlySkip, 5*time.Hour)
		s.want("after a start", 1)
		s.pass(time.Hour)
		s.want("the next time", 2)
		if r := s.h.LoadRecord("a"); r.Served != (supervisor.Served{}) {
			t.Errorf("kept: %+v", r.Served)
		}
	})
}

// TestARunThatWasKilledIsRunAgain kills the agent in runs: it is at it again at each start, after three of them in a row only
// after a while, and not again when the run has come to its end.
func TestARunThatWasKilledIsRunAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSchedules(t)
		s.source.do(hangs)
		s.deploy(hourlyOnce, 1)
		s.pass(time.Hour)
		s.want("its time", 1)
		for n := range int64(3) {
			s.down(hourlyOnce, 0)
			s.want("after a kill in the run", 2+n)
		}
		s.down(hourlyOnce, 0)
		s.want("after three kills in the run that makes up for it", 4)
		if st := s.status("a"); st.GetState() != "backing_off" || !strings.Contains(st.GetError(), "ended 3 times") {
			t.Errorf("the status is %v", st)
		}
		s.pass(21 * time.Minute)
		s.want("after a pause", 5)
		s.deploy(hourlyOnce, 2)
		s.want("another version has another chance", 6)
		// A proper stop is no harm that the run did.
		s.stop()
		if r := s.h.LoadRecord("a").Served; r.Begun != 0 {
			t.Errorf("after a proper stop there is %+v", r)
		}
		s.source.do(nil)
		s.start()
		s.deploy(hourlyOnce, 2)
		s.want("when it comes to its end", 7)
		s.stop()
		s.start()
		s.deploy(hourlyOnce, 2)
		s.want("it is seen to", 7)
	})
}

// TestARunThatEndsTheAgentIsLeftAlone has the process die of the flow, as Go's runtime tells.
func TestARunThatEndsTheAgentIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSchedules(t)
		s.source.do(hangs)
		s.deploy(hourlyOnce, 1)
		s.pass(time.Hour)
		s.h.crashes = map[string]string{"a": "fatal error: concurrent map writes"}
		s.down(hourlyOnce, 0)
		s.down(hourlyOnce, 0)
		s.want("it is tried again after two ends", 3)
		s.down(hourlyOnce, 0)
		s.want("and not after three", 3)
		s.h.crashes = nil
		s.pass(25 * time.Minute)
		s.want("nor after the pause", 3)
		s.pass(35 * time.Minute)
		s.want("but at its next time", 4)
	})
}

// versions has the plant deploy versions that can be set back to, and gives the function that does.
func (s *schedules) versions() (deploy func(version uint32)) {
	deployed := map[string]supervisor.Deployment{}
	s.stop()
	change := s.change
	s.change = func(set *supervisor.Settings) {
		change(set)
		set.Reopen = func(origin []byte) (supervisor.Deployment, error) { return deployed[string(origin)], nil }
	}
	s.start()
	return func(version uint32) {
		d := s.flow("a", hourlyOnce, version)
		d.Origin = fmt.Append(nil, version)
		deployed[string(d.Origin)] = d
		s.sup.Apply([]supervisor.Deployment{d})
		s.settle()
	}
}

// TestAVersionThatIsSetBackLeavesItsRunToTheOneBefore wants a run of the version before, at once.
func TestAVersionThatIsSetBackLeavesItsRunToTheOneBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSchedules(t)
		deploy := s.versions()
		deploy(1)
		deploy(2)
		var failures atomic.Int64
		s.source.do(func(context.Context) error {
			if failures.Add(1) <= 3 {
				panic("version 2")
			}
			return nil
		})
		s.pass(time.Hour)
		if st := s.status("a"); st.GetVersion() != 1 || st.GetSetBackFrom() != 2 {
			t.Errorf("the status is %v", st)
		}
		s.want("three of version 2 and one of version 1", 4)
		s.pass(time.Hour)
		s.want("the next time", 5)
	})
	synctest.Test(t, func(t *testing.T) {
		s := newSchedules(t)
		deploy := s.versions()
		deploy(1)
		deploy(2)
		s.source.do(hangs)
		s.stop()
		s.set(3 * time.Hour)
		for n := range int64(4) {
			s.start()
			deploy(2)
			s.want("a process that died of the flow", n+1)
			s.h.crashes = map[string]string{"a": "fatal error: stack overflow"}
			s.kill()
		}
		s.h.crashes = nil
		s.source.do(nil)
		s.start()
		deploy(2)
		s.want("the version before", 5)
		if st := s.status("a"); st.GetVersion() != 1 || st.GetState() != "waiting" {
			t.Errorf("the status is %v", st)
		}
	})
}

// TestARunThatFailedIsTriedAtTheNextStart has a run fail until the agent is ended.
func TestARunThatFailedIsTriedAtTheNextStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSchedules(t)
		s.source.do(func(context.Context) error { return &connector.PermanentError{Err: errors.New("wrong password")} })
		s.deploy(hourlyOnce, 1)
		s.pass(3 * time.Hour)
		s.stop()
		tried := s.source.runs.Load()
		if notes := s.notes(); tried < 2 || strings.Join(notes, "") != "" {
			t.Errorf("tried %d times, and the reports say %q", tried, notes)
		}
		s.start()
		s.deploy(hourlyOnce, 1)
		for range 5 {
			before := s.source.runs.Load()
			s.down(hourlyOnce, 0)
			if s.source.runs.Load() == before {
				t.Errorf("a start after runs that failed did not try again: %v", s.status("a"))
			}
		}
		tried = s.source.runs.Load()
		s.source.do(nil)
		s.down(hourlyOnce, 0)
		s.want("at the next start", tried+1)
		s.down(hourlyOnce, 0)
		s.want("at the one after", tried+1)
	})
}

// TestARunThatARecordStopsIsSeenTo wants no try at the next start: the same record would stop it again.
func TestARunThatARecordStopsIsSeenTo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSchedules(t)
		s.write("a.jsonl", line(1)+"no json\n")
		d := s.lines("a", hourlyOnce, 1, once)
		d.Definition = append(d.Definition, "on_error: stop\n"...)
		s.sup.Apply([]supervisor.Deployment{d})
		s.pass(time.Hour)
		if st := s.status("a"); st.GetState() != "backing_off" {
			t.Errorf("the status is %v", st)
		}
		s.stop()
		before := len(s.reports("a"))
		s.start()
		s.sup.Apply([]supervisor.Deployment{d})
		s.settle()
		if st := s.status("a"); st.GetState() != "waiting" || len(s.reports("a")) != before || before == 0 {
			t.Errorf("after a start there are %d reports and not %d, and the status is %v", len(s.reports("a")), before, st)
		}
	})
}

func TestWhatIsMissedCountsForTheScheduleThatIs(t *testing.T) {
	t.Parallel()
	for name, triggers := range map[string][]string{
		"another cron":      {hourlyOnce, `{cron: "*/30 * * * *", missed: once}`},
		"another time zone": {hourlyOnce, `{cron: "0 * * * *", timezone: Europe/Berlin, missed: once}`},
		"from skip to once": {hourlySkip, hourlyOnce},
		"skip in between":   {hourlyOnce, hourlySkip, hourlyOnce},
		"every in between":  {hourlyOnce, "manual", hourlyOnce},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSchedules(t)
				s.deploy(triggers[0], 1)
				s.stop()
				s.set(3 * time.Hour)
				s.start()
				version := uint32(1)
				for _, trigger := range triggers[1:] {
					version++
					s.deploy(trigger, version)
				}
				s.want("the new schedule has missed nothing", 0)
				s.stop()
				s.set(3 * time.Hour)
				s.start()
				s.deploy(triggers[len(triggers)-1], version)
				s.want("from then on it has", 1)
			})
		})
	}
}

// TestAnotherVersionMakesUpForTheSameSchedule wants that a version with the same schedule, and another build of the agent, go on
// where the one before was.
func TestAnotherVersionMakesUpForTheSameSchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSchedules(t)
		s.deploy(hourlyOnce, 1)
		s.stop()
		s.set(3 * time.Hour)
		change := s.change
		s.change = func(set *supervisor.Settings) { change(set); set.Program = "newer" }
		s.start()
		s.deploy(hourlyOnce, 2)
		s.want("another version and another build", 1)
		s.source.do(hangs)
		s.pass(time.Hour)
		s.want("its time", 2)
		s.source.do(nil)
		s.deploy(hourlyOnce, 3)
		s.want("a version that comes in the middle of a run runs at once", 3)
	})
}

func TestARecordThatIsGoneMeansThatNothingWasMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSchedules(t)
		s.deploy(hourlyOnce, 1)
		s.stop()
		s.h.records = map[string][]byte{}
		s.set(3 * time.Hour)
		s.start()
		s.deploy(hourlyOnce, 1)
		s.want("the record is lost", 0)
		// Removed and deployed again.
		s.sup.Apply(nil)
		s.settle()
		if len(s.h.records) != 0 {
			t.Errorf("kept: %s", s.h.records)
		}
		s.set(3 * time.Hour)
		s.deploy(hourlyOnce, 1)
		s.want("the flow was removed in between", 0)
	})
}

const years = 365 * 24 * time.Hour

// TestMissedRunsAndAWrongClock has the clock be wrong before, at and after a start.
func TestMissedRunsAndAWrongClock(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]func(s *schedules){
		"1970 until the network is there, and nothing was missed": func(s *schedules) {
			s.down(hourlyOnce, -30*years)
			s.pass(3 * time.Minute)
			s.set(30 * years)
			s.pass(10 * time.Minute)
			s.want("once it is right", 1)
			s.pass(50 * time.Minute)
			s.want("at the next time", 2)
		},
		"1970 until the network is there, and two were missed": func(s *schedules) {
			s.down(hourlyOnce, -30*years)
			s.pass(3 * time.Minute)
			s.set(30*years + 2*time.Hour)
			s.pass(2 * time.Minute)
			s.want("once it is right", 2)
			if notes := s.notes(); !strings.Contains(notes[1], "2 due times") {
				s.t.Errorf("the reports say %q", notes)
			}
		},
		"1970 for longer": func(s *schedules) {
			s.down(hourlyOnce, -30*years)
			s.want("nothing was missed by a clock in the past", 1)
			s.pass(3 * time.Hour)
			s.want("the schedule goes on", 4)
			s.set(30 * years)
			s.pass(2 * time.Minute)
			s.want("once it is right, at most one", 5)
		},
		"ahead when it was noted": func(s *schedules) {
			s.set(10 * years)
			s.pass(2 * time.Minute)
			s.want("one, however many there would have been", 2)
			s.down(hourlyOnce, -10*years)
			s.want("nothing was missed", 2)
			s.down(hourlyOnce, 3*time.Hour)
			s.want("from then on it counts again, although no run was in between", 3)
			s.pass(time.Hour)
			s.want("the schedule goes on", 4)
			s.down(hourlyOnce, 3*time.Hour)
			s.want("what is missed now is made up for", 5)
		},
		"behind twice": func(s *schedules) {
			s.down(hourlyOnce, -30*years)
			s.set(30 * years)
			s.pass(2 * time.Minute)
			s.down(hourlyOnce, -10*years)
			s.want("nothing was missed", 1)
		},
		"set back while it waits": func(s *schedules) {
			s.set(-10 * years)
			s.pass(2 * time.Hour)
			s.want("timers go on", 3)
			s.down(hourlyOnce, 3*time.Hour)
			s.want("what is missed then is made up for", 4)
		},
		"set back at the start": func(s *schedules) {
			s.down(hourlyOnce, -10*years)
			s.pass(2 * time.Hour)
			s.want("timers go on", 3)
			s.set(10 * years)
			s.pass(2 * time.Minute)
			s.want("at most one", 4)
		},
		"set back by seconds behind a run": func(s *schedules) {
			s.set(-10 * time.Second)
			s.pass(50 * time.Minute)
			s.want("what was due is not due again", 1)
			s.pass(11 * time.Minute)
			s.want("and the next time comes", 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newSchedules(t)
				s.deploy(hourlyOnce, 1)
				s.pass(59*time.Minute + 3*time.Second)
				s.want("its first time", 1)
				c(s)
			})
		})
	}
}

// TestAMachineThatSleeps has the clock go on while nothing runs: both kinds of flow run once when the machine wakes.
func TestAMachineThatSleeps(t *testing.T) {
	t.Parallel()
	for trigger, note := range map[string]string{hourlyOnce: "3 due times", hourlySkip: ""} {
		synctest.Test(t, func(t *testing.T) {
			s := newSchedules(t)
			s.deploy(trigger, 1)
			s.set(3 * time.Hour)
			s.pass(2 * time.Minute)
			s.want("when it wakes", 1)
			if notes := s.notes(); !strings.Contains(notes[0], note) || note == "" && notes[0] != "" {
				t.Errorf("%s: the reports say %q", trigger, notes)
			}
			s.pass(time.Hour)
			s.want("at the next time", 2)
		})
	}
}

// TestARunThatLastsLongerThanItsPeriod wants that what was due meanwhile is not missed.
func TestARunThatLastsLongerThanItsPeriod(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSchedules(t)
		s.source.do(func(ctx context.Context) error {
			timer := time.NewTimer(150 * time.Minute)
			defer timer.Stop()
			select {
			case <-timer.C:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		s.deploy(hourlyOnce, 1)
		s.pass(time.Hour)
		s.want("its time", 1)
		s.pass(155 * time.Minute)
		s.want("it has ended, and those that were due meanwhile are left out", 1)
		s.down(hourlyOnce, 0)
		s.want("after a start too", 1)
		s.pass(25 * time.Minute)
		s.want("the next time", 2)
		if notes := s.notes(); strings.Join(notes, "") != "" {
			t.Errorf("the reports say %q", notes)
		}
	})
}

// TestMissedRunsOfManyFlowsTakeTurns wants that they do not begin at once.
func TestMissedRunsOfManyFlowsTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const flows = 60
		s := newSchedules(t)
		var desired []supervisor.Deployment
		for i := range flows {
			desired = append(desired, s.flow(fmt.Sprint("f", i), hourlyOnce, 1))
		}
		s.sup.Apply(desired)
		s.settle()
		s.stop()
		s.set(3 * time.Hour)
		s.start()
		s.sup.Apply(desired)
		s.pass(20 * time.Second)
		s.want("all have run", flows)
		perSecond := map[int64]int{}
		for _, at := range s.source.times() {
			perSecond[at.Unix()]++
		}
		for second, n := range perSecond {
			if n > 5 {
				t.Errorf("%d runs began within second %d", n, second)
			}
		}
	})
}

// TestTheNextRunIsTold wants the next due time, and none while a run is under way.
func TestTheNextRunIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSchedules(t)
		s.source.do(hangs)
		s.sup.Apply([]supervisor.Deployment{s.flow("a", hourlyOnce, 1), s.flow("b", "manual", 1)})
		s.settle()
		if next := s.sup.NextRuns(); len(next) != 1 || !next["a"].Equal(time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC)) {
			t.Errorf("the next runs are %v", next)
		}
		s.pass(time.Hour)
		if next := s.sup.NextRuns(); len(next) != 0 {
			t.Errorf("while it runs the next runs are %v", next)
		}
	})
}
