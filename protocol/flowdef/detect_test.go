package flowdef

import (
	"encoding/json"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outfeed/outfeed/protocol/expr"
)

func detectText(step string) string {
	return "flow: f\ntrigger: continuous\nsteps:\n  - id: rows\n    read: plc\n" +
		"    schema: {ts: timestamp, machine: string, temp: float, state: string, payload: json, value: int}\n" + step + "  - insight: found\n"
}

func TestDetectPlan(t *testing.T) {
	t.Parallel()
	p, err := CheckText([]byte(detectText(`  - id: hot
    detect: temp * 2
    threshold: {below: {low: 10, lowest: 5}, clear: 12, for: 30s, clear_for: 1m}
    by: [machine]
    time: ts
    report: closed
`)), Environment{})
	if err != nil {
		t.Fatal(err)
	}
	clear := 12.0
	want := DetectStep{
		Method: DetectThreshold, Report: "closed", Direction: "down", Levels: []DetectLevel{{"low", 10}, {"lowest", 5}},
		Clear: &clear, For: 30 * time.Second, ClearFor: time.Minute, Min: 30,
	}
	got := *p.Steps[1].Detect
	got.Value, got.By, got.Time = nil, nil, Ref{}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the step: %s", diff)
	}
	if d := p.Steps[1].DetectPlan; d.Time != 0 || !slices.Equal(d.By, []int{1}) || d.Value.Type != expr.Float {
		t.Errorf("the plan is %+v", d)
	}
	columns := expr.Schema{
		{Name: "machine", Type: expr.String},
		{Name: "event_start", Type: expr.Timestamp},
		{Name: "event_end", Type: expr.Timestamp},
		{Name: "event_state", Type: expr.String},
		{Name: "severity", Type: expr.String},
		{Name: "value", Type: expr.Float},
	}
	if diff := cmp.Diff(columns, p.Steps[1].Output); diff != "" {
		t.Errorf("the columns of an event: %s", diff)
	}
	if p.Steps[2].InsightTime != 1 {
		t.Errorf("the insight's time is column %d, want event_start", p.Steps[2].InsightTime)
	}
	var raw []string
	for _, e := range p.Egress.Columns {
		if e.Aggregated {
			t.Errorf("%s counts as aggregated", e.Column)
		}
		raw = append(raw, e.Column+" "+strings.Join(e.Sources, "+"))
	}
	wantRaw := []string{
		"event_start plc.temp+plc.ts", "machine plc.machine", "event_end plc.temp+plc.ts", "event_state plc.temp+plc.ts",
		"severity plc.temp+plc.ts", "value plc.temp",
	}
	if diff := cmp.Diff(wantRaw, raw); diff != "" {
		t.Errorf("egress: %s", diff)
	}
}

