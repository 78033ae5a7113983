package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// halfDead is a path whose first step is done at once. What begins on it before it heals stays silent until its time is up.
type halfDead struct {
	t        *testing.T
	began    time.Time
	heals    time.Duration
	patience time.Duration

	mu     sync.Mutex
	tries  []time.Duration
	closed atomic.Int32
}

// closing counts the connections that were closed.
type closing struct {
	net.Conn
	path *halfDead
}

func (c closing) Close() error {
	c.path.closed.Add(1)
	return c.Conn.Close()
}

func (h *halfDead) connect() *tls.Conn {
	client, server := net.Pipe()
	h.t.Cleanup(func() { _ = server.Close() })
	return tls.Client(closing{client, h}, &tls.Config{MinVersion: tls.VersionTLS13, ServerName: "cp"})
}

func (h *halfDead) open(ctx context.Context, done func(time.Duration)) (*tls.Conn, error) {
	at := time.Since(h.began)
	h.mu.Lock()
	h.tries = append(h.tries, at)
	h.mu.Unlock()
	done(h.patience)
	if at >= h.heals {
		return h.connect(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	<-ctx.Done()
	return nil, &UnreachedError{ctx.Err()}
}

// TestASilentStepIsTriedAnew has paths that heal at different times.
func TestASilentStepIsTriedAnew(t *testing.T) {
	t.Parallel()
	const s = time.Second
	for name, c := range map[string]struct {
		heals, patience time.Duration
		tries           []time.Duration
		// fails is that it is not through before the first try ends.
		fails bool
	}{
		"a path that is well":            {0, stepPatience, []time.Duration{0}, false},
		"one that heals soon":            {s, stepPatience, []time.Duration{0, 15 * s}, false},
		"one that heals between tries":   {31 * s, stepPatience, []time.Duration{0, 15 * s, 30 * s, 45 * s}, false},
		"one that heals too late":        {46 * s, stepPatience, []time.Duration{0, 15 * s, 30 * s, 45 * s}, true},
		"one that knows a password":      {s, passwordPatience, []time.Duration{0, 35 * s}, false},
		"one that knows it and is dead":  {time.Hour, passwordPatience, []time.Duration{0, 35 * s}, true},
		"one that may know a wrong one":  {s, unsurePatience, []time.Duration{0}, true},
		"one that asks for ever more":    {time.Hour, 2 * s, []time.Duration{0, 2 * s, 4 * s, 6 * s}, true},
		"one that heals just before all": {45 * s, stepPatience, []time.Duration{0, 15 * s, 30 * s, 45 * s}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := &halfDead{t: t, began: time.Now(), heals: c.heals, patience: c.patience}
				conn, err := hedge(t.Context(), h.open)
				took := time.Since(h.began)
				if !slices.Equal(h.tries, c.tries) {
					t.Errorf("tries after %v, want %v", h.tries, c.tries)
				}
				want := c.tries[len(c.tries)-1]
				if c.fails {
					want = stepTimeout
				}
				if took != want || (err != nil) != c.fails {
					t.Errorf("after %s: %v, want it after %s, with an error %v", took, err, want, c.fails)
				}
				if conn != nil {
					_ = conn.Close()
				}
			})
		})
	}
}

// TestNobodyWaitsForTriesAnyMore ends the agent while a try is silent.
func TestNobodyWaitsForTriesAnyMore(t *testing.T) {
	t.Parallel()
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			h := &halfDead{t: t, began: time.Now(), heals: time.Hour, patience: stepPatience}
			why := errors.New("the agent stops")
			ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Second, why)
			defer cancel()
			if conn, err := hedge(ctx, h.open); conn != nil || !errors.Is(err, why) || time.Since(h.began) != 20*time.Second {
				t.Errorf("after %s: %v, %v", time.Since(h.began), conn, err)
			}
		})
	}
}

// TestAnAnswerEndsAllTries has a second try that is answered, refused a connection, or through together with the first.
func TestAnAnswerEndsAllTries(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		second error
		// ends is when it is over, and through whether it has a connection then.
		ends    time.Duration
		through bool
	}{
		"busy":           {&BusyError{Status: 503}, stepPatience, false},
		"a proxy's no":   {&ProxyError{Host: "proxy"}, stepPatience, false},
		"not reached":    {&UnreachedError{io.EOF}, stepTimeout - time.Second, true},
		"both at a time": {nil, stepPatience, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := &halfDead{t: t, began: time.Now()}
				var tries atomic.Int32
				conn, err := hedge(t.Context(), func(ctx context.Context, done func(time.Duration)) (*tls.Conn, error) {
					switch tries.Add(1) {
					case 1:
						done(stepPatience)
						wait := stepTimeout - time.Second
						if c.second == nil {
							wait = stepPatience
						}
						timer := time.NewTimer(wait)
						defer timer.Stop()
						select {
						case <-timer.C:
							return h.connect(), nil
						case <-ctx.Done():
							return nil, ctx.Err()
						}
					case 2:
						if c.second == nil {
							return h.connect(), nil
						}
						return nil, c.second
					default:
						<-ctx.Done()
						return nil, ctx.Err()
					}
				})
				if took := time.Since(h.began); took != c.ends || (conn != nil) != c.through || !c.through && !errors.Is(err, c.second) {
					t.Errorf("after %s: %v, %v", took, conn, err)
				}
				if conn != nil {
					_ = conn.Close()
				}
				if opened := h.closed.Load(); c.second == nil && opened > 2 || c.through && opened == 0 {
					t.Errorf("%d connections were closed", opened)
				}
			})
		})
	}
}
