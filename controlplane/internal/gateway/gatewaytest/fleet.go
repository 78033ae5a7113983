// Package gatewaytest serves the real gateway and the real API on one real server, over a domain in memory that knows
// every agent: for tests and benchmarks of what many tunnels, or hostile ones, cost.
//
// A Host belongs to a process of its own (cmd/host), so that its memory can be read. Only tests and benchmarks use it. A
// Fleet is safe for concurrent use.
package gatewaytest

import (
	"context"
	"sync"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	tenant    = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
	workspace = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5c"
)

// Fleet is a domain in which every key is an agent's and nothing is deployed. What a gateway asks of the domain beyond
// its methods fails.
type Fleet struct {
	fleet.Gateway

	mu sync.Mutex
	// stored is the last insight of each agent, connected how many sessions each has.
	stored    map[fleet.ID]uint64
	connected map[fleet.ID]int
	// address is where the newest session came from.
	address string
	// since is when the first agent came, and perSecond how many came in each second from then on.
	since     time.Time
	perSecond []int
}

// NewFleet makes a domain without agents.
func NewFleet() *Fleet {
	return &Fleet{stored: map[fleet.ID]uint64{}, connected: map[fleet.ID]int{}}
}

// AgentByKey names an agent after its key.
func (*Fleet) AgentByKey(_ context.Context, key []byte) (fleet.AgentIdentity, error) {
	return fleet.AgentIdentity{Tenant: tenant, Workspace: workspace, Agent: fleet.ID(seal.Fingerprint(key))}, nil
}

// Connect counts.
func (f *Fleet) Connect(_ context.Context, id fleet.AgentIdentity, from fleet.Caller, _ *wire.Hello) (fleet.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if f.since.IsZero() {
		f.since = now
	}
	second := int(now.Sub(f.since) / time.Second)
	for len(f.perSecond) <= second {
		f.perSecond = append(f.perSecond, 0)
	}
	f.perSecond[second]++
	f.connected[id.Agent]++
	f.address = from.Address
	return fleet.Session{Stored: f.stored[id.Agent], Value: make([]byte, 32)}, nil
}

// RotationWanted is never so.
func (*Fleet) RotationWanted(context.Context, fleet.AgentIdentity) (bool, error) { return false, nil }

// Disconnect counts.
func (f *Fleet) Disconnect(_ context.Context, id fleet.AgentIdentity, _ uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.connected[id.Agent]--; f.connected[id.Agent] <= 0 {
		delete(f.connected, id.Agent)
	}
	return nil
}

// Keep keeps nothing.
func (*Fleet) Keep(context.Context, fleet.AgentIdentity) error { return nil }

// Bundle is never changed.
func (*Fleet) Bundle(context.Context, fleet.AgentIdentity) (envelope []byte, serial uint64, err error) {
	return []byte("{}"), 1, nil
}

// StoreInsights counts them.
func (f *Fleet) StoreInsights(_ context.Context, id fleet.AgentIdentity, up *wire.InsightsUp) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stored[id.Agent] = max(f.stored[id.Agent], up.GetFirstSeq()+uint64(len(up.GetInsights()))-1)
	return f.stored[id.Agent], nil
}

// StoreStatus drops it.
func (*Fleet) StoreStatus(context.Context, fleet.AgentIdentity, *wire.Status) error { return nil }

// StoreRun drops it.
func (*Fleet) StoreRun(context.Context, fleet.AgentIdentity, *wire.RunReport) error { return nil }

// Changes tells of none.
func (*Fleet) Changes(context.Context, fleet.AgentIdentity) (<-chan struct{}, error) {
	return make(chan struct{}, 1), nil
}

// counts are how many agents are connected now, how many came in each second, and where the newest one came from.
func (f *Fleet) counts() (connected int, perSecond []int, address string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.connected), append([]int(nil), f.perSecond...), f.address
}
