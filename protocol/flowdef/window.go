package flowdef

import (
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

// WindowStart and WindowEnd are the columns that a window adds: the start and the end of the window, timestamps. A
// window of shifts also adds WindowShift, the shift's name.
const (
	WindowStart = "window_start"
	WindowEnd   = "window_end"
	WindowShift = "shift"
)

// The bounds of a window.
const (
	// MaxHops is how many windows of one aggregate a time can be in: hopping divided by every.
	MaxHops = 1000
	// maxShifts is the most entries of a shift calendar.
	maxShifts = 100
	day       = 24 * time.Hour
)

// Window is how an aggregate cuts time. Exactly one of Tumbling, Hopping, Session and Shifts is set. Durations are whole
// numbers of microseconds.
type Window struct {
	// Tumbling is the length of windows that follow one another.
	Tumbling time.Duration
	// Hopping is the length of windows of which one begins every Every; it is a multiple of Every.
	Hopping, Every time.Duration
	// Session is the time without a row that ends a session. Max, where it is not zero, also cuts sessions at all
	// multiples of it since the epoch or, where there is a Timezone, since midnight.
	Session, Max time.Duration
	// Shifts is a plant's shift calendar; no two of them overlap.
	Shifts []Shift
	// Timezone is where midnight is; "" means that windows are aligned to 1970-01-01T00:00:00Z. In a time zone a length is
	// a part of a day or whole days.
	Timezone string
	// Time is the timestamp column.
	Time Ref
	// Late is how long after the greatest time seen a record still counts.
	Late time.Duration
	// Ahead is how far a row's time may lie ahead of the agent's clock; see TimeBounds.
	Ahead time.Duration
	Pos   Pos
}

// Shift is one entry of a shift calendar. Several may have the same name.
type Shift struct {
	Name string
	// Start and End are minutes since midnight, from 0 to 1440. A shift that does not end later than it starts ends on
	// the next day.
	Start, End int
	// Days says by time.Weekday on which local days the shift starts.
	Days [7]bool
	Pos  Pos
}

// Minutes is the shift's length by the clock on the wall; a clock change makes the real one longer or shorter.
func (s *Shift) Minutes() int {
	if s.End > s.Start {
		return s.End - s.Start
	}
	return s.End + 24*60 - s.Start
}

func windowKeys() []string {
	return []string{"tumbling", "hopping", "every", "session", "max", "shift", "timezone", "time", "late", aheadKey}
}

func windowKinds() []string { return []string{"tumbling", "hopping", "session", "shift"} }

func windowSchema() object {
	hours := object{"type": "string", "pattern": `^\d\d:\d\d-\d\d:\d\d$`}
	entry := object{"oneOf": []any{hours, closed(object{
		"time": hours,
		"days": object{"type": []string{"string", "array"}, "description": "mon-fri, sat, or a list of these."},
	}, "time")}}
	window := closed(object{
		"tumbling": reference("duration"),
		"hopping":  reference("duration"),
		"every":    reference("duration"),
		"session":  reference("duration"),
		"max":      reference("duration"),
		"shift":    mapOf(object{"oneOf": []any{entry, object{"type": "array", "minItems": 1, "items": entry}}}),
		"timezone": object{"type": "string", "description": "A name such as Europe/Berlin."},
		"time":     reference("column"),
		"late":     object{"type": []string{"string", "number"}},
		aheadKey:   aheadSchema(),
	}, "time")
	var kinds []any
	for _, kind := range windowKinds() {
		kinds = append(kinds, object{"required": []string{kind}})
	}
	window["oneOf"] = kinds
	return window
}

func (p *parser) window(of entry) *Window {
	w := &Window{Pos: of.pos}
	members := p.known(of.value, "window", "{tumbling: 1m, time: COLUMN, late: 5s}", windowKeys())
	if of.value.Kind != yaml.MappingNode {
		return w
	}
	var kinds []string
	for _, kind := range windowKinds() {
		if _, ok := members[kind]; ok {
			kinds = append(kinds, kind)
		}
	}
	switch len(kinds) {
	case 1:
		p.windowLength(w, kinds[0], members)
	case 0:
		p.problem(of.pos, "the window has no length; write tumbling: 1m, hopping: 5m with every: 1m, session: 10m, or shift: {early: \"06:00-14:00\"}")
	default:
		p.problem(members[kinds[1]].pos, "a window is of one kind, and this one is %s", strings.Join(kinds, " and "))
	}
	if e, ok := members["time"]; ok {
		w.Time = p.ref(e.value, "the column name of time")
	} else {
		p.problem(of.pos, "the window has no time column; write time: and the name of a timestamp column")
	}
	if e, ok := members["late"]; ok && e.value.Value != "0" && e.value.Value != "0s" {
		w.Late = p.duration(e.value, "late")
	}
	w.Ahead = p.ahead(members)
	return w
}

// windowLength reads the keys that say where windows begin and end.
func (p *parser) windowLength(w *Window, kind string, members map[string]entry) {
	owners := map[string]string{"every": "hopping", "max": "session"}
	for _, key := range slices.Sorted(maps.Keys(owners)) {
		if e, ok := members[key]; ok && owners[key] != kind {
			p.problem(e.pos, "%s belongs to a window with %s, and this one is %s", key, owners[key], kind)
		}
	}
	if e, ok := members["timezone"]; ok {
		w.Timezone, _ = p.word(e.value, "timezone")
		if _, err := time.LoadLocation(w.Timezone); err != nil || w.Timezone == "Local" {
			p.problem(at(e.value), "unknown time zone %q; write one like Europe/Berlin or UTC", excerpt.Of(w.Timezone))
		}
	}
	e := members[kind]
	switch kind {
	case "tumbling":
		w.Tumbling = p.duration(e.value, "tumbling")
		p.localLength(w, w.Tumbling, e)
	case "hopping":
		w.Hopping = p.duration(e.value, "hopping")
		p.hops(w, e, members)
	case "session":
		w.Session = p.duration(e.value, "session")
		p.sessionBound(w, members)
	case "shift":
		w.Shifts = p.shifts(e.value)
		if w.Timezone == "" {
			p.problem(e.pos, "shifts follow the clock on the wall; write timezone: and the plant's time zone, such as Europe/Berlin")
		}
	}
}

// localLength refuses lengths that do not fit into the days of a time zone.
func (p *parser) localLength(w *Window, length time.Duration, e entry) {
	if w.Timezone != "" && length > 0 && length%day != 0 && day%length != 0 {
		p.problem(at(e.value), "in a time zone windows begin at midnight, so %s must divide a day (such as 15m, 1h or 8h) or be whole days; leave timezone out for any other length", e.key)
	}
}

func (p *parser) hops(w *Window, e entry, members map[string]entry) {
	every, ok := members["every"]
	if !ok {
		p.problem(e.pos, "a hopping window also says how often one begins; write every: 1m")
		return
	}
	w.Every = p.duration(every.value, "every")
	if w.Every <= 0 || w.Hopping <= 0 {
		return
	}
	if w.Hopping%w.Every != 0 || w.Hopping/w.Every > MaxHops {
		p.problem(at(e.value), "hopping must be a multiple of every, at most %d times as long", MaxHops)
	}
	p.localLength(w, w.Every, every)
}

func (p *parser) sessionBound(w *Window, members map[string]entry) {
	e, ok := members["max"]
	if !ok {
		if zone, zoned := members["timezone"]; zoned {
			p.problem(zone.pos, "a session begins with a row, so that it needs no time zone; timezone belongs to its max")
		}
		return
	}
	w.Max = p.duration(e.value, "max")
	if w.Max > 0 && w.Max < w.Session {
		p.problem(at(e.value), "max must not be shorter than session")
	}
	p.localLength(w, w.Max, e)
}

// shifts reads {early: "06:00-14:00", late: {time: "14:00-22:00", days: mon-fri}}.
func (p *parser) shifts(n *yaml.Node) []Shift {
	const shape = `{early: "06:00-14:00", late: {time: "14:00-22:00", days: mon-fri}}`
	var list []Shift
	for _, e := range p.entries(n, "shift", shape) {
		p.column(e.key, e.pos)
		items := []*yaml.Node{e.value}
		if e.value.Kind == yaml.SequenceNode {
			items = e.value.Content
		}
		for _, item := range items {
			if len(list) == maxShifts {
				p.problem(at(item), "the calendar has more than %d shifts", maxShifts)
				return list
			}
			list = append(list, p.oneShift(e.key, item))
		}
	}
	if n.Kind == yaml.MappingNode && len(list) == 0 {
		p.problem(at(n), "the calendar has no shift; write %s", shape)
	}
	p.refuseOverlaps(list)
	return list
}

func (p *parser) oneShift(name string, n *yaml.Node) Shift {
	s := Shift{Name: name, Pos: at(n), Days: [7]bool{true, true, true, true, true, true, true}}
	hours := n
	if n.Kind == yaml.MappingNode {
		members := p.known(n, "the shift", `{time: "06:00-14:00", days: mon-fri}`, []string{"time", "days"})
		if e, ok := members["days"]; ok {
			s.Days = p.weekdays(e.value)
		}
		e, ok := members["time"]
		if !ok {
			p.problem(at(n), "the shift %q has no time; write time: \"06:00-14:00\"", excerpt.Of(name))
			return s
		}
		hours = e.value
	}
	from, to, ok := strings.Cut(hours.Value, "-")
	s.Start = minuteOfDay(from)
	if s.End = minuteOfDay(to); hours.Kind != yaml.ScalarNode || !ok || s.Start < 0 || s.Start == 24*60 || s.End < 0 {
		p.problem(at(hours), "the shift %q must be written like \"06:00-14:00\", in quotes, with two digits each from 00:00 to 24:00", excerpt.Of(name))
		s.Start, s.End, s.Days = 0, 0, [7]bool{}
	}
	return s
}

// minuteOfDay reads hh:mm; -1 for any other text.
func minuteOfDay(text string) int {
	if len(text) != 5 || text[2] != ':' {
		return -1
	}
	hour, ok := number(text[:2])
	minute, ok2 := number(text[3:])
	if !ok || !ok2 || minute > 59 || hour*60+minute > 24*60 {
		return -1
	}
	return hour*60 + minute
}

func weekdayNames() []string { return []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} }

