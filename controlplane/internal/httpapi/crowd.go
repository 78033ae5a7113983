package httpapi

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/outfeed/outfeed/internal/source"
)

// limits are how many connections a server holds without working for them, by what is waited for.
//
// Nothing waits for room: a connection that comes is taken at once, and where there are too many, the oldest of the source
// that has the most is closed. So the question is how long an honest client has before it is the oldest, when the others
// come back as soon as they were closed and have the same address. From its first byte to the end of its headers it needs
// one round trip (TLS 1.3), which is some milliseconds to some tenths of a second.
//
//   - early holds those who have said nothing (on Linux the kernel keeps those for 5 s), or wait for their turn in the
//     handshake. Up to there only accepting costs something, of which one core does about 20,000 a second: 768 / 20,000/s = 38 ms. The first message of an honest client
//     comes with the packet that makes the connection, so that it needs nothing but the processor, and of those who wait for
//     a turn the newest is first. 5,000 attackers who come back at once were seen to come 2,000 times a second: 384 ms.
//   - fresh is entered through the handshake, which takes about 0.4 ms of a core on this side: on two cores at most 5,000 a
//     second come in, if nothing else runs, and an honest client has 448 / 5,000/s = 90 ms; those 5,000 attackers finished
//     300 handshakes a second at the most, which leaves it more than a second.
//   - idle is entered with a request that is done.
//   - leaving are those whose last answer is not taken, or whose request is not sent to its end.
//
// What one costs was measured in a gateway under siege, stacks and garbage included: 14 KB early (a goroutine in the middle
// of TLS), 30 KB later (with the buffers of HTTP). So 5,000 slow headers take 768 × 14 KB + 448 × 30 KB = 24 MB, and all kinds
// together, which are 1,600 connections, 36 MB; the collector lets the heap grow by half before it collects (GOGC=50).
// TestCrowds in gatewaytest holds it to 64 MiB.
type limits struct{ early, fresh, idle, leaving int }

func usualLimits() limits { return limits{early: 768, fresh: 448, idle: 256, leaving: 128} }

// modestShare is the part of the places of which a source may have one without having to make room before others.
const modestShare = 32

// stage is what is waited for.
type stage int

const (
	// working is a connection that is not waited for: it has a request under way, or was taken over.
	working stage = iota
	early
	fresh
	idle
	leaving
	stages
)

// maxEnding is how many may be ending before those that end get the processor.
// They get it so often.
const (
	maxEnding = 64
	maxYields = 8
)

// ending counts goroutines whose work was ended and that do not know it yet. They hold memory until they are scheduled, so
// before more is begun they get the processor.
type ending struct{ count atomic.Int64 }

func (e *ending) began() { e.count.Add(1) }
func (e *ending) done()  { e.count.Add(-1) }

// yield lets others run while too many are ending. It waits for nothing but the processor, and not for ever.
func (e *ending) yield() {
	for range maxYields {
		if e.count.Load() <= maxEnding {
			return
		}
		runtime.Gosched()
	}
}

// crowd bounds the connections that a server holds without working for them. It is safe for concurrent use.
type crowd struct {
	limits  [stages]int
	proxies source.Proxies
	turns   *turns
	// ending are the connections that were cut and still have a goroutine.
	ending ending

	mu      sync.Mutex
	members [stages]source.Crowd[netip.Addr, *conn]
}

func newCrowd(l limits, proxies source.Proxies) *crowd {
	c := &crowd{limits: [stages]int{early: l.early, fresh: l.fresh, idle: l.idle, leaving: l.leaving}, proxies: proxies, turns: newTurns()}
	for at := range c.members {
		c.members[at].Modest = c.limits[at] / modestShare
	}
	return c
}

// move puts a connection where it belongs, and closes another one there when there are too many.
func (c *crowd) move(one *conn, to stage) {
	if out := c.place(one, to); out != nil {
		out.cut()
	}
}

// place gives the connection that must go, or nil.
func (c *crowd) place(one *conn, to stage) *conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members[one.stage].Remove(one.member)
	one.member, one.stage = nil, to
	if to == working {
		return nil
	}
	in := &c.members[to]
	one.member = in.Add(one.from, one)
	if in.Len() <= c.limits[to] {
		return nil
	}
	next := in.Next()
	in.Remove(next)
	next.Value.member, next.Value.stage = nil, working
	return next.Value
}

// begun is when a connection has said what is needed to begin with it.
func (c *crowd) begun(one *conn) {
	c.mu.Lock()
	still := one.stage == early
	c.mu.Unlock()
	if still {
		c.move(one, fresh)
	}
}

// rename counts a connection as another source's.
func (c *crowd) rename(one *conn, from netip.Addr) {
	c.mu.Lock()
	at := one.stage
	one.from = from
	c.mu.Unlock()
	if at != working {
		c.move(one, at)
	}
}

// changed is for http.Server.ConnState. It never waits.
func (c *crowd) changed(conn net.Conn, state http.ConnState) {
	one := under(conn)
	if one == nil {
		return
	}
	switch state {
	case http.StateNew:
		// Accept has put it in its place.
	case http.StateIdle:
		c.move(one, idle)
	case http.StateHijacked:
		one.takenOver.Store(true)
		c.move(one, working)
	case http.StateClosed:
		c.move(one, working)
		one.ended()
	case http.StateActive:
		c.move(one, working)
	}
}

// under is the conn below a server's connection; nil when there is none.
func under(c net.Conn) *conn {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	one, _ := c.(*conn)
	return one
}
