package fleet_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/protocol/wire"
)

// refused reads what was refused of an agent, past every protection, by sequence.
func (w *world) refused(t *testing.T, agent fleet.ID) (out []fleet.RefusedInsight) {
	t.Helper()
	c, err := sql.Open("pgx", w.db.SuperURL())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the statement is done
	rows, err := c.QueryContext(t.Context(), "SELECT seq, reason, record FROM refused_insights WHERE agent_id = $1::text::uuid ORDER BY seq", string(agent))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // Err says what matters
	for rows.Next() {
		var r fleet.RefusedInsight
		if err := rows.Scan(&r.Seq, &r.Reason, &r.Record); err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// counts gives what the API says of the agent's lost and refused insights.
func (w *world) counts(t *testing.T, p *plant) (lost, refused int64) {
	t.Helper()
	g, err := w.Agent(t.Context(), p.owner, string(p.agent.id.Agent))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range g.Receipts {
		lost += n
	}
	return lost, g.RefusedInsights
}

func nested(depth int) []byte {
	return []byte(strings.Repeat(`{"a":`, depth-1) + "{}" + strings.Repeat("}", depth-1))
}

func TestWhatCannotBeStoredHoldsUpNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	ctx, id := t.Context(), p.agent.id
	good := func() *wire.InsightRecord { return insights(p.flow.ID, 1, 1).GetInsights()[0] }
	changed := func(change func(r *wire.InsightRecord)) *wire.InsightRecord {
		r := good()
		change(r)
		return r
	}
	// Each is followed by a good one.
	odd := []struct {
		what   string
		record *wire.InsightRecord
		// reason is what the refusal says; empty for what is stored.
		reason string
		stored bool
	}{
		{"nothing at all", &wire.InsightRecord{}, "no UUID", false},
		{"no flow id", changed(func(r *wire.InsightRecord) { r.FlowId = "" }), "no UUID", false},
		{"a flow id that is none", changed(func(r *wire.InsightRecord) { r.FlowId = "x'\x00" }), "no UUID", false},
		{"no name", changed(func(r *wire.InsightRecord) { r.Name = "" }), "no name", false},
		{"a key that is an array", changed(func(r *wire.InsightRecord) { r.KeyJson = []byte("[]") }), "key is no JSON object", false},
		{"no key", changed(func(r *wire.InsightRecord) { r.KeyJson = nil }), "key is no JSON object", false},
		{"values that are cut off", changed(func(r *wire.InsightRecord) { r.ValuesJson = []byte(`{"a":`) }), "values are no JSON object", false},
		{"too large", changed(func(r *wire.InsightRecord) { r.ValuesJson = []byte(`{"a":"` + strings.Repeat("x", 4<<20) + `"}`) }), "at most 4194304", false},
		{"large", changed(func(r *wire.InsightRecord) { r.ValuesJson = []byte(`{"a":"` + strings.Repeat("x", 4<<20-1000) + `"}`) }), "", true},
		{"too deep", changed(func(r *wire.InsightRecord) { r.ValuesJson = nested(501) }), "deeper than 500", false},
		{"far too deep", changed(func(r *wire.InsightRecord) { r.KeyJson = nested(9000) }), "deeper than 500", false},
		{"deep", changed(func(r *wire.InsightRecord) { r.KeyJson, r.ValuesJson = nested(500), nested(500) }), "", true},
		{"brackets in a text", changed(func(r *wire.InsightRecord) {
			r.ValuesJson = []byte(`{"a":"\\\"` + strings.Repeat("[", 600) + `"}`)
		}), "", true},
		{"what PostgreSQL cannot read", changed(func(r *wire.InsightRecord) {
			r.Name, r.ValuesJson = "a\x00b", []byte(`{"a":"\u0000\ud800","n":1e999999}`)
		}), "", true},
		{"a time outside the calendar", changed(func(r *wire.InsightRecord) { r.Time = -1 << 63 }), "", true},
	}
	up := &wire.InsightsUp{FirstSeq: 1}
	for _, o := range odd {
		up.Insights = append(up.Insights, o.record, good())
	}
	total := len(up.Insights)
	if stored, err := w.StoreInsights(ctx, id, up); err != nil || stored != uint64(total) {
		t.Fatalf("stored up to %d, %v", stored, err)
	}
	// Again changes nothing, not even the counts.
	if stored, err := w.StoreInsights(ctx, id, up); err != nil || stored != uint64(total) {
		t.Fatalf("stored up to %d, %v", stored, err)
	}
	in, err := w.InsightsBySeq(ctx, p.owner, id.Agent, 1, int64(total))
	if err != nil {
		t.Fatal(err)
	}
	there := map[int64]bool{}
	for i := range in {
		there[in[i].Seq] = true
	}
	set := map[int64]fleet.RefusedInsight{}
	for _, r := range w.refused(t, id.Agent) {
		set[r.Seq] = r
	}
	var refused int64
	for i, o := range odd {
		seq := int64(2*i + 1)
		r, isSet := set[seq]
		if there[seq] != o.stored || !there[seq+1] || isSet != (o.reason != "") || !strings.Contains(r.Reason, o.reason) {
			t.Errorf("%s: stored %v, the one after it %v, refused %v because %q", o.what, there[seq], there[seq+1], isSet, r.Reason)
		}
		if !isSet {
			continue
		}
		refused++
		whole, err := proto.Marshal(o.record)
		if err != nil {
			t.Fatal(err)
		}
		if string(r.Record) != string(whole[:min(len(whole), 64<<10)]) {
			t.Errorf("%s: %d bytes of the record are kept, of %d", o.what, len(r.Record), len(whole))
		}
	}
	if lost, r := w.counts(t, p); lost != 0 || r != refused {
		t.Errorf("%d are counted as lost and %d as refused, want 0 and %d", lost, r, refused)
	}
	if stored := w.connect(t, p.agent); stored != uint64(total) {
		t.Errorf("the next session begins at %d, want %d", stored, total)
	}
}

// until gives the kinds of the events that come before that of a run.
func until(t *testing.T, events <-chan fleet.Event, run fleet.ID) (kinds []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		select {
		case e := <-events:
			if e.ID == run {
				return kinds
			}
			kinds = append(kinds, e.Kind)
		case <-ctx.Done():
			t.Fatalf("no event of the run %s came, only %v", run, kinds)
		}
	}
}