// weekdays reads mon, mon-fri, or several of these as a list or with commas between them.
func (p *parser) weekdays(n *yaml.Node) (days [7]bool) {
	parts := strings.Split(n.Value, ",")
	if n.Kind == yaml.SequenceNode {
		parts = nil
		for _, item := range n.Content {
			parts = append(parts, item.Value)
		}
	}
	for _, part := range parts {
		first, last, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			last = first
		}
		from, to := slices.Index(weekdayNames(), first), slices.Index(weekdayNames(), last)
		if from < 0 || to < 0 {
			p.problem(at(n), "%q are no days; write mon-fri, sat, or a list of these with sun mon tue wed thu fri sat", excerpt.Of(part))
			return [7]bool{}
		}
		for d := from; ; d = (d + 1) % 7 {
			days[d] = true
			if d == to {
				break
			}
		}
	}
	if days == [7]bool{} {
		p.problem(at(n), "the shift has no day; write mon-fri, or leave days out for every day")
	}
	return days
}

// refuseOverlaps marks the minutes of a week with the shifts that they belong to.
func (p *parser) refuseOverlaps(list []Shift) {
	const week = 7 * 24 * 60
	owners := make([]int, week)
	for i := range list {
		s := &list[i]
		for d, on := range s.Days {
			if !on {
				continue
			}
			for m := range s.Minutes() {
				owner := &owners[(d*24*60+s.Start+m)%week]
				if *owner > 0 {
					p.problem(s.Pos, "the shifts %q and %q overlap on %s at %02d:%02d; a time belongs to one shift",
						excerpt.Of(list[*owner-1].Name), excerpt.Of(s.Name), time.Weekday((d*24*60+s.Start+m)/(24*60)%7), (s.Start+m)/60%24, (s.Start+m)%60)
					return
				}
				*owner = i + 1
			}
		}
	}
}

