package e2e

import (
	"errors"
	"testing"
	"time"
)

// TestFaultLastStatus stops an agent in order: the control plane knows how it was when it stopped, and not 15 s before.
func TestFaultLastStatus(t *testing.T) {
	t.Parallel()
	s, folder := fileSite(t)
	s.apply(countFlow)
	s.line(folder, 1)
	s.line(folder, 2)
	begun := time.Now()
	s.agent.stop()
	t.Logf("the stop took %s", time.Since(begun))
	var agent struct {
		Connected bool `json:"connected"`
		Outbox    struct {
			ReportedAt   time.Time `json:"reported_at"`
			Produced     int       `json:"produced"`
			Acknowledged int       `json:"acknowledged"`
		} `json:"outbox"`
	}
	s.eventually("the end of the session is recorded", func() error {
		if err := s.whole(&agent); err != nil {
			return err
		}
		if agent.Connected {
			return errors.New("the agent counts as connected")
		}
		return nil
	})
	if o := agent.Outbox; o.ReportedAt.Before(begun) || o.Produced != 2 || o.Acknowledged != 2 {
		t.Errorf("it was stopped at %s, and the newest status is %+v", begun, o)
	}
}
