package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

func TestConnections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "acme")
	_, err := w.ApplyConnection(t.Context(), a, press())
	wantCode(t, "before an agent has connected", err, fleet.Conflict)
	p := w.plant(t, "globex")
	c := p.connection
	if c.Options["port"] != int64(1883) || len(c.SecretNames) != 1 || len(c.Secrets) != 0 {
		t.Errorf("got %+v", c)
	}
	serial := func() uint64 { t.Helper(); return w.bundle(t, p.agent).GetSerial() }
	before := serial()
	if _, err := w.ApplyConnection(t.Context(), p.owner, press()); err != nil {
		t.Fatal(err)
	}
	if serial() != before {
		t.Error("applying the same again disturbed the agent")
	}
	// A secret that is left out stays; one among the options is a secret all the same.
	next := press()
	next.Secrets = nil
	next.Options["host"] = "10.0.0.2"
	if _, err := w.ApplyConnection(t.Context(), p.owner, next); err != nil {
		t.Fatal(err)
	}
	if serial() != before+1 {
		t.Errorf("serial %d, want %d", serial(), before+1)
	}
	if got := secretOf(t, w, p); got != "hunter2" {
		t.Errorf("the secret is %q", got)
	}
	next.Options["password"] = "changed"
	c, err = w.ApplyConnection(t.Context(), p.owner, next)
	if err != nil {
		t.Fatal(err)
	}
	if _, shown := c.Options["password"]; shown {
		t.Error("a password given as an option is stored in clear")
	}
	if got := secretOf(t, w, p); got != "changed" || serial() != before+2 {
		t.Errorf("the secret is %q at serial %d", got, serial())
	}
	for what, bad := range map[string]fleet.Connection{
		"an unknown kind":   {Name: "x", Kind: "opcua"},
		"a missing option":  {Name: "x", Kind: "mqtt"},
		"an unknown option": {Name: "x", Kind: "mqtt", Options: map[string]any{"host": "h", "prot": 1}},
		"a bad port":        {Name: "x", Kind: "mqtt", Options: map[string]any{"host": "h", "port": 99999}},
		"an unknown secret": {Name: "x", Kind: "mqtt", Options: map[string]any{"host": "h"}, Secrets: map[string]secret.String{"pin": secret.New("1")}},
		"no name":           {Kind: "mqtt", Options: map[string]any{"host": "h"}},
		"a NUL in the name": {Name: "x\x00", Kind: "mqtt", Options: map[string]any{"host": "h"}},
	} {
		_, err := w.ApplyConnection(t.Context(), p.owner, bad)
		wantCode(t, what, err, fleet.Invalid)
	}
	wantCode(t, "delete what a flow reads", w.DeleteConnection(t.Context(), p.owner, "press"), fleet.Conflict)
	if err := w.Undeploy(t.Context(), p.owner, "hot-presses", nil); err != nil {
		t.Fatal(err)
	}
	if b := w.bundle(t, p.agent); len(b.GetFlows()) != 0 || len(b.GetConnections()) != 0 || b.GetSerial() != before+3 {
		t.Errorf("after undeploying the bundle is %v", b)
	}
	if err := w.DeleteConnection(t.Context(), p.owner, "press"); err != nil {
		t.Fatal(err)
	}
	_, err = w.Connection(t.Context(), p.owner, "press")
	wantCode(t, "a deleted connection", err, fleet.NotFound)
}

