package fleet

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// turnTime is how long a definition waits until those that its tenant has tested before it are done.
const turnTime = 4 * time.Second

// FlowTester runs the tests that a definition brings along. A definition is a stranger's text, so it must bound what
// the tests may take. It is safe for concurrent use.
type FlowTester interface {
	// TestFlow gives a result for each test, in the order of the text. Its error says why they could not be run.
	TestFlow(ctx context.Context, definition string) ([]FlowTest, error)
}

// FlowTest is the outcome of one test of a definition.
type FlowTest struct {
	Name   string `json:"name"`
	Passed bool   `json:"passed"`
	// Difference says what was expected and what came, for people.
	Difference string `json:"difference"`
}

// passes refuses a version whose tests fail.
func (s *Service) passes(ctx context.Context, tenant ID, v FlowVersion) error {
	results, failed, err := s.tested(ctx, tenant, v.Definition)
	if err != nil || len(failed) == 0 {
		return err
	}
	return &Error{
		Code:    Invalid,
		Message: fmt.Sprintf("version %d of the flow is not published, because %d of its %d tests fail", v.Version, len(failed), len(results)),
		Err:     failed,
	}
}

// tested runs the tests of a definition, if it has some. Each that fails is a problem at its place.
func (s *Service) tested(ctx context.Context, tenant ID, definition string) ([]FlowTest, flowdef.Problems, error) {
	flow, err := flowdef.Parse([]byte(definition))
	if err != nil {
		return nil, nil, refused(err)
	}
	if len(flow.Tests) == 0 {
		return []FlowTest{}, nil, nil
	}
	done, err := s.turns.take(ctx, tenant)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	results, err := s.tester.TestFlow(ctx, definition)
	if err != nil {
		return nil, nil, err
	}
	if len(results) != len(flow.Tests) {
		return nil, nil, fmt.Errorf("the flow %s has %d tests, and %d were run", flow.Name, len(flow.Tests), len(results))
	}
	var failed flowdef.Problems
	for i, r := range results {
		if !r.Passed {
			failed = append(failed, flowdef.Problem{Pos: flow.Tests[i].Pos, Message: fmt.Sprintf("test %q fails: %s", r.Name, r.Difference)})
		}
	}
	return results, failed, nil
}

// turns lets each tenant have one definition tested at a time, so that none takes all the places. It is safe for
// concurrent use.
type turns struct {
	mu      sync.Mutex
	tenants map[ID]*turn
}

// turn is held by whoever put its element; waiting counts the holder, too.
type turn struct {
	held    chan struct{}
	waiting int
}

// take waits for the tenant's turn, no longer than turnTime, and gives what ends it.
func (t *turns) take(ctx context.Context, tenant ID) (done func(), err error) {
	t.mu.Lock()
	own := t.tenants[tenant]
	if own == nil {
		own = &turn{held: make(chan struct{}, 1)}
		t.tenants[tenant] = own
	}
	own.waiting++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if own.waiting--; own.waiting == 0 {
			delete(t.tenants, tenant)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, turnTime)
	defer cancel()
	select {
	case own.held <- struct{}{}:
		return func() { <-own.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, &Error{Code: Unavailable, Message: "other flows of your organization are being tested; try again in a moment", Err: ctx.Err()}
	}
}
