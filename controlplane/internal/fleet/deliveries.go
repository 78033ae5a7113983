package fleet

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/outfeed/outfeed/protocol/wire"
)

// The bounds of what an agent may say. Longer texts are cut, longer lists refused.
const (
	longestText  = 4096
	mostFlows    = 1000
	mostSteps    = 1000
	mostSamples  = 100
	mostDamaged  = 100
	mostSetAside = 20
	mostOpenRuns = 2 * mostFlows
	longestEntry = 200
)

// timeOf reads microseconds since 1970. What lies outside the years 1 to 9999, which neither RFC 3339 nor people can
// write, becomes the nearest time inside: a plant's wild clock must not hold up what comes after it.
func timeOf(micros int64) time.Time {
	lowest := time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC).UnixMicro()
	highest := time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC).UnixMicro()
	return time.UnixMicro(min(max(micros, lowest), highest)).UTC()
}

// maybeTime is timeOf where 0 means never.
func maybeTime(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return timeOf(micros)
}

// StoreStatus keeps an agent's newest status, and ends the runs that it shows to be over.
func (s *Service) StoreStatus(ctx context.Context, id AgentIdentity, w *wire.Status) error {
	if len(w.GetFlows()) > mostFlows {
		return fail(Invalid, "the agent reports on %d flows; at most %d are read", len(w.GetFlows()), mostFlows)
	}
	open, err := openRuns(w.GetOpenRuns())
	if err != nil {
		return err
	}
	st := statusOf(w)
	applied := int64(min(w.GetDesiredSerial(), math.MaxInt64))
	var skew *int64
	if w.GetTime() != 0 {
		skew = new(skewOf(w.GetTime()))
	}
	return s.write(ctx, id.Tenant, func(ctx context.Context, tx Tx) error {
		if st.Outbox.Unknown {
			before, err := tx.AgentByRef(ctx, id.Workspace, string(id.Agent))
			if err != nil && !errors.Is(err, ErrNoRow) {
				return err
			}
			st.Outbox.keepNumbers(before.Status)
		}
		running, err := tx.SaveStatus(ctx, id, applied, skew, st)
		if errors.Is(err, ErrNoRow) {
			return whyOut(ctx, tx, id.Agent)
		}
		if err == nil && running && w.GetOpenRuns() != nil {
			err = endRuns(ctx, tx, id, Ending{Open: open, At: st.Time, Why: unreported})
		}
		if err != nil {
			return err
		}
		return tx.Notify(ctx, Notice{Event: Event{Kind: "agent", ID: id.Agent}, Workspace: id.Workspace})
	})
}

func statusOf(w *wire.Status) AgentStatus {
	st := AgentStatus{
		Time: timeOf(w.GetTime()), BundleError: clean(w.GetBundleError(), longestText), Flows: []FlowStatus{},
		Outbox: outboxOf(w.GetOutbox()),
	}
	for _, f := range w.GetFlows() {
		fs := FlowStatus{
			Deployment: ID(clean(f.GetDeploymentId(), longestEntry)), Flow: ID(clean(f.GetFlowId(), longestEntry)), Name: clean(f.GetName(), longestEntry),
			Version: int(min(f.GetVersion(), math.MaxInt32)), SetBackFrom: int(min(f.GetSetBackFrom(), math.MaxInt32)), State: clean(f.GetState(), longestEntry), Error: clean(f.GetError(), longestText),
			Since: timeOf(f.GetSince()), Sources: []SourceStatus{},
		}
		for _, src := range f.GetSources()[:min(len(f.GetSources()), mostSteps)] {
			fs.Sources = append(fs.Sources, SourceStatus{
				Step: clean(src.GetStep(), longestEntry), Connection: clean(src.GetConnection(), longestEntry), State: clean(src.GetState(), longestEntry),
				Error: clean(src.GetError(), longestText), LastRecord: maybeTime(src.GetLastRecord()),
			})
		}
		st.Flows = append(st.Flows, fs)
	}
	return st
}

