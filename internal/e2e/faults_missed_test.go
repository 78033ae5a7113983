package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// missedFlow runs once an hour, at a minute that is far from the test's own, over files that it reads to their end.
const missedFlow = `flow: NAME
trigger: {cron: "MINUTE * * * *", timezone: Europe/Berlin, missed: NAME}
steps:
  - read: files
    with: {path: "*.jsonl", format: jsonl}
    schema: {n: int}
  - insight: NAME
`

// missedTest is a site with a flow that makes up for what it missed, and one that does not.
type missedTest struct {
	*site
	folder string
	lines  int
	// clock is the agent's; nil where what it has kept is made older instead, which takes no rebuild of Go's library.
	clock *wallClock
}

// missedRun is a run as the API tells it.
type missedRun struct {
	Status string `json:"status"`
	Sample []struct {
		Where  string `json:"where"`
		Reason string `json:"reason"`
	} `json:"sample"`
}

// note is what a run says that it makes up for.
func (r missedRun) note() string {
	for _, n := range r.Sample {
		if n.Where == "trigger" {
			return n.Reason
		}
	}
	return ""
}

// TestFaultMissedRuns kills the agent, has it be away over due times, and kills it in the middle of the run that makes up for
// them. At length the agent's clock goes on for those hours; in short what it keeps on its disk is made older by them.
func TestFaultMissedRuns(t *testing.T) {
	t.Parallel()
	m := &missedTest{site: newControlPlane(t)}
	if *long {
		m.clock = newWallClock(t)
		m.programs = movableBin
		m.agentExtra = []string{m.clock.env()}
	}
	m.begin()
	m.line()
	m.runs("once", 0)

	m.agent.kill()
	m.later(3 * time.Hour)
	m.startAgent()
	began := time.Now()
	m.made(1)
	t.Logf("made up for three hours within %v of the start", time.Since(began).Round(time.Millisecond))
	m.waits()
	if note := m.runs("once", 1)[0].note(); !strings.Contains(note, "3 due times missed since") {
		t.Errorf("the run says that it makes up for %q", note)
	}

	// Without its folder the run goes on until it is there.
	m.line()
	m.agent.kill()
	m.later(2 * time.Hour)
	away := m.folder + "-away"
	m.rename(m.folder, away)
	for begun := range 2 {
		m.startAgent()
		m.inRun()
		m.runs("once", 2+begun)
		m.agent.kill()
	}
	m.rename(away, m.folder)
	m.startAgent()
	m.made(2)
	m.waits()
	runs := m.runs("once", 4)
	ended := 0
	for _, r := range runs[:3] {
		if !strings.Contains(r.note(), "2 due times missed since") {
			t.Errorf("a run says that it makes up for %q", r.note())
		}
		if r.Status == "ok" {
			ended++
		}
	}
	if ended != 1 {
		t.Errorf("%d of the runs that were killed and the one behind them came to their end: %+v", ended, runs)
	}

	m.line()
	for range 2 {
		m.agent.kill()
		m.startAgent()
		m.waits()
	}
	m.runs("once", 4)
	m.runs("skip", 0)
	m.made(2)
	t.Log("6 kills over 5 due times, 2 of them in the middle of a run: what was missed was made up for by 2 runs that came to their end, and skipped by the other flow")
}

// begin starts the agent and deploys the flows, which wait for their time.
func (m *missedTest) begin() {
	m.t.Helper()
	m.enrol(m.link.address)
	m.startAgent()
	m.waitConnected()
	m.folder = m.path("plant")
	if err := os.Mkdir(m.folder, 0o755); err != nil { //nolint:gosec // nothing secret
		m.t.Fatal(err)
	}
	m.connections(fmt.Sprintf("files: {kind: file, root: %q}\n", m.folder))
	minute := strconv.Itoa(time.Now().Add(30 * time.Minute).Minute())
	for _, name := range []string{"once", "skip"} {
		m.apply(strings.NewReplacer("NAME", name, "MINUTE", minute).Replace(missedFlow))
	}
	m.waits()
}

