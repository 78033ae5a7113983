package stage

import (
	"math"
	"sync"
	"time"
)

// RunwayUnknown is Stats.Runway when nothing comes or the outbox shrinks.
const RunwayUnknown = time.Duration(-1)

const (
	// growthSample is how far two looks at the outbox are apart at least, and growthMemory the time constant over which
	// the rate of its growth is smoothed.
	growthSample = 10 * time.Second
	growthMemory = 5 * time.Minute
	// longestRunway bounds Stats.Runway: what lasts a hundred years is not about to be full.
	longestRunway = 100 * 365 * 24 * time.Hour
)

// growth follows how fast what waits grows. It takes times with a monotonic reading.
type growth struct {
	mu    sync.Mutex
	at    time.Time
	bytes uint64
	// change is by how many bytes it has grown in span seconds; both fade with growthMemory, so that their quotient is the
	// rate of the last minutes.
	change, span float64
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
	fade := math.Exp(-passed.Seconds() / growthMemory.Seconds())
	g.change = g.change*fade + float64(bytes) - float64(g.bytes)
	g.span = g.span*fade + passed.Seconds()
	g.at, g.bytes = now, bytes
}

// runway is how long the room lasts.
func (g *growth) runway(room uint64) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	// Less than a byte a second is what remains of a rate that has died down.
	if g.change < g.span || g.span == 0 {
		return RunwayUnknown
	}
	seconds := float64(room) * g.span / g.change
	if seconds >= longestRunway.Seconds() {
		return longestRunway
	}
	return time.Duration(seconds * float64(time.Second))
}
