package fleet

import (
	"context"
	"errors"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/protocol/wire"
)

// isolate stores a parcel that failed as a whole in halves, down to the single insights that fail, and sets those aside.
func (s *Service) isolate(ctx context.Context, id AgentIdentity, p parcel, cause error) (uint64, error) {
	if len(p.records) == 0 {
		// Receipts are numbers, to which no database can object.
		return 0, cause
	}
	if len(p.records) == 1 && len(p.receipts) == 0 {
		return s.setAside(ctx, id, p)
	}
	a, b := p.halves()
	stored, err := s.storePart(ctx, id, a)
	if err != nil {
		return stored, err
	}
	return s.storePart(ctx, id, b)
}

func (s *Service) storePart(ctx context.Context, id AgentIdentity, p parcel) (uint64, error) {
	stored, err := s.storeParcel(ctx, id, p)
	if err == nil || CodeOf(err) != Internal {
		return stored, err
	}
	return s.isolate(ctx, id, p, err)
}

// setAside refuses the one insight of a parcel, if it is the insight that is to blame: where a plain one cannot be stored
// in its place either, the database is, and nothing is refused.
func (s *Service) setAside(ctx context.Context, id AgentIdentity, p parcel) (uint64, error) {
	probed := s.probe(ctx, id, p.first)
	stored, err := s.storeParcel(ctx, id, p)
	if err == nil || CodeOf(err) != Internal || probed != nil {
		return stored, err
	}
	r := p.records[0]
	r.refused = "the database could not store it, although it could store another in its place: " + clean(databaseText(err), longestText)
	p.records = []record{r}
	return s.storeParcel(ctx, id, p)
}

// databaseText is what the database said.
func databaseText(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}

// errProbed takes a probe back.
var errProbed = errors.New("the probe is taken back") //nolint:gochecknoglobals // a sentinel

// probe stores a plain insight in the place of the next and takes that back. It gives nil when that could be done.
func (s *Service) probe(ctx context.Context, id AgentIdentity, seq uint64) error {
	plain := Insight{
		Seq: int64(seq), Flow: id.Agent, Name: "probe", Time: time.Now().UTC(), Key: []byte("{}"), Values: []byte("{}"), //nolint:gosec // parcelOf bounds it
	}
	err := s.store.InTenant(ctx, id.Tenant, func(ctx context.Context, tx Tx) error {
		if _, err := tx.LockAgent(ctx, id.Agent); err != nil {
			return err
		}
		d := Delivery{Agent: id.Agent, Workspace: id.Workspace, Insights: []Insight{plain}, Last: plain.Seq}
		if err := tx.StoreInsights(ctx, d); err != nil {
			return err
		}
		return errProbed
	})
	if errors.Is(err, errProbed) {
		return nil
	}
	return err
}

// RefusedPage is one page of a listing of refused insights, newest first.
type RefusedPage struct {
	Refused []RefusedInsight
	// Next is the RefusedFilter.After of the next page; empty when there is none.
	Next string
}

// RefusedFilter selects refused insights, or missing ones.
type RefusedFilter struct {
	// Agent selects those of one agent; empty selects all.
	Agent ID
	// Limit is at most 200; 0 means 50.
	Limit int
	// After continues a listing: the Next of the page before.
	After string
}

// pageOf checks who asks and what for, and gives how many are wanted behind which.
func pageOf(a Actor, f RefusedFilter) (n int, after *InsightCursor, err error) {
	if err := require(a, Viewer); err != nil {
		return 0, nil, err
	}
	if err := checkFilterIDs("", f.Agent); err != nil {
		return 0, nil, err
	}
	if n, err = limit(f.Limit, 50, 200); err != nil || f.After == "" {
		return n, nil, err
	}
	after, err = parseCursor(f.After)
	return n, after, err
}

// RefusedInsights lists what agents sent and what could never be stored. The newest 1,000 of each agent are kept.
func (s *Service) RefusedInsights(ctx context.Context, a Actor, f RefusedFilter) (RefusedPage, error) {
	n, after, err := pageOf(a, f)
	if err != nil {
		return RefusedPage{}, err
	}
	var p RefusedPage
	// One more than asked for tells whether there is a next page.
	f.Limit = n + 1
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		p.Refused, err = tx.RefusedInsights(ctx, a.Workspace, f, after)
		return err
	})
	if err != nil {
		return RefusedPage{}, err
	}
	p.Refused, p.Next = cutPage(p.Refused, n, func(r *RefusedInsight) Insight {
		return Insight{Time: r.Received, Agent: r.Agent, Seq: r.Seq}
	})
	return p, nil
}

// Read gives what can be read of the record: the fields before the place where it was cut off.
func (r *RefusedInsight) Read() Insight {
	whole := 0
	for rest := r.Record; len(rest) > 0; rest = r.Record[whole:] {
		_, _, n := protowire.ConsumeField(rest)
		if n < 0 {
			break
		}
		whole += n
	}
	w := &wire.InsightRecord{}
	if proto.Unmarshal(r.Record[:whole], w) != nil {
		w.Reset()
	}
	in := Insight{
		Agent: r.Agent, Seq: r.Seq, Flow: ID(clean(w.GetFlowId(), longestEntry)), Version: int(min(w.GetFlowVersion(), math.MaxInt32)), Name: clean(w.GetName(), longestEntry),
		Time: maybeTime(w.GetTime()), Received: r.Received,
	}
	if !isID(in.Flow) {
		in.Flow = ""
	}
	return in
}
