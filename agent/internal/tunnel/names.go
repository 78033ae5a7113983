package tunnel

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"time"
)

const (
	// slowAnswer is how long an ordinary lookup has before a patient one is started beside it, and patience how much longer
	// than the 5 s of the resolver that one waits for each answer.
	slowAnswer = 250 * time.Millisecond
	patience   = 10 * time.Second
	// rememberAfter is how long the DNS has to answer before the address that worked last is tried.
	rememberAfter = 3 * time.Second
)

// names remembers where each host was reached last, for the time when no DNS server answers. Who answers at an address
// is checked by its certificate and by the pinned key, so that an old address can do no harm. It also remembers how the
// addresses did that lead to the control plane: of its own host, or of the proxy before it.
type names struct {
	// ask looks up a host's addresses of one family, "ip4" or "ip6".
	ask func(ctx context.Context, network, host string) found

	mu   sync.Mutex
	last map[string]netip.Addr
	// known are the addresses that the last search has found, and trials how these and others did since one got through.
	known  []netip.Addr
	trials map[netip.Addr]trial
	// elsewhere is how often the agent did not wait because there was another address, since that time.
	elsewhere int
	since     time.Time
}

func newNames() *names {
	return &names{ask: family, last: map[string]netip.Addr{}, trials: map[netip.Addr]trial{}}
}

// reached remembers the address at which the host has answered, and which is used now.
func (n *names) reached(host string, by net.Conn) {
	at, ok := addressOf(by)
	if !ok {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last[host] = at
	n.note(at, trial{time.Now(), true})
}

func (n *names) remembered(host string) []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	if a, ok := n.last[host]; ok {
		return []netip.Addr{a}
	}
	return nil
}

// found is the answer of the DNS for one family of addresses.
type found struct {
	addrs []netip.Addr
	err   error
}

// lookup sends the addresses of the host as they become known. The families are asked for apart, because some DNS servers
// never answer for IPv6.
func (r *race) lookup(ctx context.Context, out chan<- []netip.Addr) {
	send := func(addrs []netip.Addr) {
		r.names.found(addrs)
		select {
		case out <- addrs:
		case <-ctx.Done():
		}
	}
	if address, err := netip.ParseAddr(r.host); err == nil {
		send([]netip.Addr{address})
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	answers := make(chan found, 2)
	for _, network := range []string{"ip6", "ip4"} {
		asking.Go(func() { answers <- r.names.ask(ctx, network, r.host) })
	}
	late := time.NewTimer(rememberAfter)
	defer late.Stop()
	known := false
	var failed error
	for pending := 2; pending > 0; {
		select {
		case a := <-answers:
			pending--
			if a.err != nil {
				failed = a.err
				continue
			}
			known = true
			send(a.addrs)
		case <-late.C:
			if !known {
				r.note(&net.DNSError{Err: "no DNS server has answered", Name: r.host, IsTimeout: true})
				send(r.names.remembered(r.host))
			}
		case <-ctx.Done():
			return
		}
	}
	if !known {
		r.note(failed)
		send(r.names.remembered(r.host))
	}
}

// family looks up a host's addresses of one family, "ip4" or "ip6".
func family(ctx context.Context, network, host string) found {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	answers := make(chan found, 2)
	ask := func(resolver *net.Resolver) {
		asking.Go(func() {
			addrs, err := resolver.LookupNetIP(ctx, network, host)
			answers <- found{addrs, err}
		})
	}
	ask(net.DefaultResolver)
	slow := time.NewTimer(slowAnswer)
	defer slow.Stop()
	var last found
	for asked := 1; asked > 0; {
		select {
		case <-slow.C:
			// The resolver of Windows is patient itself.
			if runtime.GOOS != "windows" {
				asked++
				ask(&net.Resolver{PreferGo: true, Dial: dialPatiently})
			}
		case last = <-answers:
			if last.err == nil {
				return last
			}
			asked--
		}
	}
	return last
}

// dialPatiently connects to a DNS server whose answers may take longer than the 5 s that Go's resolver gives each.
func dialPatiently(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if udp, ok := conn.(*net.UDPConn); ok && err == nil {
		return patientConn{udp}, nil
	}
	return conn, err //nolint:wrapcheck // the resolver says what and where
}

// patientConn waits longer than it is told to.
type patientConn struct{ *net.UDPConn }

// SetDeadline sets a later one.
func (c patientConn) SetDeadline(t time.Time) error {
	if !t.IsZero() {
		t = t.Add(patience)
	}
	return c.UDPConn.SetDeadline(t) //nolint:wrapcheck // the resolver says what and where
}