// secretOf opens the password in the agent's bundle with the agent's key.
func secretOf(t *testing.T, w *world, p *plant) string {
	t.Helper()
	b := w.bundle(t, p.agent)
	if len(b.GetConnections()) != 1 {
		t.Fatalf("the bundle has %d connections", len(b.GetConnections()))
	}
	c := b.GetConnections()[0]
	plain, err := seal.OpenSealed(p.agent.Sealing, seal.SecretContext{
		Tenant: string(p.owner.Tenant), Agent: string(p.agent.id.Agent), Connection: c.GetConnectionId(), Field: "password",
	}, c.GetSealedSecrets()["password"])
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

func TestFlows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.tenant(t, "acme")
	m := w.agent(t, a)
	ctx := t.Context()
	check, err := w.CheckFlow(ctx, a, hot)
	if err != nil || len(check.Problems) != 1 || !strings.Contains(check.Problems[0].Message, "press") || check.Problems[0].Line == 0 {
		t.Fatalf("a flow with an unknown connection: %+v, %v", check, err)
	}
	_, _, err = w.ApplyFlow(ctx, a, hot)
	wantCode(t, "apply with a problem", err, fleet.Invalid)
	if p, ok := errors.AsType[flowdef.Problems](err); !ok || len(p) == 0 {
		t.Errorf("the error holds no problems: %v", err)
	}
	if _, err := w.ApplyConnection(ctx, a, press()); err != nil {
		t.Fatal(err)
	}
	if check, err = w.CheckFlow(ctx, a, hot); err != nil || len(check.Problems) != 0 || len(check.Egress.Columns) == 0 || check.Name != "hot-presses" {
		t.Fatalf("got %+v, %v", check, err)
	}
	if check, err = w.CheckFlow(ctx, a, "flow: [\xff\x00"); err != nil || len(check.Problems) == 0 {
		t.Errorf("a text that is none: %+v, %v", check, err)
	}
	f, v, err := w.ApplyFlow(ctx, a, hot)
	if err != nil || v.Version != 1 || f.Latest != 1 || f.Published != 0 || v.Definition != hot || f.Description != "Presses that run hot" {
		t.Fatalf("got %+v %+v %v", f, v, err)
	}
	if _, v, err = w.ApplyFlow(ctx, a, hot); err != nil || v.Version != 1 {
		t.Errorf("the same text again made version %d, %v", v.Version, err)
	}
	if _, v, err = w.ApplyFlow(ctx, a, hotter); err != nil || v.Version != 2 || v.CreatedBy == "" {
		t.Errorf("got %+v, %v", v, err)
	}
	_, err = w.Deploy(ctx, a, "hot-presses", 0, []string{"press-pc"})
	wantCode(t, "deploy what is not published", err, fleet.Conflict)
	if v, err = w.Publish(ctx, a, "hot-presses", 1); err != nil || v.Published.IsZero() || len(v.Egress.Columns) == 0 {
		t.Fatalf("got %+v, %v", v, err)
	}
	_, err = w.Deploy(ctx, a, "hot-presses", 2, []string{"press-pc"})
	wantCode(t, "deploy a draft", err, fleet.Conflict)
	_, err = w.Publish(ctx, a, "hot-presses", 3)
	wantCode(t, "publish a version that is not there", err, fleet.NotFound)
	for what, refs := range map[string][]string{"an unknown agent": {"nobody"}, "an unknown label": {"site=paris"}} {
		_, err = w.Deploy(ctx, a, "hot-presses", 0, refs)
		wantCode(t, what, err, fleet.NotFound)
	}
	_, err = w.Deploy(ctx, a, "hot-presses", 0, nil)
	wantCode(t, "no agents", err, fleet.Invalid)

	before := w.bundle(t, m).GetSerial()
	d, err := w.Deploy(ctx, a, "hot-presses", 0, []string{"site=berlin", "press-pc", string(m.id.Agent)})
	if err != nil || len(d) != 1 || d[0].Version != 1 || d[0].Name != "hot-presses" {
		t.Fatalf("got %+v, %v", d, err)
	}
	if _, err := w.Deploy(ctx, a, "hot-presses", 1, []string{"press-pc"}); err != nil {
		t.Fatal(err)
	}
	b := w.bundle(t, m)
	if b.GetSerial() != before+1 {
		t.Errorf("serial %d after %d: deploying the same again must not disturb", b.GetSerial(), before)
	}
	if len(b.GetFlows()) != 1 || string(b.GetFlows()[0].GetDefinition()) != hot || b.GetTenantId() != string(a.Tenant) || b.GetAgentId() != string(m.id.Agent) {
		t.Errorf("got %v", b)
	}
	if _, err := w.Publish(ctx, a, "hot-presses", 0); err != nil {
		t.Fatal(err)
	}
	d2, err := w.Deploy(ctx, a, "hot-presses", 0, []string{"press-pc"})
	if err != nil || d2[0].Version != 2 || d2[0].ID != d[0].ID {
		t.Errorf("the next version: %+v, %v; the deployment stays %s", d2, err, d[0].ID)
	}
	f, err = w.Flow(ctx, a, string(f.ID))
	if err != nil || f.Latest != 2 || f.Published != 2 || len(f.Deployments) != 1 {
		t.Errorf("got %+v, %v", f, err)
	}
	versions, err := w.FlowVersions(ctx, a, "hot-presses")
	if err != nil || len(versions) != 2 || versions[0].Version != 2 {
		t.Errorf("got %+v, %v", versions, err)
	}
}