// keepNumbers takes the numbers that the agent cannot read now from what it said before; nil for nothing.
func (o *OutboxStatus) keepNumbers(before *AgentStatus) {
	if before == nil {
		return
	}
	now := *o
	*o = before.Outbox
	if !o.Unknown {
		o.CountedAt = before.Time
	}
	o.Unknown, o.Degraded, o.Blocked, o.BlockedBy, o.SetAside = true, now.Degraded, now.Blocked, now.BlockedBy, now.SetAside
	o.RoomBytes, o.RunwaySeconds = now.RoomBytes, now.RunwaySeconds
}

func outboxOf(o *wire.Outbox) OutboxStatus {
	if o == nil {
		return OutboxStatus{RunwaySeconds: -1}
	}
	out := OutboxStatus{
		Produced: o.GetProduced(), Sent: o.GetSent(), Acknowledged: o.GetAcknowledged(),
		WaitingRecords: o.GetWaitingRecords(), WaitingBytes: o.GetWaitingBytes(),
		RoomBytes: o.GetRoomBytes(), RunwaySeconds: max(o.GetRunwaySeconds(), -1),
		Late: o.GetLate(), Lost: o.GetLost(), LostRemotely: o.GetLostRemotely(),
		Unknown: o.GetUnknown(), Degraded: clean(o.GetDegraded(), longestText), Blocked: o.GetBlocked(), BlockedBy: clean(o.GetBlockedBy(), longestText),
		DamagedFiles: o.GetDamagedFiles(), Salvaged: o.GetSalvaged(),
	}
	for _, d := range o.GetDamage()[:min(len(o.GetDamage()), mostDamaged)] {
		out.Damage = append(out.Damage, DamagedFile{
			File: clean(d.GetFile(), longestEntry), At: timeOf(d.GetAt()), Reason: clean(d.GetReason(), longestText),
			Salvaged: d.GetSalvaged(), Lost: d.GetLost(), StartedAnew: deploymentIDs(d.GetStartedAnew()), SetBack: deploymentIDs(d.GetSetBack()),
		})
	}
	for _, a := range o.GetSetAside()[:min(len(o.GetSetAside()), mostSetAside)] {
		out.SetAside = append(out.SetAside, SetAside{
			Dir: clean(a.GetDir(), longestEntry), Agent: ID(clean(a.GetAgentId(), shortID)), Waiting: max(a.GetWaiting(), -1),
		})
	}
	for rule, n := range o.GetExpired() {
		if out.Expired == nil {
			out.Expired = map[string]uint64{}
		}
		out.Expired[receiptReason(rule)] += n
	}
	return out
}

// deploymentIDs are the ids of an agent's deployments; those that are none any more may be among them.
func deploymentIDs(of []string) (ids []ID) {
	for _, id := range of[:min(len(of), mostFlows)] {
		ids = append(ids, ID(clean(id, longestEntry)))
	}
	return ids
}

// unreported is what is said of a run whose agent was killed, or lost its power, before it could say how it went; revokedInRun of
// one whose agent may say nothing any more.
const (
	unreported = "The agent ended in the middle of this run, or could not keep the report of its end, so how far it came is not known. The " +
		"next run goes on behind the last commit; no insight is lost or doubled."
	revokedInRun = "The agent was revoked in the middle of this run, so what became of it is not known."
)

// endRuns ends the runs of an agent that are told as running and are not open.
//
// What is over is known without a clock, from the order of what an agent says. A status names every run of which the agent has
// more to tell: those under way from before their first report on, and all whose reports are not acknowledged. Reports and
// statuses come on one stream in the order in which they were made, and a session that another has followed ends nothing. So a
// run that is told as running when a status comes that does not name it was reported by a process that is gone, or its end could
// not be kept. When the report of such a run comes late, out of the outbox of the process before, the run is named until that is
// acknowledged, and ended by the next status.
// An agent that does not come back leaves its runs as they are until it is revoked: for all that is known they go on.
func endRuns(ctx context.Context, tx Tx, id AgentIdentity, e Ending) error {
	over, err := tx.EndRuns(ctx, id.Agent, e)
	if err != nil {
		return err
	}
	for _, run := range over {
		if err := tx.Notify(ctx, Notice{Event: Event{Kind: "run", ID: run}, Workspace: id.Workspace}); err != nil {
			return err
		}
	}
	return nil
}

