package flowdef

import (
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

func joinKinds() []string {
	return []string{string(JoinInner), string(JoinLeft), string(JoinSemi), string(JoinAnti), string(JoinFull)}
}

func (p *parser) join(s *Step, members map[string]entry) *JoinStep {
	j := &JoinStep{Kind: JoinInner}
	if e, ok := members["type"]; ok {
		j.Kind = JoinKind(p.oneOf(e.value, "type", joinKinds()...))
	}
	p.streamJoin(j, members)
	e, ok := members["on"]
	switch {
	case !ok:
		p.problem(s.Pos, "the join has no on; write on: [column] or on: {left_column: right_column}")
	case e.value.Kind == yaml.MappingNode:
		for _, pair := range p.columnEntries(e.value, "on", "{left: right}") {
			right := p.ref(pair.value, "the right column of "+excerpt.Of(pair.key))
			j.On = append(j.On, JoinKey{Left: Ref{Name: pair.key, Pos: pair.pos}, Right: right})
		}
	default:
		for _, r := range p.refs(e.value, "on") {
			j.On = append(j.On, JoinKey{Left: r, Right: r})
		}
	}
	if ok && len(e.value.Content) == 0 && e.value.Kind != yaml.ScalarNode {
		p.problem(at(e.value), "on is empty; a join needs at least one column")
	}
	return j
}

func (c *checker) checkJoin(k int) bool {
	ps := &c.plan.Steps[k]
	if len(ps.Inputs) != 2 {
		return false
	}
	left, leftOrigins := c.input(ps, 0)
	right, rightOrigins := c.input(ps, 1)
	if ps.Inputs[0] == ps.Inputs[1] {
		c.problem(ps.Step, ps.From[1].Pos, "the step %q is joined with itself; name another one", ps.From[1].Name)
		return false
	}
	if sound := c.checkJoinKeys(k, left, right); !c.checkStreamJoin(ps, left, right) || !sound {
		return false
	}
	if ps.Join.Kind == JoinFull && c.flow.Trigger.Kind == Continuous {
		c.problem(ps.Step, Pos{}, "a full join gives the rows without a match when its input has ended, which a continuous flow's never does; use type: left")
	}
	ps.Output, c.origins[k] = slices.Clone(left), slices.Clone(leftOrigins)
	if ps.Join.Kind == JoinSemi || ps.Join.Kind == JoinAnti {
		return true
	}
	if ps.Join.Kind == JoinFull {
		c.addRightKeys(k, rightOrigins)
	}
	sound := true
	for r := range right {
		if slices.Contains(ps.JoinRight, r) {
			continue
		}
		if ps.Output.Index(right[r].Name) >= 0 {
			c.problem(ps.Step, ps.From[1].Pos, "column %q is on both sides of the join; give one of them another name with select before the join", right[r].Name)
			sound = false
			continue
		}
		ps.RightKeep = append(ps.RightKeep, r)
		ps.Output, c.origins[k] = append(ps.Output, right[r]), append(c.origins[k], rightOrigins[r])
	}
	return sound
}

// checkJoinKeys finds the columns that a join compares.
func (c *checker) checkJoinKeys(k int, left, right expr.Schema) bool {
	ps := &c.plan.Steps[k]
	sound := true
	for _, on := range ps.Join.On {
		l, r := c.column(ps.Step, on.Left, left), c.column(ps.Step, on.Right, right)
		if l < 0 || r < 0 {
			sound = false
			continue
		}
		if left[l].Type != right[r].Type || left[l].Type == expr.JSON {
			c.problem(ps.Step, on.Left.Pos, "the join compares %q of type %s with %q of type %s; they must be of one type other than json: convert one in a map before the join",
				on.Left.Name, left[l].Type, on.Right.Name, right[r].Type)
			sound = false
			continue
		}
		ps.JoinLeft, ps.JoinRight = append(ps.JoinLeft, l), append(ps.JoinRight, r)
	}
	return sound
}

// addRightKeys notes that a full join's left key columns have the right side's values where only that has a row.
func (c *checker) addRightKeys(k int, rightOrigins []origin) {
	ps := &c.plan.Steps[k]
	for i, l := range ps.JoinLeft {
		to, from := &c.origins[k][l], rightOrigins[ps.JoinRight[i]]
		to.sources, to.raw = c.union(to.sources, from.sources), to.raw || from.raw
	}
}
