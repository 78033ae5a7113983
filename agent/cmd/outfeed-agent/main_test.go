package main

import (
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent"
)

func TestExitCodes(t *testing.T) {
	t.Setenv("OUTFEED_AGENT_DATA_DIR", t.TempDir())
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{}, exitOK},
		{[]string{"--help"}, exitOK},
		{[]string{"flow"}, exitOK},
		{[]string{"rnu"}, exitUsage},
		{[]string{"run", "now"}, exitUsage},
		{[]string{"run", "--port"}, exitUsage},
		{[]string{"flow", "chek", "x"}, exitUsage},
		{[]string{"flow", "check"}, exitUsage},
		{[]string{"flow", "run", "x.yaml"}, exitUsage},
		{[]string{"enroll"}, exitUsage},
		{[]string{"enroll", "--url", "https://x.example"}, exitUsage},
		{[]string{"enroll", "--url", "https://x.example", "--token", "a", "--token-file", "b"}, exitUsage},
		{[]string{"status", "x"}, exitUsage},
		{[]string{"status"}, exitFailed},
	} {
		if got := run(t.Context(), c.args); got != c.want {
			t.Errorf("%q: exit code %d, want %d", c.args, got, c.want)
		}
	}
}

func TestTheSummaryNamesRowsOutsideOfEveryShift(t *testing.T) {
	t.Parallel()
	var s agent.RunSummary
	s.Read = 9
	s.Steps = append(s.Steps, agent.StepCount{Step: "rows"}, agent.StepCount{Step: "oee", Outside: 4})
	var out strings.Builder
	printSummary(&out, "oee.yaml", s)
	if text := out.String(); strings.Count(text, "outside") != 1 || !strings.Contains(text, "step oee: 4 records outside of every shift\n") {
		t.Errorf("the summary is %q", text)
	}
}
