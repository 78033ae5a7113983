package flowdef

import (
	"slices"
	"strings"

	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

func (c *checker) checkRead(k int) bool {
	ps := &c.plan.Steps[k]
	r := ps.Read
	c.checkUse(ps.Step, r.Connection, readUse(r))
	sound := len(r.Schema) > 0
	for i := range r.Schema {
		column := r.Schema[i].Column
		if column.Type == expr.Invalid || ps.Output.Index(column.Name) >= 0 {
			c.problem(ps.Step, r.Schema[i].Pos, "column %q has no type or is there twice", excerpt.Of(column.Name))
			sound = false
		}
		ps.Output = append(ps.Output, column)
		c.origins[k] = append(c.origins[k], origin{sources: c.sources.of(r.Connection.Name + "." + column.Name), raw: true})
	}
	return sound
}

func (c *checker) checkFilter(k int) bool {
	ps := &c.plan.Steps[k]
	ps.Output, c.origins[k] = c.input(ps, 0)
	n := c.node(ps.Step, ps.Step.Filter, ps.Output)
	switch {
	case n == nil:
	case n.Type == expr.Bool:
		ps.Filter = n
	default:
		c.problem(ps.Step, ps.Step.Filter.Pos, "a filter must be a bool such as temp > 60, and this is of type %s", n.Type)
	}
	return true
}

func (c *checker) checkMap(k int) bool {
	ps := &c.plan.Steps[k]
	schema, origins := c.input(ps, 0)
	ps.Output, c.origins[k] = slices.Clone(schema), slices.Clone(origins)
	for i := range ps.Map {
		a := &ps.Map[i]
		to := ps.Output.Index(a.Name)
		n := c.node(ps.Step, &a.Expr, ps.Output)
		if n != nil && n.Type == expr.Null {
			c.problem(ps.Step, a.Expr.Pos, "column %q would be null in every row and has no type; give it one, as in float(null)", excerpt.Of(a.Name))
			n = nil
		}
		if n == nil {
			// Later expressions that name the column would only report its absence again.
			return false
		}
		from := c.originOf(n, c.origins[k])
		column := expr.Column{Name: a.Name, Type: n.Type}
		if to < 0 {
			to = len(ps.Output)
			ps.Output, c.origins[k] = append(ps.Output, column), append(c.origins[k], from)
		} else {
			ps.Output[to], c.origins[k][to] = column, from
		}
		ps.Assign, ps.AssignTo = append(ps.Assign, n), append(ps.AssignTo, to)
	}
	return true
}

func (c *checker) checkSelect(k int) bool {
	ps := &c.plan.Steps[k]
	schema, origins := c.input(ps, 0)
	sound := true
	names := make(map[string]bool, len(ps.Select))
	for _, selected := range ps.Select {
		i := c.column(ps.Step, selected.From, schema)
		if names[selected.Name] {
			c.problem(ps.Step, selected.From.Pos, "column %q is there twice in the output; give one of them another name with {new: old}", excerpt.Of(selected.Name))
			i = -1
		}
		if names[selected.Name] = true; i < 0 {
			sound = false
			continue
		}
		ps.Keep = append(ps.Keep, i)
		ps.Output = append(ps.Output, expr.Column{Name: selected.Name, Type: schema[i].Type})
		c.origins[k] = append(c.origins[k], origins[i])
	}
	return sound
}

func (c *checker) checkAggregate(k int) bool {
	ps := &c.plan.Steps[k]
	schema, origins := c.input(ps, 0)
	sound := true
	for _, ref := range ps.Aggregate.By {
		i := c.column(ps.Step, ref, schema)
		if i >= 0 && schema[i].Type == expr.JSON {
			c.problem(ps.Step, ref.Pos, "rows are not grouped by json; take a value out of column %q with json_string or json_number in a map", ref.Name)
			i = -1
		}
		if i < 0 {
			sound = false
			continue
		}
		ps.By = append(ps.By, i)
		ps.Output, c.origins[k] = append(ps.Output, schema[i]), append(c.origins[k], origins[i])
	}
	sound = c.checkWindow(k, schema, origins) && sound
	for i := range ps.Aggregate.Results {
		sound = c.checkResult(k, &ps.Aggregate.Results[i], schema, origins) && sound
	}
	return sound
}

// timeColumn finds a timestamp column, or reports what is wrong and gives -1.
func (c *checker) timeColumn(s *Step, ref Ref, schema expr.Schema) int {
	i := c.column(s, ref, schema)
	if i >= 0 && schema[i].Type != expr.Timestamp {
		c.problem(s, ref.Pos, "the time column %q is of type %s, not timestamp%s", ref.Name, schema[i].Type, listTimes(schema))
		return -1
	}
	return i
}

// listTimes names the schema's timestamp columns, for the end of a message.
func listTimes(schema expr.Schema) string {
	var times []string
	for i := range schema {
		if schema[i].Type == expr.Timestamp {
			times = append(times, schema[i].Name)
		}
	}
	if len(times) == 0 {
		return "; there is no timestamp column, declare one in the read's schema or make one with timestamp(…) in a map"
	}
	return "; there is " + strings.Join(times, ", ")
}

func (c *checker) checkResult(k int, a *Assignment, schema expr.Schema, origins []origin) bool {
	ps := &c.plan.Steps[k]
	if a.Expr.Node == nil || c.full() {
		return false
	}
	call, err := expr.CheckAggregate(a.Expr.Node, schema, &c.patterns)
	if err != nil {
		c.problem(ps.Step, a.Expr.place(err), "%s", err)
		return false
	}
	if call.Func.Windowed && ps.Aggregate.Window == nil {
		c.problem(ps.Step, a.Expr.Pos, "%s works along a time column; give the step a window such as window: {tumbling: 1h, time: COLUMN}", call.Func.Name)
		return false
	}
	if ps.Output.Index(a.Name) >= 0 {
		c.problem(ps.Step, a.Pos, "column %q is there twice in the output: it also comes from by or from the window; choose another name", excerpt.Of(a.Name))
		return false
	}
	var from origin
	if call.Arg != nil {
		from = c.originOf(call.Arg, origins)
	}
	ps.Aggregates = append(ps.Aggregates, AggregateCall{Name: a.Name, Func: call.Func.Name, Arg: call.Arg, Params: call.Params, Result: call.Result})
	ps.Output = append(ps.Output, expr.Column{Name: a.Name, Type: call.Result})
	c.origins[k] = append(c.origins[k], origin{sources: from.sources})
	return true
}

func (c *checker) checkInsight(k int) bool {
	ps := &c.plan.Steps[k]
	ps.Output, c.origins[k] = c.input(ps, 0)
	schema := ps.Output
	for _, ref := range ps.Insight.Key {
		i := c.column(ps.Step, ref, schema)
		if i >= 0 && schema[i].Type == expr.JSON {
			c.problem(ps.Step, ref.Pos, "json cannot be in an insight's key; take a value out of column %q with json_string or json_number in a map", ref.Name)
		}
		if i >= 0 {
			ps.InsightKey = append(ps.InsightKey, i)
		}
	}
	ps.InsightTime = c.insightTime(k)
	for i := range schema {
		bound := schema[i].Name == WindowStart || schema[i].Name == WindowEnd
		if !slices.Contains(ps.InsightKey, i) && (i != ps.InsightTime || bound) {
			ps.InsightValues = append(ps.InsightValues, i)
		}
	}
	return true
}

// insightTime is the column that gives the insight's time, or -1.
func (c *checker) insightTime(k int) int {
	ps := &c.plan.Steps[k]
	schema := ps.Output
	if ref := ps.Insight.Time; ref.Name != "" {
		i := c.column(ps.Step, ref, schema)
		if i >= 0 && schema[i].Type != expr.Timestamp {
			c.problem(ps.Step, ref.Pos, "the insight's time column %q is of type %s, not timestamp%s", ref.Name, schema[i].Type, listTimes(schema))
		}
		return i
	}
	only, starts, times := -1, -1, 0
	for i := range schema {
		if c.origins[k][i].windowStart && (starts < 0 || schema[i].Name == WindowStart) {
			starts = i
		}
		if schema[i].Type == expr.Timestamp {
			only = i
			times++
		}
	}
	if starts >= 0 {
		return starts
	}
	if times > 1 {
		c.problem(ps.Step, Pos{}, "the insight's time is not clear: write time: and one of the timestamp columns%s", listTimes(schema))
		return -1
	}
	return only
}
