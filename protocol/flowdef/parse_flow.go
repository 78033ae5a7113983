package flowdef

import (
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

func (p *parser) flow(root *yaml.Node) *Flow {
	members := p.known(root, "the definition", "flow: NAME with steps: below", flowKeys())
	f := &Flow{OnError: OnErrorSkip, Trigger: Trigger{Kind: Manual, Pos: at(root)}, Pos: at(root)}
	if e, ok := members["flow"]; ok {
		f.Name, f.Pos = p.name(e.value, "the flow's name"), at(e.value)
	} else {
		p.problem(at(root), "the flow has no name; begin with flow: and a name")
	}
	if e, ok := members["description"]; ok && e.value.ShortTag() != "!!null" {
		f.Description = p.prose(e.value, "the description")
	}
	if e, ok := members["trigger"]; ok {
		f.Trigger = p.trigger(e.value)
	}
	if e, ok := members["on_error"]; ok {
		f.OnError = OnError(p.oneOf(e.value, "on_error", "skip", "stop"))
	}
	if e, ok := members["steps"]; ok {
		f.Steps = p.steps(e.value)
	} else {
		p.problem(at(root), "the flow has no steps; write steps: and a list that begins with a read")
	}
	if e, ok := members["tests"]; ok {
		f.Tests = p.tests(e.value)
	}
	return f
}

func (p *parser) oneOf(n *yaml.Node, what string, valid ...string) string {
	text, ok := p.word(n, what)
	if ok && !slices.Contains(valid, text) {
		p.problem(at(n), "%s", expr.Unknown("value of "+what, text, valid))
	}
	return text
}

func (p *parser) duration(n *yaml.Node, what string) time.Duration {
	text, ok := p.word(n, what)
	if !ok {
		return 0
	}
	d, err := ParseDuration(text)
	if err != nil {
		p.problem(at(n), "%s: %s", what, err)
	}
	return d
}

func (p *parser) trigger(n *yaml.Node) Trigger {
	t := Trigger{Kind: Manual, Pos: at(n)}
	if n.Kind == yaml.ScalarNode {
		t.Kind = TriggerKind(p.oneOf(n, "trigger", string(Continuous), string(Manual)))
		return t
	}
	const shape = `continuous, manual, {every: 15m} or {cron: "0 6 * * 1-5"}`
	members := p.known(n, "the trigger", shape, triggerKeys())
	every, hasEvery := members["every"]
	cron, hasCron := members["cron"]
	switch {
	case hasEvery == hasCron:
		p.problem(at(n), "the trigger must be written %s", shape)
	case hasEvery:
		t.Kind, t.Every = Every, p.duration(every.value, "every")
		if t.Every > 0 && t.Every < time.Second {
			p.problem(at(every.value), "a flow can run once a second at most; for what is faster use trigger: continuous")
		}
		for _, key := range []string{"timezone", "missed"} {
			if e, ok := members[key]; ok {
				p.problem(e.pos, "%s belongs to a cron trigger", key)
			}
		}
	default:
		p.cron(&t, cron.value, members)
	}
	return t
}

func (p *parser) cron(t *Trigger, n *yaml.Node, members map[string]entry) {
	t.Kind, t.Timezone, t.Missed = Cron, "UTC", "skip"
	if text, ok := p.word(n, "cron"); ok {
		t.Cron = text
		if err := checkCron(text); err != nil {
			p.problem(at(n), "cron %q: %s", excerpt.Of(text), err)
		}
	}
	if e, ok := members["timezone"]; ok {
		t.Timezone, _ = p.word(e.value, "timezone")
		if _, err := time.LoadLocation(t.Timezone); err != nil || t.Timezone == "Local" {
			p.problem(at(e.value), "unknown time zone %q; write one like Europe/Berlin or UTC", excerpt.Of(t.Timezone))
		}
	}
	if e, ok := members["missed"]; ok {
		t.Missed = p.oneOf(e.value, "missed", "skip", "once")
	}
}

func (p *parser) tests(n *yaml.Node) []Test {
	var list []Test
	named := map[string]Pos{}
	for _, item := range p.items(n, "tests", "- {name: …, given: …, expect: …}") {
		p.places = map[string]Pos{}
		if p.given > maxGivenRows {
			break // reported
		}
		t := Test{Pos: at(item), places: p.places}
		members := p.known(item, "a test", "{name: …, given: {step: [rows]}, expect: {insight: [insights]}}", testKeys())
		if e, ok := members["name"]; ok {
			t.Name = p.prose(e.value, "the test's name")
			if first, twice := named[t.Name]; twice && t.Name != "" {
				p.problem(at(e.value), "the test %q is there twice; the first is in line %d", excerpt.Of(t.Name), first.Line)
			} else {
				named[t.Name] = at(e.value)
			}
		} else if item.Kind == yaml.MappingNode {
			p.problem(at(item), "the test has no name")
		}
		if e, ok := members["given"]; ok {
			t.Given = p.rows(e, "step")
		}
		if e, ok := members["expect"]; ok {
			t.Expect = p.rows(e, "insight")
		} else if item.Kind == yaml.MappingNode {
			p.problem(at(item), "the test expects nothing; write expect: {insight: []} for no insight")
		}
		if e, ok := members["failed"]; ok {
			t.Failed = p.failed(e.value)
		}
		if e, ok := members["ordered"]; ok {
			if t.Ordered, ok = p.value(e.value, 0).(bool); !ok {
				p.problem(at(e.value), "ordered must be true or false")
			}
		}
		list = append(list, t)
	}
	return list
}

// failed reads how many records must fail in a test.
func (p *parser) failed(n *yaml.Node) *int64 {
	count, ok := p.value(n, 0).(int64)
	if !ok || count < 0 {
		p.problem(at(n), "failed must be a whole number from 0 on: how many records must fail")
		return nil
	}
	return &count
}

// rows reads the rows of the named steps or insights.
func (p *parser) rows(of entry, kind string) map[string][]map[string]any {
	all := map[string][]map[string]any{}
	for _, e := range p.entries(of.value, of.key, "{"+kind+": [{column: value}]}") {
		path := of.key + "/" + e.key
		p.places[path] = e.pos
		rows := []map[string]any{}
		for i, item := range p.items(e.value, e.key, "[{column: value}]") {
			if kind == "step" {
				if p.given++; p.given > maxGivenRows {
					p.problem(at(item), "the tests of the flow give more than %d rows; test it with fewer", maxGivenRows)
					return all
				}
			}
			row := map[string]any{}
			for _, member := range p.entries(item, "a row", "{column: value}") {
				p.places[path+"/"+strconv.Itoa(i)+"/"+member.key] = member.pos
				row[member.key] = p.value(member.value, 0)
			}
			rows = append(rows, row)
		}
		all[e.key] = rows
	}
	return all
}
