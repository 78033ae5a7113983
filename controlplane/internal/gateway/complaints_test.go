package gateway_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/gateway"
	"github.com/outfeed/outfeed/protocol/wire"
)

// lines keeps a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(of string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), of)
}

// An agent that sends nothing but what is refused gets one line of the log, and a counter that counts.
func TestRefusedStatusesDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	const many = 300
	log := &lines{}
	s := newSite(t, func(settings *gateway.Settings) { settings.Log = slog.New(slog.NewTextHandler(log, nil)) })
	public, key := newKey(t)
	s.domain.known(public)
	v := s.visit(key)
	v.connect(1)
	errs := make([]error, many)
	for i := range errs {
		errs[i] = failure(fleet.Invalid, "the agent reports on too many flows")
	}
	s.domain.order("StoreStatus", errs...)
	for range many + 1 {
		v.say(v.control, &wire.ControlUp{Message: &wire.ControlUp_Status{Status: &wire.Status{}}})
	}
	s.domain.wait(func() bool { return s.domain.statuses == 1 })
	if n := log.count("an agent's status was not stored"); n != 1 {
		t.Errorf("%d refused statuses made %d lines", many, n)
	}
	if n := s.metric("outfeed_gateway_statuses_refused_total"); n != many {
		t.Errorf("%v refused statuses are counted, want %d", n, many)
	}
}
