package gateway

import (
	"container/list"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// overdue is how long a handshake may take when others wait for its place.
	overdue = 5 * time.Second
	// lastTurn is the greatest wait that is asked of a connection that is not let in.
	lastTurn = time.Minute
)

// errOverdue is why a slow handshake ends when others wait.
var errOverdue = errors.New("the handshake took too long while others waited")

// admission bounds how many connections come in per second, and how many are on their way in at once.
type admission struct {
	atOnce int
	rate   float64

	mu     sync.Mutex
	tokens float64
	at     time.Time
	// entering are those on their way in, the oldest first.
	entering list.List
	// next is when the last one that was turned away may come back.
	next time.Time
}

// entrant is one on its way in.
type entrant struct {
	since time.Time
	end   context.CancelCauseFunc
}

func newAdmission(atOnce, perSecond int) *admission {
	a := &admission{atOnce: atOnce, rate: float64(perSecond), at: time.Now()}
	a.tokens = a.burst()
	return a
}

// burst is how many may come at once after a quiet moment.
func (a *admission) burst() float64 { return max(1, a.rate/4) }

// admit lets one in, and gives what ends its handshake, which may be called more than once. When all places are taken,
// the oldest handshake ends if it is slow: whoever only holds a place keeps nobody out for long.
func (a *admission) admit(end context.CancelCauseFunc) (done func(), ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if a.entering.Len() >= a.atOnce && !a.evict(now) {
		return nil, false
	}
	a.tokens = min(a.burst(), a.tokens+now.Sub(a.at).Seconds()*a.rate)
	a.at = now
	if a.tokens < 1 {
		return nil, false
	}
	a.tokens--
	place := a.entering.PushBack(entrant{since: now, end: end})
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.entering.Remove(place)
	}, true
}

// evict ends the oldest handshake when it is slow. mu is held.
func (a *admission) evict(now time.Time) bool {
	oldest := a.entering.Front()
	e, ok := oldest.Value.(entrant)
	if !ok || now.Sub(e.since) < overdue {
		return false
	}
	a.entering.Remove(oldest)
	e.end(errOverdue)
	return true
}

// turn is how long one that is not let in should wait: those turned away come back one after the other, as fast as they
// can be let in.
func (a *admission) turn() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if a.next.Before(now) {
		a.next = now
	}
	a.next = a.next.Add(time.Duration(float64(time.Second) / a.rate))
	wait := a.next.Sub(now)
	if wait > lastTurn {
		a.next = now.Add(lastTurn)
		wait = rand.N(lastTurn) //nolint:gosec // jitter needs no cryptographic randomness
	}
	return max(wait, time.Second)
}
