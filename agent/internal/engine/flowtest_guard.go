package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// What the tests of a definition may take. The text of a definition is bounded, but what it makes of a few rows is not:
// a hopping window, a join or an unnest multiplies them.
const (
	// testMemory is what the operators of one test may hold. They have no disk to spill to.
	testMemory = 64 << 20
	// testInsights and testBytes bound the insights and the written rows of one test.
	testInsights = 10_000
	testBytes    = 16 << 20
	// testCells bounds the values that go through the steps of one test, testText the texts of one batch and also the memory
	// that all expressions together keep for theirs.
	testCells = 20_000_000
	testText  = 16 << 20
	// testRows is how many rows a step gets at a time, and 1 when they have more than testRowText of text: an expression
	// makes a text of up to expr.MaxText of each. It divides 64.
	testRows    = 8
	testRowText = 256 << 10
)

var errTestText = fmt.Errorf("the texts of a few rows grow to more than %d MiB, which is the most in a test; make them shorter", testText>>20)

// testGuard ends a test that takes too much. A nil guard allows everything. It is safe for many goroutines: the table
// of a join is read by another than the run's.
type testGuard struct {
	ctx             context.Context //nolint:containedctx // operators have no context, and the guard lives as long as its run
	cells, texts    atomic.Int64
	insights, bytes atomic.Int64
}

func newTestGuard(ctx context.Context) *testGuard { return &testGuard{ctx: ctx} }

// watched puts the guard in front of an operator.
func (g *testGuard) watched(op operator) operator {
	if g == nil {
		return op
	}
	return &watchedOperator{guard: g, next: op}
}

type watchedOperator struct {
	guard *testGuard
	next  operator
}

// push gives the rows on a few at a time, with the guard as the meter of what expressions make of them.
func (w *watchedOperator) push(b *column.Batch) error {
	text, err := w.guard.pass(b)
	if err != nil {
		return err
	}
	size := testRows
	if text > testRowText {
		size = 1
	}
	few := column.Batch{Schema: b.Schema, Cols: make([]column.Column, len(b.Cols)), Texts: w.guard}
	for from := 0; from < b.Len; from += size {
		few.Len = min(size, b.Len-from)
		for i := range b.Cols {
			few.Cols[i] = someRows(&b.Cols[i], from, few.Len)
		}
		if err := w.next.push(&few); err != nil {
			return err
		}
		if err := w.guard.full(); err != nil {
			return err
		}
	}
	return nil
}

// someRows is a view of up to testRows rows of a column, from a multiple of that or one alone. A column that nothing
// reads can have no values.
func someRows(c *column.Column, from, rows int) column.Column {
	v := column.Column{Type: c.Type, Data: c.Data}
	v.Bools, v.Ints = part(c.Bools, from, rows), part(c.Ints, from, rows)
	v.Floats, v.Strs = part(c.Floats, from, rows), part(c.Strs, from, rows)
	if w := from >> 6; w < len(c.Nulls) {
		if bits := c.Nulls[w] >> (uint(from) & 63) & (1<<uint(rows) - 1); bits != 0 {
			v.Nulls = []uint64{bits}
		}
	}
	return v
}

func part[T any](s []T, from, rows int) []T {
	if len(s) < from+rows {
		return nil
	}
	return s[from : from+rows : from+rows]
}

// pass counts a batch and gives the bytes of its texts.
func (g *testGuard) pass(b *column.Batch) (text int, err error) {
	for i := range b.Cols {
		text += len(b.Cols[i].Data)
	}
	switch {
	case text > testText:
		return text, errTestText
	case g.cells.Add(int64(b.Len)*int64(max(1, len(b.Cols)))) > testCells:
		return text, fmt.Errorf("more than %d values go through the steps of the test, which is the most; give it fewer rows", testCells)
	}
	return text, g.full()
}

// Grow counts what an expression keeps for its texts.
func (g *testGuard) Grow(bytes int) bool { return g.texts.Add(int64(bytes)) <= testText }

// collected counts an insight or a written row of so many bytes.
func (g *testGuard) collected(bytes int) error {
	if g == nil {
		return nil
	}
	g.insights.Add(1)
	g.bytes.Add(int64(bytes))
	return g.full()
}

// full says that the time is over or that there is too much. A sink and an expression can only say so at the end of a
// batch.
func (g *testGuard) full() error {
	switch {
	case g.ctx.Err() != nil:
		return context.Cause(g.ctx)
	case !g.Grow(0):
		return errTestText
	case g.insights.Load() > testInsights:
		return fmt.Errorf("more than %d insights and written rows come out of the test, which is the most; give it fewer rows", testInsights)
	case g.bytes.Load() > testBytes:
		return fmt.Errorf("the insights and written rows of the test have more than %d MiB, which is the most; give it fewer rows", testBytes>>20)
	}
	return nil
}

// testError is why a test could not be run to its end, for people.
func testError(err error) string {
	for _, full := range []error{errTooManyGroups, errNoScratch, errTableTooLarge} {
		if errors.Is(err, full) {
			return fmt.Sprintf("the steps must hold more than %d MiB in this test, which is the most; give it fewer rows", testMemory>>20)
		}
	}
	return err.Error()
}

// givenRows is how many rows of a test go through the flow at a time. The operators look at their memory after each
// batch, and a hopping window makes a thousand groups of a row.
func givenRows(plan *flowdef.Plan) int {
	for i := range plan.Steps {
		if a := plan.Steps[i].Aggregate; a != nil && a.Window != nil && a.Window.Hopping > 0 {
			return 1
		}
	}
	return 64
}
