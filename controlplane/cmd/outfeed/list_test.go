package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/apitest"
)

// The list comes in pages, and is shown whole.
func TestManyAgentsAreListed(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const many = 1203
	for i := range many - 1 {
		b.fleet.AgentList = append(b.fleet.AgentList, fleet.Agent{ID: apitest.ID(1000 + i), Name: fmt.Sprintf("press-%04d", i)})
	}
	stdout, _ := b.run(exitOK, "agent", "list", "--json")
	var agents []api.Agent
	if err := json.Unmarshal([]byte(stdout), &agents); err != nil || len(agents) != many {
		t.Errorf("%d agents are listed, %v", len(agents), err)
	}
	stdout, _ = b.run(exitOK, "agent", "list")
	if n := strings.Count(stdout, "\n"); n != many+1 {
		t.Errorf("the table has %d lines", n)
	}
}

// Nothing that an agent says of itself reaches the terminal as it is, in no column and in no JSON.
func TestHostileAgentsCannotSteerTheTerminal(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const evil = "a\x1b[31m\u009b31m\u202eb\x7f\r\t\x00\u2028c\U000e0001"
	g := &b.fleet.AgentList[0]
	g.Hostname, g.OS, g.Arch, g.Version, g.Fingerprint, g.Labels = evil, evil, evil, evil, evil, map[string]string{evil: evil}
	g.Status.BundleError = evil
	f := &g.Status.Flows[0]
	f.Name, f.State, f.Error, f.SetBackFrom = evil, evil, evil, 2
	f.Sources[0] = fleet.SourceStatus{Step: evil, Connection: evil, State: evil, Error: evil}
	o := &g.Status.Outbox
	o.Degraded, o.BlockedBy, o.Expired = evil, evil, map[string]uint64{evil: 3}
	o.Damage[0] = fleet.DamagedFile{File: evil, Reason: evil, SetBack: []fleet.ID{evil, "(" + evil + ")"}, StartedAnew: []fleet.ID{evil}}
	o.SetAside = []fleet.SetAside{{Dir: evil, Agent: evil, Waiting: 8}, {Dir: "stage.of-b", Waiting: -1}}
	g.Receipts = map[string]int64{evil: 2}
	g.Lock = &fleet.AgentLock{Reason: evil, Connected: fleet.LockSide{Hostname: evil, Address: evil}}
	b.fleet.RunList[0].Error, b.fleet.RunList[0].Status, b.fleet.RunList[0].Steps[0].Step, b.fleet.RunList[0].Sample[0] = evil, evil, evil, fleet.FailedRecord{Step: evil, Where: evil, Reason: evil, Record: evil}
	b.fleet.MissingList[0].Reason, b.fleet.RefusedList[0].Reason = evil, evil
	b.fleet.AddInsight(fleet.Insight{Agent: apitest.ID(10), Seq: 1, Name: evil, FlowName: evil, Key: []byte(`{"a":"` + "\u009b\u202e\x7f" + `"}`), Values: []byte(`{"b":"` + "\u2028" + `"}`)})
	shown, _ := b.run(exitOK, "agent", "show", "hall-3")
	contains(t, shown, "Set aside        8         of agent a", "Set aside        unknown   of agent unknown, which this machine was before: not sent, in stage.of-b")
	run := string(apitest.ID(30))
	for _, args := range [][]string{
		{"agent", "list"}, {"agent", "show", "hall-3"}, {"run", "list"}, {"run", "show", run}, {"insight", "missing"}, {"insight", "refused"}, {"insight", "query"},
	} {
		for _, more := range [][]string{nil, {"--json"}} {
			args := append(append([]string{}, args...), more...)
			stdout, stderr := b.run(exitOK, args...)
			for _, r := range stdout + stderr {
				if r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)) {
					t.Errorf("outfeed %s prints %q:\n%q", strings.Join(args, " "), r, stdout+stderr)
					break
				}
			}
			if !strings.Contains(stdout, "31m") && args[0] != "insight" {
				t.Errorf("outfeed %s shows nothing of it:\n%s", strings.Join(args, " "), stdout)
			}
		}
	}
}
