package tunnel

import (
	"context"
	"time"

	"github.com/outfeed/outfeed/protocol/wire"
)

// farewellTimeout is how long a stop may wait for the last status to arrive.
const farewellTimeout = time.Second

// untilStopped is a context for the session that ends a moment after ctx does: the control plane is told a last status first.
// release must be called at the end of the session.
func (s *session) untilStopped(ctx context.Context) (living context.Context, release func()) {
	living, end := context.WithCancelCause(context.WithoutCancel(ctx))
	over := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(over)
		s.farewell()
		end(context.Cause(ctx))
		_ = s.streams.Close()
	})
	return living, func() {
		if !stop() {
			<-over
		}
		end(nil)
	}
}

// farewell sends the last status, so that nobody looks at an older one until the agent is back. The control plane answers the
// end of the control stream with the end of the session, once it has read what came before.
func (s *session) farewell() {
	if !s.up.Load() {
		return
	}
	over := make(chan struct{})
	cut := time.AfterFunc(farewellTimeout, func() {
		defer close(over)
		_ = s.streams.Close()
	})
	defer func() {
		if !cut.Stop() {
			<-over
		}
	}()
	// Nobody writes behind it: that would fail, and end the session too early.
	s.sending.Lock()
	defer s.sending.Unlock()
	last := &wire.ControlUp{Message: &wire.ControlUp_Status{Status: s.settings.Reporter.Status()}}
	if wire.WriteMessage(s.control, last) != nil || s.control.Close() != nil {
		return // the session has ended
	}
	<-s.streams.Done()
}
