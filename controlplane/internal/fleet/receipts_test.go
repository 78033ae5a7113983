package fleet_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/protocol/wire"
)

// seedOf gives the seed of a random test, which OUTFEED_TEST_SEED repeats.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("OUTFEED_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("OUTFEED_TEST_SEED=%d", seed)
	return seed
}

// books reads the whole account of an agent in one statement, so of one moment, past every protection.
type books struct{ stored, refused, receipts, last int64 }

func (w *world) books(t *testing.T, c *sql.DB, agent fleet.ID) (b books) {
	t.Helper()
	row := c.QueryRowContext(t.Context(), `
		SELECT (SELECT count(*) FROM insights i WHERE i.tenant_id = a.tenant_id AND i.agent_id = a.id AND i.seq <= a.stored_seq), a.refused_insights,
			(SELECT coalesce(sum(r.insights), 0) FROM insight_receipts r WHERE r.tenant_id = a.tenant_id AND r.agent_id = a.id), a.stored_seq
		FROM agents a WHERE a.id::text = $1`, string(agent))
	if err := row.Scan(&b.stored, &b.refused, &b.receipts, &b.last); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b books) balance() bool { return b.stored+b.refused+b.receipts == b.last }

// outbox is what an agent has: per sequence "" for an insight, "refused" for one that is none, or the reason of a receipt.
type outbox []string

// newOutbox mixes runs of all kinds.
func newOutbox(rnd *rand.Rand, n int) outbox {
	kinds := []string{"", "", "", "refused", wire.ReceiptDamaged, wire.ReceiptExpiredAge, wire.ReceiptExpiredBytes, wire.ReceiptUnsendable, wire.ReceiptRestored}
	var o outbox
	for len(o) < n {
		kind := kinds[rnd.IntN(len(kinds))]
		for run := 1 + rnd.IntN(12); run > 0 && len(o) < n; run-- {
			o = append(o, kind)
		}
	}
	return o
}

// message is what the agent would send behind the sequence, of at most so many.
func (o outbox) message(flow fleet.ID, after, most int) *wire.InsightsUp {
	up := &wire.InsightsUp{}
	at, end := after, min(len(o), after+most)
	for ; at < end && o[at] != "" && o[at] != "refused"; at++ {
		up.Receipts = append(up.Receipts, &wire.Receipt{Count: 1, Reason: o[at]})
	}
	up.FirstSeq = uint64(at) + 1 //nolint:gosec // an index
	for ; at < end && (o[at] == "" || o[at] == "refused"); at++ {
		r := insights(flow, up.GetFirstSeq()+uint64(len(up.GetInsights())), 1).GetInsights()[0]
		if o[at] == "refused" {
			r.Name = ""
		}
		up.Insights = append(up.Insights, r)
	}
	return up
}

// Whatever is cut, sent again, or sent by two sessions at once: each sequence is counted in one place, at every moment.
func TestTheBooksBalance(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(seedOf(t), 0)) //nolint:gosec // a test's choices
	w := newWorld(t)
	second := newReplica(t, w.db, "replica-2")
	p := w.plant(t, "acme")
	id := p.agent.id
	c, err := sql.Open("pgx", w.db.SuperURL())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // the statements are done
	o := newOutbox(rnd, 1500)
	cuts, conflicts := 0, 0
	for step := 0; ; step++ {
		before := w.books(t, c, id.Agent)
		if !before.balance() {
			t.Fatalf("after %d steps the books say %+v", step, before)
		}
		if before.last == int64(len(o)) {
			t.Logf("%d steps, %d of them cut, %d ahead of what is stored: %+v", step, cuts, conflicts, before)
			break
		}
		var senders sync.WaitGroup
		// The second session may be behind, because it knows only of an earlier end, or ahead.
		for _, at := range []int{0, rnd.IntN(41) - 30} {
			from := min(max(0, int(before.last)+at), len(o)-1)
			up := o.message(p.flow.ID, from, 1+rnd.IntN(40))
			ctx, cut := context.WithCancel(t.Context())
			if rnd.IntN(3) == 0 {
				cuts++
				time.AfterFunc(time.Duration(rnd.IntN(4000))*time.Microsecond, cut)
			}
			service := []*world{w, second}[rnd.IntN(2)]
			senders.Go(func() {
				defer cut()
				_, err := service.StoreInsights(ctx, id, up)
				if err != nil && ctx.Err() == nil && (at <= 0 || fleet.CodeOf(err) != fleet.Conflict) {
					t.Errorf("insights from %d on: %v", up.GetFirstSeq(), err)
				}
			})
			if at > 0 {
				conflicts++
			}
		}
		senders.Wait()
	}
	w.checkBooks(t, p, o)
}

