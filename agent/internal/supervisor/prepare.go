package supervisor

import (
	"fmt"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// prepared is a deployment that has been checked.
type prepared struct {
	dep      Deployment
	agentID  string
	trigger  flowdef.Trigger
	schedule *schedule
	program  *engine.Program
	// connectors and connections are by connection name, declared by read step.
	connectors  map[string]connector.Connector
	connections map[string]connector.Connection
	declared    map[string]expr.Schema
}

// prepare checks a deployment as the control plane did, and that every source accepts its settings. It does no I/O.
func prepare(s Settings, d Deployment) (*prepared, error) {
	p := &prepared{
		dep: d, agentID: s.AgentID,
		connectors: map[string]connector.Connector{}, connections: map[string]connector.Connection{}, declared: map[string]expr.Schema{},
	}
	env := flowdef.Environment{Connections: map[string]string{}, Connectors: map[string]flowdef.ConnectorSpec{}}
	for _, c := range d.Connections {
		env.Connections[c.Name] = c.Kind
		p.connections[c.Name] = c
		if found, ok := s.Connector(c.Kind); ok {
			env.Connectors[c.Kind] = found.Spec()
			p.connectors[c.Name] = found
		}
	}
	plan, err := flowdef.CheckText(d.Definition, env)
	if err != nil {
		return nil, fmt.Errorf("the definition is refused: %w", err)
	}
	for i := range plan.Steps {
		if plan.Steps[i].Verb == flowdef.Read {
			p.declared[plan.Steps[i].ID] = plan.Steps[i].Output
		}
	}
	p.trigger = plan.Flow.Trigger
	if p.trigger.Kind == flowdef.Cron {
		if p.schedule, err = parseSchedule(p.trigger); err != nil {
			return nil, err
		}
	}
	if p.program, err = engine.Compile(plan); err != nil {
		return nil, fmt.Errorf("the definition is refused: %w", err)
	}
	return p, p.trySources(s)
}

// trySources makes every source once, without using it, to find what is wrong with its settings.
func (p *prepared) trySources(s Settings) error {
	for _, need := range p.program.Reads() {
		source, err := p.newSource(s, need, nil)
		if err == nil {
			err = source.Close()
		}
		if err != nil {
			return fmt.Errorf("step %s: connection %s is refused: %w", need.Step, need.Connection, err)
		}
	}
	return nil
}

// newSource makes the source of a read.
func (p *prepared) newSource(s Settings, need engine.ReadNeed, resume connector.Cursor) (connector.Source, error) {
	conn := p.connections[need.Connection]
	found := p.connectors[need.Connection]
	if found == nil {
		return nil, fmt.Errorf("this agent has no connector of the kind %q; update the agent, or use its full edition", conn.Kind)
	}
	instance := p.agentID + "/" + p.dep.ID + "/" + need.Step
	if need.Role == engine.RoleTable {
		instance += "/table"
	}
	set := connector.SourceSettings{
		Connection: conn, With: need.With, Schema: need.Schema, Declared: p.declared[need.Step], Drift: need.Drift, Instance: instance, Resume: resume,
		Logger: s.Logger.With("deployment", p.dep.ID, "step", need.Step, "connection", need.Connection),
	}
	return newGuarded(func() (connector.Source, error) { return found.NewSource(set) })
}
