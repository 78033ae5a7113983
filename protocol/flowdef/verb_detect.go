package flowdef

import (
	"strings"
	"time"

	"github.com/outfeed/outfeed/protocol/expr"
)

// DetectMethod is how a detect step decides.
type DetectMethod string

// The methods of detect. DetectDeadband passes rows on; the others give events.
const (
	DetectThreshold DetectMethod = "threshold"
	DetectRate      DetectMethod = "rate"
	DetectDeadband  DetectMethod = "deadband"
	DetectZScore    DetectMethod = "zscore"
	DetectEWMA      DetectMethod = "ewma"
	DetectCUSUM     DetectMethod = "cusum"
	DetectSilence   DetectMethod = "silence"
)

// The columns that an event has beside those of `by`. EventValue is the most extreme value so far, EventScore the
// greatest score so far, EventBaseline the mean that it was held against, EventSeconds how long the silence has lasted.
const (
	EventStart    = "event_start"
	EventEnd      = "event_end"
	EventState    = "event_state"
	EventSeverity = "severity"
	EventValue    = "value"
	EventScore    = "score"
	EventBaseline = "baseline"
	EventSeconds  = "seconds"
)

// The values of the column EventState, and of `report` beside "both".
const (
	EventOpen   = "open"
	EventClosed = "closed"
	reportBoth  = "both"
)

// The values of `direction`.
const (
	DirectionBoth = "both"
	DirectionUp   = "up"
	DirectionDown = "down"
)

// DetectStep finds events in a value's course, or passes on the rows in which it has changed.
type DetectStep struct {
	// Value is the watched number; nil for silence of any row.
	Value  *Expression
	Method DetectMethod
	By     []Ref
	Time   Ref
	// Ahead is how far a row's time may lie ahead of the agent's clock; see TimeBounds.
	Ahead time.Duration
	// Report is "both", "open" or "closed": which rows an event gives.
	Report string
	// Levels are the bounds in the order of their severity, one where the definition gives a plain number.
	Levels []DetectLevel
	// Direction is "both", "up" or "down": which deviations count. A threshold with below has "down", one with above "up".
	Direction string
	// Clear is the bound at which an event ends; nil for the first of Levels or, for cusum, half of
	// it.
	Clear *float64
	// For is how long a bound must be passed before an event opens (for silence, how long nothing must come), ClearFor
	// how long the value must be back before it closes.
	For, ClearFor time.Duration
	// Per is the unit of time of a rate, HalfLife the smoothing of rate and ewma; 0 is none.
	Per, HalfLife time.Duration
	// Over is the length of the rolling baseline, Relearn how long an event may last before its values become the new
	// normal; 0 means Over.
	Over, Relearn time.Duration
	// Min is how many values a baseline must have, Floor the least standard deviation.
	Min   int64
	Floor float64
	// Shift is the shift that cusum looks for, in standard deviations; Target and Deviation are its baseline where that
	// is given and not learned.
	Shift             float64
	Target, Deviation *float64
	// Change and Percent are a deadband, Every the longest time without a row; 0 is none.
	Change, Percent float64
	Every           time.Duration
}

// DetectLevel is a bound and the severity of an event that passes it.
type DetectLevel struct {
	Severity string
	Value    float64
}

// DetectPlan is a checked DetectStep.
type DetectPlan struct {
	// Value is the typed expression; nil for silence of any row.
	Value *expr.Node
	// By is the input positions of the grouping columns, Time that of the time column.
	By   []int
	Time int
}

func detectKeys() []string {
	return append(detectMethods(), "by", "time", aheadKey, "severity", "report")
}

func detectMethods() []string {
	return []string{
		string(DetectThreshold), string(DetectRate), string(DetectDeadband), string(DetectZScore), string(DetectEWMA),
		string(DetectCUSUM), string(DetectSilence),
	}
}

// detectSettings are the keys of a method.
func detectSettings(m DetectMethod) []string {
	switch m {
	case DetectThreshold:
		return []string{"above", "below", "clear", "for", "clear_for"}
	case DetectRate:
		return []string{"above", "per", "clear", "for", "clear_for", "direction", "half_life"}
	case DetectDeadband:
		return []string{"change", "percent", "every"}
	case DetectZScore:
		return []string{"above", "over", "min", "floor", "clear", "for", "clear_for", "direction", "relearn"}
	case DetectEWMA:
		return []string{"above", "half_life", "over", "min", "floor", "clear", "for", "clear_for", "direction", "relearn"}
	case DetectCUSUM:
		return []string{"shift", "limit", "over", "min", "floor", "target", "deviation", "clear", "direction", "relearn"}
	case DetectSilence:
		return []string{"for"}
	}
	return nil
}

