package flowdef_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outfeed/outfeed/protocol/expr"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

const pressHealth = `flow: press-health
description: One-minute health of every press
trigger: continuous            # or {every: 15m} | {cron: "0 6 * * 1-5", timezone: Europe/Berlin, missed: once} | manual
steps:
  - id: readings
    read: press-plc            # a connection of the workspace
    with: {topic: plant/press/+/state, format: json}
    schema: {ts: timestamp, machine: string, state: string, temp: float, vibration: float, count: int, scrap: int}
  - id: running
    filter: state == "RUN" and temp > 60
  - map: {yield: (count - scrap) / count}
  - id: per_minute
    aggregate: {n: count(), temp_avg: avg(temp), vib_max: max(vibration), made: sum(count), yield_avg: avg(yield)}
    by: [machine]
    window: {tumbling: 1m, time: ts, late: 5s}
  - insight: press_health
    key: [machine]
tests:
  - name: an idle press says nothing
    given: {readings: [{ts: "2026-01-01T00:00:00Z", machine: M1, state: IDLE, temp: 80, vibration: 0.1, count: 5, scrap: 0}]}
    expect: {press_health: []}
`

func environment() flowdef.Environment {
	return flowdef.Environment{
		Connections: map[string]string{"press-plc": "mqtt", "mes": "postgres", "lathe": "file"},
		Connectors: map[string]flowdef.ConnectorSpec{
			"mqtt": {Kind: "mqtt", ReadOptions: []flowdef.Option{
				{Name: "topic", Type: flowdef.OptionString, Required: true, Help: "The topic filter."},
				{Name: "format", Type: flowdef.OptionEnum, Enum: []string{"json", "csv"}},
				{Name: "qos", Type: flowdef.OptionInt, Max: 2},
			}},
		},
	}
}

