package gateway

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outfeed/outfeed/internal/source"
)

const (
	// overdue is how long a handshake may take when others wait for its place and its source is not greedy. All places are
	// taken anew about once in this time, at the usual rate.
	overdue = time.Second
	// mute is the same for one that has said nothing yet. Who was let in has only to send what it needs no answer for.
	mute = 250 * time.Millisecond
	// lastTurn is the greatest wait that is asked of a connection that is not let in.
	lastTurn = time.Minute
	// memory is how long it counts that a source was let in; it fades.
	memory = 5 * time.Second
	// modestShare is the part of the places of which a source may have one without being greedy, and modestVisits how often
	// it may have been let in lately.
	modestShare  = 16
	modestVisits = 4
	// maxSources bounds the sources that are remembered; those beyond count as one.
	maxSources = 20_000
)

// errOverdue is why a handshake ends when others wait.
var errOverdue = errors.New("the handshake had to make room for others")

// admission bounds how many connections come in per second, and how many are on their way in at once. Where there is not
// enough for all, sources share it: what one of them does changes nothing for the others.
type admission struct {
	atOnce int
	rate   float64

	mu     sync.Mutex
	tokens float64
	at     time.Time
	// entering are those on their way in.
	entering source.Crowd[netip.Addr, entrant]
	// sources are those that came lately, looked through at swept; total is the sum of what they have used, as of at, and
	// queueing how many of them have somebody who was turned away and is to come back.
	sources  map[netip.Addr]*visits
	swept    time.Time
	total    float64
	queueing int
}

// entrant is one on its way in.
type entrant struct {
	since time.Time
	end   context.CancelCauseFunc
	voice *voice
}

// silent is one of which nothing was heard yet.
func (e entrant) silent() bool { return e.voice != nil && !e.voice.heard.Load() }

// voice tells that one on its way in has said something, so that there is something to compute for it.
type voice struct {
	heard  atomic.Bool
	charge func()
}

// speak may be called more than once.
func (v *voice) speak() {
	if v.heard.CompareAndSwap(false, true) && v.charge != nil {
		v.charge()
	}
}

// visits are what is remembered of a source.
type visits struct {
	// used is how often it was let in, fading, as of at.
	used float64
	at   time.Time
	// next is when the last one of it that was turned away may come back.
	next time.Time
}

func newAdmission(atOnce, perSecond int) *admission {
	now := time.Now()
	a := &admission{atOnce: atOnce, rate: float64(perSecond), at: now, swept: now, sources: map[netip.Addr]*visits{}}
	a.entering.Modest = atOnce / modestShare
	a.tokens = a.burst()
	return a
}

// burst is how many may come at once after a quiet moment.
func (a *admission) burst() float64 { return max(1, a.rate/4) }

// admit lets one in, and gives what ends its handshake, which may be called more than once. When all places are taken, a
// source that has many of them loses its oldest, and else the oldest of all ends if it is slow: whoever only holds a place
// keeps nobody out for long. It counts as let in when it speaks, as nothing is computed before; with nil at once.
func (a *admission) admit(from netip.Addr, end context.CancelCauseFunc, voice *voice) (done func(), ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	a.pass(now)
	v := a.of(from, now)
	var out *source.Member[netip.Addr, entrant]
	if a.entering.Len() >= a.atOnce {
		if out = a.gives(from, now); out == nil {
			return nil, false
		}
	}
	if a.tokens < 1+a.reserve(v) {
		return nil, false
	}
	if out != nil {
		a.entering.Remove(out)
		out.Value.end(errOverdue)
	}
	if voice == nil {
		a.charge(v)
	} else {
		voice.charge = func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			now := time.Now()
			a.pass(now)
			a.charge(a.of(from, now))
		}
	}
	place := a.entering.Add(from, entrant{since: now, end: end, voice: voice})
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.entering.Remove(place)
	}, true
}

// charge counts one that is let in. mu is held.
func (a *admission) charge(v *visits) {
	a.tokens--
	v.used++
	a.total++
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

// of is what is remembered of a source. mu is held.
func (a *admission) of(from netip.Addr, now time.Time) *visits {
	v := a.sources[from]
	if v == nil && len(a.sources) >= maxSources {
		from = netip.Addr{}
		v = a.sources[from]
	}
	if v == nil {
		v = &visits{at: now}
		a.sources[from] = v
	}
	v.fade(now)
	return v
}

// reserve is how much a source has to leave to others: half of what may come at once, when it was let in more often than
// others lately. mu is held.
func (a *admission) reserve(v *visits) float64 {
	if v.used <= modestVisits || v.used*float64(len(a.sources)) <= a.total*(1+1e-6) {
		return 0
	}
	return a.burst() / 2
}

// gives is who makes room for one of a source, or nil. mu is held.
func (a *admission) gives(from netip.Addr, now time.Time) *source.Member[netip.Addr, entrant] {
	next := a.entering.Next()
	if a.entering.Of(next.From()) > max(a.entering.Modest, a.entering.Of(from)+1) || now.Sub(next.Value.since) >= overdue {
		return next
	}
	var longest *source.Member[netip.Addr, entrant]
	for m := range a.entering.All() {
		if m.Value.silent() && now.Sub(m.Value.since) >= mute && (longest == nil || m.Value.since.Before(longest.Value.since)) {
			longest = m
		}
	}
	return longest
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
