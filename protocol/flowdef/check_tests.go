package flowdef

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

// checkTests checks the names, the columns and the values of the flow's tests.
func (c *checker) checkTests() {
	reads, insights := map[string]int{}, map[string]int{}
	for k := range c.plan.Steps {
		switch s := &c.plan.Steps[k]; s.Verb { //nolint:exhaustive // only these have rows in a test
		case Read:
			reads[s.ID] = k
		case Lookup:
			reads[s.ID] = k
		case Insight:
			insights[s.Insight.Name] = k
		case Write:
			if _, taken := insights[s.ID]; !taken {
				insights[s.ID] = k
			}
		}
	}
	for i := range c.flow.Tests {
		t := &c.flow.Tests[i]
		c.checkRows(t, rowsOf{"given", "read step", t.Given, reads, false})
		c.checkRows(t, rowsOf{"expect", "insight", t.Expect, insights, true})
	}
}

// rowsOf is one half of a test.
type rowsOf struct {
	key, kind string
	rows      map[string][]map[string]any
	// steps is the place in the plan by the name that the rows are under.
	steps map[string]int
	// timed says that the rows have a time beside their columns: insightTime.
	timed bool
}

// insightTime is the member of an expected insight that is its time, where no column has that name.
const insightTime = "time"

func (c *checker) checkRows(t *Test, of rowsOf) {
	for _, name := range slices.Sorted(maps.Keys(of.rows)) {
		path := of.key + "/" + name
		k, ok := of.steps[name]
		switch {
		case c.full():
			return
		case !ok:
			c.testProblem(t, path, "%s", expr.Unknown(of.kind, name, slices.Sorted(maps.Keys(of.steps))))
			continue
		case !c.sound[k]:
			continue
		}
		schema := c.plan.Steps[k].Output
		if lookup := c.plan.Steps[k].LookupPlan; lookup != nil {
			schema = lookup.Given()
		}
		for i, row := range of.rows[name] {
			for _, column := range slices.Sorted(maps.Keys(row)) {
				at := path + "/" + strconv.Itoa(i) + "/" + column
				if of.timed && column == insightTime && schema.Index(column) < 0 {
					c.checkExpectedTime(t, at, row[column])
					continue
				}
				c.checkMember(t, at, schema, member{column, row[column]})
			}
		}
	}
}

// checkExpectedTime checks the time of an expected insight.
func (c *checker) checkExpectedTime(t *Test, at string, value any) {
	if text, isText := value.(string); !isText || !fitsColumn(text, expr.Timestamp) {
		c.testProblem(t, at, "the insight's time is not a text such as \"2026-01-31T06:00:00Z\"")
	}
}

// checkMember checks a row's value of a column.
func (c *checker) checkMember(t *Test, at string, schema expr.Schema, m member) {
	j := schema.Index(m.column)
	if j < 0 && !c.full() {
		c.testProblem(t, at, "%s", expr.Unknown("column", m.column, schema.Names()))
	} else if j >= 0 && !fitsColumn(m.value, schema[j].Type) {
		c.testProblem(t, at, "the value of column %q is not %s", excerpt.Of(m.column), wanted(schema[j].Type))
	}
}

// member is a column of a test's row.
type member struct {
	column string
	value  any
}

func (c *checker) testProblem(t *Test, path, format string, args ...any) {
	pos, ok := t.places[path]
	if !ok {
		pos = t.Pos
	}
	c.add(pos, "", "test %q: %s", excerpt.Of(t.Name), fmt.Sprintf(format, args...))
}

// fitsColumn says whether a test's value can stand in a column of the type.
func fitsColumn(value any, t expr.Type) bool {
	switch v := value.(type) {
	case nil:
		return true
	case bool:
		return t == expr.Bool || t == expr.JSON
	case int64:
		return t == expr.Int || t == expr.Float || t == expr.Timestamp || t == expr.JSON
	case float64:
		return t == expr.Float || t == expr.JSON || t == expr.Int && isWhole(v)
	case string:
		return textFits(v, t)
	}
	return t == expr.JSON
}

// textFits says whether a text can stand in a column of the type.
func textFits(v string, t expr.Type) bool {
	switch t {
	case expr.String, expr.JSON:
		return true
	case expr.Float:
		return isUncounted(v)
	case expr.Timestamp:
		_, ok := expr.ParseTimestamp(v, time.UTC)
		return ok
	case expr.Bool, expr.Int, expr.Invalid, expr.Null:
	}
	return false
}

// isUncounted says whether a text is one of those that insights write for the floats that JSON has no number for.
func isUncounted(v string) bool { return v == "NaN" || v == "Infinity" || v == "-Infinity" }

// isWhole says whether a float such as 3.0 can stand in a column of ints.
func isWhole(v float64) bool { return v == math.Trunc(v) && math.Abs(v) < 1<<63 }

func wanted(t expr.Type) string {
	switch t {
	case expr.String:
		return "a string; put it in quotes"
	case expr.Timestamp:
		return "a timestamp such as \"2026-01-31T06:00:00Z\", or milliseconds since 1970"
	case expr.Int:
		return "a whole number"
	case expr.Float:
		return "a number (or \"NaN\", \"Infinity\" or \"-Infinity\")"
	case expr.Bool:
		return "true or false"
	case expr.JSON, expr.Invalid, expr.Null:
	}
	return "of type " + t.String()
}
