package flowdef

import (
	"time"

	"github.com/outfeed/outfeed/protocol/expr"
)

// StreamJoin is what makes a join one of two streams.
type StreamJoin struct {
	// Time is the timestamp columns of the left and of the right side.
	Time JoinKey
	// Late is how long after the greatest time seen on its own side a row still counts.
	Late time.Duration
	// Ahead is how far a row's time may lie ahead of the agent's clock; see TimeBounds.
	Ahead time.Duration
}

// StreamJoinPlan is a checked StreamJoin.
type StreamJoinPlan struct {
	// LeftTime and RightTime are the positions of the time columns in the two inputs.
	LeftTime, RightTime int
}

func streamJoinKeys() []string { return []string{"within", "time", "late", aheadKey} }

// streamJoin reads within, time, late and ahead.
func (p *parser) streamJoin(j *JoinStep, members map[string]entry) {
	within, ok := members["within"]
	if !ok {
		for _, key := range []string{"time", "late", aheadKey} {
			if e, has := members[key]; has {
				p.problem(e.pos, "%s belongs to a join of two streams, which also says within: how far apart the times of two rows may be", key)
			}
		}
		return
	}
	j.Within, j.Stream = p.duration(within.value, "within"), &StreamJoin{Ahead: p.ahead(members)}
	if e, has := members["late"]; has && e.value.Value != "0" && e.value.Value != "0s" {
		j.Stream.Late = p.duration(e.value, "late")
	}
	if e, has := members["time"]; has {
		if pairs := p.keyPairs(e.value, "{left_time: right_time}"); len(pairs) == 1 {
			j.Stream.Time = pairs[0]
			return
		}
		p.problem(at(e.value), "time names one column of each side: write time: {left_time: right_time}, or [column] when both have the same name")
		return
	}
	p.problem(within.pos, "a join within a time needs the times: write time: {left_time: right_time}")
}

// checkStreamJoin checks what a join of two streams has beside the keys.
func (c *checker) checkStreamJoin(ps *PlanStep, left, right expr.Schema) bool {
	s := ps.Join.Stream
	if s == nil {
		return true
	}
	if ps.Join.Kind != JoinInner && ps.Join.Kind != JoinLeft {
		c.problem(ps.Step, Pos{}, "a join of two streams is of type inner or left, not %s", ps.Join.Kind)
		return false
	}
	plan := &StreamJoinPlan{LeftTime: c.timeColumn(ps.Step, s.Time.Left, left), RightTime: c.timeColumn(ps.Step, s.Time.Right, right)}
	ps.StreamJoin = plan
	return plan.LeftTime >= 0 && plan.RightTime >= 0
}

func streamJoinSchema(properties object) {
	properties["within"] = reference("duration")
	properties["time"] = object{"oneOf": []any{reference("columns"), mapOf(reference("column"))}}
	properties["late"] = object{"type": []string{"string", "number"}}
	properties[aheadKey] = aheadSchema()
}
