package flowdef

import (
	"slices"

	"github.com/outfeed/outfeed/protocol/expr"
)

// origin is where the values of a column come from. Sets of sources are shared between columns and never changed.
type origin struct {
	// sources are ids of sourceNames, rising.
	sources []int32
	// raw is true when some value comes from a source without passing an aggregate.
	raw bool
	// windowStart is true for the start of a window.
	windowStart bool
}

// sourceNames numbers the columns of the read steps, "connection.column".
type sourceNames struct {
	names []string
	ids   map[string]int32
}

func (s *sourceNames) of(name string) []int32 {
	if s.ids == nil {
		s.ids = map[string]int32{}
	}
	id, ok := s.ids[name]
	if !ok {
		id = int32(len(s.names)) //nolint:gosec // fewer than the bytes of a definition
		s.ids[name], s.names = id, append(s.names, name)
	}
	return []int32{id}
}

// originOf is where an expression's values come from.
func (c *checker) originOf(n *expr.Node, columns []origin) origin {
	if n.Op == expr.OpColumn {
		return columns[n.Column]
	}
	var from origin
	for _, a := range n.Args {
		arg := c.originOf(a, columns)
		from.sources, from.raw = c.union(from.sources, arg.sources), from.raw || arg.raw
	}
	return from
}

// union shares one of the sets where that holds the other. Past maxCells it reports the flow as too large.
func (c *checker) union(a, b []int32) []int32 {
	if len(a) < len(b) {
		a, b = b, a
	}
	missing := 0
	for _, id := range b {
		if _, found := slices.BinarySearch(a, id); !found {
			missing++
		}
	}
	if missing == 0 || c.cells > maxCells {
		return a
	}
	all := slices.Concat(a, b)
	slices.Sort(all)
	all = slices.Compact(all)
	if c.cells += len(all); c.cells > maxCells {
		c.add(c.flow.Pos, "", "the flow is too large: its columns come from more than %d sources together", maxCells)
	}
	return all
}

// manifest lists what the insights carry: key, time and values, insight by insight.
func (c *checker) manifest() Manifest {
	m := Manifest{Columns: []EgressColumn{}}
	for k := range c.plan.Steps {
		ps := &c.plan.Steps[k]
		if ps.Verb != Insight {
			continue
		}
		columns := slices.Clone(ps.InsightKey)
		if t := ps.InsightTime; t >= 0 && !slices.Contains(columns, t) && !slices.Contains(ps.InsightValues, t) {
			columns = append(columns, t)
		}
		for _, i := range append(columns, ps.InsightValues...) {
			from := c.origins[k][i]
			e := EgressColumn{
				Insight: ps.Insight.Name, Column: ps.Output[i].Name, Type: ps.Output[i].Type.String(),
				Sources: make([]string, 0, len(from.sources)), Aggregated: !from.raw,
			}
			for _, id := range from.sources {
				e.Sources = append(e.Sources, c.sources.names[id])
			}
			slices.Sort(e.Sources)
			m.Columns = append(m.Columns, e)
		}
	}
	return m
}
