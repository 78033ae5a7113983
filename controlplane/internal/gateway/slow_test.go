package gateway_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// link is a connection to a site that passes so many bytes down in 10 ms, and as many as come up.
type link struct{ each atomic.Int64 }

// via has the site's client dial through a link.
func (s *site) via(l *link) {
	s.t.Helper()
	transport, ok := s.server.Client().Transport.(*http.Transport)
	if !ok {
		s.t.Fatal("no transport")
	}
	transport.DialContext = l.dial
}

func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	there, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	// What the kernel would hold is not what a slow link holds.
	if tcp, ok := there.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(16 << 10) // a larger one makes the test easier to pass
	}
	return &slowly{Conn: there, tick: time.NewTicker(10 * time.Millisecond), link: l}, nil
}

// slowly is a connection of which little can be read at a time.
type slowly struct {
	net.Conn
	tick *time.Ticker
	link *link
}

func (s *slowly) Read(p []byte) (int, error) {
	<-s.tick.C
	return s.Conn.Read(p[:min(len(p), int(s.link.each.Load()))])
}

// TestRevokedWhileTheLinkIsSlow has an agent that takes nothing, and agents behind 32 kbit/s and less, with a bundle on its
// way that takes minutes: a revocation cuts them within 10 s all the same.
func TestRevokedWhileTheLinkIsSlow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		each  int64
		reads bool
	}{
		"it takes nothing": {each: 1 << 20},
		"32 kbit/s":        {each: 40, reads: true},
		"1 kbit/s":         {each: 1, reads: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil)
			public, key := newKey(t)
			agent := s.domain.known(public)
			l := &link{}
			l.each.Store(1 << 20)
			s.via(l)
			v := s.visit(key)
			v.connect(1)
			l.each.Store(c.each)
			var reading func()
			if c.reads {
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, _ = io.Copy(io.Discard, v.control)
				}()
				reading = func() { <-done }
			}
			sent := s.metric("outfeed_gateway_sent_bytes_total")
			s.domain.deploy(agent, strings.Repeat("x", 4<<20))
			eventually(t, "the bundle is on its way", func() bool { return s.metric("outfeed_gateway_sent_bytes_total") > sent })
			s.domain.deploy(agent, strings.Repeat("y", 4<<20))
			began := time.Now()
			s.domain.revoke(agent)
			s.domain.wait(func() bool { return agent.connected == 0 })
			took := time.Since(began)
			t.Logf("cut after %v", took)
			if took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if reading != nil {
				_ = v.streams.Close()
				reading()
			}
		})
	}
}

// TestOnlyTheNewestStateIsSent deploys while an agent takes nothing: what it gets then is the newest alone.
func TestOnlyTheNewestStateIsSent(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	public, key := newKey(t)
	agent := s.domain.known(public)
	v := s.visit(key)
	v.connect(1)
	for n := range 50 {
		s.domain.deploy(agent, strings.Repeat(string(rune('a'+n%26)), 1<<20))
	}
	s.domain.deploy(agent, "last")
	for heard := 1; ; heard++ {
		if bytes.Equal(v.hear().GetDesired().GetEnvelope(), []byte("last")) {
			t.Logf("%d of 51 states were sent", heard)
			break
		}
	}
	// Nothing is lost that comes while another is sent.
	s.domain.rotate(agent)
	if v.hear().GetRotateNow() == nil {
		t.Error("the agent was not asked for new keys")
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatal(what)
		}
	}
}
