package gateway

import (
	"sync"
	"time"
)

// admission bounds how many connections come in per second, and how many are on their way in at once.
type admission struct {
	slots chan struct{}

	mu     sync.Mutex
	rate   float64
	tokens float64
	at     time.Time
}

func newAdmission(atOnce, perSecond int) *admission {
	return &admission{slots: make(chan struct{}, atOnce), rate: float64(perSecond), tokens: float64(perSecond), at: time.Now()}
}

// admit lets one in, and gives what ends its handshake, which may be called more than once.
func (a *admission) admit() (done func(), ok bool) {
	select {
	case a.slots <- struct{}{}:
	default:
		return nil, false
	}
	done = sync.OnceFunc(func() { <-a.slots })
	if !a.take() {
		done()
		return nil, false
	}
	return done, true
}

func (a *admission) take() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.tokens = min(a.rate, a.tokens+now.Sub(a.at).Seconds()*a.rate)
	a.at = now
	if a.tokens < 1 {
		return false
	}
	a.tokens--
	return true
}
