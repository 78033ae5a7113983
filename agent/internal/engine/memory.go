package engine

import (
	"fmt"
	"sync"
)

// Memory shares out what the operators of all runs of a process may hold. An operator that gets no more of it spills what
// it holds, so nobody ever waits for memory, and no two operators can wait for each other. It is safe for many goroutines.
// A nil Memory has no limit.
type Memory struct {
	mu          sync.Mutex
	limit, used int64
	// floor is what an operator gets in any case: enough to work through what it has spilled, however much the others
	// hold.
	floor int64
}

// NewMemory makes a Memory of so many bytes.
func NewMemory(limit int64) *Memory {
	return &Memory{limit: limit, floor: max(minFloor, min(maxFloor, limit/floorShare))}
}

// The floor is a share of the limit between two bounds.
const (
	minFloor   = 16 << 10
	maxFloor   = 1 << 20
	floorShare = 16
)

func (m *Memory) take(n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.used+n > m.limit {
		return false
	}
	m.used += n
	return true
}

// add takes n bytes even beyond the limit, or gives them back when n is negative.
func (m *Memory) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used += n
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
	case more <= 0 || n <= b.memory.floor:
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
	if b.force(n); b.memory == nil || n <= max(b.memory.limit, maxFloor) {
		return nil
	}
	return fmt.Errorf("step %s: %s take %s of memory, more than the %s that there is for all steps, and cannot be spilled; raise memory_limit",
		step, kept, describeBytes(n), describeBytes(b.memory.limit))
}

// release gives everything back.
func (b *budget) release() { b.force(0) }
