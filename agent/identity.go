package agent

import (
	"github.com/outfeed/outfeed/agent/internal/identity"
	"github.com/outfeed/outfeed/agent/internal/tunnel"
)

// tunnelIdentity is the tunnel's view of the identity.
type tunnelIdentity struct{ *identity.Identity }

func (i tunnelIdentity) PrepareKeys() (tunnel.NextKeys, error) {
	next, err := i.Identity.PrepareKeys()
	return tunnel.NextKeys(next), err
}

func (i tunnelIdentity) PreparedKeys() (tunnel.NextKeys, bool) {
	next, begun := i.Identity.PreparedKeys()
	return tunnel.NextKeys(next), begun
}