func mustCheck(t *testing.T, text string, env flowdef.Environment) *flowdef.Plan {
	t.Helper()
	plan, err := flowdef.CheckText([]byte(text), env)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func columnsOf(schema expr.Schema) string {
	list := make([]string, len(schema))
	for i, c := range schema {
		list[i] = c.Name + " " + c.Type.String()
	}
	return strings.Join(list, ", ")
}

func TestTheDesignsFlow(t *testing.T) {
	t.Parallel()
	plan := mustCheck(t, pressHealth, environment())
	if f := plan.Flow; f.Name != "press-health" || f.Trigger.Kind != flowdef.Continuous || f.OnError != flowdef.OnErrorSkip ||
		f.Description != "One-minute health of every press" {
		t.Errorf("got the flow %+v", f)
	}
	ids := make([]string, len(plan.Steps))
	for i := range plan.Steps {
		ids[i] = plan.Steps[i].ID
	}
	if diff := cmp.Diff([]string{"readings", "running", "map_3", "per_minute", "insight_5"}, ids); diff != "" {
		t.Error(diff)
	}
	per := plan.Steps[3]
	if got, want := columnsOf(per.Output), "machine string, window_start timestamp, window_end timestamp, "+
		"n int, temp_avg float, vib_max float, made int, yield_avg float"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if w := per.Aggregate.Window; w.Tumbling != time.Minute || w.Late != 5*time.Second || per.WindowTime != 0 {
		t.Errorf("got the window %+v of column %d", w, per.WindowTime)
	}
	if per.Aggregates[0].Arg != nil || per.Aggregates[1].Func != "avg" || per.Aggregates[1].Arg.Column != 3 {
		t.Errorf("got the aggregates %+v", per.Aggregates)
	}
	if m := plan.Steps[2]; m.AssignTo[0] != 7 || m.Assign[0].Type != expr.Float {
		t.Errorf("got the map %+v", m)
	}
	insight := plan.Steps[4]
	if insight.InsightTime != 1 || !cmp.Equal(insight.InsightKey, []int{0}) || !cmp.Equal(insight.InsightValues, []int{1, 2, 3, 4, 5, 6, 7}) {
		t.Errorf("got time %d, key %v, values %v", insight.InsightTime, insight.InsightKey, insight.InsightValues)
	}
	with := map[string]any{"topic": "plant/press/+/state", "format": "json"}
	if diff := cmp.Diff(with, plan.Steps[0].Read.With); diff != "" {
		t.Error(diff)
	}
	row := plan.Flow.Tests[0].Given["readings"][0]
	if row["temp"] != int64(80) || row["vibration"] != 0.1 || row["state"] != "IDLE" {
		t.Errorf("got the row %v", row)
	}
}

// TestTheBoundsOfASessionAreRaw holds that they count as the times of single records, unless those are aggregated.
func TestTheBoundsOfASessionAreRaw(t *testing.T) {
	t.Parallel()
	const text = "flow: f\nsteps:\n  - read: press-plc\n    with: {topic: a}\n    schema: {ts: timestamp, machine: string}\n"
	for steps, want := range map[string]string{
		"  - aggregate: {n: count()}\n    window: {session: 5m, time: ts}\n":                                                   "window_start raw, window_end raw, n",
		"  - aggregate: {n: count()}\n    window: {session: 5m, max: 1h, time: ts}\n":                                          "window_start raw, window_end raw, n",
		"  - aggregate: {n: count()}\n    window: {tumbling: 5m, time: ts}\n":                                                  "window_start, window_end, n",
		"  - aggregate: {n: count()}\n    window: {hopping: 5m, every: 1m, time: ts}\n":                                        "window_start, window_end, n",
		"  - aggregate: {ts: last(ts)}\n    by: [machine]\n  - aggregate: {n: count()}\n    window: {session: 5m, time: ts}\n": "window_start, window_end, n",
	} {
		plan := mustCheck(t, text+steps+"  - insight: out\n", environment())
		var got []string
		for _, c := range plan.Egress.Columns {
			name := c.Column
			if !c.Aggregated {
				name += " raw"
			}
			got = append(got, name)
		}
		if list := strings.Join(got, ", "); list != want {
			t.Errorf("%s\ngives %s, want %s", steps, list, want)
		}
	}
}

func TestEgress(t *testing.T) {
	t.Parallel()
	plan := mustCheck(t, pressHealth, environment())
	var got []string
	for _, c := range plan.Egress.Columns {
		got = append(got, fmt.Sprintf("%s.%s %s %v %v", c.Insight, c.Column, c.Type, c.Sources, c.Aggregated))
	}
	want := []string{
		"press_health.machine string [press-plc.machine] false",
		"press_health.window_start timestamp [press-plc.ts] true",
		"press_health.window_end timestamp [press-plc.ts] true",
		"press_health.n int [] true",
		"press_health.temp_avg float [press-plc.temp] true",
		"press_health.vib_max float [press-plc.vibration] true",
		"press_health.made int [press-plc.count] true",
		"press_health.yield_avg float [press-plc.count press-plc.scrap] true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	plan = mustCheck(t, `
flow: orders
steps:
  - id: orders
    read: mes
    schema: {order_no: string, machine: string, due: timestamp}
  - id: counts
    read: press-plc
    with: {topic: x}
    schema: {machine: string, scrap: int}
  - aggregate: {scrap: sum(scrap)}
    by: [machine]
  - id: both
    join: orders
    on: [machine]
  - map: {rate: scrap / 2, label: order_no + machine, one: 1}
  - insight: scrap
    key: [order_no]
`, environment())
	got = nil
	for _, c := range plan.Egress.Columns {
		got = append(got, fmt.Sprintf("%s %v %v", c.Column, c.Sources, c.Aggregated))
	}
	want = []string{
		"order_no [mes.order_no] false",
		"due [mes.due] false",
		"machine [press-plc.machine] false",
		"scrap [press-plc.scrap] true",
		"rate [press-plc.scrap] true",
		"label [mes.order_no press-plc.machine] false",
		"one [] true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if text, err := json.Marshal(plan.Egress.Columns[0]); err != nil ||
		string(text) != `{"insight":"scrap","column":"order_no","type":"string","sources":["mes.order_no"],"aggregated":false}` {
		t.Errorf("got %s, %v", text, err)
	}
}

// head is a read of all types, which tests put steps behind. Its steps begin in line 6.
const head = `flow: f
steps:
  - id: src
    read: lathe
    schema: {ts: timestamp, other: timestamp, machine: string, temp: float, count: int, raw: json, "odd name": int}
`

func TestProblems(t *testing.T) {
	t.Parallel()
	const insight = "\n  - insight: out\n    time: ts\n"
	for name, tt := range map[string]struct{ text, want string }{
		"unknown verb":       {head + "  - id: x\n    flter: temp > 1" + insight, `line 7, column 5, step "x": unknown verb "flter"; did you mean "filter"?`},
		"unknown column":     {head + "  - id: x\n    filter: temp > 1 and tmep > 2" + insight, `line 7, column 26, step "x": unknown column "tmep"; did you mean "temp"?`},
		"type error":         {head + "  - filter: machine > 2" + insight, `line 6, column 21, step "filter_2": > needs two values of one type; column machine is a string, 2 is an int`},
		"unknown connection": {strings.Replace(head, "lathe", "lahte", 1) + insight, `line 4, column 11, step "src": unknown connection "lahte"; did you mean "lathe"?`},
		"cycle":              {head + "  - id: a\n    filter: true\n    from: b\n  - id: b\n    filter: true\n  - insight: out\n    time: ts\n", `line 8, column 11, step "a": the steps form a cycle: a <- b <- a`},
		"own cycle":          {head + "  - id: a\n    filter: true\n    from: a\n  - insight: out\n    time: ts\n", `line 8, column 11, step "a": the steps form a cycle: a <- a`},
		"missing time column": {
			head + "  - id: w\n    aggregate: {n: count()}\n    window: {tumbling: 1m, time: tz}" + insight,
			`line 8, column 34, step "w": unknown column "tz"; did you mean "ts"?`,
		},
		"no window time": {
			head + "  - id: w\n    aggregate: {n: count()}\n    window: {tumbling: 1m}" + insight,
			`line 8, column 5, step "w": the window has no time column`,
		},
		"window time of another type": {
			head + "  - id: w\n    aggregate: {n: count()}\n    window: {tumbling: 1m, time: temp}" + insight,
			`line 8, column 34, step "w": the window's time column "temp" is of type float, not timestamp; there is ts, other`,
		},
		"unknown step":            {head + "  - filter: true\n    from: sorce" + insight, `line 7, column 11, step "filter_2": unknown step "sorce"; did you mean "src"?`},
		"no verb":                 {head + "  - id: x" + insight, `line 6, column 5, step "x": the step has no verb`},
		"two verbs":               {head + "  - filter: true\n    map: {a: 1}" + insight, `line 7, column 5, step "step_2": a step has one verb, and this one has filter and map`},
		"unknown key":             {head + "  - filter: true\n    form: src" + insight, `line 7, column 5, step "filter_2": unknown key "form"; did you mean "from"?`},
		"key of another verb":     {head + "  - filter: true\n    window: {}" + insight, `line 7, column 5, step "filter_2": window does not belong to filter`},
		"unknown flow key":        {"stepz: []\n" + head + insight, `line 1, column 1: unknown key "stepz"; did you mean "steps"?`},
		"unknown window key":      {head + "  - aggregate: {n: count()}\n    window: {tumbling: 1m, timme: ts}" + insight, `line 7, column 28, step "aggregate_2": unknown key "timme"; did you mean "time"?`},
		"unknown function":        {head + "  - map: {a: abz(temp)}" + insight, `line 6, column 14, step "map_2": unknown function "abz"; did you mean "abs"?`},
		"unknown aggregate":       {head + "  - aggregate: {a: agv(temp)}" + insight, `line 6, column 20, step "aggregate_2": unknown aggregate "agv"; did you mean "avg"?`},
		"unknown type":            {strings.Replace(head, "temp: float", "temp: flaot", 1) + insight, `line 5, column 70, step "src": column "temp": unknown type "flaot"; did you mean "float"?`},
		"duplicate key":           {head + "  - filter: true\n    filter: false" + insight, `line 7, column 5, step "step_2": "filter" is there twice in a step; the first is in line 6`},
		"duplicate id":            {head + "  - id: src\n    filter: true" + insight, `line 7, column 5, step "src": the id "src" is there twice`},
		"not a bool":              {head + "  - filter: temp" + insight, `line 6, column 13, step "filter_2": a filter must be a bool`},
		"unused step":             {head + "  - id: idle\n    filter: true\n  - insight: out\n    time: ts\n    from: src\n", `line 7, column 5, step "idle": nothing uses the rows of this step`},
		"no insight":              {head, `line 1, column 7: the flow has no insight step`},
		"same insight twice":      {head + "  - insight: out\n    time: ts" + insight, `line 8, column 5, step "insight_3": the insight "out" is there twice`},
		"begins without a read":   {"flow: f\nsteps:\n  - filter: true" + insight, `line 3, column 5, step "filter_1": no step is before this one`},
		"select of an unknown":    {head + "  - select: [ts, {t: tmep}]" + insight, `line 6, column 22, step "select_2": unknown column "tmep"`},
		"select twice":            {head + "  - select: [ts, temp, {temp: count}]" + insight, `step "select_2": column "temp" is there twice in the output`},
		"aggregate collision":     {head + "  - aggregate: {machine: count()}\n    by: [machine]\n  - insight: out", `line 6, column 17, step "aggregate_2": column "machine" is there twice in the output`},
		"endless aggregate":       {strings.Replace(head, "steps", "trigger: continuous\nsteps", 1) + "  - aggregate: {n: count()}\n  - insight: out", `line 7, column 5, step "aggregate_2": an aggregate without a window never ends`},
		"join types":              {head + "  - id: r\n    read: mes\n    schema: {machine: int, x: int}\n  - join: r\n    from: src\n    on: [machine]" + insight, `line 11, column 10, step "join_3": the join compares "machine" of type string with "machine" of type int`},
		"join collision":          {head + "  - id: r\n    read: mes\n    schema: {machine: string, temp: int}\n  - join: r\n    from: src\n    on: [machine]" + insight, `line 9, column 11, step "join_3": column "temp" is on both sides`},
		"join right column":       {head + "  - id: r\n    read: mes\n    schema: {nr: string}\n  - join: r\n    from: src\n    on: {machine: no}" + insight, `line 11, column 19, step "join_3": unknown column "no"; did you mean "nr"?`},
		"several times":           {head + "  - insight: out", `line 6, column 5, step "insight_2": the insight's time is not clear: write time: and one of the timestamp columns; there is ts, other`},
		"insight time type":       {head + "  - insight: out\n    time: temp", `line 7, column 11, step "insight_2": the insight's time column "temp" is of type float`},
		"insight key":             {head + "  - insight: out\n    time: ts\n    key: [mashine]", `line 8, column 11, step "insight_2": unknown column "mashine"; did you mean "machine"?`},
		"untyped column":          {head + "  - map: {a: null}" + insight, `line 6, column 14, step "map_2": column "a" would be null in every row`},
		"json in by":              {head + "  - aggregate: {n: count()}\n    by: [raw]\n  - insight: out", `line 7, column 10, step "aggregate_2": rows are not grouped by json`},
		"unknown option":          {strings.Replace(head, "read: lathe", "read: press-plc\n    with: {topc: x}", 1) + insight, `line 5, column 12, step "src": unknown option "topc"; did you mean "topic"?`},
		"missing option":          {strings.Replace(head, "read: lathe", "read: press-plc\n    with: {qos: 1}", 1) + insight, `line 4, column 5, step "src": option "topic" is missing: The topic filter.`},
		"option type":             {strings.Replace(head, "read: lathe", "read: press-plc\n    with: {topic: x, qos: high}", 1) + insight, `line 5, column 22, step "src": option "qos" must be a whole number`},
		"option range":            {strings.Replace(head, "read: lathe", "read: press-plc\n    with: {topic: x, qos: 3}", 1) + insight, `option "qos" must lie from 0 to 2`},
		"option enum":             {strings.Replace(head, "read: lathe", "read: press-plc\n    with: {topic: x, format: jsno}", 1) + insight, `unknown value "jsno"; did you mean "json"?`},
		"test of unknown step":    {head + insight + "tests:\n  - name: t\n    given: {scr: []}\n    expect: {}", `line 11, column 13: test "t": unknown read step "scr"; did you mean "src"?`},
		"test of unknown insight": {head + insight + "tests:\n  - name: t\n    expect: {otu: []}", `line 11, column 14: test "t": unknown insight "otu"; did you mean "out"?`},
		"test column":             {head + insight + "tests:\n  - name: t\n    given: {src: [{tmep: 1}]}\n    expect: {}", `line 11, column 20: test "t": unknown column "tmep"`},
		"test value":              {head + insight + "tests:\n  - name: 50%d\n    given: {src: [{temp: hot}]}\n    expect: {}", `line 11, column 20: test "50%d": the value of column "temp" is not a number`},
		"bad cron":                {strings.Replace(head, "steps", "trigger: {cron: \"0 25 * * *\"}\nsteps", 1) + insight, `line 2, column 17: cron "0 25 * * *": "25" is no hour`},
		"short cron":              {strings.Replace(head, "steps", "trigger: {cron: \"0 6 * *\"}\nsteps", 1) + insight, `it has 4 fields`},
		"bad zone":                {strings.Replace(head, "steps", "trigger: {cron: \"0 6 * * *\", timezone: Mars/X}\nsteps", 1) + insight, `unknown time zone "Mars/X"`},
		"bad trigger":             {strings.Replace(head, "steps", "trigger: continuus\nsteps", 1) + insight, `line 2, column 10: unknown value of trigger "continuus"; did you mean "continuous"?`},
		"bad duration":            {strings.Replace(head, "steps", "trigger: {every: 5 minutes}\nsteps", 1) + insight, `line 2, column 18: every: "5 minutes" is not a duration`},
		"alias":                   {head + "  - filter: &a true" + insight, `anchors and aliases`},
		"two documents":           {head + insight + "---\nflow: g\n", `second document`},
		"broken YAML":             {"flow: [", `neither YAML nor JSON`},
		"outdented key":           {"flow: f\nsteps:\n  - read: c\n    schema: {t: timestamp}\n  - aggregate: {a: count()}\n   by: [k]\n  - insight: i\n", `line 6, column 4: the text is neither YAML nor JSON: did not find expected '-' indicator; this line does not fit the list that begins in line 3`},
		"key at the list":         {"flow: f\nsteps:\n  - read: c\n    schema: {t: timestamp}\n  - aggregate: {a: count()}\n  by: [k]\n", `line 6, column 3: `},
		"indented key":            {"flow: f\nsteps:\n  - read: c\n  - aggregate: {a: count()}\n    window: 1h\n     by: [k]\n  - insight: i\n", `line 6, column 8: `},
		"half outdented key":      {"flow: f\nsteps:\n  - read: c\n    schema:\n      a: int\n     b: int\n", `line 6, column 6: `},
		"broken YAML line":        {"flow: f\nsteps:\n  - a: b: c\n", `line 3, column 9: the text is neither YAML nor JSON`},
		"empty":                   {"", `the definition is empty`},
		"a list":                  {"- a", `line 1, column 1: the definition must be written`},
		"bad name":                {"flow: a b\nsteps: []", `line 1, column 7: the flow's name "a b" must be`},
		"a mapping as filter":     {head + "  - filter: {temp: 1}" + insight, `line 6, column 13, step "filter_2": the filter must be the text of an expression`},
		"quoted expression":       {head + "  - filter: \"machine == \\\"M1\\\" and tmep > 1\"" + insight, `line 6, column 36, step "filter_2": unknown column "tmep"`},
		"single quotes":           {head + "  - filter: 'machine == ''M1'' and tmep > 1'" + insight, `line 6, column 36, step "filter_2": unknown column "tmep"`},
		"characters not bytes":    {head + "  - filter: machine == \"Öl\" and tmep > 1" + insight, `line 6, column 33, step "filter_2": unknown column "tmep"`},
		"characters before":       {head + "  - map: {Öl: 1, b: tmep}" + insight, `line 6, column 21, step "map_2": unknown column "tmep"`},
		"carriage returns":        {strings.ReplaceAll(head+"  - filter: >\n      temp > 1\n      and tmep > 1"+insight, "\n", "\r\n"), `line 8, column 11, step "filter_2": unknown column "tmep"`},
		"block":                   {head + "  - filter: |\n      temp > 1\n        and tmep > 1" + insight, `line 8, column 13, step "filter_2": unknown column "tmep"`},
		"folded block":            {head + "  - filter: >-\n      temp > 1\n      and tmep > 1" + insight, `line 8, column 11, step "filter_2": unknown column "tmep"`},
		"folded plain":            {head + "  - filter: temp > 1\n      and tmep > 1" + insight, `line 7, column 11, step "filter_2": unknown column "tmep"`},
		"YAML tag":                {head + "  - filter: !k" + insight, `!k at the beginning is a tag to YAML and no part of the expression; write not k`},
		"min above max":           {head + "  - validate: {temp: {min: 5, max: 1.5}}" + insight, `min: 5 is greater than max: 1.5, so every value would fail`},
		"lengths exchanged":       {head + "  - validate: {machine: {min_length: 5, max_length: 1}}" + insight, `min_length: 5 is greater than max_length: 1`},
		"length below zero":       {head + "  - validate: {machine: {max_length: -1}}" + insight, `max_length: -1 is below 0`},
		"nothing allowed":         {head + "  - validate: {temp: {in: []}}" + insight, `in has no value`},
		"type of no text":         {head + "  - validate: {temp: {type: int}}" + insight, `the rule type: int says that a text can be read as such, and it does not fit the column "temp" of type float`},
		"syntax error":            {head + "  - filter: temp > > 1" + insight, `line 6, column 20, step "filter_2": unexpected >; expected a value`},
		"NUL in a description":    {"description: \"a\\0b\"\n" + head + insight, `line 1, column 16: the text holds a NUL character`},
		"NUL in an option":        {strings.Replace(head, "read: lathe", "read: press-plc\n    with: {topic: \"x\\u0000\"}", 1) + insight, `line 5, column 21: the text holds a NUL character`},
		"NUL in a key":            {head + "  - map: {\"a\\x00\": 1}" + insight, `line 6, column 13: the text holds a NUL character`},
		"NUL in a column":         {head + "  - select: [ts, \"a\\0\"]" + insight, `line 6, column 20: the text holds a NUL character`},
		"NUL in JSON":             {`{"flow": "f", "description": "\u0000", "steps": []}`, `line 1, column 31: the text holds a NUL character`},
		"NUL in the text":         {head + insight + "# \x00", `control characters are not allowed`},
		"control character":       {"description: \"a\\tb\\nc\\e[1m\"\n" + head + insight, `line 1, column 22: the description has a control character`},
		"control in a test name":  {head + insight + "tests:\n  - name: \"\\a\"\n    expect: {}", `line 10, column 12: the test's name has a control character`},
		"too long":                {strings.Repeat("#", 2<<20), `the most is 1048576`},
		"a column too many":       {head + "  - select: [" + strings.Repeat("ts,", 2001) + "]" + insight, `the most is 2000`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := flowdef.CheckText([]byte(tt.text), environment())
			problems, ok := errors.AsType[flowdef.Problems](err)
			if !ok {
				t.Fatalf("got error %v, want Problems", err)
			}
			if !strings.Contains(problems.Error(), tt.want) {
				t.Errorf("got\n%s\nwant one with\n%s", problems, tt.want)
			}
			if len(problems) > 3 {
				t.Errorf("one mistake gives %d problems:\n%s", len(problems), problems)
			}
		})
	}
}