// checkDetect resolves the columns and types the expression. What the numbers must be was the parser's to check.
func (c *checker) checkDetect(k int) bool {
	ps := &c.plan.Steps[k]
	d := ps.Detect
	schema, origins := c.input(ps, 0)
	p := &DetectPlan{Time: -1}
	ps.DetectPlan = p
	sound := d.Value == nil || c.checkWatched(k)
	for _, ref := range d.By {
		i := c.column(ps.Step, ref, schema)
		if i >= 0 && schema[i].Type == expr.JSON {
			c.problem(ps.Step, ref.Pos, "rows are not grouped by json; take a value out of column %q with json_string or json_number in a map", ref.Name)
			i = -1
		}
		if i < 0 {
			sound = false
			continue
		}
		p.By = append(p.By, i)
	}
	if p.Time = c.column(ps.Step, d.Time, schema); p.Time >= 0 && schema[p.Time].Type != expr.Timestamp {
		c.problem(ps.Step, d.Time.Pos, "the time column %q of detect is of type %s, not timestamp%s", d.Time.Name, schema[p.Time].Type, listTimes(schema))
		sound = false
	}
	if !sound || p.Time < 0 {
		return false
	}
	if d.Method == DetectDeadband {
		ps.Output, c.origins[k] = schema, origins
		return true
	}
	var value origin
	if p.Value != nil {
		value = c.originOf(p.Value, origins)
	}
	return c.eventOutput(k, value)
}

// checkWatched types the expression.
func (c *checker) checkWatched(k int) bool {
	ps := &c.plan.Steps[k]
	d := ps.Detect
	schema, _ := c.input(ps, 0)
	n := c.node(ps.Step, d.Value, schema)
	if n == nil {
		return false
	}
	if d.Method != DetectSilence && n.Type != expr.Int && n.Type != expr.Float {
		c.problem(ps.Step, d.Value.Pos, "detect watches a number, and this is of type %s; take the number out in a map, as in float(…)", n.Type)
		return false
	}
	ps.DetectPlan.Value = n
	return true
}

// eventOutput sets the columns of an event. All of them are raw: the bounds of an event are the times of single records
// and its value is one of theirs.
func (c *checker) eventOutput(k int, value origin) bool {
	ps := &c.plan.Steps[k]
	schema, origins := c.input(ps, 0)
	at := origin{sources: origins[ps.DetectPlan.Time].sources, raw: true}
	// An event begins, ends and has its severity because of the values and their times.
	cause := origin{sources: c.union(at.sources, value.sources), raw: true}
	for _, i := range ps.DetectPlan.By {
		from := origins[i]
		from.windowStart = false
		ps.Output, c.origins[k] = append(ps.Output, schema[i]), append(c.origins[k], from)
	}
	sound := true
	for _, column := range eventColumns(ps.Detect.Method) {
		if ps.Output.Index(column.Name) >= 0 {
			c.problem(ps.Step, Pos{}, "an event has the column %q, which is also in by; give that one another name with select", column.Name)
			sound = false
		}
		from := cause
		switch column.Name {
		case EventStart:
			from.windowStart = true
		case EventValue:
			from = origin{sources: value.sources, raw: true}
		}
		ps.Output, c.origins[k] = append(ps.Output, column), append(c.origins[k], from)
	}
	return sound
}

// eventColumns are the columns of an event behind those of `by`.
func eventColumns(m DetectMethod) expr.Schema {
	s := expr.Schema{
		{Name: EventStart, Type: expr.Timestamp},
		{Name: EventEnd, Type: expr.Timestamp},
		{Name: EventState, Type: expr.String},
		{Name: EventSeverity, Type: expr.String},
	}
	number := func(names ...string) {
		for _, name := range names {
			s = append(s, expr.Column{Name: name, Type: expr.Float})
		}
	}
	switch m {
	case DetectThreshold:
		number(EventValue)
	case DetectRate:
		number(EventValue, EventScore)
	case DetectZScore, DetectEWMA, DetectCUSUM:
		number(EventValue, EventScore, EventBaseline)
	case DetectSilence:
		number(EventSeconds)
	case DetectDeadband:
	}
	return s
}

func detectSchema(properties object) []string {
	properties["detect"] = object{
		"type": []string{"string", "number", "null"}, "description": "The number to watch, an expression; left out for silence.",
	}
	for _, m := range detectMethods() {
		settings := object{}
		for _, key := range detectSettings(DetectMethod(m)) {
			settings[key] = detectSetting(key)
		}
		properties[m] = closed(settings)
	}
	properties["by"] = reference("columns")
	properties["time"] = reference("column")
	properties[aheadKey] = aheadSchema()
	properties["severity"] = named("The severity of the events; " + defaultSeverity + " when left out.")
	properties["report"] = object{"enum": []string{reportBoth, EventOpen, EventClosed}, "description": "Which rows an event gives."}
	return []string{"time"}
}

func detectSetting(key string) object {
	switch key {
	case "above", "below":
		return object{"oneOf": []any{object{"type": "number"}, mapOf(object{"type": "number"})}}
	case "limit":
		return object{"oneOf": []any{object{"type": "number", "exclusiveMinimum": 0}, mapOf(object{"type": "number", "exclusiveMinimum": 0})}}
	case "for", "clear_for", "per", "over", "every", "half_life", "relearn":
		return reference("duration")
	case "min":
		return object{"type": "integer", "minimum": minBaseline, "maximum": maxBaseline}
	case "direction":
		return object{"enum": []string{DirectionBoth, DirectionUp, DirectionDown}}
	case "shift", "deviation":
		return object{"type": "number", "exclusiveMinimum": 0}
	case "change", "percent", "floor":
		return object{"type": "number", "minimum": 0}
	}
	return object{"type": "number"}
}

// listOr joins names for a message: a, b or c.
func listOr(names []string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}
