package flowdef

import (
	"time"
)

// How far a row's time may lie ahead of the agent's clock. One row with a wrong time far in the future would move a
// watermark past all rows that are right, so that these would be late for good.
const (
	// DefaultAhead is the bound of a continuous flow whose step states none.
	DefaultAhead = time.Hour
	// AheadNone, as the Ahead of a step, takes every time. The zero Ahead stands for the default.
	AheadNone time.Duration = -1

	aheadKey  = "ahead"
	aheadNone = "none"
)

// TimeBound says how far the times of an input's rows may lie ahead of the agent's clock.
type TimeBound struct {
	// Input is the place in PlanStep.Inputs, Column the position of the timestamp column in that input.
	Input, Column int
	// Ahead is the bound, more than 0. Default says that the definition does not state it; then it is for sources that
	// have no end.
	Ahead   time.Duration
	Default bool
}

// TimeBounds are the bounds of the event times that the step goes by. A definition states them as `ahead`; a continuous
// flow has DefaultAhead where it states none, any other flow no bound.
func (p *Plan) TimeBounds(step int) []TimeBound {
	continuous := p.Flow != nil && p.Flow.Trigger.Kind == Continuous
	var list []TimeBound
	for _, b := range p.Steps[step].statedBounds() {
		switch {
		case b.Column < 0 || b.Ahead < 0:
			continue
		case b.Ahead == 0 && !continuous:
			continue
		case b.Ahead == 0:
			b.Ahead, b.Default = DefaultAhead, true
		}
		list = append(list, b)
	}
	return list
}

// statedBounds are the times that the step goes by, with Ahead as it was written.
func (s *PlanStep) statedBounds() []TimeBound {
	switch {
	case s.Aggregate != nil && s.Aggregate.Window != nil:
		return []TimeBound{{Column: s.WindowTime, Ahead: s.Aggregate.Window.Ahead}}
	case s.StreamJoin != nil:
		ahead := s.Join.Stream.Ahead
		return []TimeBound{{Column: s.StreamJoin.LeftTime, Ahead: ahead}, {Input: 1, Column: s.StreamJoin.RightTime, Ahead: ahead}}
	case s.DistinctPlan != nil:
		return []TimeBound{{Column: s.DistinctPlan.Time, Ahead: s.Distinct.Ahead}}
	case s.DetectPlan != nil:
		return []TimeBound{{Column: s.DetectPlan.Time, Ahead: s.Detect.Ahead}}
	case s.ValidatePlan == nil:
		return nil
	}
	var list []TimeBound
	for i := range s.ValidatePlan.Rules {
		if r := &s.ValidatePlan.Rules[i]; r.Unique != nil {
			list = append(list, TimeBound{Column: r.Time, Ahead: r.Unique.Ahead})
		}
	}
	return list
}

// ahead reads how far a time may lie ahead of the clock: a duration, or none.
func (p *parser) ahead(members map[string]entry) time.Duration {
	e, ok := members[aheadKey]
	switch {
	case !ok:
		return 0
	case e.value.Value == aheadNone:
		return AheadNone
	}
	return p.duration(e.value, aheadKey)
}

func aheadSchema() object {
	return object{"oneOf": []any{reference("duration"), object{"const": aheadNone}}}
}

// aheadHelp documents the key.
func aheadHelp() Key {
	return Key{aheadKey, "how far a time may lie ahead of the agent's clock before the row is a failed record, or `none`: see [Times ahead of the clock](#times-ahead-of-the-clock); an hour in a continuous flow when left out"}
}
