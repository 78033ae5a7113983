package flowdef

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/outfeed/outfeed/protocol/expr"
)

func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/flows.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// blocks gives the fenced blocks of a language.
func blocks(page, language string) []string {
	var list []string
	for _, part := range strings.Split(page, "\n```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(part, "\n```")
		list = append(list, block)
	}
	return list
}

func TestEveryExampleOfThePageChecks(t *testing.T) {
	t.Parallel()
	examples := blocks(page(t), "yaml")
	if len(examples) < 3 {
		t.Fatalf("found %d examples in docs/flows.md", len(examples))
	}
	for _, text := range examples {
		if _, err := CheckText([]byte(text), Environment{}); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
}

func TestEveryExpressionOfThePageChecks(t *testing.T) {
	t.Parallel()
	plan, err := CheckText([]byte(blocks(page(t), "yaml")[0]), Environment{})
	if err != nil {
		t.Fatal(err)
	}
	columns := append(slices.Clone(plan.Steps[0].Output), expr.Column{Name: "Werkzeug Nr.", Type: expr.Int})
	count := 0
	for _, block := range blocks(page(t), "expr") {
		for line := range strings.Lines(block) {
			n, err := expr.Parse(strings.TrimSpace(line))
			if err == nil {
				_, err = expr.Check(n, columns)
			}
			if err != nil {
				t.Errorf("%s: %v", line, err)
			}
			count++
		}
	}
	if count < 5 {
		t.Errorf("found %d expressions in docs/flows.md", count)
	}
}

func TestThePageNamesEverythingOfTheLanguage(t *testing.T) {
	t.Parallel()
	text := page(t)
	for _, v := range Verbs() {
		if !strings.Contains(text, "| `"+string(v)+"` |") {
			t.Errorf("docs/flows.md has no row for the verb %s", v)
		}
		for _, key := range verbKeys(v) {
			if !strings.Contains(text, "`"+key+"`") && !strings.Contains(text, "`"+key+":") {
				t.Errorf("docs/flows.md does not name the key %s of %s", key, v)
			}
		}
	}
}

// TestThePageIsGenerated holds docs/flows.md against the lists that its reference is made from.
func TestThePageIsGenerated(t *testing.T) {
	t.Parallel()
	want, err := Document([]byte(page(t)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), page(t)); diff != "" {
		t.Errorf("docs/flows.md is behind; run make generate\n%s", diff)
	}
}

// TestEveryWordIsExplained asks for every verb, window, method and function.
func TestEveryWordIsExplained(t *testing.T) {
	t.Parallel()
	list, err := Explain("")
	if err != nil {
		t.Fatal(err)
	}
	words := 0
	for line := range strings.Lines(list) {
		_, names, _ := strings.Cut(line, ": ")
		for word := range strings.FieldsSeq(names) {
			words++
			if text, err := Explain(word); err != nil || !strings.Contains(text, word) {
				t.Errorf("%s: %q, %v", word, text, err)
			}
		}
	}
	if words < 100 {
		t.Errorf("%d words", words)
	}
	if _, err := Explain("fliter"); err == nil || !strings.Contains(err.Error(), "filter") {
		t.Errorf("got %v", err)
	}
}

// TestEveryKeyAndValueOfThePageIsExplained asks for the headings of docs/flows.md, for the keys of its tables, of the
// parser and for the values that the tables name.
func TestEveryKeyAndValueOfThePageIsExplained(t *testing.T) {
	t.Parallel()
	words := map[string]bool{}
	_, reference, _ := strings.Cut(page(t), "<!-- generated: definition -->")
	heading, row := regexp.MustCompile("^### (.+)$"), regexp.MustCompile("^\\| `([a-z_]+)` \\| (.*) \\|$")
	value := regexp.MustCompile("`([a-z_]+)`")
	generated := true
	for line := range strings.Lines(reference) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "<!--") {
			generated = strings.Contains(line, "generated")
		}
		if !generated {
			continue
		}
		if m := heading.FindStringSubmatch(line); m != nil {
			name, kind, hasKind := strings.Cut(m[1], ", type: ")
			if hasKind {
				words[kind] = true
			}
			name, _, _ = strings.Cut(name, " ")
			words[name] = true
		} else if m = row.FindStringSubmatch(line); m != nil {
			words[m[1]] = true
			for _, v := range value.FindAllStringSubmatch(m[2], -1) {
				words[v[1]] = true
			}
		}
	}
	for _, keys := range [][]string{
		flowKeys(), triggerKeys(), testKeys(), allStepKeys(), windowKeys(), detectKeys(), cacheKeys(), uniqueKeys(),
		{"full", "anti", "inner", "left", "semi", "on_error", "tests", "skip", "stop", "continuous", "manual", "both", "desc", "none"},
	} {
		for _, key := range keys {
			words[key] = true
		}
	}
	for word := range words {
		if text, err := Explain(word); err != nil || !strings.Contains(text, word) {
			t.Errorf("%s: %q, %v", word, text, err)
		}
	}
	if len(words) < 90 {
		t.Errorf("only %d words", len(words))
	}
}