// TestPublishingRunsTheTests refuses a version whose tests fail, at the place of the test.
func TestPublishingRunsTheTests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	tested := func(name string) string {
		return hot + "tests:\n  - name: " + name + "\n    expect: {hot: []}\n"
	}
	_, _, err := w.ApplyFlow(t.Context(), p.owner, tested("a wrong one"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Publish(t.Context(), p.owner, "hot-presses", 0)
	wantCode(t, "a failing test", err, fleet.Invalid)
	found, _ := errors.AsType[flowdef.Problems](err)
	if len(found) != 1 || found[0].Line != 14 || !strings.Contains(found[0].Message, "a wrong one") || !strings.Contains(found[0].Message, "came 0") {
		t.Errorf("got %+v", found)
	}
	if _, _, err = w.ApplyFlow(t.Context(), p.owner, tested("a right one")); err != nil {
		t.Fatal(err)
	}
	if v, err := w.Publish(t.Context(), p.owner, "hot-presses", 0); err != nil || v.Published.IsZero() {
		t.Errorf("got %+v, %v", v, err)
	}
}

// TestCheckingRunsTheTests finds what publishing would, and what would be written.
func TestCheckingRunsTheTests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	const expect = "\n    expect: {hot: []}\n"
	for name, want := range map[string]struct {
		tests    int
		problems []string
	}{
		"right":   {tests: 2},
		"wrong":   {tests: 2, problems: []string{`16:5: test "wrong" fails: insight hot: expected 1, came 0`}},
		"endless": {problems: []string{"14:5: the tests took too long"}},
	} {
		check, err := w.CheckFlow(t.Context(), p.owner, hot+"tests:\n  - name: first"+expect+"  - name: "+name+expect)
		if err != nil {
			t.Fatal(err)
		}
		var problems []string
		for _, found := range check.Problems {
			problems = append(problems, fmt.Sprintf("%d:%d: %s", found.Line, found.Column, found.Message))
		}
		if len(check.Tests) != want.tests || !slices.Equal(problems, want.problems) || len(check.Egress.Columns) == 0 {
			t.Errorf("%s: got %d tests and %q, want %d and %q", name, len(check.Tests), problems, want.tests, want.problems)
		}
	}
	// A definition with problems is not tested.
	check, err := w.CheckFlow(t.Context(), p.owner, strings.Replace(hot, "temp > 60", "tmep > 60", 1)+"tests:\n  - name: wrong"+expect)
	if err != nil || len(check.Problems) != 1 || check.Tests != nil {
		t.Errorf("got %+v, %v", check, err)
	}
}

func TestWhatAVersionWritesIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	writes := strings.Replace(hot, "  - insight: hot\n", "  - id: alarm\n    write: press\n    with: {topic: plant/alarm}\n  - insight: hot\n", 1)
	want := []flowdef.PlannedWrite{{
		Step: "alarm", Connection: "press", With: map[string]any{"topic": "plant/alarm"}, Columns: []string{"ts", "machine", "temp"},
	}}
	check, err := w.CheckFlow(t.Context(), p.owner, writes)
	if diff := cmp.Diff(want, check.Writes); err != nil || diff != "" {
		t.Error(check.Problems, err, diff)
	}
	if _, v, err := w.ApplyFlow(t.Context(), p.owner, writes); err != nil || cmp.Diff(want, v.Writes) != "" {
		t.Errorf("got %+v, %v", v.Writes, err)
	}
	if v, err := w.Publish(t.Context(), p.owner, "hot-presses", 0); err != nil || cmp.Diff(want, v.Writes) != "" {
		t.Errorf("got %+v, %v", v.Writes, err)
	}
	versions, err := w.FlowVersions(t.Context(), p.owner, "hot-presses")
	if err != nil || len(versions) != 2 || len(versions[0].Writes) != 1 || len(versions[1].Writes) != 0 {
		t.Errorf("got %+v, %v", versions, err)
	}
}

func TestInsightsArriveOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	ctx, id := t.Context(), p.agent.id
	const batches, size = 20, 10
	// Two connections deliver the same stream in parallel, each in order and with overlaps, as after a cut.
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range batches {
				first := uint64(i*size + 1)
				for {
					stored, err := w.StoreInsights(ctx, id, insights(p.flow.ID, first, size+5))
					if err != nil {
						t.Errorf("batch %d: %v", i, err)
						return
					}
					if stored >= first+size-1 {
						break
					}
				}
			}
		})
	}
	wg.Wait()
	const want = batches*size + 5
	page, err := w.Insights(ctx, p.owner, fleet.InsightFilter{Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int64]int{}
	for _, in := range page.Insights {
		seen[in.Seq]++
	}
	for seq := int64(1); seq <= want; seq++ {
		if seen[seq] != 1 {
			t.Errorf("sequence %d is there %d times", seq, seen[seq])
		}
	}
	if len(page.Insights) != want {
		t.Errorf("%d insights, want %d", len(page.Insights), want)
	}
	if stored := w.connect(t, p.agent); stored != want {
		t.Errorf("the next session begins at %d, want %d", stored, want)
	}
	if stored, err := w.StoreInsights(ctx, id, insights(p.flow.ID, 1, 5)); err != nil || stored != want {
		t.Errorf("a resend: %d, %v", stored, err)
	}
	_, err = w.StoreInsights(ctx, id, insights(p.flow.ID, want+2, 1))
	wantCode(t, "a gap", err, fleet.Conflict)
	_, err = w.StoreInsights(ctx, id, insights(p.flow.ID, 0, 1))
	wantCode(t, "from zero", err, fleet.Invalid)
}

