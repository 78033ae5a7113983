package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/apitest"
)

// well is an agent without any trouble.
func well() fleet.Agent {
	return fleet.Agent{
		ID: apitest.ID(10), Name: "hall-3", Connected: true, LastSeen: apitest.Clock(), Desired: 4, Applied: 4,
		Status: &fleet.AgentStatus{
			Time: apitest.Clock(), Outbox: fleet.OutboxStatus{RunwaySeconds: -1},
			Flows: []fleet.FlowStatus{{Name: "press", Version: 3, State: "running", Sources: []fleet.SourceStatus{{Step: "r", State: "reading"}}}},
		},
	}
}

// TestEveryTroubleShows gives an agent each kind of trouble that the API knows: the list has it in a word, show in full, and
// both have it in JSON.
func TestEveryTroubleShows(t *testing.T) {
	t.Parallel()
	side := fleet.LockSide{Hostname: "edge", Address: "10.0.0.1", Seen: apitest.Clock(), Counter: 7}
	for name, c := range map[string]struct {
		give func(*fleet.Agent)
		// list and show are texts of each, json is in the JSON of both.
		list, show, json string
	}{
		"none": {func(*fleet.Agent) {}, "connected", "Up to date   yes", `"connected": true`},
		"locked": {
			func(g *fleet.Agent) {
				g.Lock = &fleet.AgentLock{Since: apitest.Clock(), Reason: fleet.LockCounter, Connected: side, Other: side}
			},
			" locked ", "a connect counter came twice", `"reason": "counter"`,
		},
		"clock":      {func(g *fleet.Agent) { g.ClockSkew = 7200 }, " clock 2 h ahead ", "timedatectl set-ntp true", `"clock_skew_seconds": 7200`},
		"degraded":   {func(g *fleet.Agent) { g.Status.Outbox.Degraded = "input/output error" }, " degraded ", "input/output error", `"degraded": "input/output error"`},
		"blocked":    {func(g *fleet.Agent) { g.Status.Outbox.Blocked, g.Status.Outbox.BlockedBy = 2, "64 MiB free" }, " blocked ", "64 MiB free", `"blocked": 2`},
		"refused":    {func(g *fleet.Agent) { g.Status.BundleError = "it is older" }, " flows refused  no (refused) ", "Refused      it is older", `"bundle_error": "it is older"`},
		"and behind": {func(g *fleet.Agent) { g.Status.BundleError, g.Applied = "it is older", 3 }, " flows refused  no (3 of 4, refused) ", "no (3 of 4, refused)", `"applied_serial": 3`},
		"set back":   {func(g *fleet.Agent) { g.Status.Flows[0].SetBackFrom = 4 }, " 1 set back ", "3 (set back from 4)", `"set_back_from": 4`},
		"failed flow": {
			func(g *fleet.Agent) { g.Status.Flows[0].State, g.Status.Flows[0].Error = "failed", "too much memory" },
			" 1 failing ", "too much memory", `"error": "too much memory"`,
		},
		"failing source": {
			func(g *fleet.Agent) {
				g.Status.Flows[0].Sources[0].State, g.Status.Flows[0].Sources[0].Error = "failing", "no route"
			},
			" 1 failing ", "no route", `"error": "no route"`,
		},
		"lost":              {func(g *fleet.Agent) { g.Status.Outbox.Lost = 5 }, " 5 lost ", "damaged on the agent's disk", `"lost": 5`},
		"lost here":         {func(g *fleet.Agent) { g.Status.Outbox.LostRemotely = 6 }, " 6 lost ", "Lost afterwards", `"lost_remotely": 6`},
		"expired":           {func(g *fleet.Agent) { g.Status.Outbox.Expired = map[string]uint64{"expired_age": 7} }, " 7 expired ", "rule for age", `"expired_age": 7`},
		"refused insights":  {func(g *fleet.Agent) { g.StoredSeq, g.RefusedInsights = 9, 8 }, " 8 refused ", "Refused here     8", `"refused": 8`},
		"keys to change":    {func(g *fleet.Agent) { g.RotationAsked = apitest.Clock() }, " keys to change ", "shall change, asked at 2026", `"rotation_asked_at": "2026`},
		"keys not changed":  {func(g *fleet.Agent) { g.RotationAsked = apitest.Clock().Add(-time.Hour) }, " keys not changed ", "outfeed-agent rotate-keys", `"rotation_asked_at": "2026`},
		"revoked":           {func(g *fleet.Agent) { g.Revoked = apitest.Clock() }, " revoked ", "Revoked      2026", `"revoked_at": "2026`},
		"never reported":    {func(g *fleet.Agent) { g.Status = nil }, " connected ", "Up to date   yes", `"desired_serial": 4`},
		"several at a time": {func(g *fleet.Agent) { g.ClockSkew, g.Status.Outbox.Lost = -90, 1 }, " clock 1 min and 30 s behind, 1 lost ", "1 min and 30 s behind the control plane's", `"lost": 1`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			g := well()
			c.give(&g)
			b.fleet.AgentList = []fleet.Agent{g}
			stdout, _ := b.run(0, "agent", "list")
			contains(t, stdout, c.list)
			stdout, _ = b.run(0, "agent", "show", "hall-3")
			contains(t, stdout, c.show)
			for _, args := range [][]string{{"agent", "list", "--json"}, {"agent", "show", "hall-3", "--json"}} {
				stdout, _ = b.run(0, args...)
				contains(t, stdout, c.json)
				if !json.Valid([]byte(stdout)) {
					t.Errorf("%q prints no JSON: %s", args, stdout)
				}
			}
		})
	}
	b := newBench(t)
	b.fleet.AgentList = []fleet.Agent{well()}
	stdout, _ := b.run(0, "agent", "list")
	if _, row, _ := strings.Cut(stdout, "\n"); !strings.Contains(row, "-        yes") {
		t.Errorf("an agent that is well has trouble: %s", stdout)
	}
}
