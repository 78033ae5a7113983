package main

import (
	"runtime"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/outfeed/outfeed/agent"
	"github.com/outfeed/outfeed/agent/internal/engine"
	"github.com/outfeed/outfeed/internal/clockskew"
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

func TestTheSummaryCannotSteerATerminal(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := agent.RunSummary{Report: engine.Report{Failed: 1, Sample: []engine.FailedRecord{{Step: "a"}}}}
	s.Sample[0].Where, s.Sample[0].Reason, s.Sample[0].Record = "d\x1b[2J.jsonl:1", "not \u202eJSON", "a\nb\xff\x07"
	printSummary(&out, "f.yaml", s)
	if want := `  failed in a at d\x1b[2J.jsonl:1: not \u202eJSON: a\nb\xff\x07` + "\n"; !strings.HasSuffix(out.String(), want) {
		t.Errorf("the summary is %q, want it to end in %q", out.String(), want)
	}
}

func TestANoteIsNoFailure(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := agent.RunSummary{Report: engine.Report{Failed: 3, Sample: []engine.FailedRecord{{Step: "a", Note: true}, {Step: "b"}}}}
	s.Sample[0].Where, s.Sample[0].Reason = "d.jsonl", `the source sends "new"`
	s.Sample[1].Where, s.Sample[1].Reason = "d.jsonl:2", "the record is empty"
	printSummary(&out, "f.yaml", s)
	want := "  noted in a at d.jsonl: the source sends \"new\"\n  failed in b at d.jsonl:2: the record is empty\n  and 2 more\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("the summary is %q, want it to end in %q", out.String(), want)
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

func TestTheStatusTellsTheWholeAccount(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := agent.LocalStatus{AgentID: "id", Version: "1", ControlPlane: "https://x.example", Tunnel: agent.TunnelStatus{Error: "no route"}}
	s.Outbox = agent.OutboxStatus{
		Produced: 1000, Sent: 700, Acknowledged: 600, WaitingRecords: 380, WaitingBytes: 3 << 20, RoomBytes: 1 << 30, RunwaySeconds: 76 * 3600,
		Late: 3, Expired: map[string]uint64{"expired_age": 20, "expired_bytes": 0}, Lost: 4, LostRemotely: 5,
		Degraded: "the disk is full\x1b", Blocked: 2, BlockedBy: "1 GiB wait",
		DamagedFiles: 3, Salvaged: 70, Damage: []agent.DamagedFile{{
			File: "state.db.corrupt-1", At: time.Date(2026, 3, 1, 6, 0, 0, 0, time.Local), Reason: "page 3\x1b", Salvaged: 60, Lost: 2,
			SetBack: []string{"d1"}, StartedAnew: []string{"d2"},
		}},
	}
	s.Flows = []agent.FlowStatus{{DeploymentID: "d1", Name: "press", State: "running", Version: 1}}
	if err := printStatus(tabwriter.NewWriter(&out, 0, 4, 2, ' ', 0), s); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"agent              id                 1",
		"attention          5                  cannot write to its disk; not connected; 9 insights lost; 20 insights expired; damaged files",
		"control plane      https://x.example  not connected: no route",
		"insights produced  1000               staged on this machine",
		"  sent             700                at least once, or reported as gone",
		"  acknowledged     600                by the control plane",
		"  waiting          380                3.0 MiB",
		"  expired          20                 had waited for longer than staging.max_age allows",
		"  lost             4                  damaged on this machine's disk, or could never be sent; see the log",
		"  lost afterwards  5                  acknowledged, and then gone from the control plane's database",
		"rows too late      3                  for the window that they belong to",
		"room               1.0 GiB            cannot be used until the disk can be written",
		"staging            degraded           the disk is full\\x1b",
		"commits waiting    2                  until the disk can be written; the agent tries by itself",
		"damaged files      3                  found so far, with 70 insights salvaged; check this machine's disk",
		"  2026-03-01 06:00:00  60 salvaged, 2 lost  state.db.corrupt-1: page 3\\x1b",
		"    flow press went on from an earlier state; some of its insights may come twice",
		"    a flow that is not deployed any more (d2) started anew; some of its insights may come twice",
		"    the agent goes on without these files; remove them when nobody needs them, and its next start forgets them",
		"flow press         running            version 1",
	}
	// How wide the columns are does not matter.
	words := func(line string) string { return strings.Join(strings.Fields(line), " ") }
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != len(want) {
		t.Fatalf("the status is\n%s", out.String())
	}
	for i := range want {
		if !strings.HasPrefix(words(lines[i]), words(want[i])) {
			t.Errorf("the status says %q and not %q", lines[i], want[i])
		}
	}
	s.Outbox.Degraded = ""
	out.Reset()
	if err := printStatus(tabwriter.NewWriter(&out, 0, 4, 2, ' ', 0), s); err != nil || !strings.Contains(out.String(), "full: the flows wait") ||
		!strings.Contains(out.String(), "1 GiB wait") {
		t.Errorf("when commits wait the status is\n%s", out.String())
	}
}

// TestTheStatusSaysWhatToDo holds that a wrong clock, keys that were not changed and a staging that went back come with what helps.
func TestTheStatusTellsWhenAFlowRunsNext(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	at := time.Date(2026, 3, 1, 6, 0, 0, 0, time.Local)
	s := agent.LocalStatus{Flows: []agent.FlowStatus{
		{Name: "daily", State: "waiting", Version: 2, Since: at.Add(-time.Hour), NextRun: at},
		{Name: "by-hand", State: "waiting", Version: 1, Since: at.Add(-time.Hour)},
	}}
	if err := printStatus(tabwriter.NewWriter(&out, 0, 4, 2, ' ', 0), s); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.Contains(text, "version 2, since 2026-03-01 05:00:00, next run 2026-03-01 06:00:00") || strings.Count(text, "next run") != 1 {
		t.Errorf("the status is\n%s", text)
	}
}

func TestTheStatusSaysWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := agent.LocalStatus{Outbox: agent.OutboxStatus{Unknown: true, Degraded: "make room", RunwaySeconds: -1}}
	if err := printStatus(tabwriter.NewWriter(&out, 0, 4, 2, ' ', 0), s); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); !strings.Contains(text, "not known") || !strings.Contains(text, "make room") || strings.Contains(text, "produced") {
		t.Errorf("the status says:\n%s", text)
	}
}

func TestTheStatusSaysWhatToDo(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	s := agent.LocalStatus{Tunnel: agent.TunnelStatus{Connected: true, ClockSkew: -56 * 365 * 86_400, RotationError: "no space left"}}
	s.Outbox = agent.OutboxStatus{RunwaySeconds: -1, DamagedFiles: 1, Damage: []agent.DamagedFile{{File: "outbox.corrupt-1", Reason: "this directory is older"}}}
	if err := printStatus(tabwriter.NewWriter(&out, 0, 4, 2, ' ', 0), s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"staging went back; keys not changed; clock 56 years behind", "off by 56 years", clockskew.Remedy(runtime.GOOS), "until then nothing is lost",
		"no space left; the present ones stay good", "went back", "outbox.corrupt-1: this directory is older",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the status does not say %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "check this machine's disk") {
		t.Errorf("the status blames the disk:\n%s", out.String())
	}
}
