package engine

import (
	"fmt"
	"sync"
)

// Memory shares out what the operators of all runs of a process may hold. An operator that gets no more of it spills what
// it holds, so nobody ever waits for memory, and no two operators can wait for each other. It is safe for many goroutines.
// A nil Memory has no limit.
type Memory struct {
	// pool is what all flows share; used is what this Memory has of it.
	pool *pool
	used int64
}

// pool is the memory of a process. Its mutex guards every Memory of it.
type pool struct {
	mu          sync.Mutex
	limit, used int64
	// floor is what an operator gets in any case: enough to work through what it has spilled, however much the others
	// hold.
	floor int64
	// flows is how many share it.
	flows int64
}

// NewMemory makes a Memory of so many bytes.
func NewMemory(limit int64) *Memory {
	return &Memory{pool: &pool{limit: limit, floor: max(minFloor, min(maxFloor, limit/floorShare))}}
}

// The floor is a share of the limit between two bounds.
const (
	minFloor   = 16 << 10
	maxFloor   = 1 << 20
	floorShare = 16
)

// Of several flows, one gets at most an oneFlow-th of the memory, and a keptFree-th of it is kept for those that hold less than
// their part of that: so a flow that takes all it can get leaves every other one its part.
const (
	oneFlow  = 2
	keptFree = 4
)

// Flow gives a flow its part of the memory, until it leaves. A nil Memory gives a nil one.
func (m *Memory) Flow() *Memory {
	if m == nil {
		return nil
	}
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	m.pool.flows++
	return &Memory{pool: m.pool}
}

// Leave says that the flow no longer runs. What it has not given back stays taken.
func (m *Memory) Leave() {
	if m == nil {
		return
	}
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	m.pool.flows--
}

// take takes n bytes if there are so many for this Memory.
func (m *Memory) take(n int64) bool {
	p := m.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.flows <= 1:
		if p.used+n > p.limit {
			return false
		}
	case m.used+n <= p.limit/keptFree/p.flows:
	case m.used+n > p.limit/oneFlow || p.used+n > p.limit-p.limit/keptFree:
		return false
	}
	m.used += n
	p.used += n
	return true
}

// add takes n bytes even beyond the limit, or gives them back when n is negative.
func (m *Memory) add(n int64) {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	m.used += n
	m.pool.used += n
}

// most is what this Memory can give at most.
func (m *Memory) most() int64 {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	if m.pool.flows <= 1 {
		return m.pool.limit
	}
	return m.pool.limit / oneFlow
}

// held is what was taken of it.
func (m *Memory) held() int64 {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	return m.used
}

// budget is what one operator holds of a Memory. It belongs to the goroutine that runs the operator.
type budget struct {
	memory *Memory
	held   int64
}

// fit makes n bytes what the operator holds. When it may not grow so far, false comes back and nothing changes.
func (b *budget) fit(n int64) bool {
	if b.memory == nil {
		return true
	}
	switch more := n - b.held; {
	case more <= 0 || n <= b.memory.pool.floor:
		b.memory.add(more)
	case !b.memory.take(more):
		return false
	}
	b.held = n
	return true
}

// force is fit for what cannot be done without.
func (b *budget) force(n int64) {
	if b.memory != nil {
		b.memory.add(n - b.held)
		b.held = n
	}
}

// hold is force for what cannot be spilled. It fails when the step alone holds more than there is for all; kept says what
// it keeps.
func (b *budget) hold(n int64, step, kept string) error {
	b.force(n)
	if b.memory == nil {
		return nil
	}
	most := max(b.memory.most(), maxFloor)
	if n <= most {
		return nil
	}
	return &OverrunError{Kind: OverrunMemory, Err: fmt.Errorf("step %s: %s take %s of memory, more than the %s that there is for all steps, and cannot be spilled; raise memory_limit",
		step, kept, describeBytes(n), describeBytes(most))}
}

// release gives everything back.
func (b *budget) release() { b.force(0) }
