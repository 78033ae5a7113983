package auth

import (
	"net/netip"
	"testing"
	"time"
)

func TestFailuresAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f := newFailures(func() time.Time { return now })
	address := netip.MustParseAddr("10.0.0.0")
	for range maxAddresses + 500 {
		f.add(address)
		address = address.Next()
	}
	if len(f.by) > maxAddresses {
		t.Errorf("%d addresses are kept", len(f.by))
	}
	now = now.Add(failureWindow)
	f.add(address)
	if len(f.by) != 1 {
		t.Errorf("%d addresses are kept after all have passed", len(f.by))
	}
}
