package gateway

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/outfeed/outfeed/internal/source"
)

const (
	// overdue is how long a handshake may take when others wait for its place and its source is not greedy. To end it wastes
	// what was computed for it, and has it come again, so it is several times what a slow link or a busy machine needs.
	overdue = 3 * time.Second
	// mute is the same for one that has not begun it. Who was let in has only to send what it needs no answer for.
	mute = 250 * time.Millisecond
	// patience is the same for some of them, so that of a crowd of agents that are all slower than that some come in.
	patience = 10 * time.Second
	// lastTurn is the greatest wait that is asked of a connection that is not let in.
	lastTurn = time.Minute
	// memory is how long it counts that a source was let in; it fades.
	memory = 5 * time.Second
	// modestShare is the part of the places of which a source may have one without being greedy, and modestVisits how often
	// it may have been let in lately. patientSilent and patientHandshakes are the parts of the places for who may take
	// patience.
	modestShare       = 16
	modestVisits      = 4
	patientSilent     = 4
	patientHandshakes = 2
	// maxSources bounds the sources that are remembered; those beyond count as one.
	maxSources = 20_000
)

// errOverdue is why a handshake ends when others wait.
var errOverdue = errors.New("the handshake had to make room for others")

// admission bounds how many connections come in per second, and how many are on their way in at once. Where there is not
// enough for all, sources share it: what one of them does changes nothing for the others.
//
// Who is let in has one of many places in which it costs little. What costs much, its handshake, begins once it has said its
// first message, and when there is a place and a turn for that: the next is of the source that had the fewest lately.
type admission struct {
	// places are for those that have not begun, atOnce for those that have.
	places, atOnce int
	rate           float64

	mu     sync.Mutex
	tokens float64
	at     time.Time
	// silent are those that have not begun, waiting those that would, and entering those that have.
	silent, waiting, entering crowd
	// next is when those that wait are looked at again; nil when nobody waits.
	next *time.Timer
	// sources are those that came lately, looked through at swept; total is the sum of what they have used, as of at, and
	// queueing how many of them have somebody who was turned away and is to come back.
	sources  map[netip.Addr]*visits
	swept    time.Time
	total    float64
	queueing int
}

// crowd are entrants, of whom some may take patience.
type crowd struct {
	source.Crowd[netip.Addr, *entrant]
	// patient is how many do, and mayBe how many may.
	patient, mayBe int
}

// entrant is one on its way in. Only the admission's mutex protects what follows end.
type entrant struct {
	admission *admission
	end       context.CancelCauseFunc
	// begun closes when its handshake may begin.
	begun chan struct{}

	// since is when it came where it is, which is in one of the crowds, as member; nil when it is in none.
	since  time.Time
	in     *crowd
	member *source.Member[netip.Addr, *entrant]
	// patient is that it may take patience there.
	patient bool
}

// visits are what is remembered of a source.
type visits struct {
	// used is how often it was let in, fading, as of at.
	used float64
	at   time.Time
	// next is when the last one of it that was turned away may come back.
	next time.Time
}

func newAdmission(places, atOnce, perSecond int) *admission {
	now := time.Now()
	a := &admission{places: places, atOnce: atOnce, rate: float64(perSecond), at: now, swept: now, sources: map[netip.Addr]*visits{}}
	a.silent.Modest, a.waiting.Modest, a.entering.Modest = places/modestShare, places/modestShare, atOnce/modestShare
	a.silent.mayBe, a.entering.mayBe = places/patientSilent, atOnce/patientHandshakes
	a.tokens = a.burst()
	return a
}

// burst is how many may come at once after a quiet moment.
func (a *admission) burst() float64 { return max(1, a.rate/4) }

// admit lets one in, which has to leave. When all places are taken, a source that has many of them loses its oldest, and else
// the oldest of all ends if it is slow: whoever only holds a place keeps nobody out for long.
func (a *admission) admit(from netip.Addr, end context.CancelCauseFunc) (e *entrant, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.pass(now)
	a.proceed(now)
	if a.tokens < 1+a.reserve(a.known(from, now)) || a.entering.Len() >= a.atOnce && a.makesWay(from, now) == nil {
		return nil, false
	}
	if a.silent.Len()+a.waiting.Len() >= a.places {
		out := a.makesRoom(from, now)
		if out == nil {
			return nil, false
		}
		a.oust(out)
	}
	e = &entrant{admission: a, end: end, begun: make(chan struct{})}
	e.move(&a.silent, from, now)
	return e, true
}