// line appends one to the file that the flows read.
func (m *missedTest) line() {
	m.t.Helper()
	f, err := os.OpenFile(filepath.Join(m.folder, "a.jsonl"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	m.lines++
	_, err = fmt.Fprintf(f, "{\"n\":%d}\n", m.lines)
	if err := errors.Join(err, f.Close()); err != nil {
		m.t.Fatal(err)
	}
}

func (m *missedTest) rename(from, to string) {
	m.t.Helper()
	if err := os.Rename(from, to); err != nil {
		m.t.Fatal(err)
	}
}

// made wants that many lines to be insights, each once.
func (m *missedTest) made(n int) {
	m.t.Helper()
	m.eventually(fmt.Sprintf("%d lines are read", n), func() error {
		m.agent.mustLive()
		all, err := m.insights("once")
		if err == nil && len(all) != n {
			err = fmt.Errorf("there are %d insights", len(all))
		}
		return err
	})
}

// later has that much time pass while the agent does not run.
func (m *missedTest) later(d time.Duration) {
	m.t.Helper()
	if m.clock != nil {
		m.clock.put(time.Duration(m.clock.skew())*time.Second + d)
		return
	}
	files, err := filepath.Glob(filepath.Join(m.agentDir, "flows", "*.record.json"))
	if err != nil || len(files) != 2 {
		m.t.Fatalf("the records of the flows are %q: %v", files, err)
	}
	aged := 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			m.t.Fatal(err)
		}
		var record map[string]any
		if err = json.Unmarshal(raw, &record); err != nil {
			m.t.Fatal(err)
		}
		served, ok := record["served"].(map[string]any)
		if !ok {
			continue // the flow that skips
		}
		until, err := time.Parse(time.RFC3339Nano, fmt.Sprint(served["until"]))
		if err != nil {
			m.t.Fatal(err)
		}
		served["until"] = until.Add(-d)
		if raw, err = json.Marshal(record); err == nil {
			err = os.WriteFile(file, raw, 0o600)
		}
		if err != nil {
			m.t.Fatal(err)
		}
		aged++
	}
	if aged != 1 {
		m.t.Fatalf("%d records say until when a flow was seen to, want one: %q", aged, files)
	}
}

// flows are those that the agent tells on its machine.
func (m *missedTest) flows() (out []missedFlowSeen, err error) {
	text, said, err := m.try(m.agentEnv(), nil, m.bin("outfeed-agent"), "status", "--json")
	if err != nil {
		return nil, fmt.Errorf("status: %w: %s", err, said)
	}
	var seen struct {
		Flows []missedFlowSeen `json:"flows"`
	}
	if err := json.Unmarshal(text, &seen); err != nil {
		return nil, err
	}
	if len(seen.Flows) != 2 {
		return nil, fmt.Errorf("the agent has the flows %+v", seen.Flows)
	}
	return seen.Flows, nil
}

// missedFlowSeen is a flow as the agent tells it.
type missedFlowSeen struct {
	Name    string    `json:"name"`
	State   string    `json:"state"`
	Error   string    `json:"error"`
	NextRun time.Time `json:"next_run"`
}

// waits until both flows wait for a time that is to come, so that nothing is made up for any more.
func (m *missedTest) waits() {
	m.t.Helper()
	m.eventually("the flows wait for their next time", func() error {
		m.agent.mustLive()
		flows, err := m.flows()
		if err != nil {
			return err
		}
		now := time.Now()
		if m.clock != nil {
			now = now.Add(time.Duration(m.clock.skew()) * time.Second)
		}
		for _, f := range flows {
			if f.State != "waiting" || f.NextRun.Before(now.Add(time.Minute)) || f.NextRun.After(now.Add(time.Hour)) {
				return fmt.Errorf("at %v the flow is %+v", now, f)
			}
		}
		return nil
	})
}

// inRun waits until the run is under way and cannot go on.
func (m *missedTest) inRun() {
	m.t.Helper()
	m.eventually("the flow runs", func() error {
		m.agent.mustLive()
		flows, err := m.flows()
		if err != nil {
			return err
		}
		for _, f := range flows {
			if f.Name == "once" && f.State == "running" && strings.Contains(f.Error, m.folder) {
				return nil
			}
		}
		return fmt.Errorf("the flows are %+v", flows)
	})
}

// runs wants that many runs to be told of a flow, and gives them, newest first.
func (m *missedTest) runs(flow string, n int) []missedRun {
	m.t.Helper()
	var list struct {
		Items []missedRun `json:"items"`
	}
	m.eventually(fmt.Sprintf("%d runs of %s are told", n, flow), func() error {
		err := m.get("/runs?flow="+flow, &list)
		if err == nil && len(list.Items) != n {
			err = fmt.Errorf("there are %+v", list.Items)
		}
		return err
	})
	return list.Items
}
