package fleet_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/protocol/wire"
)

// listed follows the pages of a listing.
func listed(t *testing.T, w *world, a fleet.Actor, limit int) (agents []fleet.Agent, pages int) {
	t.Helper()
	f := fleet.AgentFilter{Limit: limit}
	for {
		p, err := w.Agents(t.Context(), a, f)
		if err != nil {
			t.Fatal(err)
		}
		agents, pages = append(agents, p.Agents...), pages+1
		if p.Next == "" {
			return agents, pages
		}
		if len(p.Agents) == 0 || pages > 100 {
			t.Fatalf("page %d has %d agents and goes on", pages, len(p.Agents))
		}
		f.After = p.Next
	}
}

// Pages of any size are one listing: by name, the revoked ones last, each once, also where names are the same.
func TestAgentsPageByPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, rival := w.tenant(t, "acme"), w.tenant(t, "globex")
	for i := range 7 {
		m := w.agent(t, a)
		if i%2 == 0 {
			if err := w.RevokeAgent(t.Context(), a, string(m.id.Agent)); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.agent(t, rival)
	want, pages := listed(t, w, a, 0)
	if len(want) != 7 || pages != 1 {
		t.Fatalf("%d agents came on %d pages", len(want), pages)
	}
	for i := 1; i < len(want); i++ {
		before, after := &want[i-1], &want[i]
		if !before.Revoked.IsZero() && after.Revoked.IsZero() || before.Revoked.IsZero() == after.Revoked.IsZero() && before.Name > after.Name {
			t.Errorf("%s stands before %s", before.Name, after.Name)
		}
	}
	for limit := 1; limit <= 8; limit++ {
		got, pages := listed(t, w, a, limit)
		if len(got) != 7 || pages != (7+limit-1)/limit {
			t.Errorf("by %d, %d agents came on %d pages", limit, len(got), pages)
		}
		for i := range got {
			if got[i].ID != want[i].ID {
				t.Errorf("by %d, agent %d is %s, want %s", limit, i, got[i].Name, want[i].Name)
			}
		}
	}
	for _, f := range []fleet.AgentFilter{{Limit: -1}, {Limit: 1001}, {After: "nonsense"}, {After: "e30"}} {
		_, err := w.Agents(t.Context(), a, f)
		wantCode(t, fmt.Sprintf("%+v", f), err, fleet.Invalid)
	}
}

// While an agent cannot read its numbers, those that it told last stay, with their time.
func TestNumbersThatAreNotKnownStay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "acme")
	m := w.agent(t, a)
	counted := &wire.Status{Time: 1_700_000_000_000_000, Outbox: &wire.Outbox{Produced: 40, Lost: 3, DamagedFiles: 2, RoomBytes: 9, SetAside: []*wire.SetAside{{Dir: "stage.of-a"}}}}
	unknown := &wire.Status{Time: 1_700_000_100_000_000, Outbox: &wire.Outbox{Unknown: true, Degraded: "make room", RunwaySeconds: -1, Blocked: 1}}
	for i, status := range []*wire.Status{unknown, counted, unknown, unknown, counted} {
		if err := w.StoreStatus(t.Context(), m.id, status); err != nil {
			t.Fatal(err)
		}
		got, err := w.Agent(t.Context(), a, "press-pc")
		if err != nil {
			t.Fatal(err)
		}
		o := got.Status.Outbox
		known := i > 0
		if (o.Produced == 40 && o.Lost == 3 && o.DamagedFiles == 2) != known {
			t.Errorf("after status %d: %+v", i, o)
		}
		if now := status.GetOutbox(); o.Unknown != now.GetUnknown() || o.Degraded != now.GetDegraded() || o.RoomBytes != now.GetRoomBytes() || o.Blocked != now.GetBlocked() {
			t.Errorf("after status %d: %+v", i, o)
		}
		if o.Unknown && known != (o.CountedAt.UnixMicro() == counted.GetTime()) {
			t.Errorf("after status %d the numbers are of %s", i, o.CountedAt)
		}
	}
}

