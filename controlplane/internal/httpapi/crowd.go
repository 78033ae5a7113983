package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outfeed/outfeed/internal/source"
)

// limits are how many connections a server holds without working for them, by what is waited for.
//
// Nothing waits for room: a connection that comes is taken at once, and where there are too many, the oldest of the source
// that has the most is closed. So the question is how long an honest client has before it is the oldest, when the others
// come back soon after they were closed and have the same address. It needs one round trip (TLS 1.3) from its first byte to
// the end of its head, some milliseconds to some tenths of a second, and so is past each of these long before the attackers
// who came after it make it the oldest.
//
//   - early holds those who have not said their first message whole (on Linux the kernel keeps those who say nothing for 5 s),
//     or wait for their turn in the handshake, of whom the newest is first.
//   - shaking are those in the middle of a handshake, and kept those of them who may take patience for it: of a crowd whose
//     links or machines are so slow that all would be the oldest before they finish, some finish all the same.
//   - heads are those whose head is not whole.
//   - fresh are with the server, which has not read their head yet: long heads, and HTTP/2.
//   - idle are those between two requests.
//   - leaving are those whose last answer is not taken, or whose request is not sent to its end.
//   - streaming are those with HTTP/2 that have requests under way, none of which has shown credentials that are right.
type limits struct{ early, shaking, kept, heads, fresh, idle, leaving, streaming int }

func usualLimits() limits {
	return limits{early: 4096, shaking: 320, kept: 80, heads: 2800, fresh: 256, idle: 256, leaving: 64, streaming: 40}
}

// weights are what a connection counts for, in bytes, with its stack. TestHeld measures early and heads (4.1 and 9.7 KB, and 4.3 KB
// for heads without TLS, each with the other end of the connection); the others are estimates.
// The requests of those at streaming have seats besides.
func weights() [stages]int {
	return [stages]int{early: 6 << 10, shaking: 48 << 10, kept: 48 << 10, heads: 10 << 10, fresh: 30 << 10, idle: 30 << 10, leaving: 60 << 10, streaming: 128 << 10}
}

// maxWeight is what all together may weigh. The collector lets the heap grow by half before it collects (GOGC=50), and the
// requests under way come on top: TestCrowds in gatewaytest holds all to 64 MiB.
const maxWeight = 28 << 20

// modestShare is the part of the places of which a source may have one without having to make room before others: as many
// clients of one site come at once after their link was down.
const modestShare = 8

// patience is how long a handshake may take that is kept.
const patience = 5 * time.Second

// quietShaking is how many may be in the middle of a handshake while there is time for those who can come later as well, of
// which another source's count up to quietOfOther.
const (
	quietShaking = 128
	quietOfOther = 4
)

// stage is what is waited for.
type stage int

const (
	// working is a connection that is not waited for: it has a request under way, or was taken over.
	working stage = iota
	early
	shaking
	kept
	heads
	fresh
	idle
	leaving
	streaming
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
	limits, weights [stages]int
	proxies         source.Proxies
	turns           *turns
	// rush is ServeSettings.Rush.
	rush func() bool
	// secure says that there is TLS.
	secure bool
	// ending are the connections that were cut and still have a goroutine.
	ending ending

	mu      sync.Mutex
	members [stages]source.Crowd[netip.Addr, *conn]
}

func newCrowd(l limits, proxies source.Proxies) *crowd {
	c := &crowd{
		limits:  [stages]int{early: l.early, shaking: l.shaking, kept: l.kept, heads: l.heads, fresh: l.fresh, idle: l.idle, leaving: l.leaving, streaming: l.streaming},
		weights: weights(), proxies: proxies, turns: newTurns(),
	}
	for at := range c.members {
		c.members[at].Modest = c.limits[at] / modestShare
	}
	return c
}

// move puts a connection where it belongs, and closes others when there are too many.
func (c *crowd) move(one *conn, to stage) {
	for _, out := range c.place(one, to) {
		out.cut()
	}
}