// ranges are the runs of what does not come, the newest first.
func (o outbox) ranges() (out []string) {
	for at := 0; at < len(o); {
		first := at
		for at < len(o) && o[at] == o[first] {
			at++
		}
		if o[first] != "" && o[first] != "refused" {
			out = append(out, fmt.Sprintf("%d to %d %s", first+1, at, o[first]))
		}
	}
	slices.Reverse(out)
	return out
}

// missing reads the ranges that are told to be missing, in pages.
func (w *world) missing(t *testing.T, owner fleet.Actor, agent fleet.ID, page int) (out []string) {
	t.Helper()
	began := time.Now().Add(time.Minute)
	for after, more := "", true; more; {
		p, err := w.MissingInsights(t.Context(), owner, fleet.RefusedFilter{Agent: agent, Limit: page, After: after})
		if err != nil || len(p.Missing) > page {
			t.Fatalf("a page of %d, %v", len(p.Missing), err)
		}
		for _, m := range p.Missing {
			if m.FirstAt.After(m.LastAt) || m.LastAt.After(began) || m.FirstAt.IsZero() {
				t.Errorf("%d to %d were told from %s to %s", m.First, m.Last, m.FirstAt, m.LastAt)
			}
			began = m.LastAt
			out = append(out, fmt.Sprintf("%d to %d %s", m.First, m.Last, m.Reason))
		}
		after, more = p.Next, p.Next != ""
	}
	return out
}

// checkBooks compares what the control plane tells with what the agent had.
func (w *world) checkBooks(t *testing.T, p *plant, o outbox) {
	t.Helper()
	want, receipts := map[string]int64{}, map[string]int64{}
	for _, kind := range o {
		if want[kind]++; kind != "" && kind != "refused" {
			receipts[kind]++
		}
	}
	g, err := w.Agent(t.Context(), p.owner, string(p.agent.id.Agent))
	if err != nil {
		t.Fatal(err)
	}
	if g.StoredInsights() != want[""] || g.RefusedInsights != want["refused"] || fmt.Sprint(g.Receipts) != fmt.Sprint(receipts) {
		t.Errorf("the agent has %d stored, %d refused and the receipts %v, want %v", g.StoredInsights(), g.RefusedInsights, g.Receipts, want)
	}
	// The next session tells the agent which of them are lost on its machine.
	begun, err := w.hello(t, p.agent)
	if lost := want[wire.ReceiptDamaged] + want[wire.ReceiptUnsendable]; err != nil || begun.Stored != uint64(len(o)) || int64(begun.Lost) != lost { //nolint:gosec // some hundreds
		t.Errorf("a session is told %+v, %v, and %d are lost", begun, err, lost)
	}
	// Of two sessions the one that is told later may have begun earlier, so the order may differ from the sequence's.
	got, ranges := w.missing(t, p.owner, p.agent.id.Agent, 7), o.ranges()
	slices.Sort(got)
	slices.Sort(ranges)
	if !slices.Equal(got, ranges) {
		t.Errorf("missing are %v, want %v", got, ranges)
	}
	in, err := w.InsightsBySeq(t.Context(), p.owner, p.agent.id.Agent, 1, int64(len(o)))
	if err != nil || int64(len(in)) != want[""] {
		t.Fatalf("%d insights are stored, %v", len(in), err)
	}
	for i := range in {
		if kind := o[in[i].Seq-1]; kind != "" {
			t.Fatalf("insight %d is stored, which is %s", in[i].Seq, kind)
		}
	}
}