// windowColumns are the columns that a window adds.
func windowColumns(w *Window) expr.Schema {
	columns := expr.Schema{{Name: WindowStart, Type: expr.Timestamp}, {Name: WindowEnd, Type: expr.Timestamp}}
	if len(w.Shifts) > 0 {
		columns = append(columns, expr.Column{Name: WindowShift, Type: expr.String})
	}
	return columns
}

func (c *checker) checkWindow(k int, schema expr.Schema, origins []origin) bool {
	ps := &c.plan.Steps[k]
	w := ps.Aggregate.Window
	if w == nil {
		if c.flow.Trigger.Kind == Continuous {
			c.problem(ps.Step, Pos{}, "an aggregate without a window never ends in a continuous flow; add window: {tumbling: 1m, time: COLUMN}")
		}
		return true
	}
	i := c.column(ps.Step, w.Time, schema)
	if i < 0 {
		return false
	}
	if schema[i].Type != expr.Timestamp {
		c.problem(ps.Step, w.Time.Pos, "the window's time column %q is of type %s, not timestamp%s", w.Time.Name, schema[i].Type, listTimes(schema))
		return false
	}
	ps.WindowTime = i
	for _, column := range windowColumns(w) {
		if ps.Output.Index(column.Name) >= 0 {
			c.problem(ps.Step, w.Pos, "the window adds the column %q, which is also in by; give that one another name with select", column.Name)
			return false
		}
		ps.Output = append(ps.Output, column)
		// The bounds of a window say nothing of one record, but those of a session are times of single records.
		raw := w.Session > 0 && origins[i].raw
		c.origins[k] = append(c.origins[k], origin{sources: origins[i].sources, raw: raw, windowStart: column.Name == WindowStart})
	}
	return true
}
