package flowdef

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

// ValidateStep holds rows against rules. A null breaks none of them but required.
type ValidateStep struct{ Rules []Rule }

// Rule is one rule of a validate step.
type Rule struct {
	// Column is the column that the rule stands beside.
	Column Ref
	// Text is the rule as people read it in a failing record's reason, such as "max: 1200".
	Text string
	Pos  Pos
	// Check is the text of a condition that must not be false; of a `rule:` it is what was written.
	Check Expression
	// Reads says that the rule is `type:`, which is for texts.
	Reads bool
	// Unique is set instead where rows must differ.
	Unique *UniqueRule
}

// UniqueRule says that no two rows may have the same values.
type UniqueRule struct {
	// With is the columns that make up the value together with the rule's own.
	With []Ref
	// Within is how long a value may not come again, in the time of the column Time; 0 is for ever, which a continuous
	// flow does not allow.
	Within time.Duration
	Time   Ref
	// Ahead is how far a row's time may lie ahead of the agent's clock; see TimeBounds.
	Ahead time.Duration
}

// ValidatePlan is a checked ValidateStep.
type ValidatePlan struct{ Rules []RulePlan }

// RulePlan is one checked rule.
type RulePlan struct {
	*Rule
	// Column is the input position of the rule's column.
	Column int
	// Check is the typed condition, nil for unique: a row for which it is false fails.
	Check *expr.Node
	// By is, for unique, the input positions of the values, and Time that of the time column or -1.
	By   []int
	Time int
}

// ruleNames are the rules of a column, uniqueKeys what unique takes.
func ruleNames() []string {
	return []string{"required", "type", "min", "max", "in", "pattern", "min_length", "max_length", "unique", "rule"}
}

// readableTypes are what a text can be asked to read as.
func readableTypes() []string { return []string{"int", "float", "bool", "timestamp"} }

func uniqueKeys() []string { return []string{"with", "within", "time", aheadKey} }

// maxRules is the most rules of one step.
const maxRules = 10_000

const validateShape = "{column: {required: true, min: 0, max: 100}}"

func (p *parser) validate(n *yaml.Node) *ValidateStep {
	v := &ValidateStep{}
	for _, e := range p.columnEntries(n, "validate", validateShape) {
		column := Ref{Name: e.key, Pos: e.pos}
		rules := p.known(e.value, "the rules of "+excerpt.Of(e.key), "{required: true, min: 0}", ruleNames())
		p.satisfiable(rules)
		for _, name := range ruleNames() {
			if r, ok := rules[name]; ok {
				v.Rules = append(v.Rules, p.rules(column, r)...)
			}
		}
		if e.value.Kind == yaml.MappingNode && len(e.value.Content) == 0 {
			p.problem(e.pos, "column %q has no rule; write %s", excerpt.Of(e.key), validateShape)
		}
	}
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		p.problem(at(n), "validate has no rule; write %s", validateShape)
	}
	if len(v.Rules) > maxRules {
		p.problem(at(n), "the step has %d rules; the most is %d", len(v.Rules), maxRules)
	}
	return v
}

// satisfiable refuses bounds that no value can keep.
func (p *parser) satisfiable(rules map[string]entry) {
	for _, pair := range [...][2]string{{"min", "max"}, {"min_length", "max_length"}} {
		low, hasLow := rules[pair[0]]
		high, hasHigh := rules[pair[1]]
		if hasHigh && pair[1] == "max_length" {
			if most, whole := p.number(high.value); whole && most < 0 {
				p.problem(high.pos, "max_length: %s is below 0, so every value would fail", excerpt.Of(high.value.Value))
				continue
			}
		}
		if !hasLow || !hasHigh {
			continue
		}
		least, ok := p.number(low.value)
		most, also := p.number(high.value)
		if ok && also && least > most {
			p.problem(high.pos, "%s: %s is greater than %s: %s, so every value would fail; exchange them", pair[0], excerpt.Of(low.value.Value), pair[1], excerpt.Of(high.value.Value))
		}
	}
}

// number is the value of a scalar that is a number; ok is false for any other, which others report.
func (p *parser) number(n *yaml.Node) (number float64, ok bool) {
	if tag := n.ShortTag(); n.Kind != yaml.ScalarNode || tag != "!!int" && tag != "!!float" {
		return 0, false
	}
	err := n.Decode(&number)
	return number, err == nil
}

