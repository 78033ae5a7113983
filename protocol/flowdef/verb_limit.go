package flowdef

import (
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/protocol/expr"
)

// MaxLimit is the greatest number of rows that a limit can keep.
const MaxLimit = 1_000_000_000

// LimitStep keeps the first rows.
type LimitStep struct {
	// Rows is how many, from 1 to MaxLimit.
	Rows int64
	// By makes it so many rows of each group.
	By []Ref
}

// LimitPlan is a checked LimitStep.
type LimitPlan struct {
	// By is the input positions of the grouping columns.
	By []int
}

func limitKeys() []string { return []string{"by"} }

func (p *parser) limit(n *yaml.Node, members map[string]entry) *LimitStep {
	l := &LimitStep{}
	rows, err := strconv.ParseInt(n.Value, 10, 64)
	if n.Kind != yaml.ScalarNode || err != nil || rows < 1 || rows > MaxLimit {
		p.problem(at(n), "limit is the number of rows to keep, a whole number from 1 to %d", MaxLimit)
	} else {
		l.Rows = rows
	}
	if e, ok := members["by"]; ok {
		l.By = p.refs(e.value, "by")
	}
	return l
}

func (c *checker) checkLimit(k int) bool {
	ps := &c.plan.Steps[k]
	ps.Output, c.origins[k] = c.input(ps, 0)
	ps.LimitPlan = &LimitPlan{By: c.keyColumns(ps.Step, ps.Limit.By, ps.Output)}
	return true
}

// keyColumns finds columns by which rows are told apart, and reports those that cannot be.
func (c *checker) keyColumns(s *Step, refs []Ref, schema expr.Schema) []int {
	var list []int
	for _, ref := range refs {
		i := c.column(s, ref, schema)
		if i >= 0 && schema[i].Type == expr.JSON {
			c.problem(s, ref.Pos, "rows are not told apart by json; take a value out of column %q with json_string or json_number in a map", ref.Name)
		}
		if i >= 0 {
			list = append(list, i)
		}
	}
	return list
}

func limitSchema(properties object) {
	properties["limit"] = object{"type": "integer", "minimum": 1, "maximum": MaxLimit, "description": "How many rows to keep."}
	properties["by"] = reference("columns")
}
