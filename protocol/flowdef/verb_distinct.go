package flowdef

import (
	"time"

	"go.yaml.in/yaml/v3"
)

// allColumns is what distinct says to compare whole rows.
const allColumns = "all"

// DistinctStep keeps the first row of each key.
type DistinctStep struct {
	// By is the columns of the key; none means all columns.
	By  []Ref
	Pos Pos
	// Within is how long, in the time of the column Time, a kept row makes others its repeats; 0 is for ever, which a
	// continuous flow does not allow.
	Within time.Duration
	Time   Ref
	// Ahead is how far a row's time may lie ahead of the agent's clock; see TimeBounds.
	Ahead time.Duration
}

// DistinctPlan is a checked DistinctStep.
type DistinctPlan struct {
	// By is the input positions of the key, Time that of the time column or -1.
	By   []int
	Time int
}

func distinctKeys() []string { return []string{"within", "time", aheadKey} }

func (p *parser) distinct(n *yaml.Node, members map[string]entry) *DistinctStep {
	d := &DistinctStep{Pos: at(n)}
	if n.Kind == yaml.ScalarNode {
		if n.Value != allColumns {
			p.problem(at(n), "distinct takes a list of columns, [column, …], or all for the whole row")
		}
	} else if d.By = p.refs(n, "distinct"); n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		p.problem(at(n), "distinct names no column; write [column, …], or all for the whole row")
	}
	d.Within, d.Time = p.withinTime(members)
	d.Ahead = p.ahead(members)
	return d
}

// withinTime reads the keys within and time, which go together and which ahead belongs to.
func (p *parser) withinTime(members map[string]entry) (within time.Duration, column Ref) {
	w, hasWithin := members["within"]
	t, hasTime := members["time"]
	if hasWithin {
		within = p.duration(w.value, "within")
	}
	if hasTime {
		column = p.ref(t.value, "the column name of time")
	}
	if e, has := members[aheadKey]; has && !hasWithin && !hasTime {
		p.problem(e.pos, "ahead belongs to within and time; write these as well, or leave ahead out")
	}
	switch {
	case hasWithin && !hasTime:
		p.problem(w.pos, "within needs a time; write time: and the name of a timestamp column")
	case hasTime && !hasWithin:
		p.problem(t.pos, "time belongs to within; write within: and how long a repeat is one, such as 1h")
	}
	return within, column
}

func (c *checker) checkDistinct(k int) bool {
	ps := &c.plan.Steps[k]
	ps.Output, c.origins[k] = c.input(ps, 0)
	d := ps.Distinct
	refs := d.By
	if len(refs) == 0 {
		for i := range ps.Output {
			refs = append(refs, Ref{Name: ps.Output[i].Name, Pos: d.Pos})
		}
	}
	ps.DistinctPlan = &DistinctPlan{By: c.keyColumns(ps.Step, refs, ps.Output), Time: -1}
	switch {
	case d.Time.Name != "":
		ps.DistinctPlan.Time = c.timeColumn(ps.Step, d.Time, ps.Output)
	case d.Within == 0 && c.flow.Trigger.Kind == Continuous:
		c.problem(ps.Step, d.Pos, "in a continuous flow distinct would have to remember every row for ever; add within: 1h and time: COLUMN, so that a repeat is one only within that time")
	}
	return true
}

func distinctSchema(properties object) {
	properties["distinct"] = object{"oneOf": []any{reference("columns"), object{"const": allColumns}}}
	properties["within"] = reference("duration")
	properties["time"] = reference("column")
	properties[aheadKey] = aheadSchema()
}
