package supervisor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// The triggers of these tests.
const (
	hourlyOnce = `{cron: "0 * * * *", missed: once}`
	hourlySkip = `{cron: "0 * * * *"}`
)

// counted is a connector whose sources count the runs. A run ends at once, or as act says.
type counted struct {
	runs atomic.Int64
	mu   sync.Mutex
	act  func(ctx context.Context) error
	at   []time.Time
}

func (c *counted) Spec() flowdef.ConnectorSpec { return flowdef.ConnectorSpec{Kind: "counted"} }

func (c *counted) NewSource(connector.SourceSettings) (connector.Source, error) {
	return &countedSource{counted: c}, nil
}

func (c *counted) do(act func(ctx context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.act = act
}

// times are when the runs began.
func (c *counted) times() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

type countedSource struct{ counted *counted }

func (s *countedSource) Traits() connector.Traits { return connector.Traits{Bounded: true} }

func (s *countedSource) Next(ctx context.Context) (connector.Delivery, error) {
	c := s.counted
	c.runs.Add(1)
	c.mu.Lock()
	act := c.act
	c.at = append(c.at, time.Now())
	c.mu.Unlock()
	if act != nil {
		if err := act(ctx); err != nil {
			return connector.Delivery{}, err
		}
	}
	return connector.Delivery{}, io.EOF
}

func (s *countedSource) Committed(context.Context, connector.Cursor) error { return nil }
func (s *countedSource) Close() error                                      { return nil }

// hangs is a run that goes on until it is stopped.
func hangs(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// schedules is a plant in a bubble of time whose clock can be set.
type schedules struct {
	*plant
	h      *history
	source *counted
	// ahead is how far the clock is ahead of what timers go by; log is what was logged.
	ahead atomic.Int64
	logMu sync.Mutex
	log   bytes.Buffer
}

func (s *schedules) Write(p []byte) (int, error) {
	s.logMu.Lock()
	defer s.logMu.Unlock()
	return s.log.Write(p)
}

func newSchedules(t *testing.T) *schedules {
	t.Helper()
	s := &schedules{h: newHistory(), source: &counted{}}
	s.plant = newPlantWith(t, func(set *supervisor.Settings) {
		set.History, set.Program = s.h, "test"
		set.WatchEvery, set.ReportEvery = time.Minute, time.Hour
		set.Limits.Pause = 20 * time.Minute
		set.Clock = func() time.Time { return time.Now().Round(0).Add(time.Duration(s.ahead.Load())) }
		set.Logger = slog.New(slog.NewTextHandler(io.MultiWriter(s, t.Output()), nil))
	}, s.source)
	s.pass(time.Minute) // so that no time is a whole hour by chance
	return s
}

// flow is one that reads from counted.
func (s *schedules) flow(id, trigger string, version uint32) supervisor.Deployment {
	d := s.lines(id, trigger, version, "path: x")
	d.Definition = []byte(strings.Replace(string(d.Definition), "read: files\n    with: {path: x}", "read: counted", 1))
	d.Connections = []connector.Connection{{Name: "counted", Kind: "counted"}}
	return d
}

func (s *schedules) deploy(trigger string, version uint32) {
	s.sup.Apply([]supervisor.Deployment{s.flow("a", trigger, version)})
	s.settle()
}

// settle has all that is due at this moment done.
func (s *schedules) settle() { s.pass(2 * time.Second) }

func (s *schedules) pass(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
	synctest.Wait()
}

// set moves the clock on, or back.
func (s *schedules) set(by time.Duration) { s.ahead.Add(int64(by)) }

// kill ends the supervisor as kill -9 ends the agent: what it notes at its end is not there.
func (s *schedules) kill() {
	s.h.mu.Lock()
	left := maps.Clone(s.h.records)
	s.h.mu.Unlock()
	s.stop()
	s.h.mu.Lock()
	s.h.records = left
	s.h.mu.Unlock()
}

// down is a time for which the agent does not run.
func (s *schedules) down(trigger string, d time.Duration) {
	s.kill()
	s.set(d)
	s.start()
	s.deploy(trigger, 1)
}

// want holds the number of runs.
func (s *schedules) want(what string, runs int64) {
	s.t.Helper()
	if got := s.source.runs.Load(); got != runs {
		s.t.Fatalf("%s: the flow ran %d times, want %d; it is %v", what, got, runs, s.status("a"))
	}
}

// notes are what the reports of the runs say about the trigger.
func (s *schedules) notes() (out []string) {
	s.t.Helper()
	for _, r := range s.reports("a") {
		note := ""
		for _, f := range r.GetFailedSample() {
			if f.GetWhere() == "trigger" {
				note = f.GetReason()
			}
		}
		out = append(out, note)
	}
	return out
}

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
		// A proper stop is no harm that the run did.
		s.stop()
		if r := s.h.LoadRecord("a").Served; r.Begun != 3 {
			t.Errorf("after a proper stop there is %+v", r)
		}
		s.source.do(nil)
		s.start()
		s.deploy(hourlyOnce, 1)
		s.pass(21 * time.Minute)
		s.want("when it comes to its end", 6)
		s.down(hourlyOnce, 0)
		s.want("it is seen to", 6)
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

// TestAVersionThatIsSetBackLeavesItsRunToTheOneBefore wants a run of the version before, at once.
func TestAVersionThatIsSetBackLeavesItsRunToTheOneBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSchedules(t)
		deployed := map[string]supervisor.Deployment{}
		change := s.change
		s.change = func(set *supervisor.Settings) {
			change(set)
			set.Reopen = func(origin []byte) (supervisor.Deployment, error) { return deployed[string(origin)], nil }
		}
		s.stop()
		s.start()
		deploy := func(version uint32) {
			d := s.flow("a", hourlyOnce, version)
			d.Origin = fmt.Append(nil, version)
			deployed[string(d.Origin)] = d
			s.sup.Apply([]supervisor.Deployment{d})
			s.settle()
		}
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
}

// TestARunThatFailedIsTriedAtTheNextStart has a run fail until the agent is ended.
func TestARunThatFailedIsTriedAtTheNextStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSchedules(t)
		s.source.do(func(context.Context) error { return &connector.PermanentError{Err: errors.New("wrong password")} })
		s.deploy(hourlyOnce, 1)
		s.pass(time.Hour)
		s.stop()
		tried := s.source.runs.Load()
		if tried < 2 {
			t.Errorf("tried %d times", tried)
		}
		s.source.do(nil)
		s.start()
		s.deploy(hourlyOnce, 1)
		s.want("at the next start", tried+1)
		s.down(hourlyOnce, 0)
		s.want("at the one after", tried+1)
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
				for i, trigger := range triggers[1:] {
					s.deploy(trigger, uint32(2+i))
				}
				s.want("the new schedule has missed nothing", 0)
				s.stop()
				s.set(3 * time.Hour)
				s.start()
				s.deploy(triggers[len(triggers)-1], uint32(len(triggers)))
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
