package main

import (
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent"
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