func TestInsightListing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	ctx := t.Context()
	up := insights(p.flow.ID, 1, 25)
	up.Insights[3].Name, up.Insights[3].KeyJson = "cold", []byte(`{"machine":"M2","shift":3}`)
	up.Insights[4].FlowId = "00000000-0000-7000-8000-000000000000"
	up.Insights[5].Time = 1 << 62
	up.Insights[6].ValuesJson = []byte(`{"b": "nul \u0000 and \ud800 and \\u0000 and \ud83d\ude00", "a":1.50}`)
	if _, err := w.StoreInsights(ctx, p.agent.id, up); err != nil {
		t.Fatal(err)
	}
	var all []fleet.Insight
	f := fleet.InsightFilter{Limit: 7}
	for range 10 {
		page, err := w.Insights(ctx, p.owner, f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Insights...)
		if f.After = page.Next; f.After == "" {
			break
		}
	}
	if len(all) != 25 || all[0].Seq != 6 || all[0].Time.Year() != 9999 || all[1].Seq != 25 || all[24].Seq != 1 {
		t.Fatalf("paging gave %d insights, beginning with %+v", len(all), all[0])
	}
	for _, in := range all {
		switch in.Seq {
		case 5:
			if in.FlowName != "" {
				t.Errorf("an unknown flow is named %q", in.FlowName)
			}
		case 7:
			if want := `{"b": "nul \ufffd and \ufffd and \\u0000 and \ud83d\ude00", "a":1.50}`; string(in.Values) != want {
				t.Errorf("values are %s, want %s", in.Values, want)
			}
		default:
			if in.FlowName != "hot-presses" {
				t.Errorf("the flow of %d is named %q", in.Seq, in.FlowName)
			}
		}
	}
	from := time.UnixMicro(1_700_000_000_000_000)
	for what, c := range map[string]struct {
		f    fleet.InsightFilter
		want int
	}{
		"name":          {fleet.InsightFilter{Name: "cold"}, 1},
		"key":           {fleet.InsightFilter{Key: map[string]string{"machine": "M2"}}, 1},
		"a number key":  {fleet.InsightFilter{Key: map[string]string{"shift": "3"}}, 1},
		"two keys":      {fleet.InsightFilter{Key: map[string]string{"machine": "M1", "shift": "3"}}, 0},
		"flow":          {fleet.InsightFilter{Flow: p.flow.ID}, 24},
		"agent":         {fleet.InsightFilter{Agent: p.agent.id.Agent}, 25},
		"another agent": {fleet.InsightFilter{Agent: p.flow.ID}, 0},
		"from, to":      {fleet.InsightFilter{From: from.Add(10 * time.Second), To: from.Add(12 * time.Second)}, 2},
	} {
		page, err := w.Insights(ctx, p.owner, c.f)
		if err != nil || len(page.Insights) != c.want {
			t.Errorf("%s: %d insights, %v; want %d", what, len(page.Insights), err, c.want)
		}
	}
	names, err := w.InsightNames(ctx, p.owner)
	if err != nil || len(names) != 3 {
		t.Errorf("got %+v, %v", names, err)
	}
	some, err := w.InsightsBySeq(ctx, p.owner, p.agent.id.Agent, 3, 5)
	if err != nil || len(some) != 3 || some[0].Seq != 3 {
		t.Errorf("got %+v, %v", some, err)
	}
	for what, f := range map[string]fleet.InsightFilter{"a cursor": {After: "!"}, "a limit": {Limit: 10_001}, "a flow": {Flow: "x"}} {
		_, err := w.Insights(ctx, p.owner, f)
		wantCode(t, "a bad "+what, err, fleet.Invalid)
	}
}

func TestRunsAndStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	ctx := t.Context()
	r := &wire.RunReport{
		RunId: "00000000-0000-7000-8000-000000000001", FlowId: string(p.flow.ID), Version: 1, Status: "running", Started: 1_700_000_000_000_000,
		RecordsRead: 10, Steps: []*wire.StepCount{{Step: "readings", RowsIn: 10, RowsOut: 4, RowsFailed: 1, RowsLate: 2, RowsOutside: 3}},
		FailedSample: []*wire.FailedRecord{{Step: "readings", Where: "line 3", Reason: "no number\x00", Record: "a;b\xff"}},
	}
	for _, status := range []string{"running", "ok"} {
		r.Status, r.Ended = status, 1_700_000_001_000_000
		if err := w.StoreRun(ctx, p.agent.id, r); err != nil {
			t.Fatal(err)
		}
	}
	runs, err := w.Runs(ctx, p.owner, fleet.RunFilter{Flow: p.flow.ID})
	if err != nil || len(runs) != 1 || runs[0].Status != "ok" || runs[0].FlowName != "hot-presses" || len(runs[0].Steps) != 1 || runs[0].Steps[0] != (fleet.StepCount{Step: "readings", In: 10, Out: 4, Failed: 1, Late: 2, Outside: 3}) || runs[0].Sample[0].Where != "line 3" {
		t.Fatalf("got %+v, %v", runs, err)
	}
	if got, err := w.Run(ctx, p.owner, runs[0].ID); err != nil || got.RecordsRead != 10 {
		t.Errorf("got %+v, %v", got, err)
	}
	// Another agent cannot replace it.
	other := w.agent(t, p.owner)
	r.Status = "failed"
	if err := w.StoreRun(ctx, other.id, r); err != nil {
		t.Fatal(err)
	}
	if got, err := w.Run(ctx, p.owner, runs[0].ID); err != nil || got.Status != "ok" || got.Agent != p.agent.id.Agent {
		t.Errorf("another agent changed the run: %+v, %v", got, err)
	}
	r.Status = "great"
	wantCode(t, "a status that is none", w.StoreRun(ctx, p.agent.id, r), fleet.Invalid)

	st := &wire.Status{
		Time: 1_700_000_000_000_000, DesiredSerial: 2, BundleError: "none\x00",
		Flows: []*wire.FlowStatus{{
			FlowId: string(p.flow.ID), Name: "hot-presses", State: "backing_off", Error: "the broker does not answer",
			Sources: []*wire.SourceStatus{{Step: "readings", State: "failing"}},
		}},
		Outbox: &wire.Outbox{Produced: 5, WaitingRecords: 3},
	}
	if err := w.StoreStatus(ctx, p.agent.id, st); err != nil {
		t.Fatal(err)
	}
	g, err := w.Agent(ctx, p.owner, string(p.agent.id.Agent))
	if err != nil || g.Applied != 2 || g.Status == nil || g.Status.Flows[0].Error == "" || g.Status.Outbox.WaitingRecords != 3 {
		t.Errorf("got %+v, %v", g, err)
	}
}

func TestEventsReachEveryReplica(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	second := newReplica(t, w.db, "replica-2")
	p, rival := w.plant(t, "acme"), w.plant(t, "rival")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	events, err := second.Subscribe(ctx, p.owner)
	if err != nil {
		t.Fatal(err)
	}
	changes, err := second.Changes(ctx, p.agent.id)
	if err != nil {
		t.Fatal(err)
	}
	// What the plant was set up with may arrive only now. Events keep their order, so it is over with the first insight.
	if _, err := w.StoreInsights(ctx, p.agent.id, insights(p.flow.ID, 1, 1)); err != nil {
		t.Fatal(err)
	}
	for e := range events {
		if e.Kind == "insights" {
			break
		}
	}
	select {
	case <-changes:
	default:
	}
	if _, err := w.StoreInsights(ctx, rival.agent.id, insights(rival.flow.ID, 1, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.StoreInsights(ctx, p.agent.id, insights(p.flow.ID, 2, 3)); err != nil {
		t.Fatal(err)
	}
	e, ok := <-events
	if want := (fleet.Event{Tenant: p.owner.Tenant, Kind: "insights", ID: p.agent.id.Agent, FromSeq: 2, ToSeq: 4}); !ok || e != want {
		t.Errorf("got %+v, %v, want %+v", e, ok, want)
	}
	select {
	case <-changes:
		t.Error("insights count as a change of the desired state")
	default:
	}
	if err := w.Undeploy(ctx, p.owner, "hot-presses", nil); err != nil {
		t.Fatal(err)
	}
	if _, ok := <-changes; !ok {
		t.Error("the channel of changes ended")
	}
	for e := range events {
		if e.Tenant != p.owner.Tenant || e.Kind == fleet.DesiredChanged {
			t.Errorf("got %+v", e)
		}
		if e.Kind == "flow" {
			break
		}
	}
	if err := w.RevokeAgent(ctx, p.owner, "press-pc"); err != nil {
		t.Fatal(err)
	}
	if _, ok := <-changes; !ok {
		t.Error("the channel of changes ended")
	}
	cancel()
	for range events { // it drains: the test is that it ends
	}
	for range changes { // it drains: the test is that it ends
	}
}
