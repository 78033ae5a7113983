package gatewaytest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestRush has attackers of 20 addresses hold so many handshakes that a control plane has no time for those who can come later, and
// cuts the link of an agent that is one of many. A control plane that runs for long lets it in at once. One that has
// just started cannot know that these are no agents: it tells the agent to come at its turn, and lets it in then.
func TestRush(t *testing.T) {
	inTurn(t)
	const attackers, sources = 240, 20
	for name, c := range map[string]struct {
		lasts string
		told  float64
	}{
		"long after the start": {"1ns", 0},
		"after the start":      {"1h", 1},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			h := startHost(t, dir, "-rush", c.lasts, "-admit", "1")
			// Where one agent a second is let in, the second one has the second turn, and so is one of many.
			first, err := h.connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer first.streams.Close() //nolint:errcheck // it is over
			r := relayTo(t, strings.TrimPrefix(h.URL, "https://"))
			start(t, "swarm", "-url", "https://"+r.Addr().String(), "-fingerprint", h.Fingerprint, "-ca", filepath.Join(dir, "ca.pem"), "-verbose")
			sessions := func(want float64) func() error {
				return func() error {
					if got := h.stats("").Counters["outfeed_gateway_sessions_total"]; got < want {
						return fmt.Errorf("there were %g sessions", got)
					}
					return nil
				}
			}
			eventually(t, "the agent is there", sessions(2))
			defer h.holdUp(t, attackers, sources)()
			eventually(t, "the attackers hold their handshakes", func() error {
				if n := h.shaking(); n < attackers*9/10 {
					return fmt.Errorf("%d handshakes are held", n)
				}
				return nil
			})
			r.cut()
			eventually(t, "the agent is back", sessions(3))
			if told := h.stats("").Counters["outfeed_tls_handshakes_total refused"]; told != c.told {
				t.Errorf("%g were told to come later, want %g", told, c.told)
			}
			if n := h.shaking(); n < attackers/2 {
				t.Errorf("%d handshakes are held at the end", n)
			}
		})
	}
}

// holdUp has attackers begin handshakes and not go on, again and again, until end. They are here, as a process that takes second
// place would not come to it on a busy machine, and they cost little.
func (h *host) holdUp(t *testing.T, attackers, sources int) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for n := range attackers {
		d := dialer{siege: h.sieged(siege{}), config: h.tls()}
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+n%sources))} //nolint:gosec // sources are few
		running.Go(func() {
			for ctx.Err() == nil {
				_ = hello(ctx, d) // it comes back
			}
		})
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// shaking is how many TLS handshakes are under way.
func (h *host) shaking() (n int) {
	h.t.Helper()
	stacks, err := h.get(h.t.Context(), h.api, "/test/profile/goroutine")
	if err != nil {
		h.t.Fatal(err)
	}
	_, all, _ := strings.Cut(string(stacks), "\n") // the head
	for stack := range strings.SplitSeq(all, "\n\n") {
		var count int
		if _, err := fmt.Sscanf(stack, "%d @", &count); err == nil && strings.Contains(stack, "(*intake).shake") {
			n += count
		}
	}
	return n
}

// relay passes connections on, until they are cut.
type relay struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func relayTo(t *testing.T, address string) *relay {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l}
	var passing sync.WaitGroup
	t.Cleanup(passing.Wait)
	t.Cleanup(r.cut)
	t.Cleanup(func() { _ = l.Close() })
	passing.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := new(net.Dialer).DialContext(context.WithoutCancel(t.Context()), "tcp", address)
			if err != nil {
				_ = near.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, near, far)
			r.mu.Unlock()
			for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
				passing.Go(func() {
					_, err := io.Copy(way[0], way[1])
					_ = errors.Join(err, near.Close(), far.Close()) // either end may have gone
				})
			}
		}
	})
	return r
}

// cut ends what passes.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close() // it may be closed
	}
	r.conns = nil
}
