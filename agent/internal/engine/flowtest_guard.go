package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// What the tests of a definition may take. The text of a definition is bounded, but what it makes of a few rows is not:
// a hopping window, a join or an unnest multiplies them.
const (
	// testTime is for all tests of a definition together. It is far more than they need.
	testTime = 10 * time.Second
	// testMemory is what the operators of one test may hold. They have no disk to spill to.
	testMemory = 64 << 20
	// testInsights and testBytes bound the insights and the written rows of one test.
	testInsights = 10_000
	testBytes    = 16 << 20
	// testCells bounds the values that go through the steps of one test, testText the text of one batch.
	testCells = 20_000_000
	testText  = 16 << 20
)

var errTestTime = fmt.Errorf("the tests of the flow take longer than %s together, so this one was ended; give them fewer rows", testTime)

// testGuard ends a test that takes too much. A nil guard allows everything. It is safe for many goroutines: the table
// of a join is read by another than the run's.
type testGuard struct {
	ctx             context.Context //nolint:containedctx // operators have no context, and the guard lives as long as its run
	cells           atomic.Int64
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

func (w *watchedOperator) push(b *column.Batch) error {
	if err := w.guard.pass(b); err != nil {
		return err
	}
	return w.next.push(b)
}

func (g *testGuard) pass(b *column.Batch) error {
	text := 0
	for i := range b.Cols {
		text += len(b.Cols[i].Data)
	}
	switch {
	case g.ctx.Err() != nil:
		return context.Cause(g.ctx)
	case text > testText:
		return fmt.Errorf("the texts of a few rows grow to more than %d MiB, which is the most in a test; make them shorter", testText>>20)
	case g.cells.Add(int64(b.Len)*int64(max(1, len(b.Cols)))) > testCells:
		return fmt.Errorf("more than %d values go through the steps of the test, which is the most; give it fewer rows", testCells)
	}
	return g.full()
}

// collected counts an insight or a written row of so many bytes.
func (g *testGuard) collected(bytes int) error {
	if g == nil {
		return nil
	}
	g.insights.Add(1)
	g.bytes.Add(int64(bytes))
	return g.full()
}

// full says that too much was collected. A sink can only say so at the end of a batch, so pass asks too.
func (g *testGuard) full() error {
	switch {
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
