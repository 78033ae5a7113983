package tunnel_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/outfeed/outfeed/protocol/wire"
)

// slowStatus is an agent in which a run begins, and is reported, while its second status is being made.
type slowStatus struct {
	*agent
	made int
}

func (s *slowStatus) Status() *wire.Status {
	s.made++
	if s.made == 2 {
		s.report("late")
		// It does not come while the status is made, so there is nothing to wait for: a while is given to what must not happen.
		limited, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		<-limited.Done()
	}
	return &wire.Status{DesiredSerial: uint64(s.made)} //nolint:gosec // a small number
}

// TestNoReportComesBeforeAStatusThatDoesNotKnowOfIt holds what the control plane concludes from the runs that a status names.
func TestNoReportComesBeforeAStatusThatDoesNotKnowOfIt(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	a := &slowStatus{agent: newAgent(t)}
	settings := settingsFor(t, p, a.agent)
	settings.Reporter = a
	_, stop := run(t, settings)
	<-p.statuses
	signal(a.statusChanged)
	<-p.statuses
	a.waitReported()
	p.mu.Lock()
	heard := slices.Clone(p.heard)
	p.mu.Unlock()
	if want := []string{"status 1", "status 2", "report late"}; !slices.Equal(heard, want) {
		t.Errorf("the control plane heard %q, want %q", heard, want)
	}
	stop()
	<-p.ended
}