// A delivery in which nothing can be stored advances the sequence too, and tells of the agent only.
func TestADeliveryOfNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	events, err := w.Subscribe(t.Context(), p.owner)
	if err != nil {
		t.Fatal(err)
	}
	// Events come in the order of their changes, so a run before and one after are marks between them.
	mark := func(n int) fleet.ID {
		id := fmt.Sprintf("00000000-0000-7000-8000-%012d", n)
		if err := w.StoreRun(t.Context(), p.agent.id, &wire.RunReport{RunId: id, FlowId: string(p.flow.ID), Status: "ok", Started: 1}); err != nil {
			t.Fatal(err)
		}
		return fleet.ID(id)
	}
	until(t, events, mark(1))
	up := &wire.InsightsUp{
		FirstSeq: 2, Receipts: []*wire.Receipt{{Count: 1, Reason: wire.ReceiptDamaged}}, Insights: []*wire.InsightRecord{{Name: "n"}},
	}
	if stored, err := w.StoreInsights(t.Context(), p.agent.id, up); err != nil || stored != 2 {
		t.Fatalf("stored up to %d, %v", stored, err)
	}
	if kinds := until(t, events, mark(2)); fmt.Sprint(kinds) != "[agent]" {
		t.Errorf("the events are %v, want one of the agent", kinds)
	}
	if lost, refused := w.counts(t, p); lost != 1 || refused != 1 {
		t.Errorf("%d lost, %d refused", lost, refused)
	}
}

func TestTheNewestRefusedInsightsAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, other := w.plant(t, "acme"), w.plant(t, "rival")
	ctx := t.Context()
	bad := func(first, n int) *wire.InsightsUp {
		up := &wire.InsightsUp{FirstSeq: uint64(first)} //nolint:gosec // small
		for i := range n {
			up.Insights = append(up.Insights, &wire.InsightRecord{FlowId: fmt.Sprint("bad ", first+i)})
		}
		return up
	}
	for _, d := range []struct {
		at    *plant
		first int
		n     int
	}{{other, 1, 3}, {p, 1, 600}, {p, 601, 1200}, {p, 1801, 1}, {other, 4, 1}} {
		if _, err := w.StoreInsights(ctx, d.at.agent.id, bad(d.first, d.n)); err != nil {
			t.Fatal(err)
		}
	}
	kept := w.refused(t, p.agent.id.Agent)
	if len(kept) != 1000 || kept[0].Seq != 802 || kept[999].Seq != 1801 || !strings.Contains(kept[0].Reason, "bad 802") {
		t.Errorf("%d are kept, want those from 802 to 1801", len(kept))
	}
	if _, refused := w.counts(t, p); refused != 1801 {
		t.Errorf("%d are counted", refused)
	}
	if n := len(w.refused(t, other.agent.id.Agent)); n != 4 {
		t.Errorf("%d of the other agent are kept, want 4", n)
	}
}

// After a restore of the database the agent no longer has what came after the backup. It says so, once.
func TestWhatARestoreHasLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	ctx, id := t.Context(), p.agent.id
	store := func(first uint64, n int, restored uint64) (uint64, error) {
		up := insights(p.flow.ID, first, n)
		if restored > 0 {
			up.Receipts = []*wire.Receipt{{Count: restored, Reason: wire.ReceiptRestored}}
		}
		return w.StoreInsights(ctx, id, up)
	}
	if stored, err := store(1, 10, 0); err != nil || stored != 10 {
		t.Fatalf("stored up to %d, %v", stored, err)
	}
	super(t, w.db, "DELETE FROM insights WHERE seq > 4 AND tenant_id::text = $1", string(p.owner.Tenant))
	super(t, w.db, "UPDATE agents SET stored_seq = 4 WHERE tenant_id::text = $1", string(p.owner.Tenant))
	if stored := w.connect(t, p.agent); stored != 4 {
		t.Fatalf("the session begins at %d", stored)
	}
	for what, c := range map[string]struct {
		restored uint64
		code     fleet.Code
	}{"says nothing": {0, fleet.Conflict}, "is short": {5, fleet.Conflict}, "is longer than all": {11, fleet.Invalid}, "wraps around": {1<<64 - 1, fleet.Invalid}} {
		_, err := store(11, 2, c.restored)
		wantCode(t, "a gap that "+what, err, c.code)
	}
	if lost, _ := w.counts(t, p); lost != 0 {
		t.Errorf("%d are counted as lost before any was accepted", lost)
	}
	// A receipt reaches back into what is stored, which counts for nothing, as all of it does the second time.
	for _, d := range []struct{ first, restored, want uint64 }{{11, 8, 12}, {11, 6, 12}, {13, 0, 14}} {
		if stored, err := store(d.first, 2, d.restored); err != nil || stored != d.want {
			t.Fatalf("from %d: stored up to %d, %v", d.first, stored, err)
		}
	}
	_, err := store(16, 1, 0)
	wantCode(t, "another gap", err, fleet.Conflict)
	if lost, refused := w.counts(t, p); lost != 6 || refused != 0 {
		t.Errorf("%d are counted as lost, want 6, and %d as refused", lost, refused)
	}
	in, err := w.InsightsBySeq(ctx, p.owner, id.Agent, 1, 100)
	if err != nil || len(in) != 8 || in[4].Seq != 11 {
		t.Errorf("%d insights are stored, %v", len(in), err)
	}
	log, err := w.Audit(ctx, p.owner, 0)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range log {
		if e.Action == "agent.insights_lost" {
			found = append(found, fmt.Sprint(e.ActorKind, " ", e.ObjectName, " ", e.Detail))
		}
	}
	if want := `[agent press-pc {"from":5,"insights":6,"reasons":{"restored":6},"to":10}]`; fmt.Sprint(found) != want {
		t.Errorf("the audit log has %s, want %s", found, want)
	}
	if rep, err := w.VerifyAudit(ctx, p.owner); err != nil || rep.Broken != "" {
		t.Errorf("got %+v, %v", rep, err)
	}
}
