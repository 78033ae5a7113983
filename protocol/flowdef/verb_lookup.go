package flowdef

import (
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

// The bounds and the defaults of a lookup's cache.
const (
	// DefaultLookupSize is how many keys a lookup remembers, MaxLookupSize the most it may be told to.
	DefaultLookupSize = 10_000
	MaxLookupSize     = 1_000_000
	// DefaultLookupAge is how long it believes what it remembers.
	DefaultLookupAge = 10 * time.Minute
)

// LookupStep adds the columns of a plant system's rows, found by key.
type LookupStep struct {
	Connection Ref
	// With is the lookup's options as written, WithPos where each option's key stands; see ReadStep.
	With    map[string]any
	WithPos map[string]Pos
	// On pairs a column of the rows with a column of the system.
	On []JoinKey
	// Schema is the columns to add.
	Schema []SchemaColumn
	// Kind is "left" (the default: nulls when nothing is found) or "inner".
	Kind string
	// CacheSize is how many keys are remembered, CacheAge for how long.
	CacheSize int
	CacheAge  time.Duration
}

// LookupPlan is a checked LookupStep. The step's output is the input's columns, then those of the schema.
type LookupPlan struct {
	// Key is the positions of the key columns in the input.
	Key []int
	// KeySchema is the columns of the system that the keys are compared with, in the order of Key and of its types.
	KeySchema expr.Schema
	// Schema is the columns to add.
	Schema expr.Schema
}

// Given is the columns of a row that a flow test gives to the lookup: the keys, then the added columns that are none.
func (l *LookupPlan) Given() expr.Schema {
	all := slices.Clone(l.KeySchema)
	for _, c := range l.Schema {
		if all.Index(c.Name) < 0 {
			all = append(all, c)
		}
	}
	return all
}

func lookupKeys() []string { return []string{"with", "on", "schema", "type", "cache"} }

func cacheKeys() []string { return []string{"size", "age"} }

func (p *parser) lookup(s *Step, n *yaml.Node, members map[string]entry) *LookupStep {
	l := &LookupStep{
		Connection: p.ref(n, "the connection's name"), Kind: "left", CacheSize: DefaultLookupSize, CacheAge: DefaultLookupAge,
	}
	l.With, l.WithPos = p.with(members)
	if e, ok := members["type"]; ok {
		l.Kind = p.oneOf(e.value, "type", "left", "inner")
	}
	if e, ok := members["on"]; ok {
		l.On = p.keyPairs(e.value, "{column: column_of_the_system}")
	} else {
		p.problem(s.Pos, "the lookup has no on; write on: [column] or on: {column: column_of_the_system}")
	}
	if e, ok := members["schema"]; ok {
		l.Schema = p.schema(e.value)
	} else {
		p.problem(s.Pos, "the lookup has no schema; write schema: {column: type} with the columns to add")
	}
	if e, ok := members["cache"]; ok {
		p.lookupCache(l, e.value)
	}
	return l
}

func (p *parser) lookupCache(l *LookupStep, n *yaml.Node) {
	members := p.known(n, "cache", "{size: 10000, age: 10m}", cacheKeys())
	if e, ok := members["size"]; ok {
		size, err := strconv.Atoi(e.value.Value)
		if e.value.Kind != yaml.ScalarNode || err != nil || size < 1 || size > MaxLookupSize {
			p.problem(at(e.value), "the cache's size must be a whole number from 1 to %d: how many keys to remember", MaxLookupSize)
			size = DefaultLookupSize
		}
		l.CacheSize = size
	}
	if e, ok := members["age"]; ok {
		l.CacheAge = p.duration(e.value, "age")
	}
}

// with reads the options of a step that uses a connection.
func (p *parser) with(members map[string]entry) (values map[string]any, places map[string]Pos) {
	values, places = map[string]any{}, map[string]Pos{}
	if e, ok := members["with"]; ok {
		for _, option := range p.entries(e.value, "with", "{option: value}") {
			values[option.key], places[option.key] = p.value(option.value, 0), option.pos
		}
	}
	return values, places
}

// keyPairs reads [column] or {left: right}.
func (p *parser) keyPairs(n *yaml.Node, shape string) []JoinKey {
	var list []JoinKey
	if n.Kind == yaml.MappingNode {
		for _, pair := range p.columnEntries(n, "on", shape) {
			list = append(list, JoinKey{Left: Ref{Name: pair.key, Pos: pair.pos}, Right: p.ref(pair.value, "the right column of "+excerpt.Of(pair.key))})
		}
	} else {
		for _, r := range p.refs(n, "on") {
			list = append(list, JoinKey{Left: r, Right: r})
		}
	}
	if len(n.Content) == 0 && n.Kind != yaml.ScalarNode {
		p.problem(at(n), "on is empty; it needs at least one column")
	}
	return list
}

func (c *checker) checkLookup(k int) bool {
	ps := &c.plan.Steps[k]
	l := ps.Lookup
	c.checkUse(ps.Step, l.Connection, lookupUse(l))
	schema, origins := c.input(ps, 0)
	plan := &LookupPlan{}
	sound := len(l.On) > 0 && len(l.Schema) > 0
	for _, on := range l.On {
		i := c.column(ps.Step, on.Left, schema)
		switch {
		case i < 0:
			sound = false
		case schema[i].Type == expr.JSON:
			c.problem(ps.Step, on.Left.Pos, "nothing is looked up by json; take a value out of column %q with json_string or json_number in a map", on.Left.Name)
			sound = false
		case plan.KeySchema.Index(on.Right.Name) >= 0:
			c.problem(ps.Step, on.Right.Pos, "the system's column %q is there twice in on", excerpt.Of(on.Right.Name))
			sound = false
		default:
			plan.Key = append(plan.Key, i)
			plan.KeySchema = append(plan.KeySchema, expr.Column{Name: on.Right.Name, Type: schema[i].Type})
		}
	}
	ps.Output, c.origins[k] = slices.Clone(schema), slices.Clone(origins)
	for i := range l.Schema {
		column := l.Schema[i].Column
		switch key := plan.KeySchema.Index(column.Name); {
		case column.Type == expr.Invalid:
			sound = false
		case ps.Output.Index(column.Name) >= 0:
			c.problem(ps.Step, l.Schema[i].Pos, "the lookup adds the column %q, which is there already; give that one another name with select before the lookup", excerpt.Of(column.Name))
			sound = false
		case key >= 0 && plan.KeySchema[key].Type != column.Type:
			c.problem(ps.Step, l.Schema[i].Pos, "column %q is a key of type %s and cannot be of type %s as well", excerpt.Of(column.Name), plan.KeySchema[key].Type, column.Type)
			sound = false
		default:
			plan.Schema = append(plan.Schema, column)
			ps.Output = append(ps.Output, column)
			c.origins[k] = append(c.origins[k], origin{sources: c.sources.of(l.Connection.Name + "." + column.Name), raw: true})
		}
	}
	if sound {
		ps.LookupPlan = plan
	}
	return sound
}

func lookupSchema(properties object) []string {
	properties["lookup"] = object{"type": "string", "description": "A connection."}
	properties["with"] = object{"type": "object"}
	properties["on"] = object{"oneOf": []any{reference("columns"), mapOf(reference("column"))}}
	properties["schema"] = mapOf(reference("type"))
	properties["type"] = object{"enum": []string{"left", "inner"}}
	properties["cache"] = closed(object{
		"size": object{"type": "integer", "minimum": 1, "maximum": MaxLookupSize}, "age": reference("duration"),
	})
	return []string{"on", "schema"}
}