func TestAllProblemsAreReportedInOrder(t *testing.T) {
	t.Parallel()
	_, err := flowdef.CheckText([]byte(head+`  - id: a
    filter: tmep > 1
  - id: b
    filter: temp + "x"
  - id: c
    select: [zz, ts]
  - insight: out
    from: b
    key: [nope]
    time: ts
  - insight: out2
    from: c
`), environment())
	problems, _ := errors.AsType[flowdef.Problems](err)
	var lines []int
	for _, p := range problems {
		lines = append(lines, p.Line)
	}
	if diff := cmp.Diff([]int{7, 9, 11, 14}, lines); diff != "" {
		t.Errorf("%s\n%s", problems, diff)
	}
	text, err := json.Marshal(problems[0])
	if want := `{"line":7,"column":13,"step":"a","message":"unknown column \"tmep\"; did you mean \"temp\"?"}`; err != nil || string(text) != want {
		t.Errorf("got  %s (%v)\nwant %s", text, err, want)
	}
}

func TestShapes(t *testing.T) {
	t.Parallel()
	plan := mustCheck(t, head+`  - id: m
    map: {temp: string(temp), twice: temp + temp, yes: true, n: 1.5}
  - select: [ts, {label: twice}, machine, "odd name", n]
  - filter: true
  - id: agg
    aggregate: {n: count(), first_ts: min(ts)}
    by: [odd name]
  - id: right
    read: mes
    with: {a: [1, 2.5, null, x], b: {c: true}, d: 2026-01-01, e: null}
    schema: {nr: int, note: string}
    refresh: 30s
  - join: right
    from: agg
    on: {odd name: nr}
    type: left
  - insight: one
    key: [odd name]
  - insight: two
`, environment())
	if got, want := columnsOf(plan.Steps[2].Output), "ts timestamp, label string, machine string, odd name int, n float"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	m := plan.Steps[1]
	if !cmp.Equal(m.AssignTo, []int{3, 7, 8, 9}) || m.Output[3].Type != expr.String {
		t.Errorf("map sets %v of %s", m.AssignTo, columnsOf(m.Output))
	}
	if !cmp.Equal(plan.Steps[2].Keep, []int{0, 7, 2, 6, 9}) {
		t.Errorf("select keeps %v", plan.Steps[2].Keep)
	}
	read := plan.Steps[5].Read
	with := map[string]any{"a": []any{int64(1), 2.5, nil, "x"}, "b": map[string]any{"c": true}, "d": "2026-01-01", "e": nil}
	if diff := cmp.Diff(with, read.With); diff != "" || read.Refresh != 30*time.Second {
		t.Errorf("refresh %v, with %s", read.Refresh, diff)
	}
	join := plan.Steps[6]
	if join.Join.Kind != "left" || !cmp.Equal(join.Inputs, []int{4, 5}) || !cmp.Equal(join.JoinLeft, []int{0}) ||
		!cmp.Equal(join.JoinRight, []int{0}) || !cmp.Equal(join.RightKeep, []int{1}) {
		t.Errorf("got the join %+v", join)
	}
	one, two := plan.Steps[7], plan.Steps[8]
	if one.InsightTime != 2 || !cmp.Equal(one.InsightKey, []int{0}) || !cmp.Equal(one.InsightValues, []int{1, 3}) {
		t.Errorf("got time %d, key %v, values %v", one.InsightTime, one.InsightKey, one.InsightValues)
	}
	if !cmp.Equal(two.Inputs, []int{7}) || len(two.InsightKey) != 0 {
		t.Errorf("got the second insight %+v", two)
	}
}

