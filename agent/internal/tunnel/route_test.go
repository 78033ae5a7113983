package tunnel

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestKnocksAgain connects to an address whose packets are dropped for a while: the try that began before the path was
// healed stays silent, and the one after it gets through.
func TestKnocksAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var tries atomic.Int32
		open := func(ctx context.Context, _ string, _ func() func()) (net.Conn, error) {
			tries.Add(1)
			if time.Since(began) < 11*time.Second {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			client, server := net.Pipe()
			t.Cleanup(func() { _ = server.Close() })
			return client, nil
		}
		d := &dialer{names: newNames()}
		conn, err := d.reach(t.Context(), "192.0.2.1", "443", open)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if took := time.Since(began); took != 15*time.Second || tries.Load() != 4 {
			t.Errorf("%d tries took %s, want 4 and 15 s", tries.Load(), took)
		}
	})
}

// TestAFewHandshakesWait connects to an address that takes connections and says nothing, as a control plane does that has too
// much to do: the agent asks for more of it more and more slowly, and gets through soon once it is answered.
func TestAFewHandshakesWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var mu sync.Mutex
		var tries []time.Duration
		open := func(ctx context.Context, _ string, shake func() func()) (net.Conn, error) {
			defer shake()()
			mu.Lock()
			tries = append(tries, time.Since(began))
			mu.Unlock()
			if time.Since(began) < 16*time.Second {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			client, server := net.Pipe()
			t.Cleanup(func() { _ = server.Close() })
			return client, nil
		}
		conn, err := (&dialer{names: newNames()}).reach(t.Context(), "192.0.2.1", "443", open)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if want := []time.Duration{0, 5 * time.Second, 15 * time.Second, 25 * time.Second}; !slices.Equal(tries, want) {
			t.Errorf("the handshakes began after %v, want %v", tries, want)
		}
	})
}

// TestSilenceIsUnreached gives up on an address that never answers, and says that nothing was reached.
func TestSilenceIsUnreached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		open := func(ctx context.Context, _ string, _ func() func()) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		began := time.Now()
		_, err := (&dialer{names: newNames()}).reach(t.Context(), "192.0.2.1", "443", open)
		if _, ok := errors.AsType[*UnreachedError](err); !ok || !strings.Contains(err.Error(), "no answer for 30s") {
			t.Errorf("the error is %v", err)
		}
		if took := time.Since(began); took != reachTimeout {
			t.Errorf("it took %s", took)
		}
	})
}

func TestInterleave(t *testing.T) {
	t.Parallel()
	addrs := func(texts ...string) (out []netip.Addr) {
		for _, text := range texts {
			out = append(out, netip.MustParseAddr(text))
		}
		return out
	}
	got := interleave(addrs("::1", "::2", "::3"), addrs("10.0.0.1"))
	if want := addrs("10.0.0.1", "::1", "::2", "::3"); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	seen := map[netip.Addr]bool{}
	if got := fresh(addrs("10.0.0.1", "10.0.0.1", "::ffff:10.0.0.1"), seen); len(got) != 1 {
		t.Errorf("one address three times gives %v", got)
	}
	many := make([]netip.Addr, 0, 100)
	for n := range 100 {
		many = append(many, netip.AddrFrom4([4]byte{10, 1, 0, byte(n)}))
	}
	if got := fresh(many, seen); len(got) != maxAddresses-1 {
		t.Errorf("%d addresses of a hundred are tried, want %d", len(got), maxAddresses-1)
	}
}

// TestWaits goes through days without a network, and what comes after.
func TestWaits(t *testing.T) {
	t.Parallel()
	unreached, answered := &UnreachedError{io.ErrUnexpectedEOF}, errors.New("a protocol error")
	w := newWaits(0, 0)
	for n := range 10_000 {
		if d := w.next(unreached); d >= knockEvery {
			t.Fatalf("wait %d for a path that is down is %s", n, d)
		}
	}
	if d := w.next(&BusyError{Status: http.StatusServiceUnavailable, RetryAfter: time.Second}); d >= time.Second {
		t.Errorf("the first wait for a busy control plane is %s more than it asked for", d)
	}
	var longest time.Duration
	for range 200 {
		longest = max(longest, w.next(answered))
	}
	if longest < 3*time.Minute || longest >= 5*time.Minute {
		t.Errorf("the longest wait after answers is %s", longest)
	}
	if d := w.next(unreached); d >= time.Second {
		t.Errorf("the first wait for a path that is down is %s", d)
	}
	longest = 0
	for range 200 {
		longest = max(longest, w.next(&BusyError{Status: http.StatusBadGateway}))
	}
	if longest < 20*time.Second || longest >= askAround {
		t.Errorf("the longest wait for a load balancer without a control plane is %s", longest)
	}
	if d := newWaits(time.Millisecond, time.Millisecond).next(unreached); d >= time.Millisecond {
		t.Errorf("the settings' bound is not kept: %s", d)
	}
}

