package tunnel_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/tunnel"
	"github.com/outfeed/outfeed/internal/secret"
)

// moody is a proxy that hangs up on a CONNECT when it is in the mood for that.
type moody struct {
	*relay
	hangsUp atomic.Bool
	// asked is how often it hung up.
	asked atomic.Int32
}

func newMoody(t *testing.T) *moody {
	t.Helper()
	m := &moody{}
	m.relay = newRelay(t, nil, func(r *relay, client net.Conn) {
		request, err := http.ReadRequest(bufio.NewReader(client))
		if err != nil || m.hangsUp.Load() {
			m.asked.Add(1)
			_ = client.Close()
			return
		}
		server, ok := r.dial(request.Host)
		if !ok {
			_ = client.Close()
			return
		}
		_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n") // it is noticed below
		r.join(client, server, io.Discard)
	})
	return m
}

// cut ends what passes.
func (m *moody) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for conn := range m.open {
		_ = conn.Close() // it may be closed
	}
}

// TestAProxyThatHangsUp has agents whose proxy hangs up on them: it is asked as often as any path that leads nowhere, unless it was
// told a password that it has never accepted.
func TestAProxyThatHangsUp(t *testing.T) {
	t.Parallel()
	const hungUp = "closed the connection without an answer"
	down := func(s tunnel.State) bool { return strings.Contains(s.LastError, hungUp) && !s.NextTry.IsZero() }
	often := func(t *testing.T, m *moody) {
		t.Helper()
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for m.asked.Load() < 5 {
			<-tick.C
		}
	}
	for name, c := range map[string]struct {
		user string
		// first is that it lets the agent through once before it hangs up.
		first, seldom bool
	}{
		"no password":                  {"", false, false},
		"a password that may be wrong": {"plant:hunter2@", false, true},
		"one that was accepted":        {"plant:hunter2@", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, a, m := newPlane(t, nil), newAgent(t), newMoody(t)
			m.hangsUp.Store(!c.first)
			s := settingsFor(t, p, a)
			s.Link.Proxy = secret.New("http://" + c.user + m.addr)
			client, _ := run(t, s)
			if c.first {
				waitState(t, client, func(s tunnel.State) bool { return s.Connected })
				m.hangsUp.Store(true)
				m.cut()
			}
			if c.seldom {
				state := waitState(t, client, down)
				if wait := time.Until(state.NextTry); wait < 10*time.Second || m.asked.Load() != 1 {
					t.Errorf("it was asked %d times, and is asked again in %s", m.asked.Load(), wait)
				}
				return
			}
			often(t, m)
			m.hangsUp.Store(false)
			waitState(t, client, func(s tunnel.State) bool { return s.Connected })
		})
	}
}
