// Package backoff computes how long to wait between tries: exponential with full jitter and a cap.
//
// A Backoff belongs to one goroutine.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the state of a sequence of tries. The zero Backoff waits up to 1 s, then 2 s, up to 5 min.
type Backoff struct {
	// Min is the ceiling of the first wait (0: 1 s), Max that of every later one (0: 5 min).
	Min, Max time.Duration

	tries int
}

// Next is the next wait: uniform between 0 and the current ceiling, which doubles with each call.
func (b *Backoff) Next() time.Duration {
	lowest, highest := b.Min, b.Max
	if lowest <= 0 {
		lowest = time.Second
	}
	if highest <= 0 {
		highest = 5 * time.Minute
	}
	ceiling := lowest << min(b.tries, 30)
	if ceiling > highest || ceiling <= 0 {
		ceiling = highest
	}
	b.tries++
	return rand.N(ceiling) //nolint:gosec // jitter needs no cryptographic randomness
}

// Reset starts over, after a success.
func (b *Backoff) Reset() { b.tries = 0 }

// Wait waits for the next wait, or until ctx ends, whose error it then gives.
func (b *Backoff) Wait(ctx context.Context) error { return Sleep(ctx, b.Next()) }

// Sleep waits d, or until ctx ends, whose error it then gives.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