// TestTheSchemaHasTheParsersKeys holds the JSON Schema and the parser together.
func TestTheSchemaHasTheParsersKeys(t *testing.T) {
	t.Parallel()
	type schema struct {
		Schema     string `json:"$schema"`
		Properties map[string]struct {
			Items *struct {
				OneOf      []json.RawMessage
				Properties map[string]any
			}
			OneOf []json.RawMessage
		}
	}
	var root schema
	if err := json.Unmarshal(JSONSchema(), &root); err != nil {
		t.Fatal(err)
	}
	same := func(what string, got, want []string) {
		t.Helper()
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, slices.Compact(got)); diff != "" {
			t.Errorf("the keys of %s: %s", what, diff)
		}
	}
	type object struct {
		Properties           map[string]struct{ Properties map[string]any }
		Required             []string
		AdditionalProperties *bool
	}
	keysOf := func(raw json.RawMessage) (object, []string) {
		var o object
		if err := json.Unmarshal(raw, &o); err != nil {
			t.Fatal(err)
		}
		if o.Properties != nil && (o.AdditionalProperties == nil || *o.AdditionalProperties) {
			t.Errorf("%s allows other keys", raw)
		}
		return o, slices.Collect(maps.Keys(o.Properties))
	}
	if !strings.Contains(root.Schema, "2020-12") {
		t.Errorf("the schema is of %s", root.Schema)
	}
	same("a flow", slices.Collect(maps.Keys(root.Properties)), flowKeys())
	same("a test", slices.Collect(maps.Keys(root.Properties["tests"].Items.Properties)), testKeys())
	var trigger []string
	for _, shape := range root.Properties["trigger"].OneOf {
		_, keys := keysOf(shape)
		trigger = append(trigger, keys...)
	}
	same("a trigger", trigger, triggerKeys())
	for i, v := range Verbs() {
		o, keys := keysOf(root.Properties["steps"].Items.OneOf[i])
		same(string(v), keys, stepKeys(v))
		if !slices.Contains(o.Required, string(v)) {
			t.Errorf("the schema of %s does not require it", v)
		}
		if v == Aggregate {
			same("a window", slices.Collect(maps.Keys(o.Properties["window"].Properties)), windowKeys())
		}
	}
}

// TestLargeDefinitions holds that the largest definitions end in a bounded number of problems.
func TestLargeDefinitions(t *testing.T) {
	t.Parallel()
	var wide strings.Builder
	for i := range 1500 {
		fmt.Fprintf(&wide, "c%d: int, ", i)
	}
	read := "flow: f\nsteps:\n  - id: r\n    read: c\n    schema: {" + wide.String() + "t: timestamp}\n"
	for name, text := range map[string]string{
		"nested":         "flow: " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000),
		"unknown names":  read + strings.Repeat("  - filter: nothing_of_the_kind > 1\n", 990),
		"wide maps":      read + strings.Repeat("  - map: {a: t}\n", 990) + "  - insight: i\n",
		"unknown steps":  read + strings.Repeat("  - {filter: true, from: nowhere}\n", 990),
		"too many steps": read + strings.Repeat("  - filter: true\n", 1_001),
		"a wide chain":   read + strings.Repeat("  - filter: true\n", 990) + "  - insight: i\n",
		"a long chain":   "flow: f\nsteps:\n  - id: r\n    read: c\n    schema: {t: timestamp}\n" + strings.Repeat("  - filter: true\n", 990) + "  - insight: i\n",
		"a long cycle":   read + "  - {id: a, filter: true, from: z}\n" + strings.Repeat("  - filter: true\n", 990) + "  - {id: z, filter: true}\n  - insight: i\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := CheckText([]byte(text), Environment{})
			if wantProblem := name != "a long chain"; wantProblem != (err != nil) {
				t.Fatalf("got %v", err)
			}
			if err != nil && len(err.Error()) > 100_000 {
				t.Errorf("the problems have %d bytes", len(err.Error()))
			}
		})
	}
}