func TestWhatAProxySays(t *testing.T) {
	t.Parallel()
	via := &url.URL{Scheme: "http", Host: "proxy:3128", User: url.UserPassword("me", "hush")}
	header := func(name string, values ...string) http.Header { return http.Header{name: values} }
	for name, c := range map[string]struct {
		status    int
		header    http.Header
		says      string
		unreached bool
	}{
		"ntlm":            {407, header("Proxy-Authenticate", "NTLM", "Negotiate"), "asks for NTLM or Negotiate, which the agent does not speak", false},
		"digest or basic": {407, header("Proxy-Authenticate", `Digest realm="x"`, `basic realm="x"`), "does not accept this user and password", false},
		"not said":        {407, nil, "does not accept this user and password", false},
		"forbidden":       {403, nil, "ask its administrator to allow CONNECT", false},
		"teapot":          {418, nil, "answered 418 teapot instead of connecting", false},
		"a portal":        {302, header("Location", "https://portal.plant.example/sign-in?back=x"), "sends on to portal.plant.example", false},
		"no name":         {503, header("X-Squid-Error", "ERR_DNS_FAIL 0"), "cannot resolve the control plane's name", true},
		"no way":          {503, header("X-Squid-Error", "ERR_CONNECT_FAIL 110"), "cannot connect to the control plane", true},
		"bad gateway":     {502, nil, "or not connect to it", true},
	} {
		err := refusedByProxy(via, &http.Response{StatusCode: c.status, Status: "418 teapot", Header: c.header})
		_, unreached := errors.AsType[*UnreachedError](err)
		if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hush") || unreached != c.unreached {
			t.Errorf("%s: %v (unreached %v), want %q", name, err, unreached, c.says)
		}
	}
}

// TestProxySettingsKeepTheirPassword gives settings that cannot be parsed.
func TestProxySettingsKeepTheirPassword(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"http://me:hush#1@proxy:3128", "http://me:hush%@proxy", "socks5://me:hush@proxy", "me:hush@proxy:1", "http://me:hush@:3128"} {
		if _, err := proxyOf(setting); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", setting, err)
		}
	}
}

// TestAny2xxOfAProxyConnects lets a proxy answer a CONNECT with other successes, after which the connection is through.
func TestAny2xxOfAProxyConnects(t *testing.T) {
	t.Parallel()
	for answer, connects := range map[string]bool{
		"HTTP/1.1 200 Connection established\r\n\r\n":        true,
		"HTTP/1.1 201 Created\r\n\r\n":                       true,
		"HTTP/1.1 204 No Content\r\n\r\n":                    true,
		"HTTP/1.1 202 Accepted\r\nContent-Length: 9\r\n\r\n": true,
		"HTTP/1.1 299 Fine\r\n\r\n":                          true,
		"HTTP/1.1 300 Multiple Choices\r\n\r\n":              false,
		"HTTP/1.1 199 Early\r\n\r\n":                         false,
	} {
		client, server := net.Pipe()
		done := make(chan error, 1)
		go func() {
			_, err := http.ReadRequest(bufio.NewReader(server))
			if err == nil {
				_, err = io.WriteString(server, answer)
			}
			// What comes behind the answer is of the connection.
			if err == nil && connects {
				_, err = io.WriteString(server, "through")
			}
			done <- errors.Join(err, server.Close())
		}()
		err := ask(t.Context(), client, &url.URL{Scheme: "http", Host: "proxy:3128"}, "cp:443")
		if (err == nil) != connects {
			t.Errorf("%q: %v", answer, err)
		}
		if err == nil {
			if got, err := io.ReadAll(client); string(got) != "through" || err != nil {
				t.Errorf("behind %q came %q, %v", answer, got, err)
			}
		}
		if err := errors.Join(client.Close(), <-done); err != nil {
			t.Errorf("%q: %v", answer, err)
		}
	}
}

// FuzzProxyAnswer lets a proxy answer anything.
func FuzzProxyAnswer(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\n\r\n")
	f.Add("HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n\r\n")
	f.Add("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")
	f.Add("SSH-2.0-x\r\n")
	f.Fuzz(func(t *testing.T, answer string) {
		client, server := net.Pipe()
		defer client.Close() //nolint:errcheck // the test is over
		done := make(chan struct{})
		go func() {
			defer close(done)
			buffer := make([]byte, 4096)
			for head := ""; !strings.Contains(head, "\r\n\r\n"); {
				n, err := server.Read(buffer)
				if err != nil {
					return
				}
				head += string(buffer[:n])
			}
			_, _ = io.WriteString(server, answer)
			_ = server.Close()
		}()
		via := &url.URL{Scheme: "http", Host: "proxy:3128", User: url.UserPassword("me", "hush-in-the-url")}
		err := ask(t.Context(), client, via, "cp:443")
		_ = client.Close()
		<-done
		if err != nil && strings.Contains(err.Error(), "hush-in-the-url") && !strings.Contains(answer, "hush") {
			t.Errorf("the password is in %v", err)
		}
	})
}

// TestOuterCertificates checks whom the outer TLS trusts: chain and name count, dates do not.
func TestOuterCertificates(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	make := func(name string, from, to time.Time) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Plant CA"}, DNSNames: []string{name},
			NotBefore: from, NotAfter: to, IsCA: true, BasicConstraintsValid: true,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return certificate
	}
	now := time.Now()
	for name, c := range map[string]struct {
		certificate *x509.Certificate
		known       bool
		says        string
	}{
		"good":          {make("cp", now.Add(-time.Hour), now.Add(time.Hour)), true, ""},
		"expired":       {make("cp", now.Add(-2*time.Hour), now.Add(-time.Hour)), true, ""},
		"clock is 1970": {make("cp", now.Add(time.Hour), now.Add(2*time.Hour)), true, ""},
		"other name":    {make("captive.portal", now.Add(-time.Hour), now.Add(time.Hour)), true, "is not for cp"},
		"unknown":       {make("cp", now.Add(-time.Hour), now.Add(time.Hour)), false, `was issued by "CN=Plant CA"`},
	} {
		roots := x509.NewCertPool()
		if c.known {
			roots.AddCert(c.certificate)
		}
		err := verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.certificate}}, roots, "cp")
		switch _, typed := errors.AsType[*CertificateError](err); {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.says != "" && (!typed || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}
