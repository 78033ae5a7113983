package gatewaytest_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/outfeed/outfeed/internal/mux"
)

// TestHalfOpenUpgrades has attackers of one address who begin tunnels, never go on, and come back at once: agents of another
// address are let in at the first try, and those of the same address after a few.
func TestHalfOpenUpgrades(t *testing.T) {
	inTurn(t)
	attackers, agents, held := 300, 10, 150
	if *long {
		attackers, agents, held = 2000, 200, 500
	}
	h := startHost(t, t.TempDir())
	crowd := startCrowd(t, h.sieged(siege{Kind: "half-open", Attackers: attackers, Sources: 1}))
	defer crowd.end()
	eventually(t, "the attackers take the places", func() error {
		if open := h.stats("").Files; open < held {
			return fmt.Errorf("%d files are open", open)
		}
		return nil
	})
	for from, tries := range map[string]int{"127.0.0.9": 2, "127.0.0.1": 100} {
		refused, worst := 0, time.Duration(0)
		for range agents {
			began := time.Now()
			n := h.tryFrom(t, from)
			refused += n
			worst = max(worst, time.Since(began))
			if n >= tries {
				t.Errorf("an agent from %s was let in at the try %d", from, n+1)
			}
		}
		t.Logf("%d agents from %s: turned away %d times, the slowest took %v", agents, from, refused, worst)
	}
}

// tryFrom has an agent connect from an address, and try again at once when it is turned away. It gives how often that was.
func (h *host) tryFrom(t *testing.T, address string) (refused int) {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: h.tls(), DisableKeepAlives: true, DialContext: dialer.DialContext}}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for ; ; refused++ {
		a, err := h.connectBy(ctx, client)
		if err == nil {
			_ = a.streams.Close()
			return refused
		}
		if ctx.Err() != nil {
			t.Fatalf("an agent from %s was never let in: %v", address, err)
		}
	}
}

// TestSilentTunnels has peers that open a tunnel and say nothing: each costs little, so that many can be held.
func TestSilentTunnels(t *testing.T) {
	inTurn(t)
	const count, limit = 400, 32 << 10
	h := startHost(t, t.TempDir())
	a, err := h.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := h.stats("?collect")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: h.tls(), DisableKeepAlives: true}}
	for range count {
		conn, _, err := mux.Dial(t.Context(), h.URL+"/tunnel/v1", client) //nolint:bodyclose // it is the connection
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // it is over
	}
	after := h.stats("?collect")
	each := (after.Heap + after.Stacks - before.Heap - before.Stacks) / count
	t.Logf("each of %d silent tunnels takes %d bytes of heap and %d of stacks", count, (after.Heap-before.Heap)/count, (after.Stacks-before.Stacks)/count)
	if open := after.Files - before.Files; open < count || each > limit {
		t.Errorf("%d files were opened, and %d bytes are in use for each", open, each)
	}
	if err := a.streams.Close(); err != nil {
		t.Error(err)
	}
}
