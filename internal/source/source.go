// Package source tells who a connection comes from, and shares out places among those who come.
//
// It opens no connection and decides nothing but who goes first. A Crowd is for one goroutine at a time; the rest may be
// used concurrently.
package source

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// ipv6Site is the part of an IPv6 address that one customer of a provider gets.
const ipv6Site = 64

// Site is who counts as one source: an IPv4 address, or the /64 of an IPv6 address, since one machine has many of those.
// The address may have a port. What is no address, such as the peer of a local socket, is the zero Addr.
func Site(address string) netip.Addr {
	at := parse(address)
	if at.Is6() {
		if site, err := at.Prefix(ipv6Site); err == nil {
			return site.Addr()
		}
	}
	return at
}

// parse reads an address with or without a port; zero when it is none.
func parse(address string) netip.Addr {
	if both, err := netip.ParseAddrPort(address); err == nil {
		return both.Addr().Unmap().WithZone("")
	}
	at, err := netip.ParseAddr(strings.Trim(address, "[]"))
	if err != nil {
		return netip.Addr{}
	}
	return at.Unmap().WithZone("")
}

// Proxies are the addresses that are believed when they say for whom they speak.
type Proxies []netip.Prefix

// ParseProxies reads a list of addresses and CIDR ranges with commas or spaces between them, such as
// "127.0.0.1, 10.1.0.0/16, fd00::/8".
func ParseProxies(list string) (Proxies, error) {
	var all Proxies
	for _, text := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' }) {
		if at, err := netip.ParseAddr(text); err == nil {
			at = at.Unmap().WithZone("")
			all = append(all, netip.PrefixFrom(at, at.BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%q is no address and no range: write 10.1.2.3 or 10.1.0.0/16", text)
		}
		all = append(all, prefix.Masked())
	}
	return all, nil
}

// Trust says whether an address, with or without a port, is a proxy's.
func (p Proxies) Trust(address string) bool { return p.trusts(parse(address)) }

func (p Proxies) trusts(at netip.Addr) bool {
	return at.IsValid() && slices.ContainsFunc(p, func(one netip.Prefix) bool { return one.Contains(at) })
}

// Client is where a request comes from, given the address that its connection has: that address, or, where it is a
// proxy's, the last one in X-Forwarded-For that no proxy has. What stands before it in the header can be anybody's
// invention. An address from the header has no port.
func (p Proxies) Client(peer string, header http.Header) string {
	at := parse(peer)
	if !p.trusts(at) {
		return peer
	}
	hops := strings.Split(strings.Join(header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		next := parse(strings.TrimSpace(hop))
		if !next.IsValid() {
			break
		}
		at, peer = next, next.String()
		if !p.trusts(at) {
			break
		}
	}
	return peer
}

// Host is an address without its port, which says nothing to people.
func Host(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
