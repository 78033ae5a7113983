package tunnel

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/protocol/wire"
)

// settledKeys is an agent that rotates no keys.
type settledKeys struct{ Identity }

func (settledKeys) PreparedKeys() (NextKeys, bool) { return NextKeys{}, false }

// forgetful is an agent that has dropped what was acknowledged, with an outbox of a few insights behind it.
type forgetful struct {
	acknowledged, produced uint64
}

func (f *forgetful) Reconcile(_ context.Context, stored uint64, _ *uint64) (uint64, error) {
	return max(stored, f.acknowledged), nil
}

// ReadOutbox gives one record at a time, so that there is a second message.
func (f *forgetful) ReadOutbox(_ context.Context, after uint64, _, _ int) ([]Record, error) {
	if after >= f.produced {
		return nil, nil
	}
	payload, err := proto.Marshal(&wire.InsightRecord{Name: strconv.FormatUint(after+1, 10)})
	return []Record{{Seq: after + 1, Count: 1, Payload: payload}}, err
}

func (f *forgetful) Acknowledge(context.Context, uint64) error { return nil }
func (f *forgetful) GiveUp(uint64)                             {}
func (f *forgetful) OutboxChanged() <-chan struct{}            { return nil }

func (f *forgetful) ReadReports(context.Context, uint64, int) ([]Report, error) { return nil, nil }
func (f *forgetful) DropReports(context.Context, uint64) error                  { return nil }
func (f *forgetful) ReportsChanged() <-chan struct{}                            { return nil }

func (f *forgetful) Status() *wire.Status           { return &wire.Status{} }
func (f *forgetful) StatusChanged() <-chan struct{} { return nil }

// streamsOf gives the two ends of a session over a pipe.
func streamsOf(t *testing.T) (here, there *mux.Session) {
	t.Helper()
	left, right := net.Pipe()
	here, err := mux.Client(left, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	there, err = mux.Server(right, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = here.Close(), there.Close() })
	return here, there
}

// insightsStream takes the streams that an agent opens until that of the insights.
func insightsStream(ctx context.Context, t *testing.T, there *mux.Session) *mux.Stream {
	t.Helper()
	for {
		stream, err := there.Accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		header := &wire.StreamHeader{}
		if err := wire.ReadMessage(stream, header); err != nil {
			t.Fatal(err)
		}
		if header.GetKind() == string(wire.KindInsights) {
			return stream
		}
	}
}

// Where the control plane has less than the agent has dropped, the first message says how much is gone, and no other does.
func TestTheFirstMessageSaysWhatIsGone(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct{ stored, first, lost uint64 }{
		"nothing is gone":        {stored: 7, first: 8, lost: 0},
		"more is stored":         {stored: 8, first: 9, lost: 0},
		"the database was reset": {stored: 0, first: 8, lost: 7},
		"it went back":           {stored: 5, first: 8, lost: 2},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			here, there := streamsOf(t)
			plant := &forgetful{acknowledged: 7, produced: 11}
			s := &session{
				Client:  &Client{settings: Settings{Identity: settledKeys{}, Outbox: plant, Reporter: plant, Reports: plant, Log: slog.New(slog.DiscardHandler)}},
				streams: here, reports: make(chan uint64, reportWindow),
			}
			ended := make(chan error, 1)
			go func() {
				var err error
				if s.control, err = openStream(here, wire.KindControl); err == nil {
					err = s.work(ctx, &wire.Welcome{InsightsStored: c.stored})
				}
				ended <- err
			}()
			stream := insightsStream(ctx, t, there)
			for seq := c.first; seq <= plant.produced; seq++ {
				up := &wire.InsightsUp{}
				if err := wire.ReadMessage(stream, up); err != nil {
					t.Fatal(err)
				}
				var lost uint64
				if seq == c.first {
					lost = c.lost
				}
				var said uint64
				for _, r := range up.GetReceipts() {
					if said += r.GetCount(); r.GetReason() != wire.ReceiptRestored {
						t.Errorf("a receipt says %q", r.GetReason())
					}
				}
				if up.GetFirstSeq() != seq || said != lost {
					t.Errorf("the message from %d says that %d are gone before it, want %d and %d", up.GetFirstSeq(), said, seq, lost)
				}
			}
			cancel()
			if err := <-ended; err == nil {
				t.Error("the session ended without an error")
			}
		})
	}
}
