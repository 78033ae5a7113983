package flowdef

import (
	"slices"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/protocol/expr"
)

const rowsFlow = `flow: f
trigger: TRIGGER
steps:
  - id: a
    read: x
    schema: {ts: timestamp, k: string, n: int, f: float, b: bool, j: json}
  - id: other
    read: x
    schema: {n: int, k: string}
  - id: b
    read: y
    schema: {k: string, n: int}
`

// rowsText is a flow that ends with these steps; the reads that they do not name are read by an insight of their own.
func rowsText(trigger, steps string) string {
	text := strings.Replace(rowsFlow, "TRIGGER", trigger, 1) + "  - {id: step, from: a, " + steps + "}\n  - {insight: out, time: ts}\n"
	return text + "  - {insight: other, from: other}\n  - {insight: b, from: b}\n"
}

func TestProblemsOfRowVerbs(t *testing.T) {
	t.Parallel()
	for steps, want := range map[string]string{
		"sort: []":                              "sort names no column",
		"sort: ts":                              "sort must be a list",
		"sort: [ts, ts]":                        `column "ts" is there twice in sort`,
		"sort: [{ts: down}]":                    `unknown value of the order of ts "down"`,
		"sort: [j]":                             "rows are not sorted by json",
		"sort: [kk]":                            `unknown column "kk"`,
		"limit: 0":                              "a whole number from 1 to 1000000000",
		"limit: many":                           "a whole number from 1 to 1000000000",
		"limit: 5, by: [j]":                     "rows are not told apart by json",
		"distinct: every":                       "or all for the whole row",
		"distinct: []":                          "distinct names no column",
		"distinct: all":                         "rows are not told apart by json",
		"distinct: [k], within: 1h":             "within needs a time",
		"distinct: [k], time: ts":               "time belongs to within",
		"distinct: [k], time: k, within: 1h":    `the time column "k" is of type string`,
		"unnest: k, schema: {x: int}":           "unnest takes a json column",
		"unnest: j":                             "the unnest has no schema",
		"unnest: j, schema: {k: int}":           `column "k" is there twice in the output`,
		"unnest: j, schema: {x: int}, index: x": `column "x" is there twice in the output`,
		"unnest: j, schema: {x: int}, type: l":  `unknown value of type "l"`,
		"unnest: j, schema: {x: integer}":       `unknown type "integer"`,
		"validate: {}":                          "validate has no rule",
		"validate: {k: {}}":                     `column "k" has no rule`,
		"validate: {k: {minimum: 3}}":           `unknown key "minimum"`,
		"validate: {kk: {required: true}}":      `unknown column "kk"`,
		"validate: {k: {required: false}}":      "required is written required: true",
		"validate: {k: {min: 3}}":               `the rule min: 3 does not fit the column "k" of type string`,
		"validate: {n: {min_length: 3}}":        `the rule min_length: 3 does not fit the column "n" of type int`,
		"validate: {n: {min: [3]}}":             "min must be a number",
		"validate: {k: {max_length: 3.5}}":      "max_length must be a number",
		"validate: {ts: {max: tomorrow}}":       "the rule max: tomorrow does not fit",
		"validate: {n: {in: []}}":               "in has no value",
		"validate: {n: {in: [a]}}":              "does not fit the column",
		"validate: {n: {in: [1, null]}}":        "a value of in must be",
		"validate: {k: {pattern: '('}}":         "pattern",
		"validate: {n: {type: int}}":            `does not fit the column "n" of type int`,
		"validate: {k: {type: number}}":         `unknown value of type "number"`,
		"validate: {n: {rule: n + 1}}":          "a rule must be a bool",
		"validate: {n: {rule: nn > 1}}":         `unknown column "nn"`,
		"validate: {j: {unique: true}}":         "rows are not told apart by json",
		"validate: {n: {unique: {every: 1h}}}":  `unknown key "every"`,
		"validate: {n: {unique: {with: [x]}}}":  `unknown column "x"`,
	} {
		_, err := CheckText([]byte(rowsText("manual", steps)), Environment{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v, want %q", steps, err, want)
		} else if strings.Count(err.Error(), "\n") > 1 {
			t.Errorf("%s gives too many problems:\n%v", steps, err)
		}
	}
	for steps, want := range map[string]string{
		"sort: [ts]":                    "a continuous flow has no end",
		"distinct: [k]":                 "add within: 1h and time: COLUMN",
		"validate: {k: {unique: true}}": "write unique: {within: 1h, time: COLUMN}",
	} {
		if _, err := CheckText([]byte(rowsText("continuous", steps)), Environment{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s in a continuous flow gives %v, want %q", steps, err, want)
		}
	}
}

func TestProblemsOfUnion(t *testing.T) {
	t.Parallel()
	flow := strings.Replace(rowsFlow, "TRIGGER", "manual", 1) + "  - {insight: all, from: a, time: ts}\n"
	for steps, want := range map[string]string{
		"  - union: [other]\n":        "two or more steps",
		"  - union: other\n":          "union must be a list",
		"  - union: [other, other]\n": `the step "other" is there twice in union`,
		"  - union: [other, c]\n":     `unknown step "c"`,
		"  - union: [other, a]\n":     `step "a" has the column "ts", which step "other" has not`,
		"  - union: [a, other]\n":     `step "other" lacks the column "ts", which step "a" has`,
		"  - {id: text, map: {n: string(n)}, from: b}\n  - union: [other, text]\n": `column "n" is of type int in step "other" and of type string in step "text"`,
		"  - {union: [other, b], from: a}\n":                                       "from does not belong to union",
		"  - {id: u, union: [other, u]}\n":                                         "cycle",
	} {
		_, err := CheckText([]byte(flow+steps+"  - insight: out\n"), Environment{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v, want %q", steps, err, want)
		}
	}
	plan, err := CheckText([]byte(flow+"  - union: [other, b]\n  - insight: out\n"), Environment{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range plan.Egress.Columns {
		if c.Insight == "out" && c.Column == "n" && !slices.Equal(c.Sources, []string{"x.n", "y.n"}) {
			t.Errorf("the union's column n comes from %v", c.Sources)
		}
	}
}

// TestManyUnionsAreBounded holds that steps which name each other over and over end in a problem, in time.
func TestManyUnionsAreBounded(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	text.WriteString("flow: f\nsteps:\n")
	all := make([]string, 0, 900)
	for i := range 900 {
		id := "r" + strings.Repeat("x", i%3) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		all = append(all, id)
		text.WriteString("  - {id: " + id + ", read: c, schema: {t: timestamp, a: int, b: int, c: int}}\n")
	}
	for range 150 {
		text.WriteString("  - union: [" + strings.Join(all, ", ") + "]\n  - insight: i\n")
	}
	_, err := CheckText([]byte(text.String()), Environment{})
	if err == nil || len(err.Error()) > 100_000 {
		t.Fatalf("got %v", err)
	}
}

func TestDriftIsOneOfThree(t *testing.T) {
	t.Parallel()
	text := func(drift string) []byte {
		return []byte("flow: f\nsteps:\n  - read: c\n    schema: {t: timestamp}\n    drift: " + drift + "\n  - insight: i\n")
	}
	for _, drift := range []string{DriftIgnore, DriftReport, DriftFail} {
		plan, err := CheckText(text(drift), Environment{})
		if err != nil || plan.Steps[0].Read.Drift != drift {
			t.Errorf("drift: %s gives %v", drift, err)
		}
	}
	if _, err := CheckText(text("stop"), Environment{}); err == nil || !strings.Contains(err.Error(), `"stop"`) {
		t.Errorf("drift: stop gives %v", err)
	}
}

// TestTheReferenceHasEveryKey holds the reference and the parser together.
func TestTheReferenceHasEveryKey(t *testing.T) {
	t.Parallel()
	for _, e := range rowsReference() {
		keys := verbKeys(Verb(e.Name))
		if Verb(e.Name) == Validate {
			keys = ruleNames()
		}
		for _, key := range keys {
			if !slices.ContainsFunc(e.Keys, func(k Key) bool { return k.Name == key }) {
				t.Errorf("the reference of %s lacks %s", e.Name, key)
			}
		}
		if len(e.Keys) != len(keys) || len(e.Examples) == 0 {
			t.Errorf("the reference of %s has %d keys and %d examples", e.Name, len(e.Keys), len(e.Examples))
		}
		for _, name := range e.Examples {
			if _, err := Examples.ReadFile("examples/" + name + ".yaml"); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestRowVerbsKeepTheirColumns(t *testing.T) {
	t.Parallel()
	plan, err := CheckText([]byte(rowsText("manual", "unnest: j, schema: {x: int, y: json}, index: place, type: left")), Environment{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range plan.Steps {
		if s := &plan.Steps[i]; s.Verb == Unnest {
			want := []string{"ts", "k", "n", "f", "b", "x", "y", "place"}
			if got := s.Output.Names(); !slices.Equal(got, want) || s.Output[7].Type != expr.Int {
				t.Errorf("unnest gives %v", s.Output)
			}
		}
	}
}
