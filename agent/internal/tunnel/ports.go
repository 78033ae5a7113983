package tunnel

import (
	"context"
	"crypto/ed25519"

	"github.com/outfeed/outfeed/protocol/wire"
)

// Identity is who the agent is and what it remembers from connect to connect. Its methods may be called at any time.
type Identity interface {
	// Key is the present Ed25519 key. SwapKeys changes it.
	Key() ed25519.PrivateKey
	// NextCounter gives the connect counter: greater than every one before, on disk before it is returned.
	NextCounter() (uint64, error)
	// Session is the value that KeepSession has kept last, empty before the first; KeepSession has it on disk when it
	// returns without an error.
	Session() []byte
	KeepSession(value []byte) error
	// PrepareKeys gives the keys to rotate to, which are on disk before they are returned: the same ones until SwapKeys.
	// PreparedKeys gives those of a rotation that has begun, and whether one has.
	PrepareKeys() (NextKeys, error)
	PreparedKeys() (NextKeys, bool)
	// SwapKeys makes the prepared keys the agent's, in one step; the Ed25519 one is named to be sure.
	SwapKeys(next ed25519.PublicKey) error
}

// NextKeys are the keys that an agent rotates to.
type NextKeys struct {
	// Key is the next Ed25519 key, and ReceiveKey the public half of the next X25519 key, 32 bytes.
	Key        ed25519.PrivateKey
	ReceiveKey []byte
}

// Bundles takes the desired state. One call at a time is made; the newest envelope wins over those not applied yet.
type Bundles interface {
	// ApplyBundle checks a DSSE envelope around a wire.Bundle and makes it so. It reports a refusal by itself, in the
	// next Status; the error is only logged here.
	ApplyBundle(ctx context.Context, envelope []byte) error
	// DesiredSerial is the serial of the desired state that the agent holds; 0 for none.
	DesiredSerial() uint64
}

// Clock is told what the control plane's clock says, in UTC microseconds, when a session begins, 0 when it does not say; and
// before each envelope that ApplyBundle gets.
type Clock interface {
	ControlPlaneClock(now int64)
}

// Reporter says how the agent is. Both methods may be called at any time.
type Reporter interface {
	// Status is how the agent is now; the caller owns it. Nothing is sent meanwhile, so it waits for no disk. Its open runs have
	// every run of which ReadReports gave a report, until no other can follow and that one was dropped.
	Status() *wire.Status
	// StatusChanged receives after the status has changed. It holds one signal, for one reader.
	StatusChanged() <-chan struct{}
}

// Record is one insight that waits in the outbox, or a run of them that never come.
type Record struct {
	// Seq is its place in the agent's sequence, which starts at 1 and has no gap; that of the first of a run.
	Seq uint64
	// Count is how many places it takes: 1 for an insight.
	Count uint64
	// Payload is a marshalled wire.InsightRecord; nil for a run.
	Payload []byte
	// Gone says why a run does not come, as one of the wire's reasons of a receipt; empty for an insight.
	Gone string
}

// Outbox keeps insights until the control plane has stored them. Its methods are called from several goroutines.
type Outbox interface {
	// Reconcile is told what the control plane has stored when a session begins, and gives the sequence behind which to
	// send. One that is greater says that the insights between are gone, which the control plane is told. lost is how many of
	// those up to stored it has receipts for that say that they are lost here, nil when it does not say.
	Reconcile(ctx context.Context, stored uint64, lost *uint64) (after uint64, err error)
	// ReadOutbox gives the records behind the sequence, 0 for all that are still here, in order: at most maxRecords, and no
	// more payload than maxBytes unless the first alone is larger. Nothing waiting gives no records and no error.
	ReadOutbox(ctx context.Context, after uint64, maxRecords, maxBytes int) ([]Record, error)
	// Acknowledge says that the control plane has stored everything up to the sequence.
	Acknowledge(ctx context.Context, upTo uint64) error
	// GiveUp says that the record of that sequence can never be sent, so that it counts as lost once its receipt is
	// acknowledged. It may be said again.
	GiveUp(seq uint64)
	// OutboxChanged receives after records were added. It holds one signal, for one reader.
	OutboxChanged() <-chan struct{}
}

// Report is one run report that waits.
type Report struct {
	// Number rises with every report that is added or changed.
	Number uint64
	Report *wire.RunReport
}

// Reports keeps run reports until the control plane has stored them. Its methods are called from several goroutines.
type Reports interface {
	// ReadReports gives at most limit of the reports behind the number, in order.
	ReadReports(ctx context.Context, after uint64, limit int) ([]Report, error)
	// DropReports removes the reports up to the number.
	DropReports(ctx context.Context, upTo uint64) error
	// ReportsChanged receives after reports were added. It holds one signal, for one reader.
	ReportsChanged() <-chan struct{}
}
