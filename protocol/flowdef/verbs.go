package flowdef

import (
	"slices"
	"sync"

	"go.yaml.in/yaml/v3"
)

// Verbs lists the verbs in the order of the documentation.
func Verbs() []Verb {
	return []Verb{
		Read, Filter, Map, Select, Aggregate, Join, Lookup, Union, Sort, Limit, Distinct, Unnest, Validate, Detect, Write, Insight,
	}
}

// flowKeys, stepKeys and the others are what the parser accepts and the JSON Schema describes.
func flowKeys() []string {
	return []string{"flow", "description", "trigger", "on_error", "steps", "tests"}
}

// verbKeys are the keys that may stand beside the verb, other than id and from.
func verbKeys(v Verb) []string {
	switch v {
	case Read:
		return []string{"with", "schema", "refresh", "drift"}
	case Aggregate:
		return []string{"by", "window"}
	case Join:
		return append([]string{"on", "type"}, streamJoinKeys()...)
	case Lookup:
		return lookupKeys()
	case Limit:
		return limitKeys()
	case Distinct:
		return distinctKeys()
	case Unnest:
		return unnestKeys()
	case Detect:
		return detectKeys()
	case Write:
		return writeKeys()
	case Insight:
		return []string{"key", "time"}
	case Filter, Map, Select, Union, Sort, Validate:
	}
	return nil
}

// rules are how a verb is read, checked and described.
type rules struct {
	parse func(p *parser, s *Step, n *yaml.Node, members members)
	// check checks the step at a place of the plan, whose inputs are sound; it says whether the step's output is known.
	check func(c *checker, k int) bool
	// schema adds the properties of a step's JSON Schema, and gives the required ones other than the verb.
	schema func(properties object) (required []string)
}

type members = map[string]entry

// rulesOf has the rules of every verb.
var rulesOf = sync.OnceValue(func() map[Verb]rules {
	return map[Verb]rules{
		Read: {func(p *parser, s *Step, n *yaml.Node, m members) { s.Read = p.read(s, n, m) }, (*checker).checkRead, readSchema},
		Filter: {func(p *parser, s *Step, n *yaml.Node, _ members) {
			e := p.expression(n, "the filter")
			s.Filter = &e
		}, (*checker).checkFilter, nothingElse(filterSchema)},
		Map: {func(p *parser, s *Step, n *yaml.Node, _ members) {
			s.Map = p.assignments(n, "map", "{name: expression}")
		}, (*checker).checkMap, nothingElse(mapSchema)},
		Select:    {func(p *parser, s *Step, n *yaml.Node, _ members) { s.Select = p.selections(n) }, (*checker).checkSelect, nothingElse(selectSchema)},
		Aggregate: {func(p *parser, s *Step, n *yaml.Node, m members) { s.Aggregate = p.aggregate(n, m) }, (*checker).checkAggregate, nothingElse(aggregateSchema)},
		Join: {func(p *parser, s *Step, n *yaml.Node, m members) {
			if right := p.ref(n, "the id of the joined step"); len(s.From) == 1 {
				s.From = append(s.From, right)
			}
			s.Join = p.join(s, m)
		}, (*checker).checkJoin, joinSchema},
		Lookup:   {func(p *parser, s *Step, n *yaml.Node, m members) { s.Lookup = p.lookup(s, n, m) }, (*checker).checkLookup, lookupSchema},
		Union:    {func(p *parser, s *Step, n *yaml.Node, _ members) { s.From = p.union(n) }, (*checker).checkUnion, nothingElse(unionSchema)},
		Sort:     {func(p *parser, s *Step, n *yaml.Node, _ members) { s.Sort = p.sort(n) }, (*checker).checkSort, nothingElse(sortSchema)},
		Limit:    {func(p *parser, s *Step, n *yaml.Node, m members) { s.Limit = p.limit(n, m) }, (*checker).checkLimit, nothingElse(limitSchema)},
		Distinct: {func(p *parser, s *Step, n *yaml.Node, m members) { s.Distinct = p.distinct(n, m) }, (*checker).checkDistinct, nothingElse(distinctSchema)},
		Unnest:   {func(p *parser, s *Step, n *yaml.Node, m members) { s.Unnest = p.unnest(s, n, m) }, (*checker).checkUnnest, unnestSchema},
		Validate: {func(p *parser, s *Step, n *yaml.Node, _ members) { s.Validate = p.validate(n) }, (*checker).checkValidate, nothingElse(validateSchema)},
		Detect:   {func(p *parser, s *Step, n *yaml.Node, m members) { s.Detect = p.detect(s, n, m) }, (*checker).checkDetect, detectSchema},
		Write:    {func(p *parser, s *Step, n *yaml.Node, m members) { s.Write = p.write(n, m) }, (*checker).checkWrite, nothingElse(writeSchema)},
		Insight:  {func(p *parser, s *Step, n *yaml.Node, m members) { s.Insight = p.insight(n, m) }, (*checker).checkInsight, nothingElse(insightSchema)},
	}
})

// nothingElse is the schema of a verb that needs no key beside it.
func nothingElse(schema func(properties object)) func(properties object) []string {
	return func(properties object) []string {
		schema(properties)
		return nil
	}
}

func stepKeys(v Verb) []string {
	keys := []string{"id", string(v)}
	if v != Read && v != Union {
		keys = append(keys, "from")
	}
	return append(keys, verbKeys(v)...)
}

func triggerKeys() []string { return []string{"every", "cron", "timezone", "missed"} }

func testKeys() []string { return []string{"name", "given", "expect", "failed", "ordered"} }

func verbNames() []string {
	verbs := Verbs()
	list := make([]string, len(verbs))
	for i, v := range verbs {
		list[i] = string(v)
	}
	return list
}

// allStepKeys is every key that some step may have.
func allStepKeys() []string {
	var all []string
	for _, v := range Verbs() {
		for _, key := range stepKeys(v) {
			if !slices.Contains(all, key) {
				all = append(all, key)
			}
		}
	}
	return all
}

func typeNames() []string { return []string{"bool", "int", "float", "string", "timestamp", "json"} }