// guarded makes the database refuse insights by a rule of its own.
func guarded(t *testing.T, w *world, condition, code string) (lift func()) {
	t.Helper()
	c, err := sql.Open("pgx", w.db.SuperURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	run := func(statement string) {
		if _, err := c.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	run(`CREATE OR REPLACE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF ` + condition + ` THEN RAISE EXCEPTION 'the machine % is not in the register', NEW.key_json ->> 'machine' USING ERRCODE = '` + code + `'; END IF;
			RETURN NEW;
		END $$`)
	run("CREATE TRIGGER guard BEFORE INSERT ON insights FOR EACH ROW EXECUTE FUNCTION guard()")
	return func() { run("DROP TRIGGER guard ON insights") }
}

// An insight at which the database fails for a reason that nobody foresaw is found and set aside; the rest flows.
func TestOneInsightThatTheDatabaseNeverTakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	guarded(t, w, "NEW.key_json ->> 'machine' = 'M13'", "XX000")
	up := insights(p.flow.ID, 4, 300)
	up.Receipts = []*wire.Receipt{{Count: 3, Reason: wire.ReceiptDamaged}}
	bad := map[int64]bool{4: true, 105: true, 106: true, 303: true}
	for seq := range bad {
		up.Insights[seq-4].KeyJson = []byte(`{"machine":"M13"}`)
	}
	for range 2 {
		if stored, err := w.StoreInsights(t.Context(), p.agent.id, up); err != nil || stored != 303 {
			t.Fatalf("stored up to %d, %v", stored, err)
		}
	}
	g, err := w.Agent(t.Context(), p.owner, "press-pc")
	if err != nil || g.StoredInsights() != 296 || g.RefusedInsights != 4 || fmt.Sprint(g.Receipts) != "map[damaged:3]" {
		t.Errorf("%d are stored, %d refused, receipts %v, %v", g.StoredInsights(), g.RefusedInsights, g.Receipts, err)
	}
	var refused []fleet.RefusedInsight
	for after, more := "", true; more; {
		page, err := w.RefusedInsights(t.Context(), p.owner, fleet.RefusedFilter{Agent: p.agent.id.Agent, Limit: 3, After: after})
		if err != nil {
			t.Fatal(err)
		}
		refused = append(refused, page.Refused...)
		after, more = page.Next, page.Next != ""
	}
	if len(refused) != 4 {
		t.Fatalf("%d are listed as refused", len(refused))
	}
	for i := range refused {
		r := &refused[i]
		in := r.Read()
		if !bad[r.Seq] || !strings.Contains(r.Reason, "the machine M13 is not in the register") || in.Name != "hot" || in.Flow != p.flow.ID ||
			in.Agent != p.agent.id.Agent || in.Received.IsZero() || i > 0 && r.Received.After(refused[i-1].Received) {
			t.Errorf("insight %d was refused because %q; it reads as %+v", r.Seq, r.Reason, in)
		}
		delete(bad, r.Seq)
	}
	other := w.plant(t, "rival")
	if page, err := w.RefusedInsights(t.Context(), other.owner, fleet.RefusedFilter{}); err != nil || len(page.Refused) != 0 {
		t.Errorf("another tenant sees %d of them, %v", len(page.Refused), err)
	}
}

// Where the database takes nothing at all, no insight is to blame: all wait.
func TestADatabaseThatTakesNothingBlamesNoInsight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	lift := guarded(t, w, "true", "23514")
	up := insights(p.flow.ID, 1, 20)
	_, err := w.StoreInsights(t.Context(), p.agent.id, up)
	wantCode(t, "a database that takes nothing", err, fleet.Internal)
	if _, refused := w.counts(t, p); refused != 0 || w.connect(t, p.agent) != 0 {
		t.Errorf("%d are refused", refused)
	}
	lift()
	if stored, err := w.StoreInsights(t.Context(), p.agent.id, up); err != nil || stored != 20 {
		t.Errorf("stored up to %d, %v", stored, err)
	}
}

