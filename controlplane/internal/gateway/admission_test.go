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

// come lets one in that begins at once, and says whether it may go on. It stays until the test ends.
func come(t *testing.T, a *admission, from netip.Addr, end context.CancelCauseFunc) (e *entrant, ok bool) {
	t.Helper()
	if end == nil {
		end = func(error) {}
	}
	e, ok = a.admit(from, end)
	if !ok {
		return nil, false
	}
	begun(t, e)
	return e, true
}

// begun has one say its first message, without waiting for its turn.
func begun(t *testing.T, e *entrant) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errTest)
	if err := e.begin(ctx); err != nil && !errors.Is(err, errTest) {
		t.Error(err)
	}
}

var errTest = errors.New("the test does not wait")

// goes says whether the handshake of one that has begun may go on.
func (e *entrant) goes() bool {
	select {
	case <-e.begun:
		return true
	default:
		return false
	}
}

// TestAdmissionTurns turns many away at once: they are to come back one after the other, as fast as they can be let in.
func TestAdmissionTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate = 10
		a := newAdmission(1000, 1000, rate)
		in, turns := 0, []time.Duration{}
		for range 500 {
			if _, ok := come(t, a, here, nil); ok {
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
			if _, ok := come(t, a, here, nil); !ok {
				t.Fatal("turned away again")
			}
		}
	})
}

// TestAdmissionTurnsAreBounded turns away far more than fit into a minute.
func TestAdmissionTurnsAreBounded(t *testing.T) {
	t.Parallel()
	a := newAdmission(1, 1, 10)
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
		a := newAdmission(3, 3, 100)
		patient, endPatient := context.WithCancelCause(t.Context())
		slow, end := context.WithCancelCause(t.Context())
		_, ok := come(t, a, here, endPatient)
		first, second := come(t, a, here, end)
		if _, third := come(t, a, here, nil); !ok || !second || !third {
			t.Fatal("not let in")
		}
		time.Sleep(overdue - time.Millisecond)
		if _, ok = come(t, a, here, nil); ok {
			t.Error("a fourth was let in while three had their time")
		}
		time.Sleep(time.Millisecond)
		if _, ok = come(t, a, here, nil); !ok || !errors.Is(context.Cause(slow), errOverdue) || patient.Err() != nil {
			t.Errorf("the oldest but one was not ended: %v; the one that may take its time: %v", context.Cause(slow), patient.Err())
		}
		// Ending what was ended changes nothing.
		first.leave()
		first.leave()
		if n := a.entering.Len(); n != 3 {
			t.Errorf("%d are on their way in, want 3", n)
		}
		time.Sleep(patience - overdue)
		for range 2 {
			_, ok = come(t, a, here, nil)
		}
		if !ok || !errors.Is(context.Cause(patient), errOverdue) {
			t.Errorf("the one that may take its time keeps its place for ever: %v", context.Cause(patient))
		}
	})
}

// TestAdmissionIsShared has a source that comes without end, takes all places and never finishes: another one is let in at
// once, and what the first was told to wait is not asked of it.
func TestAdmissionIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate = 200
		a := newAdmission(576, 192, rate)
		greedy := netip.MustParseAddr("192.0.2.66")
		ended, refused := 0, 0
		attack := func() {
			for range 20 {
				if _, ok := come(t, a, greedy, func(error) { ended++ }); !ok {
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
			honest, ok := come(t, a, here, func(error) { t.Error("the honest one was ended") })
			if !ok || !honest.goes() {
				t.Fatalf("the honest one was let in: %v, at %d, with %.1f tokens", ok, n, a.tokens)
			}
			time.Sleep(50 * time.Millisecond)
			attack()
			honest.leave()
		}
		if wait := a.turn(here); wait > time.Second {
			t.Errorf("the honest one was to wait for %v", wait)
		}
		before := ended
		time.Sleep(time.Minute)
		if _, ok := come(t, a, greedy, nil); !ok || ended < before {
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
		a := newAdmission(576, 192, rate)
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
		a := newAdmission(2, 2, 100)
		before := a.tokens
		silent, end := context.WithCancelCause(t.Context())
		if _, ok := a.admit(here, end); !ok {
			t.Fatal("not let in")
		}
		if _, ok := a.admit(here, func(error) { t.Error("the younger was ended") }); !ok || a.tokens != before {
			t.Fatalf("let in: %v; %v are left of %v", ok, a.tokens, before)
		}
		time.Sleep(mute - time.Millisecond)
		if _, ok := come(t, a, here, nil); ok {
			t.Error("a third was let in at once")
		}
		time.Sleep(time.Millisecond)
		talker, ok := come(t, a, here, func(error) { t.Error("one that has begun was ended") })
		if !ok || !talker.goes() || !errors.Is(context.Cause(silent), errOverdue) {
			t.Errorf("let in: %v; the silent one is ended: %v", ok, context.Cause(silent))
		}
		if a.tokens != before-1 {
			t.Errorf("%v are left of %v", a.tokens, before)
		}
		begun(t, talker)
		if a.tokens != before-1 {
			t.Errorf("%v are left of %v after it has said more", a.tokens, before)
		}
		if _, ok = a.admit(here, nil); !ok {
			t.Error("one that has begun keeps the place of one that has not")
		}
	})
}