// rules reads one member of a column's rules, which is one rule or, of `rule: {name: expression}`, several.
func (p *parser) rules(column Ref, e entry) []Rule {
	r := Rule{Column: column, Pos: e.pos, Text: e.key}
	name := columnText(column.Name)
	switch e.key {
	case "rule":
		return p.rowRules(r, e.value)
	case "unique":
		r.Unique = p.unique(e.value)
		return []Rule{r}
	case "required":
		p.mustBeTrue(e.value, e.key)
		return p.built(r, "not is_null("+name+")")
	case "type":
		read := p.oneOf(e.value, "type", readableTypes()...)
		if !slices.Contains(readableTypes(), read) {
			return nil
		}
		r.Text, r.Reads = "type: "+read, true
		// The casts take other types too, for which the rule would say nothing.
		return p.built(r, "is_null("+name+") or not is_null("+read+"(trim("+name+")))")
	case "in":
		return p.membership(r, e.value)
	case "pattern":
		text, _ := p.word(e.value, "the pattern")
		r.Text = "pattern: " + excerpt.Of(text)
		return p.built(r, name+" matches "+literalText(text))
	}
	return p.bound(r, e)
}

// bound reads min, max, min_length and max_length.
func (p *parser) bound(r Rule, e entry) []Rule {
	subject, isLength := columnText(r.Column.Name), strings.HasSuffix(e.key, "_length")
	if isLength {
		subject = "length(" + subject + ")"
	}
	value := p.value(e.value, maxNesting)
	text := literalText(value)
	if _, whole := value.(int64); text == "" || isLength && !whole {
		p.problem(at(e.value), "%s must be a number, or a time where the column is one", e.key)
		return nil
	}
	r.Text = fmt.Sprintf("%s: %s", e.key, excerpt.Of(fmt.Sprint(value)))
	if strings.HasPrefix(e.key, "min") {
		return p.built(r, subject+" >= "+text)
	}
	return p.built(r, subject+" <= "+text)
}

// built gives the rule a condition.
func (p *parser) built(r Rule, text string) []Rule {
	r.Check = Expression{Text: text, Pos: r.Pos}
	node, err := expr.Parse(text)
	if err != nil {
		p.problem(r.Pos, "the rule %s cannot be used: %s", r.Text, err)
		return nil
	}
	r.Check.Node = node
	return []Rule{r}
}

// rowRules reads an expression, or several by name.
func (p *parser) rowRules(r Rule, n *yaml.Node) []Rule {
	if n.Kind != yaml.MappingNode {
		r.Check = p.expression(n, "the rule")
		r.Text = excerpt.Of(r.Check.Text)
		return []Rule{r}
	}
	var list []Rule
	for _, a := range p.assignments(n, "rule", "an expression, or {name: expression}") {
		list = append(list, Rule{Column: r.Column, Pos: a.Pos, Check: a.Expr, Text: excerpt.Of(a.Name) + " (" + excerpt.Of(a.Expr.Text) + ")"})
	}
	return list
}

func (p *parser) membership(r Rule, n *yaml.Node) []Rule {
	var values []string
	for _, item := range p.items(n, "in", "[value, value]") {
		text := literalText(p.value(item, maxNesting))
		if text == "" {
			p.problem(at(item), "a value of in must be a text or a number")
			return nil
		}
		values = append(values, text)
	}
	if n.Kind == yaml.SequenceNode && len(values) == 0 {
		p.problem(at(n), "in has no value; write in: [value, value]")
	}
	if len(values) == 0 {
		return nil
	}
	list := "[" + strings.Join(values, ", ") + "]"
	r.Text = "in: " + excerpt.Of(list)
	return p.built(r, columnText(r.Column.Name)+" in "+list)
}

func (p *parser) unique(n *yaml.Node) *UniqueRule {
	u := &UniqueRule{}
	if n.Kind != yaml.MappingNode {
		p.mustBeTrue(n, "unique")
		return u
	}
	members := p.known(n, "unique", "true or {with: [column], within: 1h, time: COLUMN}", uniqueKeys())
	if e, ok := members["with"]; ok {
		u.With = p.refs(e.value, "with")
	}
	u.Within, u.Time = p.withinTime(members)
	u.Ahead = p.ahead(members)
	return u
}

