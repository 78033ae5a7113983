package engine

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// TestUnionsOfOneStep holds that steps that part and come together again take memory in proportion to their number,
// although the ways through them double each time. It counts what the process takes, so no other test may run beside it.
func TestUnionsOfOneStep(t *testing.T) { //nolint:paralleltest // see above
	var text strings.Builder
	text.WriteString("flow: f\nsteps:\n  - id: u0\n    read: c\n    schema: {n: int}\n")
	for i := range 24 {
		fmt.Fprintf(&text, "  - {id: a%d, filter: n > 1, from: u%d}\n  - {id: b%d, filter: n < 2, from: u%d}\n  - {id: u%d, union: [a%d, b%d]}\n", i, i, i, i, i+1, i, i)
	}
	text.WriteString("  - insight: x\n    time: at\n")
	definition := strings.Replace(text.String(), "{n: int}", "{n: int, at: timestamp}", 1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	program(t, definition)
	runtime.ReadMemStats(&after)
	if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 16 {
		t.Errorf("a flow of %d bytes takes %d MiB", len(definition), took)
	}
}
