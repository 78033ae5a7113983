package flowdef_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// TestDefinitionsAreBoundedAsAWhole measures what is allocated. It is not parallel, because the count is of the whole
// process.
func TestDefinitionsAreBoundedAsAWhole(t *testing.T) { //nolint:paralleltest // see above
	numbered := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	const reads = "- {id: r, read: a, schema: {n: int, x: string}}\n"
	ors := "- filter: " + strings.Repeat("n > 1 or ", 1900) + "n > 1\n"
	for name, c := range map[string]struct{ text, want string }{
		"patterns":               {numbered(900, "- filter: x matches \"(a{1,500}){1,2}%d\"\n"), "with the others of the flow"},
		"one pattern many times": {strings.Repeat("- filter: x matches \"((a{0,10}){0,10}){0,10}\"\n", 900), "with the others of the flow"},
		"patterns of aggregates": {numbered(200, "- {id: g%[1]d, from: r, aggregate: {n: 'max(length(regex_extract(x, \"(a{1,500}){1,2}\")))'}}\n- {insight: o%[1]d}\n"), "with the others of the flow"},
		"operators":              {strings.Repeat(ors, 50), "the expressions of the flow have more than 100000"},
		"rows in a line":         {"- insight: i\ntests:\n- name: t\n  given: {r: [" + strings.Repeat("{n: 1},", 140000) + "]}\n", "keys and values"},
		"rows in lines":          {"- insight: i\ntests:\n- name: t\n  given:\n    r:\n" + strings.Repeat("    - n: 1\n", 95000), "line 33333, column"},
	} {
		t.Run(name, func(t *testing.T) { //nolint:paralleltest // see above
			text := []byte("flow: f\nsteps:\n" + reads + c.text + "- insight: i\n")
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := flowdef.CheckText(text, flowdef.Environment{})
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %.300v", err)
			}
			if size := (after.TotalAlloc - before.TotalAlloc) >> 20; size > 100 {
				t.Errorf("checking %d bytes took %d MB", len(text), size)
			}
		})
	}
}
