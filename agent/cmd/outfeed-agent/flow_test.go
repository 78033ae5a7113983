package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/agent"
	"github.com/outfeed/outfeed/internal/terminal"
)

func TestPrintTestsTellsOfFailedRecords(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	err := printTests(&out, []agent.TestResult{
		{Name: "well", Passed: true},
		{Name: "one", Passed: true, Failed: 1, FailedReason: "the time column ts is null"},
		{Name: "two", Passed: true, Failed: 2, FailedReason: "the time column ts is null"},
		{Name: "expected", Passed: true, Failed: 2, FailedReason: "the time column ts is null", FailedExpected: true},
	}, false)
	const want = "ok     well\n" +
		"ok     one (1 record failed: the time column ts is null)\n" +
		"ok     two (2 records failed: the time column ts is null)\n" +
		"ok     expected\n" +
		"4 passed, 0 failed\n"
	if err != nil || out.String() != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, out.String(), want)
	}
}

// What a definition or its data says cannot steer the terminal, in JSON neither.
func TestJSONSteersNoTerminal(t *testing.T) {
	t.Parallel()
	const hostile = "\u009b31m\x1b[2J\u202e"
	var check, tests strings.Builder
	c := &cobra.Command{}
	c.SetOut(&check)
	wrong := &agent.DefinitionError{Problems: agent.Problems{{Message: "unknown column " + hostile}}}
	if err := printCheckJSON(c, hostile+".yaml", agent.CheckedFlow{}, wrong); !errors.Is(err, wrong) {
		t.Errorf("check gives %v", err)
	}
	if err := printTests(&tests, []agent.TestResult{{Name: hostile, Difference: hostile, FailedReason: hostile}}, true); !errors.Is(err, errSilent) {
		t.Errorf("test gives %v", err)
	}
	for what, text := range map[string]string{"check": check.String(), "test": tests.String()} {
		if !strings.Contains(text, `\u009b31m\u001b[2J\u202e`) || terminal.Text(text) != text {
			t.Errorf("%s prints %q", what, text)
		}
	}
}
