package httpapi

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outfeed/outfeed/internal/source"
	"github.com/outfeed/outfeed/protocol/wire"
)

// outerTLS is a server's TLS with a certificate of its own, and that of its clients.
func outerTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}},
		&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, ServerName: "127.0.0.1"}
}

func listening(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dialed(t *testing.T, address string) net.Conn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestHeads has requests whose heads come in pieces of many sizes, with TLS and without, and what is no request.
func TestHeads(t *testing.T) {
	t.Parallel()
	server, client := outerTLS(t)
	for name, settings := range map[string]*tls.Config{"plain": nil, "TLS": server} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := served(t, settings)
			long := "X-Long: " + strings.Repeat("x", 3*maxHead) + "\r\n"
			for _, extra := range []string{"", long, "X-Odd: " + strings.Repeat("y", maxHead-58) + "\r\n"} {
				for _, size := range []int{1, 7, sip, maxHead, 1 << 20} {
					if extra == long && size == 1 {
						continue
					}
					text := "POST /path HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n" + extra + "\r\nbodyGET /next HTTP/1.1\r\nHost: h\r\n\r\n"
					c := dialed(t, address)
					if settings != nil {
						c = tls.Client(c, client)
					}
					var answers strings.Builder
					in := bufio.NewReader(c)
					for len(text) > 0 {
						n := min(size, len(text))
						if _, err := io.WriteString(c, text[:n]); err != nil {
							t.Fatal(err)
						}
						text = text[n:]
					}
					for range 2 {
						answer, err := http.ReadResponse(in, nil)
						if err != nil {
							t.Fatalf("%d bytes at a time: %v", size, err)
						}
						if _, err = io.Copy(&answers, answer.Body); err != nil {
							t.Fatal(err)
						}
						_ = answer.Body.Close() // it was read to its end
					}
					if want := fmt.Sprintf("POST /path body %v; GET /next  %v; ", settings != nil, settings != nil); answers.String() != want {
						t.Errorf("%d bytes at a time: %q, want %q", size, answers.String(), want)
					}
				}
			}
		})
	}
	address := served(t, server)
	c := dialed(t, address)
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if text, _ := io.ReadAll(c); !strings.Contains(string(text), "400") || !strings.Contains(string(text), "https://") {
		t.Errorf("plain HTTP is answered with %q", text)
	}
	two := &http.Client{Transport: &http.Transport{TLSClientConfig: client.Clone(), ForceAttemptHTTP2: true}}
	answer, err := two.Get("https://" + address + "/two") //nolint:noctx // the server is here
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	two.CloseIdleConnections()
	if answer.ProtoMajor != 2 {
		t.Errorf("it is %s", answer.Proto)
	}
}

// served serves what tells of a request, until the test ends.
func served(t *testing.T, config *tls.Config) string {
	t.Helper()
	return servedBy(t, config, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s %s %v; ", r.Method, r.URL.Path, body, r.TLS != nil) //nolint:gosec // no browser asks
	}))
}

// servedBy serves until the test ends, and gives the address.
func servedBy(t *testing.T, config *tls.Config, handler http.Handler) string {
	t.Helper()
	l := listening(t)
	ctx := t.Context()
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	running.Go(func() {
		if err := Serve(ctx, l, ServeSettings{Handler: handler, Logger: slog.New(slog.DiscardHandler), TLS: config}); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// TestAnAnswerBeforeTheEnd has clients send much more than is read. Each gets the whole answer all the same.
func TestAnAnswerBeforeTheEnd(t *testing.T) {
	t.Parallel()
	server, config := outerTLS(t)
	answer := strings.Repeat("x", 1000)
	refusing := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, answer)
	})
	for scheme, settings := range map[string]*tls.Config{"http": nil, "https": server} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			url := scheme + "://" + servedBy(t, settings, refusing)
			var sending sync.WaitGroup
			for range 10 {
				sending.Go(func() {
					transport := &http.Transport{TLSClientConfig: config.Clone()}
					defer transport.CloseIdleConnections()
					client := &http.Client{Transport: transport}
					request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(make([]byte, 8<<20)))
					if err != nil {
						t.Error(err)
						return
					}
					got, err := client.Do(request)
					if err != nil {
						t.Error(err)
						return
					}
					defer got.Body.Close() //nolint:errcheck // it is only read
					if body, err := io.ReadAll(got.Body); err != nil || string(body) != answer || got.StatusCode != http.StatusUnauthorized {
						t.Errorf("%d, %d bytes, %v", got.StatusCode, len(body), err)
					}
				})
			}
			sending.Wait()
		})
	}
}

// TestHeld measures what a connection takes that is held before its request, and holds it to what the limits count with.
func TestHeld(t *testing.T) { //nolint:paralleltest // others would be measured too
	server, client := outerTLS(t)
	t.Run("plain heads", func(t *testing.T) {
		held(t, nil, heads, func(c net.Conn) error {
			_, err := io.WriteString(c, "GET / HTTP/1.1\r\nX: ")
			return err
		})
	})
	t.Run("TLS heads", func(t *testing.T) {
		held(t, server, heads, func(c net.Conn) error {
			_, err := io.WriteString(tls.Client(c, client), "GET / HTTP/1.1\r\nX: ")
			return err
		})
	})
	t.Run("TLS beginnings", func(t *testing.T) {
		held(t, server, early, func(c net.Conn) error {
			_, err := c.Write(append([]byte{recordHandshake, 3, 1, 6, 0}, make([]byte, 1500)...))
			return err
		})
	})
}

