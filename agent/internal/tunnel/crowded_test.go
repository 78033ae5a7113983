package tunnel

import (
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/outfeed/outfeed/protocol/wire"
)

// TestCrowded has the other side of the outer connection end it in several ways: only one that is there, and has no time, is
// given more time than a path that is broken.
func TestCrowded(t *testing.T) {
	t.Parallel()
	certificates := httptest.NewTLSServer(nil)
	certificates.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificates.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	says := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4<<10)) // whole, or what follows is lost
			_, _ = io.WriteString(c, text)
		}
	}
	for name, c := range map[string]struct {
		does    func(net.Conn)
		crowded bool
	}{
		"no time":           {says("\x15\x03\x03\x00\x02\x02\x50"), true},
		"no common version": {says("\x15\x03\x03\x00\x02\x02\x46"), false},
		"no TLS":            {says("HTTP/1.0 400 Bad Request\r\n\r\n"), false},
		"without a word":    {says(""), false},
		"after TLS":         {func(c net.Conn) { _ = tls.Server(c, certificates.TLS).Handshake() }, true}, //nolint:noctx // the client is here
		"after the request": {func(c net.Conn) {
			_, _ = tls.Server(c, certificates.TLS).Read(make([]byte, 4<<10))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var serving sync.WaitGroup
			t.Cleanup(serving.Wait)
			t.Cleanup(func() { _ = l.Close() })
			serving.Go(func() {
				for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
					c.does(conn)
					_ = conn.Close()
				}
			})
			d, err := newDialer(Link{URL: "https://" + l.Addr().String(), CAFile: ca})
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.wire(t.Context(), func(time.Duration) {})
			busy, crowded := errors.AsType[*CrowdedError](err)
			_, unreached := errors.AsType[*UnreachedError](err)
			if crowded != c.crowded || unreached == c.crowded || crowded && busy.Told != (name == "no time") {
				t.Errorf("it is %+v, crowded %v, unreached %v: %v", busy, crowded, unreached, err)
			}
		})
	}
}

// TestWaitsWhereItIsCrowded looks at how long an agent stays away, and how soon it comes back once something else is wrong.
func TestWaitsWhereItIsCrowded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err      error
		ceilings []time.Duration
	}{
		{&CrowdedError{Err: io.EOF, Told: true}, []time.Duration{crowdedSpread, crowdedSpread}},
		{&CrowdedError{Err: io.EOF}, []time.Duration{crowdedFirst, 2 * crowdedFirst, 4 * crowdedFirst, crowdedSpread, crowdedSpread}},
	} {
		w := newWaits(0, 0)
		for n, ceiling := range c.ceilings {
			var longest time.Duration
			for range 200 {
				again := *w
				longest = max(longest, again.next(c.err))
			}
			if longest < ceiling*2/3 || longest >= ceiling {
				t.Errorf("%v: the longest wait %d is %s, want up to %s", c.err, n, longest, ceiling)
			}
			w.next(c.err)
		}
		if d := w.next(&UnreachedError{io.EOF}); d >= knockEvery {
			t.Errorf("then nothing answers, and the wait is %s", d)
		}
		if d := newWaits(time.Millisecond, 20*time.Millisecond).next(c.err); d >= 20*time.Millisecond {
			t.Errorf("the settings' bound is not kept: %s", d)
		}
	}
}

// TestTurn looks at when an agent comes back that has a turn: it waits for that where there is a crowd, and only there.
func TestTurn(t *testing.T) {
	t.Parallel()
	const turn = 40 * time.Second
	for name, c := range map[string]struct {
		err   error
		turn  time.Duration
		least time.Duration
		most  time.Duration
	}{
		"told":              {&CrowdedError{Err: io.EOF, Told: true}, turn, turn, turn},
		"cut":               {&CrowdedError{Err: io.EOF}, turn, turn, turn},
		"without a word":    {&UnreachedError{fmt.Errorf("dial: %w", io.EOF)}, turn, turn, turn},
		"silence":           {&UnreachedError{errors.New("no answer")}, turn, 0, time.Second},
		"a time":            {&BusyError{Status: 503, RetryAfter: 2 * time.Second}, turn, 2 * time.Second, 4 * time.Second},
		"the turn is over":  {&CrowdedError{Err: io.EOF}, -time.Second, 0, crowdedFirst},
		"there was no turn": {&UnreachedError{io.EOF}, -time.Since(time.Time{}), 0, time.Second},
	} {
		w := newWaits(0, 0)
		if got := w.after(c.err, c.turn); got < c.least || got > c.most {
			t.Errorf("%s: %s, want %s to %s", name, got, c.least, c.most)
		}
	}
}

// TestPatience has an agent come back as one of many, as one of a few, and for the first time.
func TestPatience(t *testing.T) {
	t.Parallel()
	told, cut := &CrowdedError{Err: io.EOF, Told: true}, &CrowdedError{Err: io.EOF}
	many := comeback{turn: 40 * time.Second}
	many.note(cut)
	if !many.patient() {
		t.Error("it insists before it was told")
	}
	many.note(told)
	many.note(cut)
	if few := (comeback{turn: time.Second / 2}); many.patient() || few.patient() || (&comeback{}).patient() {
		t.Errorf("one of many is patient: %v; of a few: %v", many.patient(), few.patient())
	}
}

// TestPatienceIsTold looks at what is offered in the outer TLS.
func TestPatienceIsTold(t *testing.T) {
	t.Parallel()
	for patient, want := range map[bool][]string{false: {"http/1.1"}, true: {"http/1.1", wire.PatientProtocol}} {
		client, server := net.Pipe()
		heard := make(chan []string, 1)
		config := &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			heard <- hello.SupportedProtos
			return nil, io.EOF
		}}
		var serving sync.WaitGroup
		serving.Go(func() {
			_ = tls.Server(server, config).HandshakeContext(t.Context())
			_ = server.Close()
		})
		if _, err := (route{dialer: &dialer{patient: patient}}).handshake(t.Context(), client, "control.example"); err == nil {
			t.Error("the handshake went on")
		}
		serving.Wait()
		if got := <-heard; !slices.Equal(got, want) {
			t.Errorf("offered are %q, want %q", got, want)
		}
	}
}
