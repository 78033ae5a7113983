package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	tenantID    = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
	workspaceID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5c"
)

// domain is fleet.Gateway in memory, with its rules and without a database.
type domain struct {
	t *testing.T

	mu       sync.Mutex
	cond     *sync.Cond
	tokens   map[string]string // id to secret, until used
	agents   map[string]*record
	bundle   []byte
	serial   uint64
	statuses int
	runs     map[string]int
	// hold holds every Connect up until it is closed, and then asks whether the caller is still there; held counts all of
	// them, and givenUp those that were not.
	hold    chan struct{}
	held    int
	givenUp int
	// fail makes the next calls of an operation fail, each with one of these.
	fail map[string][]error
}

// record is one agent.
type record struct {
	id        fleet.ID
	counter   uint64
	address   string
	revoked   bool
	locked    bool
	rotate    bool
	next      fleet.Keys
	connected int
	kept      int
	stored    []string
	repeated  int
	changes   map[chan struct{}]struct{}
}

func newDomain(t *testing.T) *domain {
	t.Helper()
	d := &domain{
		t: t, tokens: map[string]string{}, agents: map[string]*record{}, runs: map[string]int{}, fail: map[string][]error{},
		bundle: []byte("bundle-1"), serial: 1,
	}
	d.cond = sync.NewCond(&d.mu)
	return d
}

func failure(code fleet.Code, message string) error {
	return &fleet.Error{Code: code, Message: message}
}

// failing gives the error that was ordered for an operation. mu is held.
func (d *domain) failing(operation string) error {
	queue := d.fail[operation]
	if len(queue) == 0 {
		return nil
	}
	d.fail[operation] = queue[1:]
	return queue[0]
}

func (d *domain) order(operation string, errs ...error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail[operation] = errs
}

// known makes an agent with that key.
func (d *domain) known(key []byte) *record {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := &record{id: fleet.ID(fmt.Sprintf("agent-%d", len(d.agents)+1)), changes: map[chan struct{}]struct{}{}}
	d.agents[seal.Fingerprint(key)] = r
	return r
}

func (d *domain) Enroll(_ context.Context, e *wire.Enroll, key []byte) (*wire.Enrolled, error) {
	d.mu.Lock()
	secret, ok := d.tokens[e.GetTokenId()]
	delete(d.tokens, e.GetTokenId())
	d.mu.Unlock()
	switch {
	case !ok:
		return nil, failure(fleet.TokenUsed, "this token was used already; make a new one")
	case secret != e.GetTokenSecret():
		return nil, failure(fleet.TokenUnknown, "there is no such token")
	}
	r := d.known(key)
	return &wire.Enrolled{AgentId: string(r.id), TenantId: tenantID, WorkspaceId: workspaceID, BundleKeys: [][]byte{key}}, nil
}

func (d *domain) AgentByKey(_ context.Context, key []byte) (fleet.AgentIdentity, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("AgentByKey"); err != nil {
		return fleet.AgentIdentity{}, err
	}
	r := d.agents[seal.Fingerprint(key)]
	switch {
	case r == nil:
		return fleet.AgentIdentity{}, failure(fleet.AgentUnknown, "this agent is not known here; enrol it")
	case r.revoked:
		return fleet.AgentIdentity{}, failure(fleet.AgentRevoked, "this agent was revoked")
	}
	return fleet.AgentIdentity{Tenant: tenantID, Workspace: workspaceID, Agent: r.id}, nil
}

// of finds an agent's record. mu is held.
func (d *domain) of(id fleet.AgentIdentity) *record {
	for _, r := range d.agents {
		if r.id == id.Agent {
			return r
		}
	}
	d.t.Errorf("the gateway speaks of agent %q, which does not exist", id.Agent)
	return &record{}
}

func (d *domain) Connect(_ context.Context, id fleet.AgentIdentity, from fleet.Caller, h *wire.Hello) (fleet.Session, error) {
	if d.hold != nil {
		d.mu.Lock()
		d.held++
		d.cond.Broadcast()
		d.mu.Unlock()
		<-d.hold
		if !from.Alive() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.givenUp++
			d.cond.Broadcast()
			return fleet.Session{}, failure(fleet.Unavailable, "given up")
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("Connect"); err != nil {
		return fleet.Session{}, err
	}
	r := d.of(id)
	if r.locked {
		return fleet.Session{}, failure(fleet.AgentLocked, "this agent is locked")
	}
	if h.GetCounter() <= r.counter {
		r.locked = true
		d.changed(r)
		return fleet.Session{}, &fleet.Error{Code: fleet.AgentLocked, Message: "this agent is locked", Err: fleet.ErrCloneNoticed}
	}
	r.counter, r.address = h.GetCounter(), from.Address
	r.connected++
	d.cond.Broadcast()
	return fleet.Session{Stored: uint64(len(r.stored)), Value: []byte(fmt.Sprint("value-", r.counter)), Rotate: r.rotate}, nil
}

func (d *domain) RotationWanted(_ context.Context, id fleet.AgentIdentity) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.of(id).rotate, nil
}

