package tunnel

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outfeed/outfeed/protocol/wire"
)

func TestPauseAfter(t *testing.T) {
	t.Parallel()
	const jitter = 700 * time.Millisecond
	for name, c := range map[string]struct {
		err         error
		least, most time.Duration
	}{
		"a cut":          {errors.New("cut"), jitter, jitter},
		"503":            {&BusyError{Status: 503}, jitter, jitter},
		"503 and a wait": {fmt.Errorf("wrapped: %w", &BusyError{Status: 503, RetryAfter: 10 * time.Second}), 10 * time.Second, 12500*time.Millisecond + 2*jitter},
		"restarting":     {refused(&wire.Refusal{Code: wire.RefusalUnavailable, RetryAfterMs: 2500}), 2500 * time.Millisecond, 2500*time.Millisecond + jitter},
		"revoked":        {refused(&wire.Refusal{Code: wire.RefusalAgentRevoked}), 5 * time.Minute, 10*time.Minute + jitter},
		"a clone":        {refused(&wire.Refusal{Code: wire.RefusalClone}), 5 * time.Minute, 10*time.Minute + jitter},
		"a mad wait":     {refused(&wire.Refusal{Code: wire.RefusalTooMany, RetryAfterMs: 1 << 62}), 24 * time.Hour, 24*time.Hour + jitter},
		"a wait before":  {refused(&wire.Refusal{Code: wire.RefusalTooMany, RetryAfterMs: -5}), jitter, jitter},
	} {
		if got := pauseAfter(c.err, jitter); got < c.least || got > c.most {
			t.Errorf("%s: %s, want %s to %s", name, got, c.least, c.most)
		}
	}
}

func TestABusyControlPlaneIsToldInWords(t *testing.T) {
	t.Parallel()
	for says, err := range map[string]error{
		"the control plane, or what is in front of it, is refusing connections from this address for now and asks to come back in 12s": &BusyError{Status: 503, RetryAfter: 12 * time.Second},
		"come back in 30s (it answered 429 Too Many Requests)":                                                                         &BusyError{Status: 429, RetryAfter: 30 * time.Second},
		"answered 503 Service Unavailable instead of opening the tunnel; it is busy":                                                   &BusyError{Status: 503},
		"what answers there is a load balancer":                                                                                        &BusyError{Status: 502, RetryAfter: time.Second},
		"closed without a word (EOF)":                                                                                                  (&dialer{}).explain(io.EOF, false),
		"closed without a word (read: connection reset by peer)":                                                                       (&dialer{}).explain(fmt.Errorf("read: %w", syscall.ECONNRESET), false),
		"too many come from it; the agent comes back by itself":                                                                        (&dialer{}).explain(io.ErrUnexpectedEOF, false),
		"connection refused": (&dialer{}).explain(syscall.ECONNREFUSED, false),
	} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("it does not say %q: %s", says, err)
		}
	}
	if said := (&dialer{}).explain(syscall.ECONNREFUSED, false).Error(); strings.Contains(said, "without a word") {
		t.Errorf("a refused connection is told as %s", said)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "x": 0, "99999999999999999999": 0, "900": 15 * time.Minute, "901": 15 * time.Minute,
		"86400": 15 * time.Minute, "4000000000": 15 * time.Minute,
		"Thu, 01 Jan 1970 00:00:00 GMT": 0,
	} {
		if got := retryAfter(header, ""); got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
	if got := retryAfter(time.Now().Add(10*time.Minute).UTC().Format(http.TimeFormat), ""); got < 5*time.Minute || got > 10*time.Minute {
		t.Errorf("a date in ten minutes: %s", got)
	}
	if got := retryAfter(time.Now().Add(24*time.Hour).UTC().Format(http.TimeFormat), ""); got != 15*time.Minute {
		t.Errorf("a date in a day: %s", got)
	}
	// This machine's clock does not count where the answer says what the other one's shows.
	if got := retryAfter("Sat, 01 Jan 2050 00:00:07 GMT", "Sat, 01 Jan 2050 00:00:00 GMT"); got != 7*time.Second {
		t.Errorf("a date 7 seconds after the answer's own: %s", got)
	}
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("1", "")
	f.Add("Sat, 01 Jan 2050 00:00:07 GMT", "Sat, 01 Jan 2050 00:00:00 GMT")
	f.Fuzz(func(t *testing.T, header, date string) {
		if got := retryAfter(header, date); got < 0 || got > 15*time.Minute {
			t.Fatalf("%q at %q: %s", header, date, got)
		}
	})
}

// TestOfferKeepsTheNewest offers more bundles than are applied.
func TestOfferKeepsTheNewest(t *testing.T) {
	t.Parallel()
	c := &Client{desired: make(chan []byte, 1)}
	for n := range 5 {
		c.offer([]byte{byte(n)})
	}
	if got := <-c.desired; got[0] != 4 {
		t.Errorf("bundle %d waits, want the newest", got[0])
	}
}
