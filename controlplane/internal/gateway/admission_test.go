package gateway

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestAdmissionTurns turns many away at once: they are to come back one after the other, as fast as they can be let in.
func TestAdmissionTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const rate = 10
		a := newAdmission(1000, rate)
		in, turns := 0, []time.Duration{}
		for range 500 {
			if _, ok := a.admit(nil); ok {
				in++
				continue
			}
			turns = append(turns, a.turn())
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
			if _, ok := a.admit(nil); !ok {
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
		if turn := a.turn(); turn < time.Second || turn > lastTurn {
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
		done, ok := a.admit(end)
		if _, second := a.admit(func(error) { t.Error("the younger was ended") }); !ok || !second {
			t.Fatal("not let in")
		}
		time.Sleep(overdue - time.Millisecond)
		if _, ok = a.admit(nil); ok {
			t.Error("a third was let in while two had their time")
		}
		time.Sleep(time.Millisecond)
		if _, ok = a.admit(nil); !ok || !errors.Is(context.Cause(slow), errOverdue) {
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
