package fleet_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/protocol/wire"
)

// runsTest has two agents that report runs of one flow.
type runsTest struct {
	*world
	t     *testing.T
	plant *plant
	other fleet.AgentIdentity
}

func newRunsTest(t *testing.T) *runsTest {
	t.Helper()
	w := newWorld(t)
	p := w.plant(t, "acme")
	return &runsTest{world: w, t: t, plant: p, other: w.agent(t, p.owner).id}
}

func runID(n int) string { return fmt.Sprintf("00000000-0000-7000-8000-%012d", n) }

// report has an agent report a run that began at that second by its clock.
func (r *runsTest) report(by fleet.AgentIdentity, n int, status string, started int64) {
	r.t.Helper()
	m := &wire.RunReport{RunId: runID(n), FlowId: string(r.plant.flow.ID), Version: 1, Status: status, Started: started * 1e6}
	if err := r.StoreRun(r.t.Context(), by, m); err != nil {
		r.t.Fatal(err)
	}
}

// status has an agent say at that second by its clock which runs are not over.
func (r *runsTest) status(by fleet.AgentIdentity, at int64, open ...int) {
	r.t.Helper()
	m := &wire.Status{Time: at * 1e6, OpenRuns: &wire.OpenRuns{}}
	for _, n := range open {
		m.OpenRuns.RunIds = append(m.OpenRuns.RunIds, runID(n))
	}
	if err := r.StoreStatus(r.t.Context(), by, m); err != nil {
		r.t.Fatal(err)
	}
}

// has wants a run to be told so; one that was ended for its agent has the second at which it ended.
func (r *runsTest) has(n int, status string, ended int64) {
	r.t.Helper()
	got, err := r.Run(r.t.Context(), r.plant.owner, fleet.ID(runID(n)))
	if err != nil || got.Status != status || (got.Error != "") != (ended != 0) || ended != 0 && got.Ended.Unix() != ended {
		r.t.Errorf("run %d is %+v, %v; want %s", n, got, err, status)
	}
}

// TestARunThatItsAgentDidNotSurvive is ended by the first status that does not name it, on that agent alone, whatever the agent's
// clock says.
func TestARunThatItsAgentDidNotSurvive(t *testing.T) {
	t.Parallel()
	r := newRunsTest(t)
	agent := r.plant.agent.id
	r.report(agent, 1, "running", 100)
	r.report(agent, 2, "running", 200)
	r.report(agent, 3, "ok", 200)
	r.report(r.other, 4, "running", 100)
	r.status(agent, 300, 1, 2)
	r.has(1, "running", 0)
	r.has(2, "running", 0)
	r.status(agent, 400, 2, 9)
	r.has(1, "stopped", 400)
	r.has(2, "running", 0)
	// The clock was set back over the begin of the run.
	r.status(agent, 50)
	r.has(2, "stopped", 200)
	r.has(3, "ok", 0)
	r.has(4, "running", 0)
	// What the agent has to say of its end counts when it comes after all.
	r.report(agent, 1, "ok", 100)
	r.has(1, "ok", 0)
	runs, err := r.Runs(t.Context(), r.plant.owner, fleet.RunFilter{Status: "running"})
	if err != nil || len(runs) != 1 || runs[0].ID != fleet.ID(runID(4)) {
		t.Errorf("%+v are running: %v", runs, err)
	}
}

// TestALateReportOfARunThatIsOver comes out of the outbox of a process that is gone.
func TestALateReportOfARunThatIsOver(t *testing.T) {
	t.Parallel()
	r := newRunsTest(t)
	agent := r.plant.agent.id
	r.status(agent, 300, 1) // its report waits
	r.report(agent, 1, "running", 100)
	r.status(agent, 310, 1) // made before the acknowledgement came
	r.has(1, "running", 0)
	r.status(agent, 320)
	r.has(1, "stopped", 320)
	// Stored once more, by a replica that was slow.
	r.report(agent, 1, "running", 100)
	r.status(agent, 330)
	r.has(1, "stopped", 330)
	r.report(agent, 2, "ok", 100)
	r.report(agent, 2, "running", 100)
	r.has(2, "ok", 0)
}

// TestAStatusThatEndsNoRun is one that does not say which runs are open, and one of a session that another has followed.
func TestAStatusThatEndsNoRun(t *testing.T) {
	t.Parallel()
	r := newRunsTest(t)
	agent := r.plant.agent.id
	r.report(agent, 1, "running", 100)
	if err := r.StoreStatus(t.Context(), agent, &wire.Status{Time: 200e6}); err != nil {
		t.Fatal(err)
	}
	r.has(1, "running", 0)
	followed := agent
	followed.Session = 77
	r.status(followed, 200)
	r.has(1, "running", 0)
	many := &wire.OpenRuns{RunIds: slices.Repeat([]string{runID(1)}, 2001)}
	wantCode(t, "too many runs", r.StoreStatus(t.Context(), agent, &wire.Status{OpenRuns: many}), fleet.Invalid)
	if err := r.StoreStatus(t.Context(), agent, &wire.Status{OpenRuns: &wire.OpenRuns{RunIds: []string{"x", runID(1), ""}}}); err != nil {
		t.Errorf("ids that are none: %v", err)
	}
	r.has(1, "running", 0)
}

// TestRevokingEndsRuns has an agent revoked in the middle of a run.
func TestRevokingEndsRuns(t *testing.T) {
	t.Parallel()
	r := newRunsTest(t)
	now := time.Now().Unix()
	r.report(r.plant.agent.id, 1, "running", now-100)
	r.report(r.other, 2, "running", now-100)
	if err := r.RevokeAgent(t.Context(), r.plant.owner, string(r.plant.agent.id.Agent)); err != nil {
		t.Fatal(err)
	}
	got, err := r.Run(t.Context(), r.plant.owner, fleet.ID(runID(1)))
	if err != nil || got.Status != "stopped" || got.Ended.Unix() < now || !strings.Contains(got.Error, "revoked") {
		t.Errorf("the run is %+v, %v", got, err)
	}
	r.has(2, "running", 0)
}