// Of the ranges the newest are kept, also of one message with more than that; the counts know them all.
func TestTheNewestMissingRangesAreKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	up := &wire.InsightsUp{FirstSeq: 1}
	for i := range 2400 {
		up.Receipts = append(up.Receipts, &wire.Receipt{Count: 2, Reason: []string{wire.ReceiptDamaged, wire.ReceiptExpiredAge}[i%2]})
		up.FirstSeq += 2
	}
	for _, part := range []int{3, 1200, 2400} {
		last := 2 * uint64(part) //nolint:gosec // small
		now := &wire.InsightsUp{FirstSeq: 1 + last, Receipts: up.GetReceipts()[:part]}
		if stored, err := w.StoreInsights(t.Context(), p.agent.id, now); err != nil || stored != last {
			t.Fatalf("stored up to %d, %v", stored, err)
		}
	}
	got := w.missing(t, p.owner, p.agent.id.Agent, 200)
	if len(got) != 1000 || got[0] != "4799 to 4800 expired_age" || got[999] != "2801 to 2802 damaged" {
		t.Errorf("%d are kept: %q", len(got), got)
	}
	g, err := w.Agent(t.Context(), p.owner, "press-pc")
	if err != nil || fmt.Sprint(g.Receipts) != "map[damaged:2400 expired_age:2400]" {
		t.Errorf("the receipts are %v, %v", g.Receipts, err)
	}
}

// What an agent tells of damaged files is kept, within bounds.
func TestDamagedFilesAreTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	at := time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC)
	st := &wire.Status{Outbox: &wire.Outbox{DamagedFiles: 200, Salvaged: 40}}
	for range 200 {
		st.Outbox.Damage = append(st.Outbox.Damage, &wire.DamagedFile{
			File: "state.db.corrupt\x00", At: at.UnixMicro(), Reason: "page 3: it is no page", Salvaged: 3, Lost: 4,
			SetBack: []string{"a"}, StartedAnew: []string{"b", "c"},
		})
	}
	if err := w.StoreStatus(t.Context(), p.agent.id, st); err != nil {
		t.Fatal(err)
	}
	g, err := w.Agent(t.Context(), p.owner, "press-pc")
	if err != nil {
		t.Fatal(err)
	}
	o := &g.Status.Outbox
	if o.DamagedFiles != 200 || o.Salvaged != 40 || len(o.Damage) != 100 {
		t.Fatalf("%d damaged files, %d salvaged, %d listed", o.DamagedFiles, o.Salvaged, len(o.Damage))
	}
	d := o.Damage[99]
	if !d.At.Equal(at) || d.Reason != "page 3: it is no page" || d.Salvaged != 3 || d.Lost != 4 || strings.Contains(d.File, "\x00") ||
		fmt.Sprint(d.SetBack, d.StartedAnew) != "[a] [b c]" {
		t.Errorf("a damaged file is told as %+v", d)
	}
}

// What a newer agent gives as a reason is counted all the same, and the numbers of a hostile one are refused.
func TestOddReceipts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.plant(t, "acme")
	up := &wire.InsightsUp{FirstSeq: 10, Receipts: []*wire.Receipt{{Count: 4, Reason: "eaten\x00"}, {}, {Count: 5}}}
	if stored, err := w.StoreInsights(t.Context(), p.agent.id, up); err != nil || stored != 9 {
		t.Fatalf("stored up to %d, %v", stored, err)
	}
	for _, counts := range [][]uint64{{12}, {1 << 63, 1 << 63}, {11, 1<<64 - 1}} {
		up := insights(p.flow.ID, 12, 1)
		for _, n := range counts {
			up.Receipts = append(up.Receipts, &wire.Receipt{Count: n})
		}
		_, err := w.StoreInsights(t.Context(), p.agent.id, up)
		wantCode(t, fmt.Sprint("receipts for ", counts), err, fleet.Invalid)
	}
	g, err := w.Agent(t.Context(), p.owner, "press-pc")
	if err != nil || fmt.Sprint(g.Receipts) != "map[other:9]" {
		t.Errorf("the receipts are %v, %v", g.Receipts, err)
	}
	if got := w.missing(t, p.owner, "", 50); fmt.Sprint(got) != "[1 to 9 other]" {
		t.Errorf("missing are %q", got)
	}
	other := w.plant(t, "rival")
	if got := w.missing(t, other.owner, "", 50); len(got) != 0 {
		t.Errorf("another tenant sees %q", got)
	}
	viewer := p.owner
	viewer.Role = ""
	_, err = w.MissingInsights(t.Context(), viewer, fleet.RefusedFilter{})
	wantCode(t, "somebody without a role lists what is missing", err, fleet.Forbidden)
}
