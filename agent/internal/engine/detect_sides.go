package engine

import "math"

// The courses of a group with cusum in both directions: one for the rising sum and one for the falling one.
const (
	risingSide = iota
	fallingSide
	cusumSides
)

// twoCourses stands in a group's state in place of a phase where a course for each side follows.
const twoCourses = lasting + 1

// runSides is run for cusum in both directions, where each sum opens and closes events of its own.
func (e *events) runSides(r readings, c *cusum) error {
	for i, g := range r.groups {
		row := r.rows[i]
		t, v := r.times[row], r.floats[row]
		s, ok := c.score(g, t, v)
		rising, falling := g*cusumSides+risingSide, g*cusumSides+fallingSide
		if !ok || math.IsNaN(s.value) {
			e.breakOff(rising)
			e.breakOff(falling)
			c.learn(g, t, v)
			continue
		}
		// A side that is at clear comes first, so that an event ends before the other side's begins.
		order := [...]int32{rising, falling}
		if c.group[g].low <= e.clear {
			order = [...]int32{falling, rising}
		}
		for _, at := range order {
			if err := e.observeSide(c, g, at, judged{t: t, v: v, score: s}); err != nil {
				return err
			}
		}
		if e.courses[rising].phase == calm && e.courses[falling].phase == calm {
			c.learn(g, t, v)
		}
	}
	return nil
}

// observeSide takes a reading into the course of one side. The sums are read here, because the other side's course may
// have ended with a new baseline, for which they begin anew.
func (e *events) observeSide(c *cusum, g, at int32, r judged) error {
	sums := &c.group[g]
	r.out, r.score.value, r.score.since = sums.high, sums.high, sums.highSince
	if at%cusumSides == fallingSide {
		r.out, r.score.value, r.score.since = sums.low, -sums.low, sums.lowSince
	}
	if r.out <= e.levels[0] && e.courses[at].phase == calm {
		return nil
	}
	return e.observe(g, at, r)
}

// encodeSides writes both courses where one of them is not calm.
func (e *events) encodeSides(dst []byte, g int32) []byte {
	rising, falling := g*cusumSides+risingSide, g*cusumSides+fallingSide
	if e.courses[rising].phase == calm && e.courses[falling].phase == calm {
		return append(dst, byte(calm))
	}
	return e.encodeCourse(e.encodeCourse(append(dst, byte(twoCourses)), rising), falling)
}

// decodeSides reads both courses. An agent from before each sum had its own wrote a single one, whose side the sign of
// its score tells.
func (e *events) decodeSides(r *reader, g int32, first phase) {
	rising, falling := g*cusumSides+risingSide, g*cusumSides+fallingSide
	if first != twoCourses {
		e.decodeCourse(r, rising, first)
		if e.courses[rising].score < 0 {
			n := len(e.levels)
			e.courses[falling] = e.courses[rising]
			copy(e.since[int(falling)*n:int(falling)*n+n], e.since[int(rising)*n:])
			e.breakOff(rising)
		}
		return
	}
	for _, at := range [...]int32{rising, falling} {
		if p := r.take(1); p != nil {
			e.decodeCourse(r, at, phase(p[0]))
		}
	}
	if e.courses[rising].phase == calm && e.courses[falling].phase == calm {
		r.err = errCorruptState
	}
}
