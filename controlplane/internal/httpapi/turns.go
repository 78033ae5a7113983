package httpapi

import (
	queue "container/list"
	"net/netip"
	"runtime"
	"sync"
)

// turns bounds how many TLS handshakes compute at once, so that whoever begins many of them leaves the processor to others.
// The sources that wait take turns. Of one source the newest goes first: where more come than can be served, those that
// are served are served at once, instead of all being served too late.
type turns struct {
	mu   sync.Mutex
	free int
	// waiting are those who wait, and order their sources: the one whose turn is next is first.
	waiting map[netip.Addr]*queue.List
	order   queue.List
}

// waiter is one who waits. granted gets true with the turn, and false when there will be none.
type waiter struct {
	granted chan bool
	from    netip.Addr
	element *queue.Element
}

// newTurns lets half of the processors compute handshakes.
func newTurns() *turns {
	return &turns{free: max(1, runtime.GOMAXPROCS(0)/2), waiting: map[netip.Addr]*queue.List{}}
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
	w := &waiter{granted: make(chan bool, 1), from: one.from}
	share := t.waiting[w.from]
	if share == nil {
		share = queue.New()
		t.waiting[w.from] = share
		t.order.PushBack(w.from)
	}
	w.element = share.PushFront(one)
	one.waiting = w
	t.mu.Unlock()
	return <-w.granted
}

// give gives a turn back, where the connection has one.
func (t *turns) give(one *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.giveLocked(one)
}

func (t *turns) giveLocked(one *conn) {
	if !one.turn.CompareAndSwap(true, false) {
		return
	}
	front := t.order.Front()
	if front == nil {
		t.free++
		return
	}
	from, _ := t.order.Remove(front).(netip.Addr)
	share := t.waiting[from]
	next, _ := share.Remove(share.Front()).(*conn)
	if share.Len() > 0 {
		t.order.PushBack(from)
	} else {
		delete(t.waiting, from)
	}
	next.turn.Store(true)
	next.waiting.granted <- true
	next.waiting = nil
}

// close ends the wait of a connection, and takes back its turn.
func (t *turns) close(one *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one.closed = true
	t.giveLocked(one)
	w := one.waiting
	if w == nil {
		return
	}
	one.waiting = nil
	share := t.waiting[w.from]
	share.Remove(w.element)
	if share.Len() == 0 {
		delete(t.waiting, w.from)
		for e := t.order.Front(); e != nil; e = e.Next() {
			if e.Value == w.from {
				t.order.Remove(e)
				break
			}
		}
	}
	w.granted <- false
}
