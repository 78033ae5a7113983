package fleet

import (
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/protocol/wire"
)

// ReceiptOther is the reason of a receipt whose own reason this control plane does not know.
const ReceiptOther = "other"

// parcel is an InsightsUp as it was read: sequences without a gap, from first on. Those of the receipts come before those
// of the records. It is not changed in place.
type parcel struct {
	first    uint64
	receipts []receipt
	records  []record
}

// receipt stands for insights that do not come.
type receipt struct {
	count  uint64
	reason string
}

// record is one record of a parcel.
type record struct {
	raw     *wire.InsightRecord
	insight Insight
	// refused says why it can never be stored; empty for one that can.
	refused string
}

// parcelOf reads a message.
func parcelOf(up *wire.InsightsUp) (parcel, error) {
	first, n := up.GetFirstSeq(), uint64(len(up.GetInsights()))
	if first == 0 || first > math.MaxInt64-n {
		return parcel{}, fail(Invalid, "the agent numbers its insights from %d, which cannot be: update outfeed-agent", first)
	}
	p := parcel{records: make([]record, n)}
	for _, r := range up.GetReceipts() {
		if count := r.GetCount(); count > 0 {
			if count >= first-p.gone() {
				return parcel{}, fail(Invalid, "the agent has receipts for more insights than there can be before %d: update outfeed-agent", first)
			}
			p.receipts = append(p.receipts, receipt{count: count, reason: receiptReason(r.GetReason())})
		}
	}
	p.first = first - p.gone()
	for i, r := range up.GetInsights() {
		in, reason := insightOf(r)
		in.Seq = int64(first) + int64(i) //nolint:gosec // bounded above
		p.records[i] = record{raw: r, insight: in, refused: reason}
	}
	return p, nil
}

// receiptReason is the reason, if it is one that the agents of this version have.
func receiptReason(reason string) string {
	switch reason {
	case wire.ReceiptDamaged, wire.ReceiptRestored, wire.ReceiptExpiredAge, wire.ReceiptExpiredBytes, wire.ReceiptUnsendable:
		return reason
	}
	return ReceiptOther
}

// LostReceipts are the reasons of receipts for insights that are lost on the agent's machine.
func LostReceipts() []string { return []string{wire.ReceiptDamaged, wire.ReceiptUnsendable} }

// gone is how many sequences the receipts stand for.
func (p parcel) gone() (n uint64) {
	for _, r := range p.receipts {
		n += r.count
	}
	return n
}

// last is the last sequence, one before first when there is none.
func (p parcel) last() uint64 { return p.first + p.gone() + uint64(len(p.records)) - 1 }

// behind leaves away what is not behind the sequence, which is in the parcel or directly before it.
func (p parcel) behind(seq uint64) parcel {
	for p.first <= seq && len(p.receipts) > 0 {
		r := p.receipts[0]
		skip := min(r.count, seq-p.first+1)
		p.first += skip
		p.receipts = p.receipts[1:]
		if r.count > skip {
			p.receipts = append([]receipt{{count: r.count - skip, reason: r.reason}}, p.receipts...)
		}
	}
	if p.first <= seq {
		skip := min(seq-p.first+1, uint64(len(p.records)))
		p.first, p.records = p.first+skip, p.records[skip:]
	}
	return p
}

// halves splits a parcel that has more than one record, or receipts and a record.
func (p parcel) halves() (a, b parcel) {
	if len(p.receipts) > 0 {
		return parcel{first: p.first, receipts: p.receipts}, parcel{first: p.first + p.gone(), records: p.records}
	}
	half := len(p.records) / 2
	return parcel{first: p.first, records: p.records[:half]}, parcel{first: p.first + uint64(half), records: p.records[half:]}
}

// delivery puts everything where it belongs.
func (p parcel) delivery() Delivery {
	d := Delivery{Last: int64(p.last()), Receipts: map[string]int64{}} //nolint:gosec // parcelOf bounds it
	d.Missing = p.missing()
	for _, r := range p.receipts {
		d.Receipts[r.reason] += int64(r.count) //nolint:gosec // parcelOf bounds it
	}
	for i := range p.records {
		if r := &p.records[i]; r.refused != "" {
			d.Refused = append(d.Refused, RefusedInsight{Seq: r.insight.Seq, Reason: r.refused, Record: beginningOf(r.raw)})
		} else {
			d.Insights = append(d.Insights, r.insight)
		}
	}
	return d
}

// beginningOf is as much of a record as is kept of a refused one.
func beginningOf(r *wire.InsightRecord) []byte {
	encoded, err := proto.Marshal(r)
	if err != nil {
		// Only texts that are not UTF-8 do that, which no decoder lets through. What matters most is kept.
		encoded = r.GetValuesJson()
	}
	return encoded[:min(len(encoded), keptRecord)]
}
