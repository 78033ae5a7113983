package auth

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxFailures is how often an address may fail within failureWindow.
	maxFailures   = 10
	failureWindow = 10 * time.Minute
	// maxAddresses bounds the memory that strangers can take.
	maxAddresses = 10_000
)

// TooManyError says that an address has failed to sign in too often.
type TooManyError struct{ wait time.Duration }

func (e *TooManyError) Error() string {
	return fmt.Sprintf("Too many failed sign-ins from this address. Try again in %s.", e.wait.Round(time.Second))
}

// RetryAfter is how long to wait.
func (e *TooManyError) RetryAfter() time.Duration { return e.wait }

// failures counts failed sign-ins by address. It is safe for concurrent use.
type failures struct {
	now func() time.Time
	mu  sync.Mutex
	by  map[netip.Addr]failure
}

type failure struct {
	count int
	until time.Time
}

func newFailures(now func() time.Time) *failures {
	return &failures{now: now, by: map[netip.Addr]failure{}}
}

// check refuses an address that has failed too often.
func (f *failures) check(from netip.Addr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	have := f.by[from]
	if wait := have.until.Sub(f.now()); wait > 0 && have.count >= maxFailures {
		return &TooManyError{wait: wait}
	}
	return nil
}

func (f *failures) add(from netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	have, known := f.by[from]
	if !known {
		f.makeRoom(now)
	}
	if !have.until.After(now) {
		have = failure{until: now.Add(failureWindow)}
	}
	have.count++
	f.by[from] = have
}

// makeRoom keeps the map bounded: what has passed goes first, then any one.
func (f *failures) makeRoom(now time.Time) {
	if len(f.by) < maxAddresses {
		return
	}
	for from, have := range f.by {
		if !have.until.After(now) {
			delete(f.by, from)
		}
	}
	for from := range f.by {
		if len(f.by) < maxAddresses {
			return
		}
		delete(f.by, from)
	}
}
