package flowdef

import (
	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

// SortStep orders the rows of a run that ends.
type SortStep struct{ By []SortKey }

// SortKey is a column to sort by.
type SortKey struct {
	Column Ref
	// Descending puts the greatest value first. Nulls are last either way.
	Descending bool
}

// SortPlan is a checked SortStep.
type SortPlan struct {
	// Columns are the input positions of the keys, the most important first.
	Columns []int
	// Descending says for each of them whether the greatest value comes first.
	Descending []bool
}

// sort reads [a, {b: desc}].
func (p *parser) sort(n *yaml.Node) *SortStep {
	const shape = "[column, {column: desc}]"
	s := &SortStep{}
	if p.tooWide(n, len(n.Content), "sort") {
		return s
	}
	seen := map[string]bool{}
	add := func(key SortKey) {
		switch name := key.Column.Name; {
		case name == "":
		case seen[name]:
			p.problem(key.Column.Pos, "column %q is there twice in sort; the first place decides", excerpt.Of(name))
		default:
			seen[name] = true
			s.By = append(s.By, key)
		}
	}
	for _, item := range p.items(n, "sort", shape) {
		if item.Kind != yaml.MappingNode {
			add(SortKey{Column: p.ref(item, "a column name of sort")})
			continue
		}
		for _, e := range p.columnEntries(item, "sort", shape) {
			add(SortKey{Column: Ref{Name: e.key, Pos: e.pos}, Descending: p.oneOf(e.value, "the order of "+excerpt.Of(e.key), "asc", "desc") == "desc"})
		}
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		p.problem(at(n), "sort names no column; write sort: %s", shape)
	}
	return s
}

func (c *checker) checkSort(k int) bool {
	ps := &c.plan.Steps[k]
	ps.Output, c.origins[k] = c.input(ps, 0)
	if c.flow.Trigger.Kind == Continuous {
		c.problem(ps.Step, Pos{}, "rows can be sorted only when all of them are there, and a continuous flow has no end; sort in a flow with another trigger")
	}
	plan := &SortPlan{}
	for _, key := range ps.Sort.By {
		i := c.column(ps.Step, key.Column, ps.Output)
		if i >= 0 && ps.Output[i].Type == expr.JSON {
			c.problem(ps.Step, key.Column.Pos, "rows are not sorted by json; take a value out of column %q with json_string or json_number in a map", key.Column.Name)
		}
		if i >= 0 {
			plan.Columns, plan.Descending = append(plan.Columns, i), append(plan.Descending, key.Descending)
		}
	}
	ps.SortPlan = plan
	return true
}

func sortSchema(properties object) {
	order := object{"type": "object", "minProperties": 1, "additionalProperties": object{"enum": []string{"asc", "desc"}}}
	properties["sort"] = object{
		"type": "array", "minItems": 1, "items": object{"oneOf": []any{reference("column"), order}},
		"description": "The columns to sort by, the most important first; nulls are last.",
	}
}
