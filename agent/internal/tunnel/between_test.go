package tunnel_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"io"
	"log/slog"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/tunnel"
	"github.com/outfeed/outfeed/internal/secret"
)

// relay accepts connections and hands each to serve; it closes them all at the test's end and waits for them.
type relay struct {
	t    *testing.T
	addr string

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	closed bool
}

func newRelay(t *testing.T, wrap func(net.Listener) net.Listener, serve func(*relay, net.Conn)) *relay {
	t.Helper()
	return newRelayAt(t, "127.0.0.1:0", wrap, serve)
}

func newRelayAt(t *testing.T, addr string, wrap func(net.Listener) net.Listener, serve func(*relay, net.Conn)) *relay {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, addr: l.Addr().String(), open: map[net.Conn]struct{}{}}
	if wrap != nil {
		l = wrap(l)
	}
	var workers sync.WaitGroup
	workers.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if r.track(conn) {
				workers.Go(func() { serve(r, conn) })
			}
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		r.mu.Lock()
		r.closed = true
		for conn := range r.open {
			_ = conn.Close()
		}
		r.mu.Unlock()
		workers.Wait()
	})
	return r
}

// track closes the connection at the test's end, at the latest.
func (r *relay) track(conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		_ = conn.Close()
		return false
	}
	r.open[conn] = struct{}{}
	return true
}

// join copies both ways until one side ends; inspect sees what passes, from two goroutines.
func (r *relay) join(client, server net.Conn, inspect io.Writer) {
	defer func() { _ = client.Close(); _ = server.Close() }()
	if !r.track(server) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(io.MultiWriter(client, inspect), server)
		_ = client.Close()
	})
	_, _ = io.Copy(io.MultiWriter(server, inspect), client)
	_ = server.Close()
	back.Wait()
}

func (r *relay) dial(addr string) (net.Conn, bool) {
	conn, err := new(net.Dialer).DialContext(r.t.Context(), "tcp", addr)
	return conn, err == nil
}

// cutter relays, and cuts each connection after some number of bytes, until it has cut often enough.
type cutter struct {
	*relay

	mu   sync.Mutex
	cuts int
	max  int
	rand *rand.Rand
}

func newCutter(t *testing.T, target string, cuts int) *cutter {
	t.Helper()
	c := &cutter{max: cuts, rand: rand.New(rand.NewPCG(1, 2))} //nolint:gosec // a repeatable sequence is wanted
	c.relay = newRelay(t, nil, func(r *relay, client net.Conn) {
		server, ok := r.dial(target)
		if !ok {
			_ = client.Close()
			return
		}
		f := &fuse{cutter: c, client: client, server: server}
		f.left.Store(c.budget())
		r.join(client, server, f)
	})
	return c
}

func (c *cutter) budget() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rand.IntN(4) == 0 {
		return c.rand.Int64N(6000) // within the handshakes
	}
	return 6000 + c.rand.Int64N(20_000)
}

func (c *cutter) done() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cuts == c.max
}

// fuse cuts when the budget of bytes has passed.
type fuse struct {
	cutter         *cutter
	left           atomic.Int64
	client, server net.Conn
}

func (f *fuse) Write(p []byte) (int, error) {
	if f.left.Add(-int64(len(p))) > 0 {
		return len(p), nil
	}
	f.cutter.mu.Lock()
	defer f.cutter.mu.Unlock()
	if f.cutter.cuts < f.cutter.max {
		f.cutter.cuts++
		_ = f.client.Close()
		_ = f.server.Close()
	}
	return len(p), nil
}

// newPlainListener serves the plane without the outer TLS and gives its address.
func newPlainListener(t *testing.T, p *plane) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// newConnectProxy is an HTTP proxy that only does CONNECT, and wants a user and a password when they are given.
func newConnectProxy(t *testing.T, user, password string, status int) *relay {
	t.Helper()
	wanted := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	var target sync.Map
	var r *relay
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			target.Store("last", req.Host)
			switch {
			case req.Method != http.MethodConnect:
				http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
			case status != 0:
				http.Error(w, "no", status)
			case user != "" && req.Header.Get("Proxy-Authorization") != wanted:
				w.Header().Set("Proxy-Authenticate", "Basic")
				http.Error(w, "who are you", http.StatusProxyAuthRequired)
			default:
				connectThrough(req.Context(), r, w, req.Host)
			}
		}),
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r = &relay{t: t, addr: l.Addr().String(), open: map[net.Conn]struct{}{}}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Close()
		r.mu.Lock()
		r.closed = true
		for conn := range r.open {
			_ = conn.Close()
		}
		r.mu.Unlock()
		serving.Wait()
	})
	return r
}

func connectThrough(ctx context.Context, r *relay, w http.ResponseWriter, host string) {
	upstream, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		http.Error(w, "unreachable", http.StatusBadGateway)
		return
	}
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		r.t.Error(err)
		return
	}
	if !r.track(client) {
		return
	}
	if _, err = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	r.join(client, upstream, io.Discard)
}