func held(t *testing.T, config *tls.Config, at stage, begin func(net.Conn) error) {
	t.Helper()
	const count = 256
	c := newCrowd(usualLimits(), nil)
	in := c.listen(listening(t), ServeSettings{TLS: config, Logger: slog.New(slog.DiscardHandler)})
	var running sync.WaitGroup
	running.Go(in.run)
	defer running.Wait()
	defer in.Close() //nolint:errcheck // nothing depends on it
	before := inUse()
	for range count {
		if err := begin(dialed(t, in.Addr().String())); err != nil {
			t.Fatal(err)
		}
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for there := 0; there < count; <-tick.C {
		c.mu.Lock()
		there = c.members[at].Len()
		c.mu.Unlock()
	}
	took := (inUse() - before) / count
	t.Logf("a connection takes %d bytes with this test's end of it", took)
	if limit := int64(c.weights[at]); took > limit*3/2 {
		t.Errorf("a connection takes %d bytes, and the limits count with %d", took, limit)
	}
}

// inUse is what the heap and the stacks take after a collection that has shrunk them.
func inUse() int64 {
	for range 4 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse) //nolint:gosec // far below 2^63
}

// TestRefusedInWords has more clients wait for their handshakes than there is room for: the one that has to go is told so,
// before anything is computed for it, and one that has gone by itself while it waited costs nothing either.
func TestRefusedInWords(t *testing.T) {
	t.Parallel()
	server, client := outerTLS(t)
	limits := usualLimits()
	limits.early = 2
	c := newCrowd(limits, nil)
	c.turns.free = 0
	registry := prometheus.NewRegistry()
	in := c.listen(listening(t), ServeSettings{TLS: server, Logger: slog.New(slog.DiscardHandler), Registry: registry})
	var running sync.WaitGroup
	running.Go(in.run)
	defer running.Wait()
	defer in.Close() //nolint:errcheck // nothing depends on it
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	waits := func(want int) {
		for n := -1; n != want; <-tick.C {
			c.turns.mu.Lock()
			n = c.turns.waiting.Len()
			c.turns.mu.Unlock()
		}
	}
	errs := make([]chan error, 3)
	conns := make([]net.Conn, 3)
	for n := range errs {
		errs[n], conns[n] = make(chan error, 1), dialed(t, in.Addr().String())
		running.Go(func() { errs[n] <- tls.Client(conns[n], client).HandshakeContext(t.Context()) })
		waits(min(n+1, limits.early))
	}
	if err := <-errs[0]; err == nil || err.Error() != "remote error: tls: internal error" {
		t.Errorf("the first one was told %v", err)
	}
	_ = conns[1].Close()
	if err := <-errs[1]; err == nil {
		t.Error("a handshake was finished on a closed connection")
	}
	first := &conn{Conn: conns[0], crowd: c}
	first.turn.Store(true)
	c.turns.give(first)
	if err := <-errs[2]; err != nil {
		t.Errorf("the newest one: %v", err)
	}
	waits(0)
	want := map[string]float64{handshakeFinished: 1, handshakeRefused: 1}
	for got := ended(t, registry); !maps.Equal(got, want); got = ended(t, registry) {
		if len(got) > len(want) {
			t.Fatalf("the handshakes ended as %v, want %v", got, want)
		}
		<-tick.C // the client's end comes first
	}
}

// TestPatientClients has clients come that can come later as well: where many may come at once, they are served while nobody else
// waits, and else they are told, and nothing is computed for them.
func TestPatientClients(t *testing.T) {
	t.Parallel()
	server, client := outerTLS(t)
	c := newCrowd(usualLimits(), nil)
	var rush atomic.Bool
	c.rush = rush.Load
	registry := prometheus.NewRegistry()
	in := c.listen(listening(t), ServeSettings{TLS: server, Logger: slog.New(slog.DiscardHandler), Registry: registry})
	var running sync.WaitGroup
	running.Go(in.run)
	defer running.Wait()
	defer in.Close() //nolint:errcheck // nothing depends on it
	patient := client.Clone()
	patient.NextProtos = []string{"http/1.1", wire.PatientProtocol}
	try := func(config *tls.Config) error {
		return tls.Client(dialed(t, in.Addr().String()), config).HandshakeContext(t.Context())
	}
	rush.Store(true)
	if err := try(patient); err != nil {
		t.Errorf("it is quiet: %v", err)
	}
	// One other, and then many, are in the middle of their handshakes.
	shake := func(from string) {
		c.move(&conn{Conn: dialed(t, in.Addr().String()), crowd: c, from: source.Site(from)}, shaking)
	}
	for range quietShaking {
		shake("198.51.100.1:1")
	}
	if err := try(patient); err != nil {
		t.Errorf("one other source holds many: %v", err)
	}
	for n := range quietShaking {
		shake(fmt.Sprintf("192.0.2.%d:1", n))
	}
	rush.Store(false)
	if err := try(patient); err != nil {
		t.Errorf("no agents come at once: %v", err)
	}
	rush.Store(true)
	if err := try(patient); err == nil || err.Error() != "remote error: tls: internal error" {
		t.Errorf("there is no time: %v", err)
	}
	if err := try(client); err != nil {
		t.Errorf("one that cannot come later: %v", err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	want := map[string]float64{handshakeFinished: 4, handshakeRefused: 1}
	for got := ended(t, registry); !maps.Equal(got, want); got = ended(t, registry) {
		if len(got) > len(want) {
			t.Fatalf("the handshakes ended as %v, want %v", got, want)
		}
		<-tick.C // as above
	}
}

// ended is how many handshakes ended how.
func ended(t *testing.T, registry prometheus.Gatherer) map[string]float64 {
	t.Helper()
	all, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ended := map[string]float64{}
	for _, family := range all {
		for _, m := range family.GetMetric() {
			ended[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
		}
	}
	return ended
}
