package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/outfeed/outfeed/agent/internal/identity"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

// Why a bundle is refused, as fixed words: people script them.
const (
	bundleUnsigned    = "unsigned"
	bundleUntrusted   = "untrusted" // altered, or signed with a key that is not trusted here
	bundleOtherAgent  = "other_agent"
	bundleOlder       = "older"
	bundleConflicting = "conflicting"
	bundleExpired     = "expired"
	bundleHash        = "hash_mismatch"
	bundleUndecodable = "undecodable"
	bundleTooLarge    = "too_large"
	bundleCredential  = "credential"
)

// refusedError is why a bundle is not used.
type refusedError struct {
	// word is one of the constants.
	word string
	err  error
}

func (r *refusedError) Error() string {
	return "the bundle of flows is refused (" + r.word + "): " + r.err.Error()
}

func (r *refusedError) Unwrap() error { return r.err }

func refusal(word, format string, args ...any) error {
	return &refusedError{word: word, err: fmt.Errorf(format, args...)}
}

// whyNotOpen finds the word for an envelope that could not be opened.
func whyNotOpen(envelope []byte, err error) string {
	var e struct {
		Signatures []json.RawMessage `json:"signatures"`
	}
	switch readErr := json.Unmarshal(envelope, &e); {
	case errors.Is(err, identity.ErrOtherAgent):
		return bundleOtherAgent
	case readErr == nil && len(e.Signatures) == 0:
		return bundleUnsigned
	case errors.Is(err, seal.ErrUntrusted):
		return bundleUntrusted
	}
	return bundleUndecodable
}

// refuse notes why the newest bundle is not used. It is logged when it is another reason than before.
func (b *bundles) refuse(ctx context.Context, err error) {
	r, refused := errors.AsType[*refusedError](err)
	if !refused {
		r = &refusedError{err: err}
	}
	b.mu.Lock()
	again := b.refusal != nil && b.refusal.word == r.word && b.refusal.err.Error() == r.err.Error()
	b.refusal = r
	if refused {
		if b.counts == nil {
			b.counts = map[string]uint64{}
		}
		b.counts[r.word]++
	}
	b.mu.Unlock()
	if refused && !again {
		b.log.ErrorContext(ctx, "a bundle of flows is refused; the flows of before go on", slog.String("reason", r.word), slog.Any("error", err))
	}
	b.changed()
}

// refused says why the newest bundle is not used, "" when it is.
func (b *bundles) refused() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.refusal == nil:
		return ""
	case b.refusal.word == "":
		return b.refusal.err.Error()
	}
	return b.refusal.Error()
}

// refusals counts the bundles that were refused, by word.
func (b *bundles) refusals() map[string]uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.counts)
}

// ControlPlaneClock is for the tunnel: what the control plane's clock said just now, in UTC microseconds, 0 when it did not.
func (b *bundles) ControlPlaneClock(now int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clock, b.told = now, time.Now()
}

// inTime refuses a bundle that has expired by the control plane's clock. The clock of this machine may be anything, so only
// the time that has passed since is taken from it, which is monotonic.
func (b *bundles) inTime(bundle *wire.Bundle) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.clock == 0 || bundle.GetExpires() == 0 {
		return nil // a control plane of before
	}
	now := b.clock + time.Since(b.told).Microseconds()
	if now <= bundle.GetExpires() {
		return nil
	}
	return refusal(bundleExpired, "it was to be used until %s, and the control plane's clock says %s; connect again to get a new one",
		time.UnixMicro(bundle.GetExpires()).UTC().Format(time.RFC3339), time.UnixMicro(now).UTC().Format(time.RFC3339))
}
