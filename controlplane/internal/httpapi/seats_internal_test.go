package httpapi

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

// TestSeats has one organization that keeps the control plane busy, and others that do not.
func TestSeats(t *testing.T) {
	t.Parallel()
	s := newSeats()
	from := netip.MustParseAddr("192.0.2.1")
	enter := func(tenant string) *seat {
		one := s.enter(from, http.NewResponseController(httptest.NewRecorder()), nil)
		one.work()
		if tenant != "" {
			one.of(fleet.ID(tenant))
		}
		return one
	}
	var greedy []*seat
	for range maxBusyOfOne {
		greedy = append(greedy, enter("greedy"))
	}
	for _, one := range greedy {
		if !one.busy {
			t.Fatal("turned away too early")
		}
	}
	more := enter("")
	more.rest()
	more.holder = holder{tenant: "greedy"}
	if more.work() {
		t.Error("one organization keeps everybody busy")
	}
	if other := enter(""); !other.busy {
		t.Error("another one was turned away")
	}
	// Who is busy is not ousted, whoever comes; who waits for a client is.
	for range 2 * maxSeats {
		s.enter(from, http.NewResponseController(httptest.NewRecorder()), nil)
	}
	if n := s.busy + s.slow.Len(); n != maxSeats || s.busy != maxBusyOfOne+1 {
		t.Errorf("%d sit, %d are busy", n, s.busy)
	}
	if err := more.hold(1); err == nil {
		t.Error("the oldest that waited was not ousted")
	}
	// What is held is bounded, too.
	last := s.enter(from, http.NewResponseController(httptest.NewRecorder()), nil)
	_ = last.hold(maxHeldBytes)
	if err := last.hold(1); err == nil || s.held > maxHeldBytes {
		t.Errorf("%d bytes are held, %v", s.held, err)
	}
	for _, one := range append(greedy, more, last) {
		one.leave()
		one.leave()
	}
	if s.busy != 1 || len(s.byHolder) != 1 {
		t.Errorf("%d are busy: %v", s.busy, s.byHolder)
	}
}
