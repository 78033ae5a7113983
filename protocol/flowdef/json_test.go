package flowdef_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

func TestDefinitionsInJSON(t *testing.T) {
	t.Parallel()
	text := "{\"flow\": \"f\", \"description\": \"a\\/b \\ud83d\\ude00 \\u00e9\\n\",\n\t\"steps\": [\r\n" +
		"\t\t{\"id\": \"r\", \"read\": \"c\", \"with\": {\"n\": -1.5e1, \"i\": 9007199254740993, \"b\": true, \"z\": null, \"l\": [\"x\", {}]}, \"schema\": {\"s\": \"string\"}},\n" +
		"\t\t{\"filter\": \"s == \\\"\\ud83d\\ude00\\\" and s != '\\/'\"},\n\t\t{\"insight\": \"i\"}]}\n"
	plan, err := flowdef.CheckText([]byte(text), flowdef.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	if got := plan.Flow.Description; got != "a/b 😀 é\n" {
		t.Errorf("the description is %q", got)
	}
	for what, c := range map[string]struct{ text, want string }{
		"behind a surrogate pair": {`{"flow": "f", "steps": [{"id": "r", "read": "c", "schema": {"x": "int"}},` + "\n" + ` {"filter": "\"\ud83d\ude00\/\" == 1 +* 2"}]}`, "line 2, column 39"},
		"behind an umlaut":        {`{"flow": "f", "description": "äö", "steps": 1}`, "line 1, column 45"},
		"an unknown key":          {"{\"flow\": \"f\",\n\t\"stps\": []}", `line 2, column 2: unknown key "stps"; did you mean "steps"?`},
		"a key twice":             {"{\"flow\": \"f\",\n \"flow\": \"g\"}", `line 2, column 2`},
		"a list":                  {"[1]", `line 1, column 1`},
		"NUL":                     {`{"flow": "f", "description": "a\u0000"}`, "line 1, column 32: the text holds a NUL"},
	} {
		if _, err := flowdef.Parse([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", what, err, c.want)
		}
	}
}

// Where brackets or a quoted text are not closed, the line is the one in which they begin.
func TestLinesOfSyntaxErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"flow: f\nsteps:\n  - a: b\n x: 1\n":             "line 4,",
		"flow: f\nsteps: [a, b\nx: 1\n":                  "line 2,",
		"flow: f\nsteps: !x!y a\n":                       "line 2,",
		"flow: f\ndescription: \"a\nsteps: []\n":         "line 2,",
		"flow: f\nsteps:\n  - {a: b, c}}\n":              "line 3,",
		"flow: f\nsteps:\n  - @a\n":                      "line 3,",
		"flow: f\nsteps:\n\t- a\n":                       "line 3,",
		"flow: f\nsteps:\n  - a: b\n    - c\ntests: 1\n": "line 4,",
	} {
		if _, err := flowdef.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
}

// TestHugeDefinitionsStaySmall measures what is allocated, not the time. It is not parallel, because the count is of the
// whole process.
func TestHugeDefinitionsStaySmall(t *testing.T) { //nolint:paralleltest // see above
	read := `{"id": "r", "read": "c", "schema": {"s": "string", "t": "timestamp", "x": "float"}}`
	steps := func(step string) string {
		n := min((flowdef.MaxBytes-1000)/(len(step)+1), flowdef.MaxSteps-2)
		return `{"flow": "f", "steps": [` + read + strings.Repeat(","+step, n) + `,{"insight": "i"}]}`
	}
	for name, text := range map[string]string{
		"nested parentheses":  steps(`{"filter": "` + strings.Repeat("(", 1000) + "x > 1" + strings.Repeat(")", 1000) + `"}`),
		"few parentheses":     steps(`{"filter": "` + strings.Repeat("(", 150) + "x > 1" + strings.Repeat(")", 150) + `"}`),
		"filters":             steps(`{"filter": "x > 1"}`),
		"zones":               steps(`{"filter": "hour(t, \"Asia/Tokyo\") > 1"}`),
		"unknown zones":       steps(`{"filter": "hour(t, \"Asia/Nowhere\") > 1"}`),
		"units":               steps(`{"filter": "convert(x, \"degF\", \"degC\") > 1"}`),
		"unknown units":       steps(`{"filter": "convert(x, \"degF\", \"degX\") > 1"}`),
		"unknown functions":   steps(`{"filter": "konvert(x) > 1"}`),
		"patterns":            steps(`{"filter": "s matches \"(a{9}b{9}){9}\""}`),
		"nested lists":        strings.Repeat("[", 500_000) + strings.Repeat("]", 500_000),
		"nested objects":      `{"flow": "f", "steps": [{"read": "c", "with": ` + strings.Repeat(`{"a":`, 9000) + "1" + strings.Repeat("}", 9000) + "}]}",
		"one long expression": `{"flow": "f", "steps": [` + read + `,{"filter": "x > 1` + strings.Repeat(" and x > 1", 90_000) + `"}]}`,
		"nested YAML":         "flow: f\nsteps: " + strings.Repeat("{a: ", 200_000),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			_, err := flowdef.CheckText([]byte(text), flowdef.Environment{})
			runtime.ReadMemStats(&after)
			if size := (after.TotalAlloc - before.TotalAlloc) >> 20; size > 400 {
				t.Errorf("checking %d bytes allocated %d MB", len(text), size)
			}
			if held := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) >> 20; held > 100 { //nolint:gosec // far below 2^63
				t.Errorf("checking %d bytes holds %d MB", len(text), held)
			}
			if err != nil && len(err.Error()) > 100_000 {
				t.Errorf("the problems have %d bytes", len(err.Error()))
			}
		})
	}
}
