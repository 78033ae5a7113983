package flowdef

import (
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/excerpt"
)

const (
	defaultSeverity = "warning"
	// maxLevels is how many severities one step may tell apart.
	maxLevels = 8
	// minBaseline and maxBaseline bound `min`; a baseline of one value has no deviation.
	minBaseline, maxBaseline = 2, 1_000_000
	defaultMin               = 30
)

func (p *parser) detect(s *Step, n *yaml.Node, members map[string]entry) *DetectStep {
	d := &DetectStep{Report: reportBoth, Direction: DirectionBoth, Min: defaultMin}
	if n.ShortTag() != "!!null" {
		e := p.expression(n, "what detect watches")
		d.Value = &e
	}
	if e, ok := members["by"]; ok {
		d.By = p.refs(e.value, "by")
	}
	if e, ok := members["time"]; ok {
		d.Time = p.ref(e.value, "the column name of time")
	} else {
		p.problem(s.Pos, "detect has no time column; write time: and the name of a timestamp column")
	}
	d.Ahead = p.ahead(members)
	if e, ok := members["report"]; ok {
		d.Report = p.oneOf(e.value, "report", reportBoth, EventOpen, EventClosed)
	}
	method, ok := p.oneMethod(s, members)
	if !ok {
		return d
	}
	d.Method = DetectMethod(method.key)
	if d.Value == nil && d.Method != DetectSilence {
		p.problem(at(n), "detect watches nothing; write an expression behind it, as in detect: temp")
	}
	if d.Method == DetectDeadband {
		for _, key := range []string{"severity", "report"} {
			if e, ok := members[key]; ok {
				p.problem(e.pos, "a deadband passes rows on and gives no events, so %s does not belong to it", key)
			}
		}
	}
	settings := p.known(method.value, string(d.Method), detectShape(d.Method), detectSettings(d.Method))
	if method.value.Kind == yaml.MappingNode {
		p.detectMethod(d, method, settings, members["severity"])
	}
	return d
}

// oneMethod finds the one member that is a method.
func (p *parser) oneMethod(s *Step, members map[string]entry) (method entry, ok bool) {
	for _, name := range detectMethods() {
		e, has := members[name]
		switch {
		case !has:
		case !ok:
			method, ok = e, true
		default:
			p.problem(e.pos, "a detect has one method, and this one has %s and %s; begin another step with -", method.key, name)
		}
	}
	if !ok {
		p.problem(s.Pos, "detect has no method; write one of %s", listOr(detectMethods()))
	}
	return method, ok
}

func detectShape(m DetectMethod) string {
	switch m {
	case DetectThreshold:
		return "{above: 90, clear: 85, for: 30s}"
	case DetectRate:
		return "{above: 5, per: 1m}"
	case DetectDeadband:
		return "{change: 0.5, every: 10m}"
	case DetectZScore:
		return "{above: 4, over: 24h}"
	case DetectEWMA:
		return "{above: 4, half_life: 1h, over: 7d}"
	case DetectCUSUM:
		return "{shift: 1, limit: 8, over: 7d}"
	case DetectSilence:
	}
	return "{for: 5m}"
}

// detectMethod reads a method's settings.
func (p *parser) detectMethod(d *DetectStep, method entry, settings map[string]entry, severity entry) {
	r := detectReader{parser: p, method: method, settings: settings}
	switch d.Method {
	case DetectThreshold:
		r.threshold(d)
	case DetectRate:
		r.levels(d, "above")
		d.Per, d.HalfLife = r.needDuration("per"), r.duration("half_life")
	case DetectDeadband:
		d.Change, d.Percent, d.Every = r.atLeastZero("change"), r.atLeastZero("percent"), r.duration("every")
		if r.missing("change") && r.missing("percent") {
			p.problem(method.pos, "the deadband has no width; write change: 0.5, percent: 1 or both")
		}
	case DetectZScore:
		r.levels(d, "above")
		r.baseline(d)
	case DetectEWMA:
		r.levels(d, "above")
		d.HalfLife = r.needDuration("half_life")
		r.baseline(d)
	case DetectCUSUM:
		r.cusum(d)
	case DetectSilence:
		d.Levels = []DetectLevel{{}}
	}
	d.For, d.ClearFor = r.duration("for"), r.duration("clear_for")
	if d.Method == DetectSilence && d.For == 0 {
		r.needDuration("for")
	}
	if e, ok := settings["direction"]; ok {
		d.Direction = p.oneOf(e.value, "direction", DirectionBoth, DirectionUp, DirectionDown)
	}
	r.clear(d)
	r.severity(d, severity)
}

