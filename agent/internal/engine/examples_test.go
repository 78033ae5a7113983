package engine

import (
	"io/fs"
	"testing"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// TestEveryExampleOfTheDocumentation runs the tests that the documented definitions bring along.
func TestEveryExampleOfTheDocumentation(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(flowdef.Examples, "examples/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("examples: %v, %v", names, err)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := flowdef.Examples.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := flowdef.CheckText(text, flowdef.Environment{})
			if err != nil {
				t.Fatal(err)
			}
			if len(plan.Flow.Tests) == 0 {
				t.Fatal("the example has no tests")
			}
			results, err := testFlow(t.Context(), plan, idle)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				if !r.Passed {
					t.Errorf("%s: %s", r.Name, r.Difference)
				}
			}
		})
	}
}