func TestStepsInAnyOrder(t *testing.T) {
	t.Parallel()
	plan := mustCheck(t, `
flow: f
steps:
  - insight: out
    from: f
  - id: f
    filter: x > 1
    from: r
  - id: r
    read: any
    schema: {x: int}
`, flowdef.Environment{})
	if plan.Steps[0].ID != "r" || plan.Steps[2].ID != "insight_1" || plan.Steps[2].InsightTime != -1 {
		t.Errorf("got the order %s, %s, %s", plan.Steps[0].ID, plan.Steps[1].ID, plan.Steps[2].ID)
	}
}

func TestJSONDefinition(t *testing.T) {
	t.Parallel()
	text := "{\n\t\"flow\": \"f\",\n\t\"trigger\": {\"cron\": \"*/5 6-18 * 1,2 1-5\", \"timezone\": \"UTC\", \"missed\": \"once\"},\n" +
		"\t\"steps\": [\n\t\t{\"read\": \"r\", \"schema\": {\"x\": \"int\"}},\n\t\t{\"filter\": \"x > y\"},\n\t\t{\"insight\": \"out\"}\n\t]\n}"
	_, err := flowdef.CheckText([]byte(text), flowdef.Environment{})
	if err == nil || err.Error() != `line 6, column 19, step "filter_2": unknown column "y"; there is x` {
		t.Errorf("got %v", err)
	}
	plan := mustCheck(t, strings.Replace(text, "x > y", "x > 1", 1), flowdef.Environment{})
	if tr := plan.Flow.Trigger; tr.Kind != flowdef.Cron || tr.Missed != "once" || tr.Timezone != "UTC" {
		t.Errorf("got the trigger %+v", tr)
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"5s": 5 * time.Second, "15m": 15 * time.Minute, "1h30m": 90 * time.Minute, "1d": 24 * time.Hour, "500ms": 500 * time.Millisecond,
		"1m500ms": time.Minute + 500*time.Millisecond, "3650d": flowdef.MaxDuration,
		"": 0, "0s": 0, "5": 0, "s": 0, "-5s": 0, "5m5m": 0, "5s1m": 0, "1.5h": 0, "3651d": 0, "99999999999999999999s": 0, "1w": 0, "5 s": 0, "3650d1s": 0,
	} {
		got, err := flowdef.ParseDuration(text)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("ParseDuration(%q) gives %v, %v, want %v", text, got, err, want)
		}
	}
}

