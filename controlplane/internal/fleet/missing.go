package fleet

import (
	"context"
	"time"
)

// MissingInsights are consecutive insights of an agent that never came, for one reason.
type MissingInsights struct {
	// Agent, FirstAt and LastAt are set when it is read: the times are those at which the agent told of the first and of the
	// last of them, by the control plane's clock.
	Agent           ID
	FirstAt, LastAt time.Time
	// First and Last are their sequences, both included.
	First, Last int64
	// Reason is that of the agent's receipt.
	Reason string
}

// MissingPage is one page of a listing of missing insights, newest first.
type MissingPage struct {
	Missing []MissingInsights
	// Next is the RefusedFilter.After of the next page; empty when there is none.
	Next string
}

// MissingInsights lists which insights never came, and why. The newest 1,000 ranges of each agent are kept.
func (s *Service) MissingInsights(ctx context.Context, a Actor, f RefusedFilter) (MissingPage, error) {
	n, after, err := pageOf(a, f)
	if err != nil {
		return MissingPage{}, err
	}
	var p MissingPage
	// One more than asked for tells whether there is a next page.
	f.Limit = n + 1
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		p.Missing, err = tx.MissingInsights(ctx, a.Workspace, f, after)
		return err
	})
	if err != nil {
		return MissingPage{}, err
	}
	p.Missing, p.Next = cutPage(p.Missing, n, func(m *MissingInsights) Insight {
		return Insight{Time: m.LastAt, Agent: m.Agent, Seq: m.First}
	})
	return p, nil
}

// missing are the ranges that the receipts of a parcel stand for.
func (p parcel) missing() (out []MissingInsights) {
	next := int64(p.first) //nolint:gosec // parcelOf bounds it
	for _, r := range p.receipts {
		last := next + int64(r.count) - 1 //nolint:gosec // parcelOf bounds it
		if n := len(out); n > 0 && out[n-1].Reason == r.reason {
			out[n-1].Last = last
		} else {
			out = append(out, MissingInsights{First: next, Last: last, Reason: r.reason})
		}
		next = last + 1
	}
	return out
}
