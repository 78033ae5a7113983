package gateway

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

var here = netip.MustParseAddr("192.0.2.1") //nolint:gochecknoglobals // it does not change

// TestAdmissionTurns turns many away at once: they are to come back one after the other, as fast as they can be let in.
func TestAdmissionTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate = 10
		a := newAdmission(1000, rate)
		in, turns := 0, []time.Duration{}
		for range 500 {
			if _, ok := a.admit(here, nil, nil); ok {
				in++
				continue
			}
			turns = append(turns, a.turn(here))
		}
		if in != rate/4 {
			t.Errorf("%d came in at once, want %d", in, rate/4)
		}
		for n, turn := range turns {
			if want := max(time.Second, time.Duration(n+1)*time.Second/rate); want <= lastTurn && turn != want {
				t.Fatalf("turn %d is %v, want %v", n, turn, want)
			}
		}
		// Those who come at their turn are let in.
		for range 300 {
			time.Sleep(time.Second / rate)
			if _, ok := a.admit(here, nil, nil); !ok {
				t.Fatal("turned away again")
			}
		}
	})
}

// TestAdmissionTurnsAreBounded turns away far more than fit into a minute.
func TestAdmissionTurnsAreBounded(t *testing.T) {
	t.Parallel()
	a := newAdmission(1, 10)
	for range 10_000 {
		if turn := a.turn(here); turn < time.Second || turn > lastTurn {
			t.Fatalf("the turn is in %v", turn)
		}
	}
}

// TestAdmissionPlaces has peers that hold all places: they keep them for a while, not for ever.
func TestAdmissionPlaces(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(2, 100)
		slow, end := context.WithCancelCause(t.Context())
		done, ok := a.admit(here, end, nil)
		if _, second := a.admit(here, func(error) { t.Error("the younger was ended") }, nil); !ok || !second {
			t.Fatal("not let in")
		}
		time.Sleep(overdue - time.Millisecond)
		if _, ok = a.admit(here, nil, nil); ok {
			t.Error("a third was let in while two had their time")
		}
		time.Sleep(time.Millisecond)
		if _, ok = a.admit(here, nil, nil); !ok || !errors.Is(context.Cause(slow), errOverdue) {
			t.Errorf("the oldest was not ended: %v", context.Cause(slow))
		}
		// Ending what was ended changes nothing.
		done()
		done()
		if n := a.entering.Len(); n != 2 {
			t.Errorf("%d are on their way in, want 2", n)
		}
	})
}

// TestAdmissionIsShared has a source that comes without end, takes all places and never finishes: another one is let in at
// once, and what the first was told to wait is not asked of it.
func TestAdmissionIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate = 200
		a := newAdmission(192, rate)
		greedy := netip.MustParseAddr("192.0.2.66")
		ended, refused := 0, 0
		attack := func() {
			for range 20 {
				if _, ok := a.admit(greedy, func(error) { ended++ }, nil); !ok {
					refused++
					a.turn(greedy)
				}
			}
		}
		for range 1000 {
			attack()
			time.Sleep(10 * time.Millisecond)
		}
		if refused < 10_000 || a.entering.Len() != 192 {
			t.Fatalf("%d were refused, %d are entering: this is no attack", refused, a.entering.Len())
		}
		for n := range 200 {
			attack()
			done, ok := a.admit(here, func(error) { t.Error("the honest one was ended") }, nil)
			if !ok {
				t.Fatalf("the honest one was refused at %d, with %.1f tokens", n, a.tokens)
			}
			time.Sleep(50 * time.Millisecond)
			attack()
			done()
		}
		if wait := a.turn(here); wait > time.Second {
			t.Errorf("the honest one was to wait for %v", wait)
		}
		before := ended
		time.Sleep(time.Minute)
		if _, ok := a.admit(greedy, nil, nil); !ok || ended < before {
			t.Error("after a quiet minute the greedy one was not let in")
		}
		if len(a.sources) > 2 {
			t.Errorf("%d sources are remembered", len(a.sources))
		}
	})
}

// TestAdmissionOfManySources turns many away, each from an address of its own: they come back one after the other.
func TestAdmissionOfManySources(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate = 200
		a := newAdmission(192, rate)
		for n := range 5000 {
			turn := a.turn(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}))
			if want := max(time.Second, time.Duration(n+1)*time.Second/rate); turn < want-time.Millisecond || turn > want+time.Millisecond {
				t.Fatalf("turn %d is %v, want %v", n, turn, want)
			}
		}
		for n := range 2 * maxSources {
			a.turn(netip.AddrFrom4([4]byte{11, byte(n >> 16), byte(n >> 8), byte(n)}))
		}
		if len(a.sources) > maxSources+1 {
			t.Errorf("%d sources are remembered", len(a.sources))
		}
	})
}

// TestAdmissionSilent has peers that say nothing: they make room sooner, and do not count as let in.
func TestAdmissionSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(2, 100)
		before := a.tokens
		silent, end := context.WithCancelCause(t.Context())
		talker, endTalker := context.WithCancelCause(t.Context())
		var heard voice
		if _, ok := a.admit(here, endTalker, &heard); !ok {
			t.Fatal("not let in")
		}
		if _, ok := a.admit(here, end, new(voice)); !ok || a.tokens != before {
			t.Fatalf("let in: %v; %v are left of %v", ok, a.tokens, before)
		}
		heard.speak()
		heard.speak()
		if a.tokens != before-1 {
			t.Errorf("%v are left of %v", a.tokens, before)
		}
		time.Sleep(mute - time.Millisecond)
		if _, ok := a.admit(here, nil, nil); ok {
			t.Error("a third was let in at once")
		}
		time.Sleep(time.Millisecond)
		if _, ok := a.admit(here, nil, nil); !ok || silent.Err() == nil || talker.Err() != nil {
			t.Errorf("the silent one is ended: %v, the other: %v", silent.Err(), talker.Err())
		}
	})
}