func TestValidateOptions(t *testing.T) {
	t.Parallel()
	options := []flowdef.Option{
		{Name: "host", Type: flowdef.OptionString, Required: true, Help: "The address."},
		{Name: "password", Type: flowdef.OptionSecret},
		{Name: "port", Type: flowdef.OptionInt, Min: 1, Max: 65535},
		{Name: "tls", Type: flowdef.OptionBool},
		{Name: "poll", Type: flowdef.OptionDuration},
	}
	good := map[string]any{"host": "h", "password": "p", "port": float64(5432), "tls": false, "poll": "5s"}
	if err := flowdef.ValidateOptions(options, good); err != nil {
		t.Error(err)
	}
	bad := map[string]any{"hots": "h", "password": int64(12345), "port": 0.5, "tls": "yes", "poll": "soon"}
	err := flowdef.ValidateOptions(options, bad)
	problems, _ := errors.AsType[flowdef.OptionProblems](err)
	var names []string
	for _, p := range problems {
		names = append(names, p.Option)
	}
	if diff := cmp.Diff([]string{"hots", "password", "poll", "port", "tls", "host"}, names); diff != "" {
		t.Error(diff)
	}
	if text := err.Error(); strings.Contains(text, "12345") || !strings.Contains(text, `did you mean "host"?`) {
		t.Errorf("got %s", text)
	}
}