// place gives the connections that must go.
func (c *crowd) place(one *conn, to stage) []*conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members[one.stage].Remove(one.member)
	if to == shaking && c.keeps(one) {
		to, one.since = kept, time.Now()
	}
	one.member, one.stage = nil, to
	if to == working {
		return nil
	}
	one.member = c.members[to].Add(one.from, one)
	var out []*conn
	if c.members[to].Len() > c.limits[to] {
		out = append(out, c.oust(to))
	}
	for at, heavy := c.heaviest(); heavy; at, heavy = c.heaviest() {
		out = append(out, c.oust(at))
	}
	return out
}

// keeps says whether a connection that begins a handshake may take its time: where there is room, where the next to go has
// had its time, and where its source has many, and more. mu is held.
func (c *crowd) keeps(one *conn) bool {
	all := &c.members[kept]
	if all.Len() < c.limits[kept] {
		return true
	}
	next := all.Next()
	return next != nil && (all.Of(next.From()) > max(all.Modest, all.Of(one.from)+1) || time.Since(next.Value.since) >= patience)
}

// hasTime says whether there is time for a client that can come later as well: while the handshakes that were begun before
// come to an end. What one other source holds open is no reason to wait, nor what many hold open who are no agents: so there is
// time whenever agents have no reason to come all at once.
func (c *crowd) hasTime(from netip.Addr) bool {
	if c.rush == nil || !c.rush() {
		return true
	}
	if !c.turns.idle() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members[shaking].Around(from, quietOfOther)+c.members[kept].Around(from, quietOfOther) < quietShaking
}

// heaviest is the stage that weighs the most, and whether all together weigh too much. mu is held.
func (c *crowd) heaviest() (stage, bool) {
	var most stage
	var all, top int
	for at := range c.members {
		weight := c.members[at].Len() * c.weights[at]
		if all += weight; weight > top {
			most, top = stage(at), weight
		}
	}
	return most, all > maxWeight
}

// oust takes out who must go first. mu is held.
func (c *crowd) oust(at stage) *conn {
	next := c.members[at].Next()
	c.members[at].Remove(next)
	next.Value.member, next.Value.stage = nil, working
	return next.Value
}

// waiting are those who have no request yet, in the hands of the intake.
func (c *crowd) waiting() []*conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*conn
	for _, at := range []stage{early, shaking, kept, heads} {
		for m := range c.members[at].All() {
			all = append(all, m.Value)
		}
	}
	return all
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
		// The intake has put it in its place.
	case http.StateIdle:
		if one.streams.Load() != nil {
			_ = one.SetReadDeadline(time.Now().Add(idleTimeout)) // what is closed needs none
		}
		c.move(one, idle)
	case http.StateHijacked:
		one.takenOver.Store(true)
		c.move(one, working)
	case http.StateClosed:
		c.move(one, working)
		one.ended()
	case http.StateActive:
		state := one.streams.Load()
		if state == nil {
			c.move(one, working)
			return
		}
		_ = one.SetReadDeadline(time.Time{}) // as above
		if state.isKnown() {
			c.move(one, working)
		} else {
			c.move(one, streaming)
		}
	}
}

// recognize is when the credentials of a request were right: its connection, which may carry others, makes no room any more
// while it has requests under way.
func (c *crowd) recognize(one *conn) {
	one.streams.Load().recognize()
	c.mu.Lock()
	defer c.mu.Unlock()
	if one.stage == streaming {
		c.members[streaming].Remove(one.member)
		one.member, one.stage = nil, working
	}
}

// under is the conn below a server's connection; nil when there is none.
func under(c net.Conn) *conn {
	one, ok := c.(*conn)
	if secure, has := c.(interface{ NetConn() net.Conn }); has && !ok {
		one, _ = secure.NetConn().(*conn)
	}
	return one
}
