package flowdef

import (
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

// union reads the ids of the steps whose rows come together.
func (p *parser) union(n *yaml.Node) []Ref {
	var list []Ref
	seen := map[string]bool{}
	for _, item := range p.items(n, "union", "[step, step]") {
		r := p.ref(item, "a step's name of union")
		if r.Name == "" {
			continue
		}
		if seen[r.Name] {
			p.problem(r.Pos, "the step %q is there twice in union, so each of its rows would count twice; name it once", excerpt.Of(r.Name))
			continue
		}
		seen[r.Name] = true
		list = append(list, r)
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) < 2 {
		p.problem(at(n), "union puts the rows of two or more steps together; write union: [step, step]")
	}
	return list
}

// checkUnion holds the columns of every input against those of the first, whose order the output has.
func (c *checker) checkUnion(k int) bool {
	ps := &c.plan.Steps[k]
	first, firstOrigins := c.input(ps, 0)
	ps.Output, c.origins[k] = first, slices.Clone(firstOrigins)
	place := make(map[string]int, len(first))
	for i := range first {
		place[first[i].Name] = i
	}
	sound := true
	for n := 1; n < len(ps.Inputs) && c.cells <= maxCells; n++ {
		schema, origins := c.input(ps, n)
		c.cells += len(schema) // a union may name a step that thousands of others name too
		if !c.sameColumns(ps, n, schema, place) {
			sound = false
			continue
		}
		for i := range schema {
			to := &c.origins[k][place[schema[i].Name]]
			to.sources = c.union(to.sources, origins[i].sources)
			to.raw = to.raw || origins[i].raw
			to.windowStart = to.windowStart && origins[i].windowStart
		}
	}
	return sound
}

// sameColumns says whether the n-th input has the columns of the first, whose places are given; it reports the first
// difference.
func (c *checker) sameColumns(ps *PlanStep, n int, schema expr.Schema, place map[string]int) bool {
	first, other := ps.From[0].Name, ps.From[n].Name
	const hint = "; give both the same columns with select or map"
	for _, column := range schema {
		i, ok := place[column.Name]
		switch {
		case !ok:
			c.problem(ps.Step, ps.From[n].Pos, "step %q has the column %q, which step %q has not"+hint, other, column.Name, first)
			return false
		case ps.Output[i].Type != column.Type:
			c.problem(ps.Step, ps.From[n].Pos, "column %q is of type %s in step %q and of type %s in step %q; convert one of them in a map before the union",
				column.Name, ps.Output[i].Type, first, column.Type, other)
			return false
		}
	}
	if len(schema) < len(ps.Output) {
		for i := range ps.Output {
			if schema.Index(ps.Output[i].Name) < 0 {
				c.problem(ps.Step, ps.From[n].Pos, "step %q lacks the column %q, which step %q has"+hint, other, ps.Output[i].Name, first)
				return false
			}
		}
	}
	return true
}

func unionSchema(properties object) {
	properties["union"] = object{
		"type": "array", "minItems": 2, "uniqueItems": true, "items": named("The id of a step."),
		"description": "The steps whose rows come together; all have the same columns.",
	}
}
