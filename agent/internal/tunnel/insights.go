package tunnel

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	// batchRecords and batchBytes bound one InsightsUp, and insightWindow how many may be unacknowledged.
	batchRecords  = 2000
	batchBytes    = 1 << 20
	insightWindow = 8
	// smallBatch is where a session begins, and what the control plane takes without having to find memory for it: a slow link,
	// or a control plane that has much to do, is given no more. A batch that is acknowledged within quickly doubles it, one
	// that takes longer than slowly halves it.
	smallBatch = wire.FreeBody * 7 / 8
	quickly    = 500 * time.Millisecond
	slowly     = 2 * time.Second
	// batchReceipts bounds the receipts of one InsightsUp.
	batchReceipts = 1000
	// longestInsight is the largest insight that fits into a message, beside what surrounds it.
	longestInsight = wire.MaxMessage - 1<<10
)

// insights sends the outbox and takes the acknowledgements.
type insights struct {
	outbox Outbox
	stream *mux.Stream
	log    *slog.Logger
	// sent is the last sequence that was sent in this session, and everSent the last of all sessions.
	sent     atomic.Uint64
	everSent *atomic.Uint64
	// window has every batch that was sent and is not acknowledged, in order.
	window chan batch
	// most is how many bytes a batch may have now.
	most atomic.Int64
	// next is the message that is being made. It belongs to send.
	next letter
}

// batch is an InsightsUp that was sent: its last sequence, and when.
type batch struct {
	last uint64
	at   time.Time
}

// letter is an InsightsUp that is being made.
type letter struct {
	up *wire.InsightsUp
	// last is the sequence up to which everything is in this message or in one before.
	last  uint64
	bytes int
}

// newInsights sends what is behind the given sequence. What is between the last that the control plane has stored and
// that one was acknowledged once and is gone on both sides, for which a receipt stands.
func newInsights(outbox Outbox, stream *mux.Stream, stored, after uint64, c *Client) *insights {
	i := &insights{outbox: outbox, stream: stream, log: c.settings.Log, everSent: &c.sent, window: make(chan batch, insightWindow)}
	i.most.Store(smallBatch)
	i.next = newLetter(min(stored, after))
	i.sent.Store(i.next.last)
	if after > stored {
		i.next.receipt(wire.ReceiptRestored, after-stored)
	}
	return i
}

func (i *insights) send(ctx context.Context) error {
	for {
		records, err := i.outbox.ReadOutbox(ctx, i.next.last, batchRecords, int(i.most.Load()))
		if err != nil {
			return fmt.Errorf("read the insights that wait: %w", err)
		}
		for _, r := range records {
			if err := i.add(ctx, r); err != nil {
				return err
			}
		}
		// Receipts alone wait for what is behind them: what expires comes in long runs.
		if len(i.next.up.GetInsights()) > 0 || len(records) == 0 && !i.next.empty() {
			if err := i.post(ctx); err != nil {
				return err
			}
		}
		if len(records) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-i.outbox.OutboxChanged():
		}
	}
}

// add puts a record, or a receipt for it, into the message, and sends the message first where it does not fit in.
func (i *insights) add(ctx context.Context, r Record) error {
	if r.Seq != i.next.last+1 {
		return fmt.Errorf("the outbox has a gap: insight %d is followed by %d", i.next.last, r.Seq)
	}
	insight, reason := (*wire.InsightRecord)(nil), r.Gone
	if reason == "" {
		var err error
		if insight, err = sendable(r.Payload); err != nil {
			i.log.ErrorContext(ctx, "an insight can never be sent and is given up", slog.Uint64("seq", r.Seq), slog.Any("error", err))
			i.outbox.GiveUp(r.Seq)
			reason = wire.ReceiptUnsendable
		}
	}
	if reason == "" {
		if !i.next.fits(len(r.Payload), int(i.most.Load())) {
			if err := i.post(ctx); err != nil {
				return err
			}
		}
		i.next.insight(insight, len(r.Payload))
		return nil
	}
	// Receipts stand before a message's insights.
	if len(i.next.up.GetInsights()) > 0 || len(i.next.up.GetReceipts()) == batchReceipts {
		if err := i.post(ctx); err != nil {
			return err
		}
	}
	i.next.receipt(reason, r.Count)
	return nil
}