func TestDetectColumnsByMethod(t *testing.T) {
	t.Parallel()
	for step, want := range map[string]string{
		"detect: value\n    rate: {above: 1, per: 1s}":                 "value score",
		"detect: value\n    zscore: {above: 3, over: 1d}":              "value score baseline",
		"detect: temp\n    ewma: {above: 3, over: 1d, half_life: 1h}":  "value score baseline",
		"detect: temp\n    cusum: {shift: 1, limit: 5, over: 1d}":      "value score baseline",
		"detect:\n    silence: {for: 1m}":                              "seconds",
		"detect: machine\n    silence: {for: 1m}":                      "seconds",
		"detect: temp\n    threshold: {above: 3}\n    severity: grave": "value",
	} {
		p, err := CheckText([]byte(detectText("  - "+step+"\n    time: ts\n")), Environment{})
		if err != nil {
			t.Errorf("%s: %v", step, err)
			continue
		}
		if got := strings.Join(p.Steps[1].Output.Names(), " "); got != "event_start event_end event_state severity "+want {
			t.Errorf("%s: %s", step, got)
		}
	}
	p, err := CheckText([]byte(detectText("  - {detect: temp, deadband: {percent: 1}, time: ts}\n")), Environment{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p.Steps[0].Output, p.Steps[1].Output); diff != "" {
		t.Errorf("a deadband changes the columns: %s", diff)
	}
}

func TestDetectProblems(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ step, want string }{
		"no method":          {"detect: temp, time: ts", "detect has no method; write one of threshold, rate,"},
		"two methods":        {"detect: temp, rate: {above: 1, per: 1s}, silence: {for: 1s}, time: ts", "one method, and this one has rate and silence"},
		"no time":            {"detect: temp, threshold: {above: 1}", "no time column"},
		"no value":           {"detect: , threshold: {above: 1}, time: ts", "watches nothing"},
		"a text":             {"detect: machine, threshold: {above: 1}, time: ts", "watches a number, and this is of type string"},
		"time of a text":     {"detect: temp, threshold: {above: 1}, time: machine", "not timestamp; there is ts"},
		"by json":            {"detect: temp, threshold: {above: 1}, time: ts, by: [payload]", "not grouped by json"},
		"by value":           {"detect: temp, threshold: {above: 1}, time: ts, by: [value]", `an event has the column "value"`},
		"no bound":           {"detect: temp, threshold: {for: 1s}, time: ts", "no bound"},
		"both sides":         {"detect: temp, threshold: {above: 1, below: 0}, time: ts", "above or below"},
		"a word":             {"detect: temp, threshold: {above: high}, time: ts", "must be a number"},
		"clear over":         {"detect: temp, threshold: {above: 1, clear: 2}, time: ts", "clear must not lie over"},
		"clear under":        {"detect: temp, threshold: {below: 1, clear: 0}, time: ts", "clear must not lie under"},
		"levels out of line": {"detect: temp, threshold: {above: {a: 2, b: 1}}, time: ts", "from the mildest to the gravest"},
		"equal levels":       {"detect: temp, threshold: {below: {a: 1, b: 1}}, time: ts", "from the mildest to the gravest"},
		"no levels":          {"detect: temp, threshold: {above: {}}, time: ts", "has 0 severities"},
		"severity twice":     {"detect: temp, threshold: {above: {a: 1}}, time: ts, severity: b", "in the bound already"},
		"a negative bound":   {"detect: temp, zscore: {above: -4, over: 1d}, time: ts", "above must be more than 0"},
		"no baseline":        {"detect: temp, zscore: {above: 4}, time: ts", "zscore has no over"},
		"a small min":        {"detect: temp, zscore: {above: 4, over: 1d, min: 1}, time: ts", "whole number from 2"},
		"no half-life":       {"detect: temp, ewma: {above: 4, over: 1d}, time: ts", "ewma has no half_life"},
		"no per":             {"detect: temp, rate: {above: 4}, time: ts", "rate has no per"},
		"a deviation alone":  {"detect: temp, cusum: {shift: 1, limit: 4, over: 1d, deviation: 1}, time: ts", "belongs to a given target"},
		"a target alone":     {"detect: temp, cusum: {shift: 1, limit: 4, target: 1}, time: ts", "cusum has no deviation"},
		"two baselines":      {"detect: temp, cusum: {shift: 1, limit: 4, target: 1, deviation: 1, over: 1d}, time: ts", "over belongs to a baseline that is learned"},
		"no width":           {"detect: temp, deadband: {every: 1m}, time: ts", "has no width"},
		"a deadband's event": {"detect: temp, deadband: {change: 1}, time: ts, severity: high", "gives no events"},
		"no duration":        {"detect: , silence: {}, time: ts", "silence has no for"},
		"another's setting":  {"detect: temp, threshold: {above: 1, over: 1d}, time: ts", `unknown key "over"`},
		"a number":           {"detect: temp, threshold: 5, time: ts", "threshold must be written {above: 90"},
		"another report":     {"detect: temp, threshold: {above: 5}, time: ts, report: all", `unknown value of report "all"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := CheckText([]byte(detectText("  - {"+tt.step+"}\n")), Environment{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %q", tt.step, err, tt.want)
			}
		})
	}
}

// TestTheReferenceOfDetectIsComplete holds the reference, the parser, the schema and the page together.
func TestTheReferenceOfDetectIsComplete(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/detect.md")
	if err != nil {
		t.Fatal(err)
	}
	entries := detectMethodsReference()
	methods := make([]string, len(entries))
	for i, e := range entries {
		methods[i] = e.Name
		var named []string
		for _, k := range e.Keys {
			named = append(named, strings.Split(k.Name, ", ")...)
		}
		settings := detectSettings(DetectMethod(e.Name))
		slices.Sort(settings)
		slices.Sort(named)
		if diff := cmp.Diff(settings, named); diff != "" {
			t.Errorf("the reference of %s: %s", e.Name, diff)
		}
		for _, example := range e.Examples {
			if _, err := fs.Stat(Examples, "examples/"+example+".yaml"); err != nil {
				t.Error(err)
			}
		}
		if !strings.Contains(string(page), "## "+e.Name+"\n") {
			t.Errorf("docs/detect.md has no part %q", e.Name)
		}
		for _, key := range settings {
			if !strings.Contains(string(page), "`"+key+"`") {
				t.Errorf("docs/detect.md does not name the setting %s", key)
			}
		}
	}
	var named []string
	for _, k := range detectReference()[0].Keys {
		named = append(named, k.Name)
	}
	keys := detectKeys()
	slices.Sort(keys)
	slices.Sort(named)
	if diff := cmp.Diff(keys, named); diff != "" {
		t.Errorf("the reference of detect: %s", diff)
	}
	if diff := cmp.Diff(detectMethods(), methods); diff != "" {
		t.Errorf("the methods: %s", diff)
	}
	properties := object{}
	detectSchema(properties)
	for _, m := range methods {
		settings, _ := properties[m].(object)["properties"].(object)
		if len(settings) != len(detectSettings(DetectMethod(m))) {
			t.Errorf("the schema of %s has %d settings", m, len(settings))
		}
	}
	if _, err := json.Marshal(properties); err != nil {
		t.Error(err)
	}
}

// TestTheTemplateStandsOnThePage holds that docs/detect.md shows the very definitions that the engine's tests run.
func TestTheExamplesStandOnThePageOfDetect(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/detect.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := blocks(string(page), "yaml")
	template, err := Examples.ReadFile("examples/machine-temperature.yaml")
	if err != nil {
		t.Fatal(err)
	}
	definition, _, _ := strings.Cut(string(template), "\ntests:")
	if !slices.Contains(shown, definition) {
		t.Error("docs/detect.md does not show examples/machine-temperature.yaml")
	}
	for _, text := range shown {
		if !strings.HasPrefix(text, "flow:") {
			text = detectText("  - " + strings.ReplaceAll(text, "\n", "\n    ") + "\n")
		}
		if _, err := CheckText([]byte(text), Environment{}); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
}
