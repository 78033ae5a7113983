package flowdef_test

import (
	"strings"
	"testing"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

func TestExpectedTimes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, schema, test, want string }{
		{"text", "{at: timestamp}", `expect: {i: [{time: "2026-01-01T00:00:00Z"}]}`, ""},
		{"no time", "{at: timestamp}", `expect: {i: [{time: "noon"}]}`, "the insight's time is not a text such as"},
		{"number", "{at: timestamp}", `expect: {i: [{time: 5}]}`, "the insight's time is not a text such as"},
		{"null", "{at: timestamp}", `expect: {i: [{time: null}]}`, "the insight's time is not a text such as"},
		{"column", "{time: int}", `expect: {i: [{time: 5}]}`, ""},
		{"column of another type", "{time: int}", `expect: {i: [{time: "2026-01-01T00:00:00Z"}]}`, `the value of column "time" is not a whole number`},
		{"given", "{at: timestamp}", `given: {r: [{time: "2026-01-01T00:00:00Z"}]}, expect: {i: []}`, `unknown column "time"`},
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
