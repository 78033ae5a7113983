package gateway_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/gateway"
	"github.com/outfeed/outfeed/protocol/wire"
)

// TestWhatIsTooLargeToBeSentEndsNoSession has an agent for which there is more than a message holds, in a session and from the
// beginning of the next.
func TestWhatIsTooLargeToBeSentEndsNoSession(t *testing.T) {
	t.Parallel()
	log := &lines{}
	s := newSite(t, func(settings *gateway.Settings) { settings.Log = slog.New(slog.NewTextHandler(log, nil)) })
	public, key := newKey(t)
	agent := s.domain.known(public)
	v := s.visit(key)
	v.connect(1)
	largest := strings.Repeat("x", wire.MaxBundle)
	// The largest still goes, with all that is beside it in its message.
	s.domain.deploy(agent, largest)
	if got := v.hear().GetDesired(); string(got.GetEnvelope()) != largest || got.GetClock() == 0 {
		t.Fatalf("%d bytes came", len(got.GetEnvelope()))
	}
	s.domain.deploy(agent, largest+"x")
	told := func() int { return log.count("too large to be sent") }
	eventually(t, "it is told", func() bool { return told() == 1 })
	// The session goes on, and the next that can be sent comes.
	v.say(v.control, &wire.ControlUp{Message: &wire.ControlUp_RunReport{RunReport: &wire.RunReport{RunId: "run-1"}}})
	if got := v.hear().GetRunReportsStored(); got != 1 {
		t.Errorf("%d reports are acknowledged", got)
	}
	s.domain.notice(agent)
	s.domain.deploy(agent, "bundle-4")
	if got := v.hear().GetDesired(); string(got.GetEnvelope()) != "bundle-4" {
		t.Errorf("%d bytes came", len(got.GetEnvelope()))
	}
	if told() != 1 {
		t.Errorf("one change is told %d times", told())
	}

	s.domain.deploy(agent, strings.Repeat("x", 2*wire.MaxMessage))
	eventually(t, "it is told", func() bool { return told() == 2 })
	next := s.visit(key)
	next.hello(2)
	if next.hear().GetWelcome() == nil {
		t.Fatal("no welcome came")
	}
	next.keeps()
	eventually(t, "the next session tells it", func() bool { return told() == 3 })
	s.domain.deploy(agent, "bundle-6")
	if got := next.hear().GetDesired(); string(got.GetEnvelope()) != "bundle-6" {
		t.Errorf("%d bytes came", len(got.GetEnvelope()))
	}
}
