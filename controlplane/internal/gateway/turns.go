package gateway

import (
	"math/rand/v2"
	"sync"
	"time"
)

// turnsWithin is how many seconds after a control plane has gone all its agents are to be back.
const turnsWithin = 60

// noTurn is the second of a peer that has none.
const noTurn = -1

// turns gives each agent that is connected a second after the end of this process, in which it comes back when all come at
// once. The early ones are given first, so that the few agents of a small control plane lose no time.
type turns struct {
	perSecond int

	mu    sync.Mutex
	taken [turnsWithin]int
}

// newTurns leaves a tenth of what is let in per second to agents that come for other reasons.
func newTurns(perSecond int) *turns { return &turns{perSecond: max(1, perSecond*9/10)} }

// take gives a second, which has to be given back: the first that has room, or the one with the fewest.
func (t *turns) take() (second int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n, taken := range t.taken {
		if taken < t.perSecond {
			second = n
			break
		}
		if taken < t.taken[second] {
			second = n
		}
	}
	t.taken[second]++
	return second
}

func (t *turns) give(second int) {
	if second == noTurn {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken[second]--
}

// at is a moment of a second.
func at(second int) time.Duration {
	return time.Duration(second)*time.Second + rand.N(time.Second) //nolint:gosec // jitter needs no cryptographic randomness
}
