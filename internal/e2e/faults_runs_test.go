package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestFaultRunsThatWereKilled kills the agent three times in the middle of a run, the last time before the control plane was told
// of it. The flow is put off then, so that no next run tells that these are over.
func TestFaultRunsThatWereKilled(t *testing.T) {
	t.Parallel()
	m := &missedTest{site: newControlPlane(t)}
	m.begin()
	m.agent.kill()
	m.later(3 * time.Hour)
	// Without its folder the run goes on until it is there.
	m.rename(m.folder, m.folder+"-away")
	for told := range 2 {
		m.startAgent()
		m.inRun()
		m.toldRuns(told+1, 1)
		m.agent.kill()
	}
	m.link.setCut(true)
	m.startAgent()
	m.inRun()
	m.stagedRun()
	m.agent.kill()
	m.link.setCut(false)
	m.toldRuns(2, 1)
	began := time.Now()
	m.startAgent()
	m.toldRuns(3, 0)
	t.Logf("3 kills in the middle of a run, one of them untold, and the flow put off: no run was told as running %v after the start",
		time.Since(began).Round(time.Millisecond))
	flows, err := m.flows()
	if err != nil || flows[0].State != "backing_off" && flows[1].State != "backing_off" {
		t.Errorf("the flow was to be put off: %+v, %v", flows, err)
	}
}

// toldRun is a run as the API tells it.
type toldRun struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Error  string `json:"error"`
}

func (m *missedTest) told() ([]toldRun, error) {
	var list struct {
		Items []toldRun `json:"items"`
	}
	err := m.get("/runs?flow=once", &list)
	return list.Items, err
}

// toldRuns wants that many runs of the flow to be told, and that many of them as running; the others were ended for the agent.
func (m *missedTest) toldRuns(n, running int) {
	m.t.Helper()
	m.eventually(fmt.Sprintf("%d runs are told, %d of them as running", n, running), func() error {
		runs, err := m.told()
		if err != nil {
			return err
		}
		seen := 0
		for _, r := range runs {
			switch {
			case r.Status == "running":
				seen++
			case r.Status != "stopped" || !strings.Contains(r.Error, "The agent ended in the middle of this run"):
				return fmt.Errorf("a run is told as %+v", r)
			}
		}
		if len(runs) != n || seen != running {
			return fmt.Errorf("the runs are %+v", runs)
		}
		return nil
	})
}

// reportedRun is the begin of a run report, as it lies in the staging: the ids of the run and of its deployment.
var reportedRun = regexp.MustCompile(`\x0a\x24([0-9a-f-]{36})\x12\x24[0-9a-f-]{36}`) //nolint:gochecknoglobals // a constant

// stagedRun waits until the report of a run is on the agent's disk that the control plane does not know.
func (m *missedTest) stagedRun() {
	m.t.Helper()
	known, err := m.told()
	if err != nil {
		m.t.Fatal(err)
	}
	m.eventually("the run's report is staged", func() error {
		file := filepath.Join(m.agentDir, "stage", "state.db")
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, found := range reportedRun.FindAllSubmatch(raw, -1) {
			if !slices.ContainsFunc(known, func(r toldRun) bool { return r.ID == string(found[1]) }) {
				return nil
			}
		}
		return fmt.Errorf("%s has no report of another run than %+v", file, known)
	})
}
