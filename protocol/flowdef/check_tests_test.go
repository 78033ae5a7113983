package flowdef_test

import (
	"strings"
	"testing"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

func TestTestsAreChecked(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, schema, test, want string }{
		{"text", "{at: timestamp}", `expect: {i: [{time: "2026-01-01T00:00:00Z"}]}`, ""},
		{"no time", "{at: timestamp}", `expect: {i: [{time: "noon"}]}`, "the insight's time is not a text such as"},
		{"number", "{at: timestamp}", `expect: {i: [{time: 5}]}`, "the insight's time is not a text such as"},
		{"null", "{at: timestamp}", `expect: {i: [{time: null}]}`, "the insight's time is not a text such as"},
		{"column", "{time: int}", `expect: {i: [{time: 5}]}`, ""},
		{"column of another type", "{time: int}", `expect: {i: [{time: "2026-01-01T00:00:00Z"}]}`, `the value of column "time" is not a whole number`},
		{"given", "{at: timestamp}", `given: {r: [{time: "2026-01-01T00:00:00Z"}]}, expect: {i: []}`, `unknown column "time"`},
		{"whole float", "{n: int}", `given: {r: [{n: 3.0}]}, expect: {i: [{n: 4.0}]}`, ""},
		{"float of an int column", "{n: int}", `given: {r: [{n: 3.5}]}, expect: {i: []}`, `the value of column "n" is not a whole number`},
		{"huge float of an int column", "{n: int}", `given: {r: [{n: 1e19}]}, expect: {i: []}`, `the value of column "n" is not a whole number`},
		{"failed and ordered", "{n: int}", `expect: {i: []}, failed: 2, ordered: true`, ""},
		{"failed is negative", "{n: int}", `expect: {i: []}, failed: -1`, "line 6, column 38: failed must be a whole number"},
		{"failed is a text", "{n: int}", `expect: {i: []}, failed: some`, "failed must be a whole number"},
		{"ordered is a text", "{n: int}", `expect: {i: []}, ordered: some`, "ordered must be true or false"},
		{"rows", "{n: int}", `expect: {i: []}, given: {r: [` + strings.Repeat("{n: 1},", 10000) + `]}`, ""},
		{"too many rows", "{n: int}", "expect: {i: []}, given: {r: [" + strings.Repeat("{n: 1},", 10000) + "\n  {n: 2}]}", "line 7, column 3: the tests of the flow give more than 10000 rows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := "flow: f\nsteps:\n- {id: r, read: a, schema: " + c.schema + "}\n- insight: i\ntests:\n- {name: t, " + c.test + "}\n"
			_, err := flowdef.CheckText([]byte(text), flowdef.Environment{})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}
