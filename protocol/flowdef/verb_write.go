package flowdef

import (
	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/protocol/expr"
)

// WriteStep writes rows into a plant system.
type WriteStep struct {
	Connection Ref
	// With is the options as written, WithPos where each option's key stands; see ReadStep.
	With    map[string]any
	WithPos map[string]Pos
}

// WritePlan is a checked WriteStep. Its output is its input: the rows go on.
type WritePlan struct {
	// Schema is the columns of the rows to write.
	Schema expr.Schema
}

// PlannedWrite is one place in the plant that a flow writes to. It is no part of the egress manifest, because what is
// written stays in the plant.
type PlannedWrite struct {
	Step       string         `json:"step"`
	Connection string         `json:"connection"`
	With       map[string]any `json:"with,omitempty"`
	Columns    []string       `json:"columns"`
}

// Writes lists what the flow would write into the plant's systems, in the plan's order.
func (p *Plan) Writes() []PlannedWrite {
	list := []PlannedWrite{}
	for i := range p.Steps {
		if s := &p.Steps[i]; s.Verb == Write {
			list = append(list, PlannedWrite{Step: s.ID, Connection: s.Write.Connection.Name, With: s.Write.With, Columns: s.Output.Names()})
		}
	}
	return list
}

// Connections are the names of the connections that a flow uses, as written, in the order of the steps.
func (f *Flow) Connections() []Ref {
	var list []Ref
	for i := range f.Steps {
		switch s := &f.Steps[i]; {
		case s.Read != nil:
			list = append(list, s.Read.Connection)
		case s.Lookup != nil:
			list = append(list, s.Lookup.Connection)
		case s.Write != nil:
			list = append(list, s.Write.Connection)
		}
	}
	return list
}

func writeKeys() []string { return []string{"with"} }

func (p *parser) write(n *yaml.Node, members map[string]entry) *WriteStep {
	w := &WriteStep{Connection: p.ref(n, "the connection's name")}
	w.With, w.WithPos = p.with(members)
	return w
}

func (c *checker) checkWrite(k int) bool {
	ps := &c.plan.Steps[k]
	ps.Output, c.origins[k] = c.input(ps, 0)
	use := writeUse(ps.Write)
	use.rows = ps.Output
	c.checkUse(ps.Step, ps.Write.Connection, use)
	ps.WritePlan = &WritePlan{Schema: ps.Output}
	return true
}

func writeSchema(properties object) {
	properties["write"] = object{"type": "string", "description": "A connection."}
	properties["with"] = object{"type": "object"}
}
