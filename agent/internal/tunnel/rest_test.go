package tunnel

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestRest waits while a name keeps its address, moves, or is not asked for.
func TestRest(t *testing.T) {
	t.Parallel()
	const s = time.Second
	via := http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy:3128"})
	for name, c := range map[string]struct {
		target string
		proxy  proxyFunc
		after  error
		pause  time.Duration
		// moves is when the name has another address.
		moves time.Duration
		ends  time.Duration
		asked bool
	}{
		"it moves":                    {"wss://cp.example/x", nil, &CrowdedError{Err: io.EOF}, 45 * s, 12 * s, 15 * s, true},
		"a busy one moves":            {"wss://cp.example/x", nil, &BusyError{Status: 503, RetryAfter: 60 * s}, 60 * s, 1 * s, 5 * s, true},
		"it has moved":                {"wss://cp.example/x", nil, &CrowdedError{Err: io.EOF}, 45 * s, 0, 5 * s, true},
		"it stays":                    {"wss://cp.example/x", nil, &CrowdedError{Err: io.EOF}, 44 * s, time.Hour, 44 * s, true},
		"a short wait":                {"wss://cp.example/x", nil, &CrowdedError{Err: io.EOF}, lookEvery, 0, lookEvery, false},
		"told by the control plane":   {"wss://cp.example/x", nil, &RefusedError{RetryAfter: 60 * s}, 60 * s, 1 * s, 60 * s, false},
		"a proxy's no":                {"wss://cp.example/x", nil, &ProxyError{Credentials: true}, 60 * s, 1 * s, 60 * s, false},
		"a proxy that looks it up":    {"wss://cp.example/x", via, &CrowdedError{Err: io.EOF}, 45 * s, 1 * s, 45 * s, false},
		"an address instead of names": {"wss://192.0.2.1/x", nil, &CrowdedError{Err: io.EOF}, 45 * s, 1 * s, 45 * s, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var asked atomic.Int64
				d := &dialer{names: newNames(), target: c.target, proxy: c.proxy}
				d.names.found([]netip.Addr{netip.MustParseAddr("10.0.0.1")})
				d.names.ask = func(ctx context.Context, network, _ string) found {
					asked.Add(1)
					if network == "ip6" {
						<-ctx.Done() // as some DNS servers do
						return found{err: &net.DNSError{IsTimeout: true}}
					}
					at := "10.0.0.1"
					if time.Since(began) >= c.moves {
						at = "10.0.0.2"
					}
					return found{addrs: []netip.Addr{netip.MustParseAddr(at)}}
				}
				if err := d.rest(t.Context(), c.pause, c.after); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took != c.ends {
					t.Errorf("it took %s, want %s", took, c.ends)
				}
				// Two families each time, and one time more than the waits between.
				if n := asked.Load(); (n > 0) != c.asked || n > 2+2*int64(c.pause/lookEvery) {
					t.Errorf("%d questions were asked in %s", n, time.Since(began))
				}
			})
		})
	}
}

// TestRestEnds has the agent stop while it looks a name up.
func TestRestEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &dialer{names: newNames(), target: "wss://cp.example/x"}
		d.names.ask = func(ctx context.Context, _, _ string) found {
			<-ctx.Done()
			return found{err: ctx.Err()}
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
		defer cancel()
		if err := d.rest(ctx, time.Minute, io.EOF); err == nil || time.Since(began) != 6*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}
