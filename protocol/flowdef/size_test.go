package flowdef_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// wideRead is a step that reads n and c0, c1, … of the connection a.
func wideRead(id string, columns int) string {
	var b strings.Builder
	b.WriteString("- {id: " + id + ", read: a, schema: {n: int")
	for i := range columns {
		fmt.Fprintf(&b, ", c%d: int", i)
	}
	b.WriteString("}}\n")
	return b.String()
}

// nestedJoins joins every step with a renamed copy of itself, so that each right side has all joins before it in it.
func nestedJoins(n int) string {
	var b strings.Builder
	b.WriteString("- {id: s0, read: a, schema: {n: int}}\n")
	for i := range n {
		fmt.Fprintf(&b, "- {id: r%d, select: [n], from: s%d}\n- {id: s%d, join: r%d, on: [n], from: s%d}\n", i, i, i+1, i, i)
	}
	return b.String()
}

func copiedSources() string {
	var b strings.Builder
	b.WriteString(wideRead("r", 900) + "- map: {all: 'greatest(c0")
	for i := range 899 {
		fmt.Fprintf(&b, ", c%d", i+1)
	}
	b.WriteString(")'}\n- select: {x: all")
	for i := range 1900 {
		fmt.Fprintf(&b, ", x%d: all", i)
	}
	return b.String() + "}\n"
}

// TestLargeDefinitionsAreRefusedCheaply measures what is allocated, not the time. It is not parallel, because the count
// is of the whole process.
func TestLargeDefinitionsAreRefusedCheaply(t *testing.T) { //nolint:paralleltest // see above
	var filters strings.Builder
	for i := range 990 {
		fmt.Fprintf(&filters, "- filter: c%d > 1\n", i%1994)
	}
	joins := "- {id: o, read: a, schema: {n: int}}\n"
	for name, steps := range map[string]string{
		"joins":          joins + wideRead("l", 1) + strings.Repeat("- {join: o, on: [n]}\n", 980),
		"wide joins":     joins + wideRead("l", 1990) + strings.Repeat("- {join: o, on: [n]}\n", 980),
		"nested joins":   nestedJoins(60),
		"filters":        wideRead("r", 1994) + filters.String(),
		"copied sources": copiedSources(),
	} {
		t.Run(name, func(t *testing.T) { //nolint:paralleltest // see above
			text := []byte("flow: f\nsteps:\n" + steps + "- insight: i\n")
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := flowdef.CheckText(text, flowdef.Environment{})
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), "the flow is too large") {
				t.Errorf("got %.200v", err)
			}
			if size := (after.TotalAlloc - before.TotalAlloc) >> 20; size > 100 {
				t.Errorf("checking %d bytes took %d MB", len(text), size)
			}
		})
	}
}
