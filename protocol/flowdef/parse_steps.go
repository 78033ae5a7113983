package flowdef

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

func (p *parser) steps(n *yaml.Node) []Step {
	items := p.items(n, "steps", "- verb: …")
	if n.Kind == yaml.SequenceNode && len(items) == 0 {
		p.problem(at(n), "the flow has no steps; begin with a read")
	}
	if len(items) > MaxSteps {
		p.problem(at(n), "the flow has %d steps; the most is %d", len(items), MaxSteps)
		return nil
	}
	list := make([]Step, 0, len(items))
	taken := make(map[string]Pos, len(items))
	before := ""
	for i, item := range items {
		s := p.oneStep(item, i, before)
		if first, twice := taken[s.ID]; twice {
			p.problem(s.Pos, "the id %q is there twice; the first is in line %d", s.ID, first.Line)
		} else {
			taken[s.ID] = s.Pos
		}
		before, p.step = s.ID, ""
		list = append(list, s)
	}
	return list
}

// oneStep reads the step at place i, counted from 0, whose input is the step before when it names none.
func (p *parser) oneStep(n *yaml.Node, i int, before string) Step {
	s := Step{Pos: at(n), ID: fmt.Sprintf("step_%d", i+1)}
	p.step = s.ID
	list := p.entries(n, "a step", "verb: …")
	if list == nil {
		return s
	}
	members := make(map[string]entry, len(list))
	for _, e := range list {
		members[e.key] = e
	}
	id := ""
	if e, has := members["id"]; has {
		id = p.name(e.value, "the id")
		p.step = cmp.Or(id, s.ID)
	}
	verb, ok := p.verb(n, list)
	if ok {
		s.Verb, s.ID = Verb(verb.key), fmt.Sprintf("%s_%d", verb.key, i+1)
	}
	s.ID = cmp.Or(id, s.ID)
	if p.step = s.ID; !ok {
		return s
	}
	s.Pos = verb.pos
	p.stepKeys(s.Verb, list)
	p.from(&s, members, before)
	p.body(&s, verb.value, members)
	return s
}

// verb finds the one member that is a verb.
func (p *parser) verb(n *yaml.Node, list []entry) (verb entry, ok bool) {
	for _, e := range list {
		if !slices.Contains(Verbs(), Verb(e.key)) {
			continue
		}
		if ok {
			p.problem(e.pos, "a step has one verb, and this one has %s and %s; begin another step with -", verb.key, e.key)
			return entry{}, false
		}
		verb, ok = e, true
	}
	if ok {
		return verb, true
	}
	for _, e := range list {
		if !slices.Contains(allStepKeys(), e.key) {
			p.problem(e.pos, "%s", expr.Unknown("verb", e.key, verbNames()))
			return entry{}, false
		}
	}
	p.problem(at(n), "the step has no verb; write one of %s", strings.Join(verbNames(), ", "))
	return entry{}, false
}

func (p *parser) stepKeys(verb Verb, list []entry) {
	valid := stepKeys(verb)
	for _, e := range list {
		switch {
		case slices.Contains(valid, e.key) || p.full():
		case slices.Contains(allStepKeys(), e.key):
			p.problem(e.pos, "%s does not belong to %s; it takes %v", e.key, verb, valid)
		default:
			p.problem(e.pos, "%s", expr.Unknown("key", e.key, valid))
		}
	}
}

func (p *parser) from(s *Step, members map[string]entry, before string) {
	if s.Verb == Read || s.Verb == Union {
		return
	}
	if e, ok := members["from"]; ok {
		if e.value.Kind != yaml.ScalarNode {
			p.problem(at(e.value), "from names one step")
		}
		s.From = []Ref{p.ref(e.value, "the step's name after from")}
		return
	}
	if before == "" {
		p.problem(s.Pos, "no step is before this one; begin with a read")
		return
	}
	s.From = []Ref{{Name: before, Pos: s.Pos}}
}

func (p *parser) body(s *Step, n *yaml.Node, members map[string]entry) {
	rulesOf()[s.Verb].parse(p, s, n, members)
}