// detectReader reads the settings of one method.
type detectReader struct {
	*parser
	method   entry
	settings map[string]entry
}

func (r *detectReader) missing(key string) bool {
	_, ok := r.settings[key]
	return !ok
}

func (r *detectReader) duration(key string) time.Duration {
	e, ok := r.settings[key]
	if !ok {
		return 0
	}
	return r.parser.duration(e.value, key)
}

func (r *detectReader) needDuration(key string) time.Duration {
	if r.missing(key) {
		r.problem(r.method.pos, "%s has no %s; write %s", r.method.key, key, detectShape(DetectMethod(r.method.key)))
		return 0
	}
	return r.duration(key)
}

// number reads a finite number.
func (r *detectReader) number(n *yaml.Node, what string) (float64, bool) {
	if n.Kind == yaml.ScalarNode {
		switch v := r.scalarValue(n).(type) {
		case int64:
			return float64(v), true
		case float64:
			return v, true
		}
	}
	r.problem(at(n), "%s must be a number, such as 2.5", what)
	return 0, false
}

func (r *detectReader) optional(key string) *float64 {
	e, ok := r.settings[key]
	if !ok {
		return nil
	}
	v, ok := r.number(e.value, key)
	if !ok {
		return nil
	}
	return &v
}

func (r *detectReader) atLeastZero(key string) float64 {
	v := r.optional(key)
	if v == nil {
		return 0
	}
	if *v < 0 {
		r.problem(at(r.settings[key].value), "%s must not be below 0", key)
	}
	return *v
}

// positive reads a number that must be there and be more than zero.
func (r *detectReader) positive(key string) float64 {
	if r.missing(key) {
		r.problem(r.method.pos, "%s has no %s; write %s", r.method.key, key, detectShape(DetectMethod(r.method.key)))
		return 0
	}
	v := r.optional(key)
	if v == nil {
		return 0
	}
	if *v <= 0 {
		r.problem(at(r.settings[key].value), "%s must be more than 0", key)
	}
	return *v
}

// levels reads a bound that must be more than 0: a number, or {severity: number} in the order of the severities.
func (r *detectReader) levels(d *DetectStep, key string) {
	e, ok := r.settings[key]
	if !ok {
		r.problem(r.method.pos, "%s has no %s; write %s", r.method.key, key, detectShape(d.Method))
		return
	}
	r.readLevels(d, e)
	for _, l := range d.Levels {
		if l.Value <= 0 {
			r.problem(at(e.value), "%s must be more than 0", key)
			return
		}
	}
}

func (r *detectReader) readLevels(d *DetectStep, e entry) {
	if e.value.Kind != yaml.MappingNode {
		if v, ok := r.number(e.value, e.key); ok {
			d.Levels = []DetectLevel{{Value: v}}
		}
		return
	}
	list := r.entries(e.value, e.key, "{warning: 80, critical: 95}")
	if len(list) == 0 || len(list) > maxLevels {
		r.problem(e.pos, "%s has %d severities; write one to %d, as in {warning: 80, critical: 95}", e.key, len(list), maxLevels)
		return
	}
	for _, l := range list {
		if l.key == "" || len(l.key) > maxName {
			r.problem(l.pos, "a severity is a name such as warning, of at most %d bytes", maxName)
		}
		if v, ok := r.number(l.value, "the bound of "+excerpt.Of(l.key)); ok {
			d.Levels = append(d.Levels, DetectLevel{Severity: l.key, Value: v})
		}
	}
	for i := 1; i < len(d.Levels); i++ {
		before, v := d.Levels[i-1].Value, d.Levels[i].Value
		if v == before || (v > before) != (e.key != "below") {
			r.problem(at(e.value), "write the severities of %s from the mildest to the gravest, each bound further out than the one before", e.key)
			return
		}
	}
}