// FuzzCheck holds that no text makes the parser or the checker panic, and that every problem stands in the text.
func FuzzCheck(f *testing.F) {
	f.Add(pressHealth)
	f.Add(head + "  - insight: out\n    time: ts\n")
	f.Add(head + "  - filter: >-\n      temp > 1\n      and \"\\x41\" == machine\n  - insight: out")
	f.Add(`{"flow": "f", "steps": [{"read": "r", "schema": {"x": "int"}}, {"filter": "x > \u0031"}, {"insight": "o"}]}`)
	f.Add("flow: f\nsteps: &a [*a]")
	f.Add("? [a]\n: b\n<<: {a: b}")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := flowdef.CheckText([]byte(text), environment())
		if err == nil {
			return
		}
		problems, ok := errors.AsType[flowdef.Problems](err)
		if !ok || len(problems) == 0 || len(problems) > flowdef.MaxProblems {
			t.Fatalf("%#v is not Problems", err)
		}
		for _, p := range problems {
			if p.Message == "" || p.Line < 0 || p.Line > strings.Count(text, "\n")+strings.Count(text, "\r")+strings.Count(text, "\u2028")+strings.Count(text, "\u2029")+strings.Count(text, "\u0085")+2 {
				t.Fatalf("the problem %+v is not in the text", p)
			}
		}
	})
}
