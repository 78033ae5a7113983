package httpapi

import (
	"net/netip"
	"runtime"
	"sync"

	"github.com/outfeed/outfeed/internal/source"
)

const (
	// turnsPerProcessor is how many handshakes compute at once. One computes for less than half a millisecond, so that
	// nothing else waits for the processor much longer than that times this; with fewer, processors would be idle while one
	// that has its turn waits for being scheduled.
	turnsPerProcessor = 4
	// modestTurns is how many of one source may wait before it is greedy.
	modestTurns = 16
)

// turns bounds how many TLS handshakes compute at once, so that whoever begins many of them leaves the processor to others.
// The source that has the fewest waiting goes first, and of one source the newest.
type turns struct {
	mu      sync.Mutex
	free    int
	waiting source.Crowd[netip.Addr, *waiter]
}

// waiter is one who waits. granted gets true with the turn, and false when there will be none.
type waiter struct {
	conn    *conn
	granted chan bool
}

func newTurns() *turns {
	t := &turns{free: turnsPerProcessor * runtime.GOMAXPROCS(0)}
	t.waiting.Modest = modestTurns
	return t
}

// take waits for a turn, which the caller then has to give back. It is false when the connection was closed meanwhile.
func (t *turns) take(one *conn) bool {
	t.mu.Lock()
	if one.closed {
		t.mu.Unlock()
		return false
	}
	if t.free > 0 {
		t.free--
		one.turn.Store(true)
		t.mu.Unlock()
		return true
	}
	w := &waiter{conn: one, granted: make(chan bool, 1)}
	one.waiting = t.waiting.Add(one.from, w)
	t.mu.Unlock()
	return <-w.granted
}

// idle says whether the next one would get a turn at once.
func (t *turns) idle() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.free > 0
}

// give gives a turn back, where the connection has one.
func (t *turns) give(one *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !one.turn.CompareAndSwap(true, false) {
		return
	}
	next := t.waiting.First()
	if next == nil {
		t.free++
		return
	}
	next.Value.conn.turn.Store(true)
	t.end(next.Value.conn, true)
}

// end ends a wait. mu is held.
func (t *turns) end(one *conn, granted bool) {
	if m := one.waiting; m != nil {
		t.waiting.Remove(m)
		one.waiting = nil
		m.Value.granted <- granted
	}
}

// close ends the wait of a connection, and takes back its turn.
func (t *turns) close(one *conn) {
	t.give(one)
	t.mu.Lock()
	defer t.mu.Unlock()
	one.closed = true
	t.end(one, false)
}
