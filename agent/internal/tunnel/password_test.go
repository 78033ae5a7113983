package tunnel

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outfeed/outfeed/internal/secret"
)

// connectVia connects as a client does, which fails.
func connectVia(t *testing.T, d *dialer) error {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = d.connect(t.Context(), key, "", slog.New(slog.DiscardHandler))
	return err
}

// TestASilenceAfterAPassword has a proxy hang up on each CONNECT: a password that it has never accepted may be why.
func TestASilenceAfterAPassword(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var told atomic.Int32
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil && r.Header.Get("Proxy-Authorization") != "" {
				told.Add(1)
			}
			_ = c.Close()
		}
	})
	defer serving.Wait()
	defer l.Close() //nolint:errcheck // it is over
	for name, c := range map[string]struct {
		proxy        string
		good, unsure bool
		told         int32
	}{
		"a password that may be wrong":      {"http://me:hush@" + l.Addr().String(), false, true, 1},
		"one that was accepted before":      {"http://me:hush@" + l.Addr().String(), true, false, 1},
		"none":                              {"http://" + l.Addr().String(), false, false, 0},
		"one that nobody was told":          {"http://me:hush@127.0.0.1:1", false, false, 0},
		"one that nobody was told over TLS": {"https://me:hush@" + l.Addr().String(), false, false, 0},
	} {
		t.Run(name, func(t *testing.T) { //nolint:paralleltest // they are counted together
			d, err := newDialer(Link{URL: "https://cp.plant.test", Proxy: secret.New(c.proxy)})
			if err != nil {
				t.Fatal(err)
			}
			d.passwordIsGood.Store(c.good)
			told.Store(0)
			err = connectVia(t, d)
			_, unsure := errors.AsType[*UnsurePasswordError](err)
			_, unreached := errors.AsType[*UnreachedError](err)
			if unsure != c.unsure || !unreached || told.Load() != c.told {
				t.Errorf("unsure %v, unreached %v, told %d times: %v", unsure, unreached, told.Load(), err)
			}
			if unsure != strings.Contains(err.Error(), "lock an account") || strings.Contains(err.Error(), "hush") {
				t.Errorf("it says %v", err)
			}
			// Another address of the proxy has the same accounts.
			d.names.found([]netip.Addr{netip.MustParseAddr("192.0.2.1")})
			if d.goesElsewhere(err) == unsure {
				t.Errorf("another address is tried at once: %v", !unsure)
			}
		})
	}
}

// TestWhatIsKnownOfAPassword has a proxy answer, and stay silent.
func TestWhatIsKnownOfAPassword(t *testing.T) {
	t.Parallel()
	via := &url.URL{Scheme: "http", Host: "proxy:3128", User: url.UserPassword("me", "hush")}
	d := &dialer{}
	silence := func() (unsure bool) {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			var serving sync.WaitGroup
			serving.Go(func() { _, _ = io.Copy(io.Discard, server) })
			began := time.Now()
			err := d.judge(via, ask(t.Context(), client, via, "cp:443"))
			if took := time.Since(began); took != stepTimeout || !strings.Contains(err.Error(), "has said nothing for 1m0s") {
				t.Errorf("after %s: %v", took, err)
			}
			_, unsure = errors.AsType[*UnsurePasswordError](err)
			_ = client.Close()
			serving.Wait()
		})
		return unsure
	}
	answer := func(status int) {
		err := refusedByProxy(via, &http.Response{StatusCode: status})
		if got := d.judge(via, err); !errors.Is(got, err) {
			t.Errorf("%d became %v", status, got)
		}
	}
	for _, c := range []struct {
		what   string
		before func()
		unsure bool
	}{
		{"before any answer", func() {}, true},
		{"after a 503, which may come of no look at the password", func() { answer(http.StatusServiceUnavailable) }, true},
		{"after it was accepted", func() { _ = d.judge(via, nil) }, false},
		{"after a 403", func() { answer(http.StatusForbidden) }, false},
		{"after a 407", func() { answer(http.StatusProxyAuthRequired) }, true},
	} {
		c.before()
		if got := silence(); got != c.unsure {
			t.Errorf("%s the password may be wrong: %v", c.what, got)
		}
		patience := passwordPatience
		if c.unsure {
			patience = unsurePatience
		}
		if got := d.proxyPatience(via); got != patience {
			t.Errorf("%s the proxy has %s", c.what, got)
		}
	}
	if got := d.proxyPatience(&url.URL{Scheme: "http", Host: "proxy:3128"}); got != stepPatience {
		t.Errorf("without a password the proxy has %s", got)
	}
}

// TestFewTriesWithAPassword counts how often an agent tells a proxy a password that may be wrong, when the proxy hangs up at once,
// and while the path there comes and goes.
func TestFewTriesWithAPassword(t *testing.T) {
	t.Parallel()
	unsure := &UnreachedError{&UnsurePasswordError{io.EOF}}
	for range 1000 {
		w := newWaits(0, 0)
		var tries []time.Duration
		for at := time.Duration(0); at < 30*time.Minute; {
			tries = append(tries, at)
			at += w.after(unsure, time.Minute)
			at += w.after(&UnreachedError{io.EOF}, 0)
		}
		within := func(limit time.Duration) (n int) {
			for _, at := range tries {
				if at < limit {
					n++
				}
			}
			return n
		}
		if again := tries[1]; again < unsureRetry || again > 2*unsureRetry+time.Second {
			t.Fatalf("the second try comes after %s", again)
		}
		if within(10*time.Minute) > 3 || within(30*time.Minute) > 7 {
			t.Fatalf("there are tries after %v", tries)
		}
	}
	w := newWaits(0, 0)
	w.after(unsure, 0)
	w.reset()
	if d := w.after(unsure, 0); d > 2*unsureRetry {
		t.Errorf("after a session that lasted, the first wait is %s", d)
	}
}
