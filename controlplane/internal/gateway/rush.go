package gateway

import (
	"container/list"
	"sync"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

const (
	// defaultRush is how long after what sends agents away most of them are back: a start, or the end of many sessions.
	defaultRush = 3 * time.Minute
	// manyGone is how many agents make a rush: as many handshakes as a server has time for at once.
	manyGone = 128
)

// rush knows when many agents may come at once: shortly after the start, and while many have lost their sessions lately and are
// not back. A session is that of an agent that has shown its key, so a stranger can bring about neither.
type rush struct {
	lasts time.Duration

	mu      sync.Mutex
	started time.Time
	// gone are the agents that lost their sessions, in the order in which they did; byAgent finds them.
	gone    list.List
	byAgent map[fleet.ID]*list.Element
}

// missing is an agent that has lost its session.
type missing struct {
	agent fleet.ID
	since time.Time
}

func newRush(lasts time.Duration) *rush {
	return &rush{lasts: lasts, byAgent: map[fleet.ID]*list.Element{}}
}

// start is when agents are let in for the first time.
func (r *rush) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started = time.Now()
}

// left is when an agent has no session any more.
func (r *rush) left(agent fleet.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(r.byAgent[agent])
	r.forget()
	r.byAgent[agent] = r.gone.PushBack(missing{agent, time.Now()})
}

// back is when an agent has a session.
func (r *rush) back(agent fleet.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(r.byAgent[agent])
}

// on says whether many agents may come at once now.
func (r *rush) on() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget()
	return time.Since(r.started) < r.lasts || r.gone.Len() >= manyGone
}

// forget takes out who has been away for so long that it is not awaited any more. mu is held.
func (r *rush) forget() {
	for first := r.gone.Front(); first != nil; first = r.gone.Front() {
		if m, ok := first.Value.(missing); ok && time.Since(m.since) < r.lasts {
			return
		}
		r.remove(first)
	}
}

// remove takes one out; nil is nobody. mu is held.
func (r *rush) remove(e *list.Element) {
	if e == nil {
		return
	}
	if m, ok := r.gone.Remove(e).(missing); ok {
		delete(r.byAgent, m.agent)
	}
}
