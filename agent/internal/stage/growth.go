package stage

import (
	"math"
	"sync"
	"time"
)

// RunwayUnknown is Stats.Runway when nothing comes or the outbox shrinks.
const RunwayUnknown = time.Duration(-1)

const (
	// growthSample is how far two looks at the outbox are apart at least, and growthMemory the time constant over which the
	// rate of its growth is smoothed.
	growthSample = 10 * time.Second
	growthMemory = 5 * time.Minute
	// longestRunway bounds Stats.Runway: what lasts a hundred years is not about to be full.
	longestRunway = 100 * 365 * 24 * time.Hour
)

// growth follows how fast what waits grows, in bytes per second. It takes times with a monotonic reading.
type growth struct {
	mu     sync.Mutex
	at     time.Time
	bytes  uint64
	rate   float64
	looked bool
}

// observe notes what waits now.
func (g *growth) observe(now time.Time, bytes uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.at.IsZero() {
		g.at, g.bytes = now, bytes
		return
	}
	passed := now.Sub(g.at)
	if passed < growthSample {
		return
	}
	rate := (float64(bytes) - float64(g.bytes)) / passed.Seconds()
	if g.looked {
		rate = g.rate + (rate-g.rate)*(1-math.Exp(-passed.Seconds()/growthMemory.Seconds()))
	}
	g.at, g.bytes, g.rate, g.looked = now, bytes, rate, true
}

// runway is how long the room lasts.
func (g *growth) runway(room uint64) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	// Less than a byte a second is what remains of a rate that has died down.
	if !g.looked || g.rate < 1 {
		return RunwayUnknown
	}
	seconds := float64(room) / g.rate
	if seconds >= longestRunway.Seconds() {
		return longestRunway
	}
	return time.Duration(seconds * float64(time.Second))
}
