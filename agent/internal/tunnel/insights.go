package tunnel

import (
	"context"
	"fmt"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	// batchRecords and batchBytes bound one InsightsUp, and insightWindow how many may be unacknowledged.
	batchRecords  = 2000
	batchBytes    = 1 << 20
	insightWindow = 8
)

// insights sends the outbox and takes the acknowledgements.
type insights struct {
	outbox Outbox
	stream *mux.Stream
	// lostBefore is how many insights are gone between what the control plane has stored and the first that is sent. The
	// first message says so.
	lostBefore uint64
	// sent is the last sequence that was sent.
	sent atomic.Uint64
	// window has the last sequence of every batch that was sent and is not acknowledged, in order.
	window chan uint64
}

func newInsights(outbox Outbox, stream *mux.Stream, after uint64) *insights {
	i := &insights{outbox: outbox, stream: stream, window: make(chan uint64, insightWindow)}
	i.sent.Store(after)
	return i
}

func (i *insights) send(ctx context.Context) error {
	last := i.sent.Load()
	for {
		records, err := i.outbox.ReadOutbox(ctx, last, batchRecords, batchBytes)
		if err != nil {
			return fmt.Errorf("read the insights that wait: %w", err)
		}
		if len(records) == 0 {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-i.outbox.OutboxChanged():
			}
			continue
		}
		up, err := batch(records, last)
		if err != nil {
			return err
		}
		up.LostBefore, i.lostBefore = i.lostBefore, 0
		last = records[len(records)-1].Seq
		// Before it is sent, so that the acknowledgement finds it.
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case i.window <- last:
		}
		i.sent.Store(last)
		if err := wire.WriteMessage(i.stream, up); err != nil {
			return err
		}
	}
}

func batch(records []Record, last uint64) (*wire.InsightsUp, error) {
	up := &wire.InsightsUp{FirstSeq: last + 1, Insights: make([]*wire.InsightRecord, len(records))}
	for n, r := range records {
		last++
		if r.Seq != last {
			return nil, fmt.Errorf("the outbox has a gap: insight %d is followed by %d", last-1, r.Seq)
		}
		up.Insights[n] = &wire.InsightRecord{}
		if err := proto.Unmarshal(r.Payload, up.Insights[n]); err != nil {
			return nil, fmt.Errorf("insight %d of the outbox cannot be decoded: %w", r.Seq, err)
		}
	}
	return up, nil
}

func (i *insights) receive(ctx context.Context) error {
	// head is the oldest batch that is not acknowledged, 0 while none is known.
	var head uint64
	for {
		down := &wire.InsightsDown{}
		if err := wire.ReadMessage(i.stream, down); err != nil {
			return fmt.Errorf("the connection to the control plane was lost: %w", err)
		}
		if r := down.GetRefusal(); r != nil {
			return refused(r)
		}
		stored := down.GetStored()
		if sent := i.sent.Load(); stored > sent {
			// Dropping what was never sent would lose it.
			return fmt.Errorf("the control plane says that it has stored insight %d, but %d is the last that was sent", stored, sent)
		}
		if err := i.outbox.Acknowledge(ctx, stored); err != nil {
			return fmt.Errorf("drop the insights that the control plane has stored: %w", err)
		}
		for head = i.next(head); head != 0 && head <= stored; head = i.next(0) {
			continue
		}
	}
}

// next is the given batch, or for 0 the oldest in the window; 0 when that is empty.
func (i *insights) next(head uint64) uint64 {
	if head != 0 {
		return head
	}
	select {
	case head = <-i.window:
	default:
	}
	return head
}
