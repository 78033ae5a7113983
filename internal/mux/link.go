package mux

import (
	"net"
	"sync"
	"time"

	tcp "github.com/outfeed/outfeed/internal/socket"
)

const (
	// badRoundTrip is from when on a link is a bad one: no network that is well needs a second there and back.
	badRoundTrip = time.Second
	// moved is how long ago something must have gone both ways for a link to be alive, and badSilence for how long a peer
	// over a bad link that is alive may give no sign of life.
	moved      = 20 * time.Second
	badSilence = 90 * time.Second
	// unheardTrips is how many round trips more than moved go by without an acknowledgement before a bad link is dead in the
	// direction of the peer, of whom late answers may still arrive then: sent again every 5 s, they came up to 16 s late.
	unheardTrips = 4
	// lateTrips is how many round trips more than over a good link a sign of life may take over a bad one.
	lateTrips = 2
)

// link is the connection below all layers, as its kernel sees it. It tells a bad link, on which a sign of life is stuck
// behind packets that were lost, from a dead one and from a peer whose program does not answer: over a dead link nothing is
// acknowledged or nothing comes, and from a program that stands still no data comes.
type link struct {
	// flow gives what the kernel knows; false where it does not tell.
	flow func() (tcp.Flow, bool)

	mu sync.Mutex
	// last is what it knew last, and acked and arrived are when the figures of that name were seen to rise.
	last           tcp.Flow
	acked, arrived time.Time
	known          bool
}

func newLink(conn net.Conn) *link {
	return &link{flow: func() (tcp.Flow, bool) { return tcp.FlowOf(conn) }}
}

// look notes what has moved.
func (l *link) look() {
	now, ok := l.flow()
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	at := time.Now()
	if now.Acked > l.last.Acked {
		l.acked = at
	}
	if now.Arrived > l.last.Arrived {
		l.arrived = at
	}
	l.last, l.known = now, true
}

// maybeBad says whether late answers may be the link's doing. Where they are not, as with a peer that has too much to do,
// asking more often would only add to it.
func (l *link) maybeBad() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.known || l.last.RoundTrip > badRoundTrip
}

// badButAlive says whether the link is a bad one on which things still move in both directions.
func (l *link) badButAlive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last.RoundTrip > badRoundTrip && time.Since(l.acked) < moved && time.Since(l.arrived) < moved
}

// late is how much later than over a good link signs of life may come.
func (l *link) late() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last.RoundTrip <= badRoundTrip {
		return 0
	}
	return lateTrips * l.last.RoundTrip
}

// unheard says whether a bad link is dead in the direction of the peer, who is asked for a sign of life all the time and so has
// something to acknowledge.
func (l *link) unheard() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known && l.last.RoundTrip > badRoundTrip && time.Since(l.acked) > moved+unheardTrips*l.last.RoundTrip
}