// begin waits for the turn of a handshake. It gives why when there is none any more.
func (e *entrant) begin(ctx context.Context) error {
	a := e.admission
	a.mu.Lock()
	if e.in == &a.silent {
		now := time.Now()
		a.pass(now)
		e.move(&a.waiting, e.member.From(), now)
		a.proceed(now)
	}
	a.mu.Unlock()
	select {
	case <-e.begun:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave gives the place back. It may be called more than once.
func (e *entrant) leave() {
	a := e.admission
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.pass(now)
	e.move(nil, netip.Addr{}, now)
	a.proceed(now)
}

// move puts an entrant where it belongs; nil is nowhere. mu is held.
func (e *entrant) move(to *crowd, from netip.Addr, now time.Time) {
	if e.in != nil {
		e.in.Remove(e.member)
	}
	if e.patient {
		e.in.patient--
	}
	e.in, e.member, e.since, e.patient = to, nil, now, false
	if to == nil {
		return
	}
	e.member = to.Add(from, e)
	if to.patient < to.mayBe {
		e.patient = true
		to.patient++
	}
}

// longest is who has been there the longest of those that had their time; nil when nobody has.
func (c *crowd) longest(now time.Time, limit time.Duration) (longest *entrant) {
	for m := range c.All() {
		e, limit := m.Value, limit
		if e.patient {
			limit = patience
		}
		if now.Sub(e.since) >= limit && (longest == nil || e.since.Before(longest.since)) {
			longest = e
		}
	}
	return longest
}

// oust ends one. mu is held.
func (a *admission) oust(e *entrant) {
	e.move(nil, netip.Addr{}, e.since)
	e.end(errOverdue)
}

// proceed has begin who may. mu is held.
func (a *admission) proceed(now time.Time) {
	if a.next != nil {
		a.next.Stop()
		a.next = nil
	}
	for a.waiting.Len() > 0 {
		if a.tokens < 1 {
			a.await(1)
			return
		}
		e, v := a.first(now)
		if need := 1 + a.reserve(v); a.tokens < need {
			a.await(need)
			return
		}
		if a.entering.Len() >= a.atOnce {
			out := a.makesWay(e.member.From(), now)
			if out == nil {
				a.look(overdue / 8)
				return
			}
			a.oust(out)
		}
		a.tokens--
		v.used++
		a.total++
		e.move(&a.entering, e.member.From(), now)
		close(e.begun)
	}
}

// await has those that wait looked at again when there are so many tokens. mu is held.
func (a *admission) await(tokens float64) {
	a.look(time.Duration((tokens-a.tokens)/a.rate*float64(time.Second)) + time.Millisecond)
}

// look has those that wait looked at again. mu is held.
func (a *admission) look(after time.Duration) {
	a.next = time.AfterFunc(after, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		now := time.Now()
		a.pass(now)
		a.proceed(now)
	})
}

// first is who begins next: the oldest of the source that had the fewest lately. mu is held, and somebody waits.
func (a *admission) first(now time.Time) (*entrant, *visits) {
	var best, last *source.Member[netip.Addr, *entrant]
	var fewest, v *visits
	for m := range a.waiting.All() {
		// Those of a source come together, its oldest first.
		if last != nil && last.From() == m.From() {
			continue
		}
		last, v = m, a.of(m.From(), now)
		if best == nil || v.used < fewest.used || v.used == fewest.used && m.Value.since.Before(best.Value.since) {
			best, fewest = m, v
		}
	}
	return best.Value, fewest
}

// pass lets time pass. mu is held.
func (a *admission) pass(now time.Time) {
	since := now.Sub(a.at)
	a.at = now
	a.tokens = min(a.burst(), a.tokens+since.Seconds()*a.rate)
	a.total *= faded(since)
	if now.Sub(a.swept) < time.Second {
		return
	}
	a.swept, a.total, a.queueing = now, 0, 0
	for from, v := range a.sources {
		v.fade(now)
		switch {
		case v.next.After(now):
			a.queueing++
		case v.used < 0.1:
			delete(a.sources, from)
		}
		a.total += v.used
	}
}

func faded(since time.Duration) float64 { return math.Exp(-since.Seconds() / memory.Seconds()) }

func (v *visits) fade(now time.Time) {
	v.used *= faded(now.Sub(v.at))
	v.at = now
}

// known is what is remembered of a source, or nil. mu is held.
func (a *admission) known(from netip.Addr, now time.Time) *visits {
	v := a.sources[from]
	if v == nil && len(a.sources) >= maxSources {
		v = a.sources[netip.Addr{}]
	}
	if v != nil {
		v.fade(now)
	}
	return v
}

// of remembers a source from now on, which is for those that have begun or were turned away: who only holds a place has no
// share of what others use. mu is held.
func (a *admission) of(from netip.Addr, now time.Time) *visits {
	v := a.known(from, now)
	if v == nil {
		if len(a.sources) >= maxSources {
			from = netip.Addr{}
		}
		v = &visits{at: now}
		a.sources[from] = v
	}
	return v
}

// reserve is how much a source has to leave to others: half of what may come at once, when it was let in more often than
// others lately. mu is held.
func (a *admission) reserve(v *visits) float64 {
	if v == nil || v.used <= modestVisits || v.used*float64(len(a.sources)) <= a.total*(1+1e-6) {
		return 0
	}
	return a.burst() / 2
}

// makesWay is whose handshake ends for that of one of a source, or nil. mu is held.
func (a *admission) makesWay(from netip.Addr, now time.Time) *entrant {
	if next := a.entering.greedier(from); next != nil {
		return next
	}
	return a.entering.longest(now, overdue)
}

// makesRoom is who has to go of those that have not begun, for one of a source, or nil. mu is held.
func (a *admission) makesRoom(from netip.Addr, now time.Time) *entrant {
	if next := a.silent.greedier(from); next != nil {
		return next
	}
	if longest := a.silent.longest(now, mute); longest != nil {
		return longest
	}
	return a.waiting.greedier(from)
}

// greedier is the oldest of a source that has many, and more than another one that would get one more; or nil.
func (c *crowd) greedier(than netip.Addr) *entrant {
	if next := c.Next(); next != nil && c.Of(next.From()) > max(c.Modest, c.Of(than)+1) {
		return next.Value
	}
	return nil
}

// turn is how long one that is not let in should wait: those of a source come back one after the other, as fast as they can
// be let in beside the other sources.
func (a *admission) turn(from netip.Addr) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.pass(now)
	v := a.of(from, now)
	if !v.next.After(now) {
		v.next = now
		a.queueing++
	}
	v.next = v.next.Add(time.Duration(float64(time.Second) * float64(max(1, a.queueing)) / a.rate))
	wait := v.next.Sub(now)
	if wait > lastTurn {
		v.next = now.Add(lastTurn)
		wait = rand.N(lastTurn) //nolint:gosec // jitter needs no cryptographic randomness
	}
	return max(wait, time.Second)
}