func TestThroughProxy(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	a := newAgent(t)
	a.produce(10)
	s := settingsFor(t, p, a)
	s.Link.Proxy = secret.New("http://plant:hunter2@" + newConnectProxy(t, "plant", "hunter2", 0).addr)
	run(t, s)
	a.waitAcknowledged(10)
	p.checkStored(10)
}

func TestProxyRefuses(t *testing.T) {
	t.Parallel()
	withPassword := newConnectProxy(t, "plant", "hunter2", 0).addr
	for name, c := range map[string]struct{ proxy, says string }{
		"wrong password": {"http://plant:secret-typo@" + withPassword, "does not accept this user and password"},
		"no password":    {"http://" + withPassword, "wants a user and a password"},
		"forbidden":      {"http://" + newConnectProxy(t, "", "", http.StatusForbidden).addr, "ask its administrator"},
		"broken":         {"http://" + newConnectProxy(t, "", "", http.StatusBadGateway).addr, "502"},
		"down":           {"http://127.0.0.1:1", "127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t, nil)
			s := settingsFor(t, p, newAgent(t))
			s.Link.Proxy = secret.New(c.proxy)
			var log bytes.Buffer
			s.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			client, stop := run(t, s)
			state := waitState(t, client, func(s tunnel.State) bool { return s.LastError != "" })
			stop()
			if !strings.Contains(state.LastError, c.says) {
				t.Errorf("the error is %q, want one that says %q", state.LastError, c.says)
			}
			if strings.Contains(state.LastError+log.String(), "secret-typo") {
				t.Error("the password is in the error or in the log")
			}
		})
	}
}

// TestInspectingProxy puts a proxy in between that decrypts the outer TLS, as many plants have.
func TestInspectingProxy(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	certificate, der := inspectorCertificate(t)
	var seen seenBytes
	inspector := newRelay(t, func(l net.Listener) net.Listener {
		return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
	}, func(r *relay, client net.Conn) {
		roots := x509.NewCertPool()
		roots.AddCert(p.server.Certificate())
		server, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}).DialContext(r.t.Context(), "tcp", p.server.Listener.Addr().String())
		if err != nil {
			_ = client.Close()
			return
		}
		r.join(client, server, &seen)
	})
	a := newAgent(t)
	a.produce(100)
	s := settingsFor(t, p, a)
	s.Link.URL = "https://" + inspector.addr

	client, stop := run(t, s)
	state := waitState(t, client, func(s tunnel.State) bool { return s.LastError != "" })
	stop()
	if !strings.Contains(state.LastError, "Plant Inspection CA") || !strings.Contains(state.LastError, "CA file") {
		t.Errorf("without its CA: %q, want who issued the certificate and what to do", state.LastError)
	}

	s.Link.CAFile = writeCA(t, der)
	run(t, s)
	a.waitAcknowledged(100)
	p.checkStored(100)
	text := seen.String()
	if !strings.Contains(text, "GET "+tunnel.Path) {
		t.Error("the proxy in between saw nothing, so this test shows nothing")
	}
	for _, private := range []string{"insight-", "press-1", "control", "insights"} {
		if strings.Contains(strings.SplitN(text, "\r\n\r\n", 2)[1], private) {
			t.Errorf("the proxy in between can read %q", private)
		}
	}
}

type seenBytes struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *seenBytes) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf.Write(unmasked(p))
	return len(p), nil
}

func (s *seenBytes) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// unmasked gives the bytes as they are, and once more with each WebSocket mask undone where a frame begins, so that
// masking cannot hide what encryption should.
func unmasked(p []byte) []byte {
	out := bytes.Clone(p)
	if len(p) < 14 || p[0] != 0x82 || p[1]&0x80 == 0 {
		return out
	}
	at := 2
	switch p[1] & 0x7f {
	case 126:
		at = 4
	case 127:
		at = 10
	}
	mask, body := p[at:at+4], bytes.Clone(p[at+4:])
	for i := range body {
		body[i] ^= mask[i%4]
	}
	return append(out, body...)
}

func inspectorCertificate(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Plant Inspection CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(cryptorand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, der
}

func TestCAFileThatIsNone(t *testing.T) {
	t.Parallel()
	p := newPlane(t, nil)
	path := t.TempDir() + "/ca.pem"
	if err := os.WriteFile(path, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, says := range map[string]string{path: "no certificate", path + ".missing": "no such file"} {
		s := settingsFor(t, p, newAgent(t))
		s.Link.CAFile = file
		client, _ := run(t, s)
		state := waitState(t, client, func(s tunnel.State) bool { return s.LastError != "" })
		if !strings.Contains(state.LastError, says) {
			t.Errorf("%s: %q, want one that says %q", file, state.LastError, says)
		}
	}
}
