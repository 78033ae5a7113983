package tunnel

import (
	"context"
	"net"
	"net/netip"
)

// Resolve makes every name have the IPv4 addresses that are given at the time, as the DNS would say.
func (c *Client) Resolve(addresses func() []string) {
	c.link.names.ask = func(_ context.Context, network, host string) found {
		var out []netip.Addr
		if network == "ip4" {
			for _, a := range addresses() {
				out = append(out, netip.MustParseAddr(a))
			}
		}
		if out == nil {
			return found{err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
		}
		return found{addrs: out}
	}
}
