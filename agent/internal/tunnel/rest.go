package tunnel

import (
	"context"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/outfeed/outfeed/internal/backoff"
)

const (
	// lookEvery is how often the name of the control plane is looked up during a wait that is longer, and lookTimeout how long
	// that may take.
	lookEvery   = 5 * time.Second
	lookTimeout = 4 * time.Second
)

// rest waits for the pause after an error, or until the name of the control plane has a new address. It gives an error only when
// ctx ends.
func (d *dialer) rest(ctx context.Context, pause time.Duration, after error) error {
	host := d.mayMove(ctx, after)
	if pause <= lookEvery || host == "" {
		return backoff.Sleep(ctx, pause)
	}
	waiting, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	again := time.NewTicker(lookEvery)
	defer again.Stop()
	// The search ends when an address wins, which may be before all are known.
	known, tried := d.names.all()
	all := d.look(waiting, host, slices.Concat(known, tried))
	moved := hasNew(all, slices.Concat(known, tried))
	known = append(known, all...)
	for {
		select {
		case <-waiting.Done():
			return context.Cause(ctx)
		case <-again.C:
			moved = moved || hasNew(d.look(waiting, host, known), known)
			if moved && d.names.mayGoElsewhere() {
				return nil
			}
		}
	}
}

// hasNew says whether one of the addresses is not known.
func hasNew(addrs, known []netip.Addr) bool {
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !slices.Contains(known, a) })
}

// mayMove is the name whose addresses count for the wait after an error: none after what was said by the control plane with its
// own key, none behind a proxy, which resolves the name itself, and none for an address.
func (d *dialer) mayMove(ctx context.Context, after error) (host string) {
	_, refused := errors.AsType[*RefusedError](after)
	_, proxy := errors.AsType[*ProxyError](after)
	if refused || proxy {
		return ""
	}
	if via, err := d.proxyFor(ctx); err != nil || via != nil {
		return ""
	}
	target, err := url.Parse(d.target)
	if err != nil {
		return ""
	}
	if _, err := netip.ParseAddr(target.Hostname()); err == nil {
		return ""
	}
	return target.Hostname()
}

// look is what the addresses of a host are now, up to the first answer with one that is not known.
func (d *dialer) look(ctx context.Context, host string, known []netip.Addr) (all []netip.Addr) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	answers := make(chan []netip.Addr)
	asking.Go(func() {
		defer close(answers)
		(&race{names: d.names, host: host}).lookup(ctx, answers)
	})
	for found := range answers {
		for _, a := range found {
			if a = a.Unmap(); len(all) < maxAddresses {
				all = append(all, a)
			}
		}
		if hasNew(all, known) {
			break
		}
	}
	return all
}
