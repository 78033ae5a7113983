package tunnel_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

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

// What can no longer be read, or never be sent, has a receipt in its place, over any number of cuts.
func TestReceiptsStandForWhatIsGone(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(seedOf(t), 0)) //nolint:gosec // a test's choices
	const total = 3000
	cuts := 20
	p := newPlane(t, func(p *plane) {
		p.cut = func() bool {
			if cuts == 0 || rnd.IntN(8) > 0 {
				return false
			}
			cuts--
			return true
		}
	})
	a := newAgent(t)
	a.produce(total)
	reasons := []string{wire.ReceiptDamaged, wire.ReceiptExpiredAge, wire.ReceiptExpiredBytes, wire.ReceiptUnsendable}
	want := make([]string, total)
	for i := range want {
		want[i] = insightName(i + 1)
	}
	for at := 0; at < total; {
		at += rnd.IntN(120)
		reason := reasons[rnd.IntN(len(reasons))]
		for n := rnd.IntN(60); n > 0 && at < total; n-- {
			seq := uint64(at + 1) //nolint:gosec // small
			switch want[at] = reason; reason {
			case wire.ReceiptUnsendable:
				// The last of these is no text in UTF-8, which the name must be.
				a.outbox[at] = [][]byte{{0xff}, []byte("\x1a"), {0x1a, 1, 0xff}}[rnd.IntN(3)]
			default:
				a.gone[seq] = reason
			}
			at++
		}
	}
	client, _ := run(t, settingsFor(t, p, a))
	a.waitAcknowledged(total)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, name := range p.stored {
		if name != want[i] {
			t.Fatalf("in the place %d is %s, want %s", i+1, name, want[i])
		}
		if unsendable := want[i] == wire.ReceiptUnsendable; a.givenUp[uint64(i+1)] != unsendable {
			t.Errorf("insight %d was given up: %v", i+1, !unsendable)
		}
	}
	if len(p.stored) != total || client.State().Sent != total {
		t.Errorf("%d are accounted for and %d were sent, want %d", len(p.stored), client.State().Sent, total)
	}
	t.Logf("%d sessions", len(p.hellos))
}

// What expired in a long run takes few messages, also when nothing is behind it.
func TestALongRunOfReceipts(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	a := newAgent(t)
	a.produce(5000)
	for seq := range uint64(4990) {
		a.gone[seq+11] = wire.ReceiptExpiredAge
	}
	run(t, settingsFor(t, p, a))
	a.waitAcknowledged(5000)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.messages > 3 {
		t.Errorf("%d messages were sent for 10 insights and 4,990 that expired", p.messages)
	}
}