// lookThrough reads what the control plane has stored and what is still here, so that the outbox notices what of it was
// lost before it drops it: the crash that kept the acknowledgement from arriving has also forgotten what was found then.
func lookThrough(ctx context.Context, outbox Outbox, stored uint64, log *slog.Logger) error {
	for after := uint64(0); after < stored; {
		records, err := outbox.ReadOutbox(ctx, after, batchRecords, batchBytes)
		if err != nil {
			return fmt.Errorf("read the insights that the control plane has stored: %w", err)
		}
		if len(records) == 0 {
			return nil
		}
		for _, r := range records {
			if after = r.Seq + r.Count - 1; r.Gone != "" || r.Seq > stored {
				continue
			}
			if _, err := sendable(r.Payload); err != nil {
				log.ErrorContext(ctx, "an insight could never be sent and was given up", slog.Uint64("seq", r.Seq), slog.Any("error", err))
				outbox.GiveUp(r.Seq)
			}
		}
	}
	return nil
}

// sendable decodes what the outbox holds, and says why it can never be sent.
func sendable(payload []byte) (*wire.InsightRecord, error) {
	if len(payload) > longestInsight {
		return nil, fmt.Errorf("it has %d bytes, and a message holds %d", len(payload), longestInsight)
	}
	insight := &wire.InsightRecord{}
	if err := proto.Unmarshal(payload, insight); err != nil {
		return nil, fmt.Errorf("it cannot be decoded: %w", err)
	}
	return insight, nil
}

// post sends the message and begins the next.
func (i *insights) post(ctx context.Context) error {
	last := i.next.last
	i.next.up.FirstSeq = last + 1 - uint64(len(i.next.up.GetInsights()))
	// Before it is sent, so that the acknowledgement finds it.
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case i.window <- batch{last, time.Now()}:
	}
	i.sent.Store(last)
	i.everSent.Store(max(i.everSent.Load(), last))
	if err := wire.WriteMessage(i.stream, i.next.up); err != nil {
		return err
	}
	i.next = newLetter(last)
	return nil
}

func newLetter(last uint64) letter { return letter{up: &wire.InsightsUp{}, last: last} }

func (l *letter) empty() bool { return len(l.up.GetInsights())+len(l.up.GetReceipts()) == 0 }

// fits says whether one more insight of that size belongs into this message.
func (l *letter) fits(size, most int) bool {
	n := len(l.up.GetInsights())
	return n == 0 || n < batchRecords && l.bytes+size <= most
}

func (l *letter) insight(r *wire.InsightRecord, size int) {
	l.up.Insights = append(l.up.Insights, r)
	l.bytes += size
	l.last++
}

func (l *letter) receipt(reason string, count uint64) {
	l.last += count
	if n := len(l.up.GetReceipts()); n > 0 && l.up.GetReceipts()[n-1].GetReason() == reason {
		l.up.Receipts[n-1].Count += count
		return
	}
	l.up.Receipts = append(l.up.Receipts, &wire.Receipt{Reason: reason, Count: count})
}

func (i *insights) receive(ctx context.Context) error {
	// head is the oldest batch that is not acknowledged, of sequence 0 while none is known.
	var head batch
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
		for head = i.oldest(head); head.last != 0 && head.last <= stored; head = i.oldest(batch{}) {
			i.pace(time.Since(head.at))
		}
	}
}

// pace sets how large the next batches are, by how long the acknowledgement of one took.
func (i *insights) pace(took time.Duration) {
	switch most := i.most.Load(); {
	case took < quickly:
		i.most.Store(min(2*most, batchBytes))
	case took > slowly:
		i.most.Store(max(most/2, smallBatch))
	}
}

// oldest is the given batch, or for none the oldest in the window; one of sequence 0 when that is empty.
func (i *insights) oldest(head batch) batch {
	if head.last != 0 {
		return head
	}
	select {
	case head = <-i.window:
	default:
	}
	return head
}