func (p *parser) insight(n *yaml.Node, members map[string]entry) *InsightStep {
	s := &InsightStep{Name: p.name(n, "the insight's name")}
	if e, ok := members["key"]; ok {
		s.Key = p.refs(e.value, "key")
	}
	if e, ok := members["time"]; ok {
		s.Time = p.ref(e.value, "the column name of time")
	}
	return s
}

func (p *parser) read(s *Step, n *yaml.Node, members map[string]entry) *ReadStep {
	r := &ReadStep{Connection: p.ref(n, "the connection's name"), With: map[string]any{}, WithPos: map[string]Pos{}}
	if e, ok := members["with"]; ok {
		for _, option := range p.entries(e.value, "with", "{option: value}") {
			r.With[option.key], r.WithPos[option.key] = p.value(option.value, 0), option.pos
		}
	}
	if e, ok := members["schema"]; ok {
		r.Schema = p.schema(e.value)
	} else {
		p.problem(s.Pos, "the read has no schema; write schema: {column: type} with the columns to take")
	}
	if e, ok := members["refresh"]; ok {
		r.Refresh = p.duration(e.value, "refresh")
	}
	if e, ok := members["drift"]; ok {
		r.Drift = p.oneOf(e.value, "drift", DriftIgnore, DriftReport, DriftFail)
	}
	return r
}

func (p *parser) schema(n *yaml.Node) []SchemaColumn {
	var list []SchemaColumn
	for _, e := range p.columnEntries(n, "schema", "{column: type}") {
		p.column(e.key, e.pos)
		name, _ := p.word(e.value, "the column's type")
		t, ok := expr.ParseType(name)
		if !ok && name != "" && !p.full() {
			p.problem(at(e.value), "column %q: %s", excerpt.Of(e.key), expr.Unknown("type", name, typeNames()))
		}
		list = append(list, SchemaColumn{Column: expr.Column{Name: e.key, Type: t}, Pos: e.pos})
	}
	if n.Kind == yaml.MappingNode && len(list) == 0 {
		p.problem(at(n), "the schema is empty; write schema: {column: type} with the columns to take")
	}
	return list
}

func (p *parser) assignments(n *yaml.Node, what, shape string) []Assignment {
	var list []Assignment
	for _, e := range p.columnEntries(n, what, shape) {
		p.column(e.key, e.pos)
		list = append(list, Assignment{Name: e.key, Expr: p.expression(e.value, "column "+excerpt.Of(e.key)), Pos: e.pos})
	}
	if n.Kind == yaml.MappingNode && len(list) == 0 {
		p.problem(at(n), "%s is empty; write %s", what, shape)
	}
	return list
}

// selections reads [a, b], {new: old} or a list of both.
func (p *parser) selections(n *yaml.Node) []Selection {
	if n.Kind == yaml.MappingNode {
		return p.renames(n)
	}
	var list []Selection
	if p.tooWide(n, len(n.Content), "select") {
		return nil
	}
	for _, item := range p.items(n, "select", "[a, b] or {new: old}") {
		if item.Kind == yaml.MappingNode {
			list = append(list, p.renames(item)...)
			continue
		}
		if r := p.ref(item, "a column name of select"); r.Name != "" {
			list = append(list, Selection{Name: r.Name, From: r})
		}
	}
	if len(n.Content) == 0 {
		p.problem(at(n), "select keeps no column; write [a, b] or {new: old}")
	}
	return list
}

func (p *parser) renames(n *yaml.Node) []Selection {
	var list []Selection
	for _, e := range p.columnEntries(n, "select", "[a, b] or {new: old}") {
		p.column(e.key, e.pos)
		list = append(list, Selection{Name: e.key, From: p.ref(e.value, "the column to keep as "+excerpt.Of(e.key))})
	}
	return list
}

func (p *parser) aggregate(n *yaml.Node, members map[string]entry) *AggregateStep {
	a := &AggregateStep{Results: p.assignments(n, "aggregate", "{name: aggregate(expression)}")}
	if e, ok := members["by"]; ok {
		a.By = p.refs(e.value, "by")
	}
	if e, ok := members["window"]; ok {
		a.Window = p.window(e)
	}
	return a
}
