package fleet

import (
	"encoding/binary"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/protocol/wire"
)

// FuzzParcel reads messages, and checks that cutting away what is stored leaves each sequence behind it where it was.
func FuzzParcel(f *testing.F) {
	f.Add(uint64(1), []byte{}, uint8(1), uint64(0))
	f.Add(uint64(100), []byte{3, 0, 4, 1}, uint8(5), uint64(95))
	f.Add(uint64(1<<63-2), []byte{255, 2, 1, 2}, uint8(1), uint64(1<<62))
	f.Add(^uint64(0), []byte{1}, uint8(9), uint64(7))
	f.Fuzz(func(t *testing.T, first uint64, receipts []byte, records uint8, stored uint64) {
		up := &wire.InsightsUp{FirstSeq: first}
		reasons := []string{wire.ReceiptDamaged, wire.ReceiptExpiredAge, "new"}
		for i := 0; i+1 < len(receipts); i += 2 {
			count := uint64(receipts[i])
			if receipts[i] == 255 && len(receipts) >= i+8 {
				count = binary.LittleEndian.Uint64(receipts[i:])
			}
			up.Receipts = append(up.Receipts, &wire.Receipt{Count: count, Reason: reasons[int(receipts[i+1])%len(reasons)]})
		}
		for range records {
			up.Insights = append(up.Insights, &wire.InsightRecord{})
		}
		p, err := parcelOf(up)
		if err != nil {
			return
		}
		if p.first == 0 || p.first+p.gone() != first || p.last() != first+uint64(records)-1 {
			t.Fatalf("the parcel begins at %d and ends at %d", p.first, p.last())
		}
		if p.first > stored+1 || p.last() <= stored {
			return
		}
		rest := p.behind(stored)
		if rest.first != stored+1 || rest.last() != p.last() {
			t.Fatalf("behind %d the parcel begins at %d and ends at %d", stored, rest.first, rest.last())
		}
		d := rest.delivery()
		sum := int64(len(d.Insights) + len(d.Refused))
		for _, n := range d.Receipts {
			sum += n
		}
		if uint64(sum) != rest.last()-stored {
			t.Fatalf("the delivery accounts for %d of %d", sum, rest.last()-stored)
		}
		for i := range rest.records {
			if seq := rest.records[i].insight.Seq; uint64(seq) != rest.first+rest.gone()+uint64(i) { //nolint:gosec // never negative
				t.Fatalf("record %d has the sequence %d", i, seq)
			}
		}
		if len(rest.records) > 1 {
			if a, b := rest.halves(); a.first != rest.first || b.first != a.last()+1 || b.last() != rest.last() {
				t.Fatalf("the halves are %d to %d and %d to %d", a.first, a.last(), b.first, b.last())
			}
		}
	})
}

// FuzzRefused reads records as they are kept: cut off anywhere, or damaged.
func FuzzRefused(f *testing.F) {
	whole, err := proto.Marshal(&wire.InsightRecord{FlowId: "01950000-0000-7000-8000-000000000001", FlowVersion: 3, Name: "hot", Time: 5, ValuesJson: []byte("{}")})
	if err != nil {
		f.Fatal(err)
	}
	for n := range whole {
		f.Add(whole[:n])
	}
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, record []byte) {
		r := RefusedInsight{Record: record}
		if in := r.Read(); in.Flow != "" && !isID(in.Flow) || in.Version < 0 || len(in.Name) > longestEntry {
			t.Errorf("it reads as %+v", in)
		}
	})
}
