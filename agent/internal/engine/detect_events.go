package engine

import (
	"fmt"
	"math"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// scorer says how far out a reading is. It keeps what it needs of each group.
type scorer interface {
	grow(n int)
	// score judges a reading before it is learned. ok is false where nothing can be said yet, and then the rest means
	// nothing.
	score(g int32, t int64, v float64) (s score, ok bool)
	// learn counts the reading just scored as normal.
	learn(g int32, t int64, v float64)
	// forget drops what was normal, so that it is learned anew; reset drops all there is of the group.
	forget(g int32)
	reset(g int32)
	encode(dst []byte, g int32) []byte
	decode(r *reader, g int32)
	groupSize() int
	describe() string
}

// score is a scorer's answer: how far out, with its sign; the mean that this is held against; and since when, the
// reading's own time for all scorers without a memory.
type score struct {
	value, baseline float64
	since           int64
}

// events is the method of threshold, rate, zscore, ewma and cusum: an event opens when the score has been beyond a bound
// for long enough, grows graver when it has been beyond a graver one, and closes when it has been back for long enough.
// A group has one course of events, with cusum in both directions one for each of its sums.
type events struct {
	*detector
	scorer scorer
	// levels are the bounds, rising, and clear where an event ends, both on the scale of outward.
	levels     []float64
	severities []string
	clear      float64
	direction  direction
	hold, free int64
	// remembers says that the score is not one of the value alone.
	remembers bool
	// relearn is how long an event may last before its values count as normal; noTime for ever.
	relearn int64

	// sides is how many courses a group has. Its first course is number group*sides of courses.
	sides   int
	courses []course
	// since has for each course and level the time from which on the score has been beyond it without a break, or noTime.
	since []int64
}

type direction uint8

const (
	bothWays direction = iota + 1
	upward
	downward
)

// phase is where a group stands.
type phase uint8

const (
	// calm is a group whose score is within the bounds, pending one that is beyond the first bound but not for long enough.
	calm phase = iota
	waiting
	lasting
)

// course is the event of one group or of one of its sides, as far as there is one.
type course struct {
	phase phase
	level int8
	// told says that a bounded run has ended with the event open and reported it.
	told bool
	// start is when it began, clearing since when the value has been back, or noTime.
	start, clearing int64
	// worst is the greatest outward score so far, score and baseline what stood there, and value the most extreme value.
	worst, value, score, baseline float64
}

func newEvents(d *detector) *events {
	def := d.plan.Detect
	e := &events{
		detector: d, scorer: newScorer(def), direction: bothWays, sides: 1,
		hold: def.For.Microseconds(), free: def.ClearFor.Microseconds(), relearn: noTime,
		remembers: def.Method == flowdef.DetectEWMA || def.Method == flowdef.DetectCUSUM,
	}
	sign := 1.0
	switch def.Direction {
	case flowdef.DirectionUp:
		e.direction = upward
	case flowdef.DirectionDown:
		e.direction = downward
		if def.Method == flowdef.DetectThreshold {
			sign = -1
		}
	}
	if def.Method == flowdef.DetectCUSUM && e.direction == bothWays {
		e.sides = cusumSides
	}
	for _, l := range def.Levels {
		e.levels, e.severities = append(e.levels, sign*l.Value), append(e.severities, l.Severity)
	}
	switch {
	case def.Clear != nil:
		e.clear = sign * *def.Clear
	case def.Method == flowdef.DetectCUSUM:
		// A sum is rarely at zero, and at the limit itself an event would open and close with every other reading.
		e.clear = e.levels[0] / 2
	default:
		e.clear = e.levels[0]
	}
	if def.Over > 0 {
		e.relearn = def.Over.Microseconds()
	}
	if def.Relearn > 0 {
		e.relearn = def.Relearn.Microseconds()
	}
	return e
}

func newScorer(def *flowdef.DetectStep) scorer {
	switch def.Method { //nolint:exhaustive // the others score nothing
	case flowdef.DetectRate:
		return newRate(def)
	case flowdef.DetectZScore:
		return &zscore{baselines: newBaselines(def)}
	case flowdef.DetectEWMA:
		return newEWMA(def)
	case flowdef.DetectCUSUM:
		return newCUSUM(def)
	}
	return level{}
}

func (e *events) groupSize() int { return (64+8*len(e.levels))*e.sides + e.scorer.groupSize() }

func (e *events) grow(n int) {
	e.courses = growTo(e.courses, n*e.sides)
	old := len(e.since)
	e.since = growTo(e.since, n*e.sides*len(e.levels))
	for i := old; i < len(e.since); i++ {
		e.since[i] = noTime
	}
	e.scorer.grow(n)
}

// outward is the score on the scale of the bounds: the more, the worse.
func (e *events) outward(s float64) float64 {
	switch e.direction {
	case upward:
		return s
	case downward:
		return -s
	case bothWays:
	}
	return math.Abs(s)
}

func (e *events) run(r readings) error {
	switch s := e.scorer.(type) {
	case level:
		return e.runPlain(r)
	case *cusum:
		if e.sides == cusumSides {
			return e.runSides(r, s)
		}
	}
	for i, g := range r.groups {
		row := r.rows[i]
		t, v := r.times[row], r.floats[row]
		s, ok := e.scorer.score(g, t, v)
		if !ok || math.IsNaN(s.value) {
			// Without a baseline nothing is out; an event cannot be open here, because its baseline is kept.
			e.breakOff(g)
			e.scorer.learn(g, t, v)
			continue
		}
		if out := e.outward(s.value); out > e.levels[0] || e.courses[g].phase != calm {
			if err := e.observe(g, g, judged{t: t, v: v, out: out, score: s}); err != nil {
				return err
			}
		}
		if e.courses[g].phase == calm {
			e.scorer.learn(g, t, v)
		}
	}
	return nil
}

// runPlain is run for values that are their own score and need no memory.
func (e *events) runPlain(r readings) error {
	first, down := e.levels[0], e.direction == downward
	for i, g := range r.groups {
		row := r.rows[i]
		out := r.floats[row]
		if down {
			out = -out
		}
		if out <= first && e.courses[g].phase == calm {
			continue
		}
		v, t := r.floats[row], r.times[row]
		if err := e.observe(g, g, judged{t: t, v: v, out: out, score: score{value: v, since: t}}); err != nil {
			return err
		}
	}
	return nil
}

// judged is a reading with its score.
type judged struct {
	t      int64
	v, out float64
	score  score
}

// observe takes a reading into a course of a group that is not calm or does not stay so.
func (e *events) observe(g, at int32, r judged) error {
	c := &e.courses[at]
	reached := e.reach(at, r)
	if c.phase == calm {
		*c = course{phase: waiting, level: -1, start: r.score.since, clearing: noTime, worst: math.Inf(-1), value: r.v}
	} else if c.phase == waiting && e.since[int(at)*len(e.levels)] == noTime {
		*c = course{}
		return nil
	}
	e.worsen(c, r)
	opened, _ := e.reports()
	if reached > int(c.level) {
		c.phase, c.level = lasting, int8(reached) //nolint:gosec // there are at most eight
		if opened {
			if err := e.reportCourse(g, c, noTime); err != nil {
				return err
			}
		}
	}
	if c.phase == lasting {
		return e.ending(g, at, r)
	}
	return nil
}

// worsen takes a reading into what the event says of itself. Where the score has a memory the value of the worst score
// may be an ordinary one, so there the most extreme value counts, on the side of the worst score.
func (e *events) worsen(c *course, r judged) {
	worse := r.out > c.worst
	if worse {
		c.worst, c.score, c.baseline = r.out, r.score.value, r.score.baseline
	}
	switch {
	case e.remembers && c.score < 0:
		c.value = min(c.value, r.v)
	case e.remembers:
		c.value = max(c.value, r.v)
	case worse:
		c.value = r.v
	}
}

// reach notes since when the score is beyond each level, and gives the gravest that it has been beyond for long enough;
// -1 is none.
func (e *events) reach(at int32, r judged) int {
	n := len(e.levels)
	since := e.since[int(at)*n : int(at)*n+n]
	reached := -1
	for i, bound := range e.levels {
		switch {
		case r.out <= bound:
			since[i] = noTime
			continue
		case since[i] == noTime:
			since[i] = r.t
		}
		if r.t-since[i] >= e.hold {
			reached = i
		}
	}
	return reached
}

// ending closes the event where the value has been back for long enough, or has become the new normal.
func (e *events) ending(g, at int32, r judged) error {
	c := &e.courses[at]
	if r.out > e.clear {
		c.clearing = noTime
	} else if c.clearing == noTime {
		c.clearing = r.t
	}
	switch {
	case c.clearing != noTime && r.t-c.clearing >= e.free:
		return e.end(g, at, c.clearing)
	case e.relearn != noTime && r.t-c.start >= e.relearn:
		return e.relearned(g, r.t)
	}
	return nil
}

// end closes the event of a course.
func (e *events) end(g, at int32, end int64) error {
	_, closed := e.reports()
	var err error
	if closed {
		err = e.reportCourse(g, &e.courses[at], end)
	}
	e.breakOff(at)
	return err
}

// relearned makes what a group's values are now its new normal. With the old one all its courses end.
func (e *events) relearned(g int32, end int64) error {
	e.scorer.forget(g)
	for at := g * i32(e.sides); at < (g+1)*i32(e.sides); at++ {
		if e.courses[at].phase != lasting {
			e.breakOff(at)
		} else if err := e.end(g, at, end); err != nil {
			return err
		}
	}
	return nil
}

// breakOff makes a course calm.
func (e *events) breakOff(at int32) {
	e.courses[at] = course{}
	n := len(e.levels)
	for i := range n {
		e.since[int(at)*n+i] = noTime
	}
}

func (e *events) reportCourse(g int32, c *course, end int64) error {
	return e.report(g, &detected{
		start: c.start, end: end, severity: e.severities[c.level], numbers: [3]float64{c.value, c.score, c.baseline},
	})
}

func (e *events) finish(groups []int32) error {
	if opened, _ := e.reports(); opened {
		return nil
	}
	for _, g := range groups {
		for at := g * i32(e.sides); at < (g+1)*i32(e.sides); at++ {
			c := &e.courses[at]
			if c.phase != lasting || c.told {
				continue
			}
			c.told, e.state.changed[g] = true, true
			if err := e.reportCourse(g, c, noTime); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *events) encode(dst []byte, g int32) []byte {
	if e.sides == cusumSides {
		dst = e.encodeSides(dst, g)
	} else {
		dst = e.encodeCourse(dst, g)
	}
	return e.scorer.encode(dst, g)
}

func (e *events) encodeCourse(dst []byte, at int32) []byte {
	c := &e.courses[at]
	if dst = append(dst, byte(c.phase)); c.phase == calm {
		return dst
	}
	dst = putBool(append(dst, byte(c.level+1)), c.told) //nolint:gosec // -1 to 7
	dst = putInt(putInt(dst, c.start), c.clearing)
	for _, v := range [...]float64{c.worst, c.value, c.score, c.baseline} {
		dst = putFloat(dst, v)
	}
	n := len(e.levels)
	for _, t := range e.since[int(at)*n : int(at)*n+n] {
		dst = putInt(dst, t)
	}
	return dst
}

func (e *events) decode(r *reader, g int32) {
	first := r.take(1)
	if first == nil {
		return
	}
	if e.sides == cusumSides {
		e.decodeSides(r, g, phase(first[0]))
	} else {
		e.decodeCourse(r, g, phase(first[0]))
	}
	e.scorer.decode(r, g)
}

// decodeCourse reads what stands behind the phase of a course.
func (e *events) decodeCourse(r *reader, at int32, p phase) {
	c := &e.courses[at]
	n := len(e.levels)
	if c.phase = p; p == calm {
		return
	}
	if level := r.take(1); level != nil {
		c.level = int8(level[0]) - 1 //nolint:gosec // held against the number of levels below
	}
	c.told, c.start, c.clearing = r.bool(), r.int(), r.int()
	c.worst, c.value, c.score, c.baseline = r.float(), r.float(), r.float(), r.float()
	for i := range n {
		e.since[int(at)*n+i] = r.int()
	}
	open := c.level >= 0 && int(c.level) < n
	pending := c.level == -1 && e.since[int(at)*n] != noTime
	if p == lasting && !open || p == waiting && !pending || p > lasting {
		r.err = errCorruptState
	}
}

// describe leaves out what may change while the state keeps its meaning: severities, bounds and durations. The number
// of bounds and the scale must stay.
func (e *events) describe() string {
	return fmt.Sprintf("events %s %d %d %s", e.plan.Detect.Method, e.direction, len(e.levels), e.scorer.describe())
}
