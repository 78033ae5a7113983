package engine

// silence opens an event when a group has had no reading for longer than `for`, and closes it at the next one.
//
// Time passes with the greatest time seen of any group and, in an endless flow in which no row comes at all, with the
// clock: see silenceDetector. So where batches begin and end changes nothing.
type silence struct {
	*detector
	limit    int64
	severity string
	// group is the state of each group; due has those that are not silent, by the time at which they would be. A reading
	// does not move its group's entry: that is done when the entry's time has come.
	group   []heard
	due     []dueGroup
	expired []int32
	// newest is the greatest time seen.
	newest int64
	// heardOf says that a reading has come since the last tick.
	heardOf bool
}

// heard is the last reading of a group, as an event would begin with it.
type heard struct {
	at     int64
	silent bool
	// told says that a bounded run has ended with the event open and reported it.
	told bool
}

type dueGroup struct {
	at    int64
	group int32
}

func newSilence(d *detector) *silence {
	s := &silence{detector: d, limit: d.plan.Detect.For.Microseconds(), newest: noTime}
	if levels := d.plan.Detect.Levels; len(levels) > 0 {
		s.severity = levels[0].Severity
	}
	return s
}

func (s *silence) groupSize() int { return 16 + 16 + 4 }

func (s *silence) grow(n int) {
	old := len(s.group)
	s.group = growTo(s.group, n)
	for g := old; g < n; g++ {
		s.group[g].at = noTime
	}
}

func (s *silence) run(r readings) error {
	opened, closed := s.reports()
	s.heardOf = s.heardOf || len(r.rows) > 0
	for i, g := range r.groups {
		t := r.times[r.rows[i]]
		if t > s.newest {
			s.newest = t
			if err := s.expire(t, opened); err != nil {
				return err
			}
		}
		h := &s.group[g]
		if h.silent && closed {
			e := s.event(h.at, t)
			e.end = t
			if err := s.report(g, &e); err != nil {
				return err
			}
		}
		if h.silent || h.at == noTime {
			s.wait(dueGroup{at: t + s.limit, group: g})
		}
		h.at, h.silent, h.told = t, false, false
	}
	return nil
}

// event is an open event as of a time.
func (s *silence) event(since, now int64) detected {
	return detected{start: since, end: noTime, severity: s.severity, numbers: [3]float64{float64(now-since) / 1e6}}
}

// expire opens an event for every group that has been silent for too long at that time.
func (s *silence) expire(now int64, opened bool) error {
	s.expired = s.expired[:0]
	for len(s.due) > 0 && s.due[0].at < now {
		d := s.due[0]
		if at := s.group[d.group].at + s.limit; at >= now {
			s.due[0].at = at
			s.sink(0)
			continue
		}
		last := len(s.due) - 1
		s.due[0] = s.due[last]
		s.due = s.due[:last]
		s.sink(0)
		s.expired = append(s.expired, d.group)
	}
	if len(s.expired) == 0 {
		return nil
	}
	// Which number a group has depends on the restarts before; its key does not.
	s.table.sort(s.expired)
	for _, g := range s.expired {
		s.group[g].silent = true
		s.state.changed[g] = true
		if !opened {
			continue
		}
		e := s.event(s.group[g].at, now)
		if err := s.report(g, &e); err != nil {
			return err
		}
	}
	return nil
}

// wait adds an entry to the heap.
func (s *silence) wait(d dueGroup) {
	s.due = append(s.due, d)
	for i := len(s.due) - 1; i > 0; {
		parent := (i - 1) / 2
		if s.due[parent].at <= s.due[i].at {
			return
		}
		s.due[parent], s.due[i] = s.due[i], s.due[parent]
		i = parent
	}
}

// sink moves an entry down to its place in the heap.
func (s *silence) sink(i int) {
	for {
		child := 2*i + 1
		if child >= len(s.due) {
			return
		}
		if child+1 < len(s.due) && s.due[child+1].at < s.due[child].at {
			child++
		}
		if s.due[i].at <= s.due[child].at {
			return
		}
		s.due[i], s.due[child] = s.due[child], s.due[i]
		i = child
	}
}

func (s *silence) finish(groups []int32) error {
	if opened, _ := s.reports(); opened {
		return nil
	}
	for _, g := range groups {
		h := &s.group[g]
		if !h.silent || h.told {
			continue
		}
		h.told, s.state.changed[g] = true, true
		e := s.event(h.at, s.newest)
		if err := s.report(g, &e); err != nil {
			return err
		}
	}
	return nil
}

func (s *silence) encode(dst []byte, g int32) []byte {
	return putBool(putBool(dst, s.group[g].silent), s.group[g].told)
}

func (s *silence) decode(r *reader, g int32) {
	s.group[g] = heard{at: s.last[g], silent: r.bool(), told: r.bool()}
	if !s.group[g].silent && s.last[g] != noTime {
		s.wait(dueGroup{at: s.last[g] + s.limit, group: g})
	}
	// The greatest time seen is that of some group, and no group ever goes.
	s.newest = max(s.newest, s.last[g])
}

// describe leaves `for` out: what was heard, and who is silent, means the same.
func (s *silence) describe() string { return "silence" }

// maxTick is the most that one tick adds to the time without rows: a clock that is set forward, or a machine that slept,
// makes no silence.
const maxTick = 5_000_000

// silenceDetector lets time pass by the clock while no row comes. Time without rows counts from the first tick on after
// the last row, and anew after a restart: while the agent does not run it hears nothing, which says nothing of the plant.
type silenceDetector struct {
	*detector
	silence *silence
	// ticked is the time of the tick before, quiet how long no row has come.
	ticked, quiet int64
	ticking       bool
}

func (s *silenceDetector) tick(now int64) error {
	if s.span == bounded || s.silence.newest == noTime {
		return nil
	}
	switch {
	case !s.ticking, s.silence.heardOf:
		s.ticking, s.silence.heardOf, s.quiet = true, false, 0
	default:
		s.quiet += min(max(now-s.ticked, 0), maxTick)
	}
	s.ticked = now
	opened, _ := s.reports()
	if err := s.silence.expire(s.silence.newest+s.quiet, opened); err != nil {
		return err
	}
	return s.flush()
}
