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
	if writes := plan.Writes(); len(writes) > 0 && s.Writes != WritesAllowed {
		return nil, fmt.Errorf("step %s: the flow writes into connection %s, and this machine denies writes: whoever looks after it allows them with writes: allow in the agent's configuration, or for a single run with --allow-writes", writes[0].Step, writes[0].Connection)
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
		if err := p.tryRead(s, need); err != nil {
			return fmt.Errorf("step %s: connection %s is refused: %w", need.Step, need.Connection, err)
		}
	}
	for _, need := range p.program.Writes() {
		sink, err := p.newSink(s, need)
		if err == nil {
			err = sink.Close()
		}
		if err != nil {
			return fmt.Errorf("step %s: connection %s is refused: %w", need.Step, need.Connection, err)
		}
	}
	return nil
}

func (p *prepared) tryRead(s Settings, need engine.ReadNeed) error {
	if need.Role == engine.RoleLookup {
		lookup, err := p.newLookup(s, need)
		if err != nil {
			return err
		}
		return lookup.Close()
	}
	source, err := p.newSource(s, need, nil)
	if err != nil {
		return err
	}
	return source.Close()
}

// runSettings is what every run of the deployment has in common.
func (p *prepared) runSettings(s Settings) engine.RunSettings {
	return engine.RunSettings{
		Program: p.program, Clock: s.Clock, Started: s.Clock(), Memory: s.Memory, Scratch: s.Scratch, HoldFor: holdFor,
		Open: func(need engine.ReadNeed, resume connector.Cursor) (connector.Source, error) {
			return p.newSource(s, need, resume)
		},
		OpenLookup: func(need engine.ReadNeed) (connector.Lookup, error) { return p.newLookup(s, need) },
		OpenSink:   func(need engine.WriteNeed) (connector.Sink, error) { return p.newSink(s, need) },
	}
}

// newSource makes the source of a read.
func (p *prepared) newSource(s Settings, need engine.ReadNeed, resume connector.Cursor) (connector.Source, error) {
	conn, found, err := p.connectorOf(need.Connection)
	if err != nil {
		return nil, err
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

func (p *prepared) connectorOf(name string) (connector.Connection, connector.Connector, error) {
	conn := p.connections[name]
	found := p.connectors[name]
	if found == nil {
		return conn, nil, fmt.Errorf("this agent has no connector of the kind %q; update the agent, or use its full edition", conn.Kind)
	}
	return conn, found, nil
}

// newLookup makes the system of a lookup step.
func (p *prepared) newLookup(s Settings, need engine.ReadNeed) (connector.Lookup, error) {
	conn, found, err := p.connectorOf(need.Connection)
	if err != nil {
		return nil, err
	}
	lookuper, ok := found.(connector.Lookuper)
	if !ok {
		return nil, fmt.Errorf("connections of the kind %q cannot look rows up by key; read it and join it instead", conn.Kind)
	}
	set := connector.LookupSettings{
		Connection: conn, With: need.With, Keys: need.Keys, Schema: need.Schema,
		Logger: s.Logger.With("deployment", p.dep.ID, "step", need.Step, "connection", need.Connection),
	}
	return newGuardedLookup(func() (connector.Lookup, error) { return lookuper.NewLookup(set) })
}

// newSink makes the sink of a write step.
func (p *prepared) newSink(s Settings, need engine.WriteNeed) (connector.Sink, error) {
	conn, found, err := p.connectorOf(need.Connection)
	if err != nil {
		return nil, err
	}
	sinker, ok := found.(connector.Sinker)
	if !ok {
		return nil, fmt.Errorf("connections of the kind %q cannot be written to", conn.Kind)
	}
	return sinker.NewSink(connector.SinkSettings{
		Connection: conn, With: need.With, Schema: need.Schema, Instance: p.agentID + "/" + p.dep.ID + "/" + need.Step,
		Logger: s.Logger.With("deployment", p.dep.ID, "step", need.Step, "connection", need.Connection),
	})
}
