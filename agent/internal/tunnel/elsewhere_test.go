package tunnel_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/tunnel"
	"github.com/outfeed/outfeed/internal/mux"
)

// badPlace listens at 127.0.0.2 with the control plane's certificate, as a load balancer does whose control plane is away, and
// counts its connections. It gives its port.
func badPlace(t *testing.T, p *plane, asked *atomic.Int32, does func(*relay, net.Conn)) (port string) {
	t.Helper()
	bad := newRelayAt(t, "127.0.0.2:0", func(l net.Listener) net.Listener {
		return tls.NewListener(l, &tls.Config{Certificates: p.server.TLS.Certificates, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12})
	}, func(r *relay, conn net.Conn) {
		asked.Add(1)
		if outer, ok := conn.(*tls.Conn); ok && outer.HandshakeContext(r.t.Context()) == nil {
			does(r, conn)
		}
		_ = conn.Close()
	})
	_, port, err := net.SplitHostPort(bad.addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// goodPlace leads to the control plane.
func goodPlace(t *testing.T, p *plane, addr string) {
	t.Helper()
	newRelayAt(t, addr, nil, func(r *relay, client net.Conn) {
		server, ok := r.dial(p.server.Listener.Addr().String())
		if !ok {
			_ = client.Close()
			return
		}
		r.join(client, server, io.Discard)
	})
}

// says is an answer to the first request on a connection.
func says(text string) func(*relay, net.Conn) {
	return func(_ *relay, conn net.Conn) {
		_, _ = conn.Read(make([]byte, 4<<10))
		_, _ = io.WriteString(conn, text)
	}
}

// isSilent says nothing to the end.
func isSilent(_ *relay, conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// leadsTo passes a connection on to a server that speaks plain HTTP.
func leadsTo(url string) func(*relay, net.Conn) {
	return func(r *relay, conn net.Conn) {
		if server, ok := r.dial(strings.TrimPrefix(url, "http://")); ok {
			r.join(conn, server, io.Discard)
		}
	}
}

// clientAt is a client, with the waits of the product, of a name that has the given addresses.
func clientAt(t *testing.T, p *plane, a *agent, port string, addresses func() []string) *tunnel.Client {
	t.Helper()
	s := settingsFor(t, p, a)
	s.Link.URL = "https://example.com:" + port
	s.MinWait, s.MaxWait = 0, 0
	client, err := tunnel.New(s)
	if err != nil {
		t.Fatal(err)
	}
	client.Resolve(addresses)
	return client
}

func waitConnected(t *testing.T, client *tunnel.Client, within time.Duration) {
	t.Helper()
	began := time.Now()
	late := time.NewTimer(within)
	defer late.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !client.State().Connected {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("it is not connected after %s: %+v", within, client.State())
		}
	}
	t.Logf("connected after %s", time.Since(began))
}

// TestAnAddressThatLeadsNowhere has two addresses, of which the first completes TLS and no more: the agent goes to the other one.
func TestAnAddressThatLeadsNowhere(t *testing.T) {
	t.Parallel()
	silent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if outer, err := mux.Upgrade(w, r); err == nil {
			_, _ = io.Copy(io.Discard, outer)
			_ = outer.Close()
		}
	}))
	t.Cleanup(silent.Close)
	for name, does := range map[string]func(*relay, net.Conn){
		"closed after TLS":         func(*relay, net.Conn) {},
		"closed after the request": says(""),
		"502":                      says("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
		"503":                      says("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
		"503 and a time":           says("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 300\r\nContent-Length: 0\r\n\r\n"),
		"a silent upgrade":         isSilent,
		"a silent inner session":   leadsTo(silent.URL),
		"another control plane":    leadsTo(newPlainListener(t, newPlane(t, nil))),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t, nil)
			var asked atomic.Int32
			port := badPlace(t, p, &asked, does)
			goodPlace(t, p, "127.0.0.3:"+port)
			client := clientAt(t, p, newAgent(t), port, func() []string { return []string{"127.0.0.2", "127.0.0.3"} })
			runClient(t, client)
			waitConnected(t, client, 20*time.Second)
			if n := asked.Load(); n > 3 {
				t.Errorf("the address that leads nowhere was asked %d times", n)
			}
		})
	}
}

// TestABadAddressIsTheLastOne has an address come back that led nowhere, while nothing is at the other one.
func TestABadAddressIsTheLastOne(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	back := leadsTo(newPlainListener(t, p))
	var asked atomic.Int32
	port := badPlace(t, p, &asked, func(r *relay, conn net.Conn) {
		if asked.Load() < 3 {
			return
		}
		back(r, conn)
	})
	client := clientAt(t, p, newAgent(t), port, func() []string { return []string{"127.0.0.2", "127.0.0.3"} })
	runClient(t, client)
	waitConnected(t, client, time.Minute)
}

// TestTheNameMovesDuringAWait has the only address of a name tell the agent to wait for long, and then another in its place.
func TestTheNameMovesDuringAWait(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	var asked atomic.Int32
	port := badPlace(t, p, &asked, says("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 300\r\nContent-Length: 0\r\n\r\n"))
	goodPlace(t, p, "127.0.0.3:"+port)
	var moved atomic.Bool
	client := clientAt(t, p, newAgent(t), port, func() []string {
		if moved.Load() {
			return []string{"127.0.0.3"}
		}
		return []string{"127.0.0.2"}
	})
	runClient(t, client)
	waitState(t, client, func(s tunnel.State) bool { return time.Until(s.NextTry) > time.Minute })
	moved.Store(true)
	waitConnected(t, client, 30*time.Second)
}
