package tunnel_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/agent/internal/tunnel"
	"github.com/outfeed/outfeed/protocol/wire"
)

// agent is everything behind the tunnel, in memory.
type agent struct {
	t       *testing.T
	bundles chan []byte

	statusChanged, outboxChanged, reportsChanged chan struct{}

	mu           sync.Mutex
	cond         *sync.Cond
	key          ed25519.PrivateKey
	next         *tunnel.NextKeys
	counter      uint64
	counterFails bool
	session      []byte
	keepFails    bool
	// prepareFails is why no next keys can be made.
	prepareFails error
	serial       uint64
	status       *wire.Status
	outbox       [][]byte
	acknowledged uint64
	reports      []tunnel.Report
	lastReport   uint64
	// gone are the sequences that can no longer be read, and why, and givenUp those that the tunnel gave up.
	gone    map[uint64]string
	givenUp map[uint64]bool
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	_, key := newKey(t)
	a := &agent{
		t: t, key: key, bundles: make(chan []byte, 100), status: &wire.Status{},
		statusChanged: make(chan struct{}, 1), outboxChanged: make(chan struct{}, 1), reportsChanged: make(chan struct{}, 1),
		gone: map[uint64]string{}, givenUp: map[uint64]bool{},
	}
	a.cond = sync.NewCond(&a.mu)
	return a
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (a *agent) NextCounter() (uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.counterFails {
		return 0, errNoCounter
	}
	a.counter++
	return a.counter, nil
}

func (a *agent) Key() ed25519.PrivateKey {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.key
}

func (a *agent) Session() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.session
}

func (a *agent) KeepSession(value []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keepFails {
		return errNoCounter
	}
	a.session = bytes.Clone(value)
	return nil
}

func (a *agent) PrepareKeys() (tunnel.NextKeys, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.prepareFails != nil {
		return tunnel.NextKeys{}, a.prepareFails
	}
	if a.next == nil {
		_, key := newKey(a.t)
		a.next = &tunnel.NextKeys{Key: key, ReceiveKey: bytes.Repeat([]byte{7}, 32)}
	}
	return *a.next, nil
}

func (a *agent) PreparedKeys() (tunnel.NextKeys, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next == nil {
		return tunnel.NextKeys{}, false
	}
	return *a.next, true
}

func (a *agent) SwapKeys(next ed25519.PublicKey) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next == nil || !next.Equal(a.next.Key.Public()) {
		return errors.New("other keys")
	}
	a.key, a.next = a.next.Key, nil
	return nil
}

func (a *agent) ApplyBundle(_ context.Context, envelope []byte) error {
	a.bundles <- envelope
	return nil
}

func (a *agent) DesiredSerial() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.serial
}

func (a *agent) Status() *wire.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	return proto.CloneOf(a.status)
}

func (a *agent) StatusChanged() <-chan struct{} { return a.statusChanged }

func (a *agent) setStatus(s *wire.Status) {
	a.mu.Lock()
	a.status = s
	a.mu.Unlock()
	signal(a.statusChanged)
}

// produce adds n insights, named after their place.
func (a *agent) produce(n int) {
	a.mu.Lock()
	for range n {
		payload, err := proto.Marshal(&wire.InsightRecord{Name: insightName(len(a.outbox) + 1), ValuesJson: []byte(`{"n":1,"padding":"0123456789"}`)})
		if err != nil {
			a.t.Error(err)
		}
		a.outbox = append(a.outbox, payload)
	}
	a.mu.Unlock()
	signal(a.outboxChanged)
}

func (a *agent) Reconcile(_ context.Context, stored uint64, _ *uint64) (uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if stored < a.acknowledged || stored > uint64(len(a.outbox)) {
		return 0, fmt.Errorf("%d are stored, %d were acknowledged and %d produced", stored, a.acknowledged, len(a.outbox))
	}
	a.acknowledged = stored
	a.cond.Broadcast()
	return stored, nil
}

func (a *agent) ReadOutbox(_ context.Context, after uint64, maxRecords, _ int) ([]tunnel.Record, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if after == 0 {
		after = a.acknowledged
	}
	if after < a.acknowledged {
		return nil, fmt.Errorf("insights behind %d are wanted, and those up to %d are acknowledged and gone", after, a.acknowledged)
	}
	var out []tunnel.Record
	// Small batches, so that a cut falls between them too.
	for seq := after + 1; seq <= uint64(len(a.outbox)) && len(out) < min(maxRecords, 20); seq++ {
		r := tunnel.Record{Seq: seq, Count: 1, Payload: a.outbox[seq-1], Gone: a.gone[seq]}
		if r.Gone != "" {
			r.Payload = nil
		}
		out = append(out, r)
	}
	return out, nil
}

func (a *agent) Acknowledge(_ context.Context, upTo uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if upTo > uint64(len(a.outbox)) {
		return fmt.Errorf("%d is acknowledged and %d produced", upTo, len(a.outbox))
	}
	a.acknowledged = max(a.acknowledged, upTo)
	a.cond.Broadcast()
	return nil
}

func (a *agent) GiveUp(seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.givenUp[seq] = true
}

func (a *agent) OutboxChanged() <-chan struct{} { return a.outboxChanged }

// waitAcknowledged waits until n insights are acknowledged.
func (a *agent) waitAcknowledged(n uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.acknowledged < n {
		a.cond.Wait()
	}
}

func (a *agent) report(runIDs ...string) {
	a.mu.Lock()
	for _, id := range runIDs {
		a.lastReport++
		a.reports = append(a.reports, tunnel.Report{Number: a.lastReport, Report: &wire.RunReport{RunId: id}})
	}
	a.mu.Unlock()
	signal(a.reportsChanged)
}

func (a *agent) ReadReports(_ context.Context, after uint64, limit int) ([]tunnel.Report, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []tunnel.Report
	for _, r := range a.reports {
		if r.Number > after && len(out) < limit {
			out = append(out, r)
		}
	}
	return out, nil
}

func (a *agent) DropReports(_ context.Context, upTo uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.reports) > 0 && a.reports[0].Number <= upTo {
		a.reports = a.reports[1:]
	}
	a.cond.Broadcast()
	return nil
}

func (a *agent) ReportsChanged() <-chan struct{} { return a.reportsChanged }

// waitReported waits until no run report waits.
func (a *agent) waitReported() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.reports) > 0 {
		a.cond.Wait()
	}
}
