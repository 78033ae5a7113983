package tunnel

import "time"

// remoteClock is what the control plane's clock said last, and when. The zero value knows nothing.
type remoteClock struct {
	said time.Time
	// heard has the monotonic time, so that a clock that is set meanwhile shows.
	heard time.Time
}

// skew is how far this machine's clock is before that one, to a network round trip.
func (r remoteClock) skew() time.Duration {
	if r.heard.IsZero() {
		return 0
	}
	now := time.Now()
	return now.Sub(r.said.Add(now.Sub(r.heard))).Round(time.Second)
}

// hearClock notes what the control plane's clock says, in UTC microseconds; 0 when it does not say.
func (s *session) hearClock(now int64) {
	if now != 0 {
		s.mu.Lock()
		s.theirs = remoteClock{said: time.UnixMicro(now), heard: time.Now()}
		s.mu.Unlock()
	}
	if s.settings.Clock != nil {
		s.settings.Clock.ControlPlaneClock(now)
	}
}
