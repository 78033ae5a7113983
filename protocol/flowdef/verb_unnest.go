package flowdef

import (
	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

// UnnestStep makes a row of each element of a json column.
type UnnestStep struct {
	// Column is the json column.
	Column Ref
	// Schema is the members to take of each element.
	Schema []SchemaColumn
	// Index is the name of the column with the element's place, counted from 0; "" for none.
	Index Ref
	// Kind is "inner" (the default), or "left", which keeps a row without elements.
	Kind string
}

// UnnestPlan is a checked UnnestStep. The output is the input's columns without the json column, then the members, then
// the index.
type UnnestPlan struct {
	// Column is the input position of the json column.
	Column int
	// Keep is the input positions of the other columns, which are the first ones of the output.
	Keep []int
	// Index is the output position of the element's place, or -1.
	Index int
}

func unnestKeys() []string { return []string{"schema", "index", "type"} }

func (p *parser) unnest(s *Step, n *yaml.Node, members map[string]entry) *UnnestStep {
	u := &UnnestStep{Column: p.ref(n, "the json column of unnest"), Kind: "inner"}
	if e, ok := members["schema"]; ok {
		u.Schema = p.schema(e.value)
	} else {
		p.problem(s.Pos, "the unnest has no schema; write schema: {member: type} with the members to take of each element")
	}
	if e, ok := members["index"]; ok {
		u.Index = p.ref(e.value, "the column name of index")
		p.column(u.Index.Name, u.Index.Pos)
	}
	if e, ok := members["type"]; ok {
		u.Kind = p.oneOf(e.value, "type", "inner", "left")
	}
	return u
}

func (c *checker) checkUnnest(k int) bool {
	ps := &c.plan.Steps[k]
	schema, origins := c.input(ps, 0)
	from := c.column(ps.Step, ps.Unnest.Column, schema)
	if from < 0 || len(ps.Unnest.Schema) == 0 {
		return false
	}
	if schema[from].Type != expr.JSON {
		c.problem(ps.Step, ps.Unnest.Column.Pos, "unnest takes a json column, and %q is of type %s; a text that holds JSON becomes one with json(…) in a map", ps.Unnest.Column.Name, schema[from].Type)
		return false
	}
	plan := &UnnestPlan{Column: from, Index: -1}
	ps.UnnestPlan = plan
	for i := range schema {
		if i != from {
			plan.Keep = append(plan.Keep, i)
			ps.Output, c.origins[k] = append(ps.Output, schema[i]), append(c.origins[k], origins[i])
		}
	}
	taken := make(map[string]bool, len(ps.Output))
	for i := range ps.Output {
		taken[ps.Output[i].Name] = true
	}
	sound := true
	add := func(column expr.Column, pos Pos) {
		if taken[column.Name] {
			c.problem(ps.Step, pos, "column %q is there twice in the output; give the other one another name with select before the unnest", excerpt.Of(column.Name))
			sound = false
		}
		taken[column.Name] = true
		ps.Output, c.origins[k] = append(ps.Output, column), append(c.origins[k], origin{sources: origins[from].sources, raw: origins[from].raw})
	}
	for _, member := range ps.Unnest.Schema {
		if member.Type == expr.Invalid {
			sound = false
		}
		add(member.Column, member.Pos)
	}
	if index := ps.Unnest.Index; index.Name != "" {
		plan.Index = len(ps.Output)
		add(expr.Column{Name: index.Name, Type: expr.Int}, index.Pos)
	}
	return sound
}

func unnestSchema(properties object) []string {
	properties["unnest"] = reference("column")
	properties["schema"] = mapOf(reference("type"))
	properties["index"] = reference("column")
	properties["type"] = object{"enum": []string{"inner", "left"}}
	return []string{"schema"}
}