// TestAdmissionVolley has a source fill all places, say nothing, and then begin with all of them at once: they begin no faster
// than others do, and another source is let in at once.
func TestAdmissionVolley(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const places, rate = 576, 200
		a := newAdmission(places, 192, rate)
		greedy := netip.MustParseAddr("192.0.2.66")
		honest := func() {
			one, ok := come(t, a, here, func(error) { t.Error("the honest one was ended") })
			if !ok || !one.goes() {
				t.Fatalf("the honest one was let in: %v; %.1f tokens", ok, a.tokens)
			}
			one.leave()
		}
		volley := []*entrant{}
		for range places {
			e, ok := a.admit(greedy, func(error) {})
			if !ok {
				t.Fatalf("there are %d, which is no volley", len(volley))
			}
			volley = append(volley, e)
		}
		honest()
		for _, e := range volley {
			begun(t, e)
		}
		went := func() (n int) {
			for _, e := range volley {
				if e.goes() {
					n++
				}
			}
			return n
		}
		if n := went(); n > rate/4 {
			t.Errorf("%d began at once", n)
		}
		for range 20 {
			honest()
			time.Sleep(100 * time.Millisecond)
		}
		if n := went(); n < 192 || n > rate/4+2*rate {
			t.Errorf("%d began within 2 s", n)
		}
		for _, e := range volley {
			e.leave()
		}
		if a.next != nil || a.silent.Len()+a.waiting.Len()+a.entering.Len() > 0 {
			t.Error("something is left")
		}
	})
}

// TestAdmissionBeginsInTurn has many sources wait for their turns: those that had few lately come first, and of one source
// those that came first.
func TestAdmissionBeginsInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(100, 100, 4)
		all := []*entrant{}
		for n := range 3 {
			e, ok := a.admit(netip.AddrFrom4([4]byte{192, 0, 2, byte(n / 2)}), func(error) {})
			if !ok {
				t.Fatal("not let in")
			}
			all = append(all, e)
		}
		for _, e := range all {
			begun(t, e)
		}
		for n, want := range [][]bool{{true, false, false}, {true, false, true}, {true, true, true}} {
			for k, e := range all {
				if e.goes() != want[k] {
					t.Errorf("after %d turns %d goes: %v", n, k, e.goes())
				}
			}
			time.Sleep(time.Second/4 + 2*time.Millisecond)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		last, ok := a.admit(here, func(error) {})
		if !ok {
			t.Fatal("not let in")
		}
		last.leave()
		if err := last.begin(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("one that has left begins: %v", err)
		}
	})
}

// TestAdmissionSilentSourcesHaveNoShare has many sources that only hold places beside a site with many agents: what they do
// not use is the site's.
func TestAdmissionSilentSourcesHaveNoShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate, sources = 100, 500
		a := newAdmission(1000, 1000, rate)
		for i := range sources {
			from := netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
			if _, ok := a.admit(from, func(error) {}); !ok {
				t.Fatal("a silent one found no place")
			}
		}
		for i := range rate / 4 {
			if e, ok := come(t, a, here, nil); !ok || !e.goes() {
				t.Fatalf("agent %d of the site was let in=%v and may not go on", i, ok)
			}
		}
	})
}