func (d *domain) Rotate(_ context.Context, id fleet.AgentIdentity, present, next fleet.Keys) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("Rotate"); err != nil {
		return err
	}
	r := d.of(id)
	if d.agents[seal.Fingerprint(present.Ed25519)] != r {
		d.t.Error("the present key is another agent's")
	}
	r.next = next
	d.agents[seal.Fingerprint(next.Ed25519)] = r
	return nil
}

// rotate asks an agent for new keys.
func (d *domain) rotate(r *record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.rotate = true
	d.changed(r)
}

func (d *domain) Disconnect(ctx context.Context, id fleet.AgentIdentity, _ uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.of(id).connected--
	d.cond.Broadcast()
	return ctx.Err()
}

func (d *domain) Keep(_ context.Context, id fleet.AgentIdentity) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("Keep"); err != nil {
		return err
	}
	d.of(id).kept++
	return nil
}

func (d *domain) Bundle(_ context.Context, id fleet.AgentIdentity) ([]byte, uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of(id).locked {
		return nil, 0, failure(fleet.AgentLocked, "this agent is locked")
	}
	if err := d.failing("Bundle"); err != nil {
		return nil, 0, err
	}
	return d.bundle, d.serial, nil
}

func (d *domain) StoreInsights(ctx context.Context, id fleet.AgentIdentity, up *wire.InsightsUp) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if err := d.failing("StoreInsights"); err != nil {
		return 0, err
	}
	r := d.of(id)
	// A receipt stands as its reason in the place of each insight that does not come.
	var came []string
	for _, receipt := range up.GetReceipts() {
		came = append(came, slices.Repeat([]string{receipt.GetReason()}, int(receipt.GetCount()))...) //nolint:gosec // the tests' own
	}
	first := up.GetFirstSeq() - uint64(len(came))
	for _, insight := range up.GetInsights() {
		came = append(came, insight.GetName())
	}
	for i, name := range came {
		seq, stored := first+uint64(i), uint64(len(r.stored))
		switch {
		case seq <= stored:
			r.repeated++
		case seq == stored+1:
			r.stored = append(r.stored, name)
		default:
			return 0, failure(fleet.Invalid, fmt.Sprintf("insight %d came after %d", seq, stored))
		}
	}
	d.cond.Broadcast()
	return uint64(len(r.stored)), nil
}

func (d *domain) StoreStatus(context.Context, fleet.AgentIdentity, *wire.Status) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("StoreStatus"); err != nil {
		return err
	}
	d.statuses++
	d.cond.Broadcast()
	return nil
}

func (d *domain) StoreRun(_ context.Context, _ fleet.AgentIdentity, r *wire.RunReport) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("StoreRun"); err != nil {
		return err
	}
	d.runs[r.GetRunId()]++
	return nil
}

func (d *domain) Changes(ctx context.Context, id fleet.AgentIdentity) (<-chan struct{}, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.failing("Changes"); err != nil {
		return nil, err
	}
	r := d.of(id)
	c := make(chan struct{}, 1)
	r.changes[c] = struct{}{}
	context.AfterFunc(ctx, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(r.changes, c)
	})
	return c, nil
}

// changed tells the agent's sessions. mu is held.
func (d *domain) changed(r *record) {
	for c := range r.changes {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (d *domain) deploy(r *record, bundle string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bundle, d.serial = []byte(bundle), d.serial+1
	d.changed(r)
}

// notice tells of a change that changes nothing.
func (d *domain) notice(r *record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed(r)
}

func (d *domain) revoke(r *record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.revoked = true
	d.changed(r)
}

// wait waits until something holds of the domain.
func (d *domain) wait(holds func() bool) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	late := false
	limit := time.AfterFunc(2*time.Minute, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		late = true
		d.cond.Broadcast()
	})
	defer limit.Stop()
	for !holds() {
		if late {
			d.t.Fatal("what is waited for does not come")
		}
		d.cond.Wait()
	}
}

func insightName(n int) string { return fmt.Sprintf("insight-%d", n) }

// checkStored fails unless exactly the insights 1 to n are stored, in order.
func (d *domain) checkStored(r *record, n int) {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(r.stored) != n {
		d.t.Errorf("%d insights are stored, want %d", len(r.stored), n)
	}
	for i, name := range r.stored {
		if name != insightName(i+1) {
			d.t.Fatalf("insight %d is %s", i+1, name)
		}
	}
}

func batch(first, count int) *wire.InsightsUp {
	up := &wire.InsightsUp{FirstSeq: uint64(first)} //nolint:gosec // small positive numbers
	for n := range count {
		up.Insights = append(up.Insights, &wire.InsightRecord{Name: insightName(first + n)})
	}
	return proto.CloneOf(up)
}