// openRuns are the runs that a status says are not over.
func openRuns(w *wire.OpenRuns) ([]ID, error) {
	named := w.GetRunIds()
	if len(named) > mostOpenRuns {
		return nil, fail(Invalid, "the agent names %d runs that are not over; at most %d are read", len(named), mostOpenRuns)
	}
	ids := make([]ID, 0, len(named))
	for _, id := range named {
		if isID(ID(id)) { // no run has another
			ids = append(ids, ID(id))
		}
	}
	return ids, nil
}

// StoreRun stores a run report.
func (s *Service) StoreRun(ctx context.Context, id AgentIdentity, w *wire.RunReport) error {
	r, err := runOf(id.Agent, w)
	if err != nil {
		return err
	}
	return s.write(ctx, id.Tenant, func(ctx context.Context, tx Tx) error {
		if _, err := agentState(tx.AgentState(ctx, id.Agent)); err != nil {
			return err
		}
		if err := tx.StoreRun(ctx, id.Workspace, r); err != nil {
			return err
		}
		return tx.Notify(ctx, Notice{Event: Event{Kind: "run", ID: r.ID}, Workspace: id.Workspace})
	})
}

func runOf(agent ID, w *wire.RunReport) (Run, error) {
	number := func(n uint64) int64 { return int64(min(n, math.MaxInt64)) }
	r := Run{
		ID: ID(w.GetRunId()), Agent: agent, Flow: ID(w.GetFlowId()), Version: int(min(w.GetVersion(), math.MaxInt32)), Status: w.GetStatus(),
		Started: timeOf(w.GetStarted()), Ended: maybeTime(w.GetEnded()), RecordsRead: number(w.GetRecordsRead()), BytesRead: number(w.GetBytesRead()),
		Failed: number(w.GetRecordsFailed()), Late: number(w.GetRecordsLate()), Insights: number(w.GetInsights()),
		Error: clean(w.GetError(), longestText), Steps: []StepCount{}, Sample: []FailedRecord{},
	}
	if !isID(r.ID) || !isID(r.Flow) {
		return Run{}, fail(Invalid, "the agent reports a run without proper ids: update outfeed-agent")
	}
	switch r.Status {
	case "running", "ok", "failed", "stopped":
	default:
		return Run{}, fail(Invalid, "the agent reports a run as %q, which is no status: update outfeed-agent", clean(r.Status, longestEntry))
	}
	for _, c := range w.GetSteps()[:min(len(w.GetSteps()), mostSteps)] {
		r.Steps = append(r.Steps, StepCount{
			Step: clean(c.GetStep(), longestEntry), In: number(c.GetRowsIn()), Out: number(c.GetRowsOut()),
			Failed: number(c.GetRowsFailed()), Late: number(c.GetRowsLate()), Outside: number(c.GetRowsOutside()),
		})
	}
	for _, f := range w.GetFailedSample()[:min(len(w.GetFailedSample()), mostSamples)] {
		r.Sample = append(r.Sample, FailedRecord{
			Step: clean(f.GetStep(), longestEntry), Where: clean(f.GetWhere(), longestText), Reason: clean(f.GetReason(), longestText),
			Record: clean(f.GetRecord(), longestText),
		})
	}
	return r, nil
}

// Runs lists run reports, newest first.
func (s *Service) Runs(ctx context.Context, a Actor, f RunFilter) (out []Run, err error) {
	if err := require(a, Viewer); err != nil {
		return nil, err
	}
	if err := checkFilterIDs(f.Flow, f.Agent); err != nil {
		return nil, err
	}
	if f.Limit, err = limit(f.Limit, 100, 1000); err != nil {
		return nil, err
	}
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		out, err = tx.Runs(ctx, a.Workspace, f)
		return err
	})
	return out, err
}

