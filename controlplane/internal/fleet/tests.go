package fleet

import (
	"context"
	"fmt"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

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

// passes refuses a version whose tests fail. Each failure is a problem at the place of its test.
func (s *Service) passes(ctx context.Context, v FlowVersion) error {
	flow, err := flowdef.Parse([]byte(v.Definition))
	if err != nil {
		return refused(err)
	}
	if len(flow.Tests) == 0 {
		return nil
	}
	results, err := s.tester.TestFlow(ctx, v.Definition)
	if err != nil {
		return err
	}
	if len(results) != len(flow.Tests) {
		return fmt.Errorf("version %d of the flow %s has %d tests, and %d were run", v.Version, flow.Name, len(flow.Tests), len(results))
	}
	var failed flowdef.Problems
	for i, r := range results {
		if !r.Passed {
			failed = append(failed, flowdef.Problem{Pos: flow.Tests[i].Pos, Message: fmt.Sprintf("test %q fails: %s", r.Name, r.Difference)})
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return &Error{
		Code:    Invalid,
		Message: fmt.Sprintf("version %d of the flow %q is not published, because %d of its %d tests fail", v.Version, flow.Name, len(failed), len(results)),
		Err:     failed,
	}
}