func (r *detectReader) threshold(d *DetectStep) {
	above, hasAbove := r.settings["above"]
	below, hasBelow := r.settings["below"]
	switch {
	case hasAbove && hasBelow:
		r.problem(below.pos, "a threshold has above or below; watch the other side in another step with the same from")
	case hasAbove:
		d.Direction = DirectionUp
		r.readLevels(d, above)
	case hasBelow:
		d.Direction = DirectionDown
		r.readLevels(d, below)
	default:
		r.problem(r.method.pos, "the threshold has no bound; write above: 90 or below: 10")
	}
}

// baseline reads the settings of a rolling baseline.
func (r *detectReader) baseline(d *DetectStep) {
	d.Over, d.Relearn, d.Floor = r.needDuration("over"), r.duration("relearn"), r.atLeastZero("floor")
	e, ok := r.settings["min"]
	if !ok {
		return
	}
	v, isInt := r.scalarValue(e.value).(int64)
	if e.value.Kind != yaml.ScalarNode || !isInt || v < minBaseline || v > maxBaseline {
		r.problem(at(e.value), "min must be a whole number from %d to %d: how many values a baseline needs", minBaseline, maxBaseline)
		return
	}
	d.Min = v
}

func (r *detectReader) cusum(d *DetectStep) {
	d.Shift = r.positive("shift")
	r.levels(d, "limit")
	d.Target = r.optional("target")
	if r.missing("target") {
		if !r.missing("deviation") {
			r.problem(r.settings["deviation"].pos, "deviation belongs to a given target; write target: as well, or leave the deviation to the baseline")
		}
		r.baseline(d)
		return
	}
	v := r.positive("deviation")
	d.Deviation = &v
	for _, key := range []string{"over", "min", "floor", "relearn"} {
		if e, ok := r.settings[key]; ok {
			r.problem(e.pos, "%s belongs to a baseline that is learned, and this one is given by target and deviation", key)
		}
	}
}

// clear reads the bound at which an event ends, which must not lie beyond the first level.
func (r *detectReader) clear(d *DetectStep) {
	d.Clear = r.optional("clear")
	if d.Clear == nil || len(d.Levels) == 0 {
		return
	}
	first, pos := d.Levels[0].Value, at(r.settings["clear"].value)
	switch {
	case d.Method == DetectThreshold && d.Direction == DirectionDown:
		if *d.Clear < first {
			r.problem(pos, "clear must not lie under below: an event ends when the value is back at %g or higher", first)
		}
	case *d.Clear > first:
		r.problem(pos, "clear must not lie over the bound: an event ends when the value is back at %g or lower", first)
	case d.Method != DetectThreshold && *d.Clear < 0:
		r.problem(pos, "clear must not be below 0")
	}
}

// severity names the one level of a bound that is a plain number.
func (r *detectReader) severity(d *DetectStep, e entry) {
	named := len(d.Levels) > 0 && d.Levels[0].Severity != ""
	switch {
	case e.value == nil || d.Method == DetectDeadband:
	case named:
		r.problem(e.pos, "the severities are in the bound already; leave severity out")
		return
	default:
		name := r.name(e.value, "the severity")
		for i := range d.Levels {
			d.Levels[i].Severity = name
		}
		return
	}
	if !named {
		for i := range d.Levels {
			d.Levels[i].Severity = defaultSeverity
		}
	}
}