func (p *parser) mustBeTrue(n *yaml.Node, key string) {
	if n.Kind != yaml.ScalarNode || n.Value != "true" {
		p.problem(at(n), "%s is written %s: true; leave it out where it does not hold", key, key)
	}
}

// literalText writes a value of a definition as a constant of an expression; "" when it can be none.
func literalText(value any) string {
	var v expr.Value
	switch value := value.(type) {
	case bool:
		v = expr.Value{Type: expr.Bool, Bool: value}
	case int64:
		v = expr.Value{Type: expr.Int, Int: value}
	case float64:
		v = expr.Value{Type: expr.Float, Float: value}
	case string:
		v = expr.Value{Type: expr.String, Str: value}
	default:
		return ""
	}
	return expr.Format(&expr.Node{Op: expr.OpLiteral, Value: v})
}

// columnText writes a column's name for an expression.
func columnText(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

func (c *checker) checkValidate(k int) bool {
	ps := &c.plan.Steps[k]
	ps.Output, c.origins[k] = c.input(ps, 0)
	plan := &ValidatePlan{}
	for i := range ps.Validate.Rules {
		r := &ps.Validate.Rules[i]
		rule := RulePlan{Rule: r, Column: c.column(ps.Step, r.Column, ps.Output), Time: -1}
		if rule.Column < 0 {
			continue
		}
		if r.Unique != nil {
			c.checkUnique(ps, &rule)
		} else {
			rule.Check = c.checkRule(ps, r)
		}
		plan.Rules = append(plan.Rules, rule)
	}
	ps.ValidatePlan = plan
	return true
}

// checkRule gives the typed condition of a rule; nil when something is wrong with it, which is reported.
func (c *checker) checkRule(ps *PlanStep, r *Rule) *expr.Node {
	if r.Check.Node == nil || c.full() {
		return nil
	}
	if t := ps.Output[ps.Output.Index(r.Column.Name)].Type; r.Reads && t != expr.String {
		c.problem(ps.Step, r.Pos, "the rule %s says that a text can be read as such, and it does not fit the column %q of type %s; leave it out, or write a condition as in rule: x > 0", r.Text, excerpt.Of(r.Column.Name), t)
		return nil
	}
	n, err := expr.CheckWithin(r.Check.Node, ps.Output, &c.patterns)
	switch {
	case err != nil && r.Check.source == nil: // the engine's own wording of the rule
		c.problem(ps.Step, r.Pos, "the rule %s does not fit the column %q of type %s: %s", r.Text, excerpt.Of(r.Column.Name), ps.Output[ps.Output.Index(r.Column.Name)].Type, err)
	case err != nil:
		c.problem(ps.Step, r.Check.place(err), "%s", err)
	case n.Type != expr.Bool:
		c.problem(ps.Step, r.Check.Pos, "a rule must be a bool such as scrap <= count, and this is of type %s", n.Type)
	default:
		return n
	}
	return nil
}

func (c *checker) checkUnique(ps *PlanStep, rule *RulePlan) {
	u := rule.Unique
	refs := append([]Ref{rule.Rule.Column}, slices.Clone(u.With)...)
	rule.By = c.keyColumns(ps.Step, refs, ps.Output)
	switch {
	case u.Time.Name != "":
		rule.Time = c.timeColumn(ps.Step, u.Time, ps.Output)
	case u.Within == 0 && c.flow.Trigger.Kind == Continuous:
		c.problem(ps.Step, rule.Pos, "in a continuous flow unique would have to remember every value for ever; write unique: {within: 1h, time: COLUMN}, so that a value may come again after that time")
	}
}

func validateSchema(properties object) {
	scalar := object{"type": []string{"string", "number", "boolean"}}
	length := object{"type": "integer", "minimum": 0}
	yes := object{"const": true}
	properties["validate"] = mapOf(closed(object{
		"required": yes,
		"type":     object{"enum": readableTypes(), "description": "What the text must read as."},
		"min":      scalar, "max": scalar,
		"in":      object{"type": "array", "minItems": 1, "items": scalar},
		"pattern": object{"type": "string", "description": "A regular expression of RE2's syntax."}, "min_length": length, "max_length": length,
		"unique": object{"oneOf": []any{yes, closed(object{
			"with": reference("columns"), "within": reference("duration"), "time": reference("column"), aheadKey: aheadSchema(),
		})}},
		"rule": object{"oneOf": []any{reference("expression"), mapOf(reference("expression"))}},
	}))
}
