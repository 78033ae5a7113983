package engine

import (
	"fmt"
	"math"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// level is the scorer of threshold: the value is its own score.
type level struct{}

func (level) grow(int)                                        {}
func (level) learn(int32, int64, float64)                     {}
func (level) forget(int32)                                    {}
func (level) encode(dst []byte, _ int32) []byte               { return dst }
func (level) decode(*reader, int32)                           {}
func (level) groupSize() int                                  { return 0 }
func (level) describe() string                                { return "" }
func (level) score(_ int32, t int64, v float64) (score, bool) { return score{value: v, since: t}, true }

// smoothing is an exponentially weighted mean over times that need not be regular: after one half-life a value counts
// half. The last weight is kept, because most readings are as far apart as the ones before.
type smoothing struct {
	halfLife float64
	gap      int64
	weight   float64
}

// weightOf is how much of the way to the new value the mean goes after a gap.
func (s *smoothing) weightOf(gap int64) float64 {
	if gap != s.gap {
		s.gap, s.weight = gap, -math.Expm1(-math.Ln2*float64(gap)/s.halfLife)
	}
	return s.weight
}

// rate scores the change from the reading before, for each `per` of time; with a half-life its smoothed course.
type rate struct {
	per      float64
	smoothed bool
	smoothing
	group []rateOf
}

type rateOf struct {
	at   int64
	last float64
	// mean is the smoothed rate; known says that there is one.
	mean  float64
	known bool
}

func newRate(def *flowdef.DetectStep) *rate {
	return &rate{
		per: float64(def.Per.Microseconds()), smoothed: def.HalfLife > 0,
		smoothing: smoothing{halfLife: float64(def.HalfLife.Microseconds())},
	}
}

func (r *rate) grow(n int) {
	old := len(r.group)
	r.group = growTo(r.group, n)
	for g := old; g < n; g++ {
		r.group[g].at = noTime
	}
}

func (r *rate) score(g int32, t int64, v float64) (score, bool) {
	o := &r.group[g]
	before, at := o.last, o.at
	o.last, o.at = v, t
	if at == noTime {
		return score{}, false
	}
	gap := t - at
	now := (v - before) / float64(gap) * r.per
	if r.smoothed && !math.IsInf(now, 0) {
		if o.known {
			now = o.mean + r.weightOf(gap)*(now-o.mean)
		}
		o.mean, o.known = now, !math.IsInf(now, 0) && !math.IsNaN(now)
	}
	return score{value: now, since: t}, true
}

func (r *rate) learn(int32, int64, float64) {}
func (r *rate) forget(int32)                {}
func (r *rate) groupSize() int              { return 32 }

func (r *rate) encode(dst []byte, g int32) []byte {
	o := &r.group[g]
	return putBool(putFloat(putFloat(putInt(dst, o.at), o.last), o.mean), o.known)
}

func (r *rate) decode(s *reader, g int32) {
	r.group[g] = rateOf{at: s.int(), last: s.float(), mean: s.float(), known: s.bool()}
}

func (r *rate) describe() string { return fmt.Sprintf("%v %v", r.per, r.halfLife) }

// zscore scores a value by how many standard deviations it is away from the mean of its baseline.
type zscore struct{ baselines }

func (z *zscore) score(g int32, t int64, v float64) (score, bool) { return z.distance(g, t, v) }

func (z *zscore) describe() string { return z.baselines.describe() }

// ewma smooths the values and holds the smoothed course against a baseline of its own past. So the spread is that of
// the smoothed values, however much the readings depend on one another.
type ewma struct {
	baselines
	smoothing
	group []smoothed
}

type smoothed struct {
	at   int64
	mean float64
}

func newEWMA(def *flowdef.DetectStep) *ewma {
	return &ewma{baselines: newBaselines(def), smoothing: smoothing{halfLife: float64(def.HalfLife.Microseconds())}}
}

func (e *ewma) grow(n int) {
	e.baselines.grow(n)
	old := len(e.group)
	e.group = growTo(e.group, n)
	for g := old; g < n; g++ {
		e.group[g].at = noTime
	}
}

func (e *ewma) score(g int32, t int64, v float64) (score, bool) {
	o := &e.group[g]
	mean := v
	if o.at != noTime {
		if mean = o.mean + e.weightOf(t-o.at)*(v-o.mean); math.IsInf(mean, 0) || math.IsNaN(mean) {
			mean = v
		}
	}
	o.at, o.mean = t, mean
	return e.distance(g, t, mean)
}

func (e *ewma) learn(g int32, t int64, _ float64) { e.baselines.learn(g, t, e.group[g].mean) }
func (e *ewma) groupSize() int                    { return 16 + e.baselines.groupSize() }

func (e *ewma) encode(dst []byte, g int32) []byte {
	return e.baselines.encode(putFloat(putInt(dst, e.group[g].at), e.group[g].mean), g)
}

func (e *ewma) decode(r *reader, g int32) {
	e.group[g] = smoothed{at: r.int(), mean: r.float()}
	e.baselines.decode(r, g)
}

func (e *ewma) describe() string { return fmt.Sprintf("%s %v", e.baselines.describe(), e.halfLife) }

// cusum sums up how far the values are away from their baseline, in standard deviations and beyond half the shift that
// it looks for, separately for both directions; a sum never falls below zero. It holds a sum at twice the gravest bound,
// so that an event can end soon after the shift has.
type cusum struct {
	baselines
	// target and deviation are the given baseline; deviation 0 means that it is learned.
	target, deviation float64
	slack, most       float64
	up, down          bool
	group             []sums
}

// sums are the two sums of a group and since when each is above zero.
type sums struct {
	high, low           float64
	highSince, lowSince int64
}

func newCUSUM(def *flowdef.DetectStep) *cusum {
	c := &cusum{
		slack: def.Shift / 2, most: 2 * def.Levels[len(def.Levels)-1].Value,
		up: def.Direction != flowdef.DirectionDown, down: def.Direction != flowdef.DirectionUp,
	}
	if def.Target != nil && def.Deviation != nil {
		c.target, c.deviation = *def.Target, *def.Deviation
	} else {
		c.baselines = newBaselines(def)
	}
	return c
}

func (c *cusum) learned() bool { return c.deviation == 0 }

func (c *cusum) grow(n int) {
	c.group = growTo(c.group, n)
	if c.learned() {
		c.baselines.grow(n)
	}
}

func (c *cusum) score(g int32, t int64, v float64) (score, bool) {
	s := score{value: (v - c.target) / c.deviation, baseline: c.target}
	if c.learned() {
		var ok bool
		if s, ok = c.distance(g, t, v); !ok {
			return s, false
		}
	}
	o := &c.group[g]
	z := s.value
	if math.IsNaN(z) {
		return s, false
	}
	if c.up {
		o.high, o.highSince = c.add(o.high, z, o.highSince, t)
	}
	if c.down {
		o.low, o.lowSince = c.add(o.low, -z, o.lowSince, t)
	}
	if o.low > o.high {
		s.value, s.since = -o.low, o.lowSince
	} else {
		s.value, s.since = o.high, o.highSince
	}
	return s, true
}

// add takes a deviation into a sum.
func (c *cusum) add(sum, z float64, since, t int64) (float64, int64) {
	next := min(max(sum+z-c.slack, 0), c.most)
	if sum == 0 {
		since = t
	}
	return next, since
}

func (c *cusum) learn(g int32, t int64, v float64) {
	if c.learned() {
		c.baselines.learn(g, t, v)
	}
}

func (c *cusum) forget(g int32) {
	c.group[g] = sums{}
	if c.learned() {
		c.baselines.forget(g)
	}
}

func (c *cusum) groupSize() int {
	if !c.learned() {
		return 32
	}
	return 32 + c.baselines.groupSize()
}

func (c *cusum) encode(dst []byte, g int32) []byte {
	o := &c.group[g]
	dst = putInt(putInt(putFloat(putFloat(dst, o.high), o.low), o.highSince), o.lowSince)
	if c.learned() {
		dst = c.baselines.encode(dst, g)
	}
	return dst
}

func (c *cusum) decode(r *reader, g int32) {
	o := sums{high: r.float(), low: r.float(), highSince: r.int(), lowSince: r.int()}
	if !(o.high >= 0 && o.low >= 0) {
		r.err = errCorruptState
	}
	c.group[g] = o
	if c.learned() {
		c.baselines.decode(r, g)
	}
}

func (c *cusum) describe() string {
	return fmt.Sprintf("%s %v %v %v", c.baselines.describe(), c.target, c.deviation, c.slack)
}
