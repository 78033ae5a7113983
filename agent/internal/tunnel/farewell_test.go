package tunnel_test

import (
	"context"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/tunnel"
	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/protocol/wire"
)

// Whoever looks at an agent that was stopped sees how it was when it stopped, and not up to 15 s before.
func TestLastStatusComesWithTheStop(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	a := newAgent(t)
	_, stop := run(t, settingsFor(t, p, a))
	<-p.statuses
	a.mu.Lock()
	a.status = &wire.Status{DesiredSerial: 77} // nobody tells that it changed
	a.mu.Unlock()
	stop()
	<-p.ended
	var last *wire.Status
	for len(p.statuses) > 0 {
		last = <-p.statuses
	}
	if last.GetDesiredSerial() != 77 {
		t.Errorf("the last status is %v", last)
	}
}

// A control plane that takes nothing, or does not end the session, delays the stop by a second at the most.
func TestStopDoesNotWaitForTheControlPlane(t *testing.T) {
	t.Parallel()
	p := newPlane(t, func(p *plane) {
		p.onSession = func(_ context.Context, s *mux.Session) { <-s.Done() }
	})
	client, stop := run(t, settingsFor(t, p, newAgent(t)))
	waitState(t, client, func(s tunnel.State) bool { return s.Connected })
	begun := time.Now()
	stop()
	t.Logf("the stop took %s", time.Since(begun))
	<-p.ended
}