func limit(n, normal, most int) (int, error) {
	if n == 0 {
		return normal, nil
	}
	if n < 0 || n > most {
		return 0, fail(Invalid, "limit %d is outside 1 to %d", n, most)
	}
	return n, nil
}

func checkFilterIDs(flow, agent ID) error {
	if flow != "" && !isID(flow) {
		return fail(Invalid, "%q is no flow id", flow)
	}
	if agent != "" && !isID(agent) {
		return fail(Invalid, "%q is no agent id", agent)
	}
	return nil
}

// Run gives one run report.
func (s *Service) Run(ctx context.Context, a Actor, id ID) (out Run, err error) {
	if err := require(a, Viewer); err != nil {
		return Run{}, err
	}
	if !isID(id) {
		return Run{}, found(ErrNoRow, "run", string(id))
	}
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		out, err = tx.RunByID(ctx, a.Workspace, id)
		return found(err, "run", string(id))
	})
	return out, err
}

// Insights gives a page of insights, newest first by their own time.
func (s *Service) Insights(ctx context.Context, a Actor, f InsightFilter) (InsightPage, error) {
	if err := require(a, Viewer); err != nil {
		return InsightPage{}, err
	}
	if err := checkFilterIDs(f.Flow, f.Agent); err != nil {
		return InsightPage{}, err
	}
	n, err := limit(f.Limit, 500, 10_000)
	if err != nil {
		return InsightPage{}, err
	}
	var after *InsightCursor
	if f.After != "" {
		if after, err = parseCursor(f.After); err != nil {
			return InsightPage{}, err
		}
	}
	// One more than asked for tells whether there is a next page.
	f.Limit = n + 1
	f.Name = clean(f.Name, longestEntry)
	var p InsightPage
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		p.Insights, err = tx.Insights(ctx, a.Workspace, f, after)
		return err
	})
	if err != nil {
		return InsightPage{}, err
	}
	p.Insights, p.Next = cutPage(p.Insights, n, func(in *Insight) Insight { return *in })
	return p, nil
}

// cutPage gives the first n of a listing, and behind which of them the next page begins; empty when there is none. place is
// where an item stands in the listing.
func cutPage[T any](items []T, n int, place func(*T) Insight) (page []T, next string) {
	if len(items) <= n {
		return items, ""
	}
	last := place(&items[n-1])
	return items[:n], last.Cursor()
}

// cursor is the JSON of a place in a listing.
type cursor struct {
	Time  int64 `json:"t"`
	Agent ID    `json:"a"`
	Seq   int64 `json:"s"`
}

// Cursor is the place of an insight in a listing, for InsightFilter.After.
func (i *Insight) Cursor() string {
	return writeCursor(cursor{Time: i.Time.UnixMicro(), Agent: i.Agent, Seq: i.Seq})
}

func parseCursor(text string) (*InsightCursor, error) {
	c, err := readCursor(text, func(c cursor) bool { return isID(c.Agent) })
	if err != nil {
		return nil, err
	}
	return &InsightCursor{Time: timeOf(c.Time), Agent: c.Agent, Seq: c.Seq}, nil
}

// InsightNames lists the insights that exist.
func (s *Service) InsightNames(ctx context.Context, a Actor) (out []InsightName, err error) {
	if err := require(a, Viewer); err != nil {
		return nil, err
	}
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		out, err = tx.InsightNames(ctx, a.Workspace)
		return err
	})
	return out, err
}

// mostBySeq bounds what InsightsBySeq reads at once.
const mostBySeq = 100_000

// InsightsBySeq reads the insights of an event, in their order.
func (s *Service) InsightsBySeq(ctx context.Context, a Actor, agent ID, from, to int64) (out []Insight, err error) {
	if err := require(a, Viewer); err != nil {
		return nil, err
	}
	if !isID(agent) || from < 1 || to < from || to-from >= mostBySeq {
		return nil, fail(Invalid, "the insights %d to %d of the agent %q cannot be read at once", from, to, agent)
	}
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		out, err = tx.InsightsBySeq(ctx, a.Workspace, agent, from, to)
		return err
	})
	return out, err
}