// A list has the beginning of what an agent says, the agent itself the whole; neither the list nor the brief agent reads it.
func TestListsAreBrief(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "acme")
	m := w.agent(t, a)
	long := "the broker refused " + strings.Repeat("x", 3000)
	status := &wire.Status{Time: 1_700_000_000_000_000, Flows: []*wire.FlowStatus{{
		FlowId: string(m.id.Agent), Name: "press-health", State: "backing_off", Error: long, Sources: []*wire.SourceStatus{{Step: "readings", Connection: "press", State: "failing", Error: long}},
	}}}
	if err := w.StoreStatus(t.Context(), m.id, status); err != nil {
		t.Fatal(err)
	}
	brief := func(what string) {
		t.Helper()
		page, err := w.Agents(t.Context(), a, fleet.AgentFilter{})
		if err != nil {
			t.Fatal(err)
		}
		one, err := w.BriefAgent(t.Context(), a, "press-pc")
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range []fleet.Agent{page.Agents[0], one} {
			f := g.Status.Flows[0]
			if len(f.Error) > 210 || !strings.HasPrefix(f.Error, "the broker refused") || !strings.HasSuffix(f.Error, "…") || f.Sources[0].Error != f.Error {
				t.Errorf("%s: a list shows %+v", what, f)
			}
			if len(g.Connectors) != 1 || g.Connectors[0].Kind != "mqtt" || g.Connectors[0].Options != nil || !g.Connected || g.LastSeen.IsZero() {
				t.Errorf("%s: a list shows %+v", what, g)
			}
		}
	}
	brief("after a status")
	whole, err := w.Agent(t.Context(), a, "press-pc")
	if err != nil {
		t.Fatal(err)
	}
	if f := whole.Status.Flows[0]; f.Error != long || f.Sources[0].Error != long || len(whole.Connectors[0].Options) != 3 {
		t.Errorf("the agent itself is %+v", whole)
	}
	// As the newest status and connect were before lists had their own columns.
	super(t, w.db, "UPDATE agents SET brief = NULL, connector_kinds = NULL")
	brief("before an update")
	// What is shown is the columns of the list alone.
	if err := w.StoreStatus(t.Context(), m.id, status); err != nil {
		t.Fatal(err)
	}
	w.connect(t, m)
	if err := w.StoreStatus(t.Context(), m.id, status); err != nil {
		t.Fatal(err)
	}
	super(t, w.db, `UPDATE agents SET status = '"unreadable"', connectors = '"unreadable"'`)
	brief("without the whole")
}

// A page ends early where agents say much, and the next goes on behind it.
func TestPagesAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "acme")
	status := &wire.Status{}
	for i := range 1000 {
		status.Flows = append(status.Flows, &wire.FlowStatus{
			DeploymentId: fmt.Sprintf("01950000-0000-7000-8000-%012d", i), FlowId: fmt.Sprintf("01950000-0000-7000-8000-%012d", i),
			Name: "flow", State: "failed", Error: strings.Repeat("x", 4000),
		})
	}
	for range 12 {
		m := w.agent(t, a)
		if err := w.StoreStatus(t.Context(), m.id, status); err != nil {
			t.Fatal(err)
		}
	}
	agents, pages := listed(t, w, a, 0)
	if len(agents) != 12 || pages < 2 || pages > 6 {
		t.Errorf("%d agents came on %d pages", len(agents), pages)
	}
}

// Of each kind the agent that was heard of last is asked, whatever others offer beside it.
func TestConnectorsOfManyAgents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "acme")
	offers := func(m *machine, connectors, kinds, seen string) {
		t.Helper()
		super(t, w.db, "UPDATE agents SET connectors = $2::text::json, connector_kinds = $3::text::text[] WHERE id = $1::text::uuid", string(m.id.Agent), connectors, kinds)
		super(t, w.db, "UPDATE agent_sessions SET seen_at = now() - $2::text::interval WHERE agent_id = $1::text::uuid", string(m.id.Agent), seen)
	}
	both, one, twin := w.agent(t, a), w.agent(t, a), w.agent(t, a)
	titles := func() string {
		t.Helper()
		specs, err := w.Connectors(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, s := range specs {
			out = append(out, s.Kind+" "+s.Title)
		}
		return strings.Join(out, ", ")
	}
	offers(both, `[{"kind": "mqtt", "title": "of both"}, {"kind": "file", "title": "of both"}]`, "{mqtt,file}", "3 min")
	offers(one, `[{"kind": "mqtt", "title": "of one"}]`, "{mqtt}", "2 min")
	offers(twin, `[{"kind": "mqtt", "title": "of its twin"}]`, "{mqtt}", "1 min")
	for _, step := range []struct {
		of   *machine
		want string
	}{
		{twin, "file of both, mqtt of its twin"},
		{one, "file of both, mqtt of one"},
		{both, "file of both, mqtt of both"},
	} {
		super(t, w.db, "UPDATE agent_sessions SET seen_at = now() WHERE agent_id = $1::text::uuid", string(step.of.id.Agent))
		if got := titles(); got != step.want {
			t.Errorf("there is %s, want %s", got, step.want)
		}
	}
	super(t, w.db, "UPDATE agents SET connector_kinds = NULL")
	if got := titles(); got != "file of both, mqtt of both" {
		t.Errorf("before an update there is %s", got)
	}
	if err := w.RevokeAgent(t.Context(), a, string(both.id.Agent)); err != nil {
		t.Fatal(err)
	}
	if got := titles(); got != "mqtt of one" {
		t.Errorf("after one was revoked there is %s", got)
	}
}
