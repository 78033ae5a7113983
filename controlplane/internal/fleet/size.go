package fleet

import (
	"context"
	"fmt"

	"github.com/outfeed/outfeed/protocol/wire"
)

// BundleContent is how much an agent is to run: its flows with the connections that they use.
type BundleContent struct {
	Agent ID
	Name  string
	// Bytes are those of all texts and secrets.
	Bytes int64
	// Flows, Connections and Secrets count them.
	Flows, Connections, Secrets int64
}

// What a part takes in a bundle beside its own bytes at most: ids, hashes, lengths, and for a secret the sealing. The envelope has
// the signature.
const (
	flowOverhead       = 160
	connectionOverhead = 100
	secretOverhead     = 160
	bundleOverhead     = 160
	envelopeOverhead   = 512
)

// size bounds the bytes of the signed envelope from above. It is too much by less than a hundredth for flows of 10 KB.
func (c *BundleContent) size() int64 {
	bundle := c.Bytes + c.Flows*flowOverhead + c.Connections*connectionOverhead + c.Secrets*secretOverhead + bundleOverhead
	return (bundle+2)/3*4 + envelopeOverhead
}

// fits refuses a change by which an agent would have more to run than it can be sent. The change is made already in the
// transaction, which ends with the refusal.
func fits(ctx context.Context, tx Tx, workspace ID, agents []ID) error {
	if len(agents) == 0 {
		return nil
	}
	contents, err := tx.BundleContents(ctx, workspace, agents)
	if err != nil {
		return err
	}
	for i := range contents {
		if c := &contents[i]; c.size() > wire.MaxBundle {
			return fail(Invalid, "the agent %q would have %d flows that take %d bytes with their connections as they are signed and sent, which is 4/3 of their texts, and one agent can have at most %d: deploy fewer or smaller flows to it, or undeploy others first", c.Name, c.Flows, c.size(), wire.MaxBundle)
		}
	}
	return nil
}

// giveAgents is touchAgents for what must fit.
func giveAgents(ctx context.Context, tx Tx, workspace ID, agents []ID) error {
	if err := fits(ctx, tx, workspace, agents); err != nil {
		return err
	}
	return touchAgents(ctx, tx, workspace, agents)
}

// noteTooLarge says in the status of agents that are to run more than they can be sent why they do not, as they say
// themselves why they refuse a bundle. fits lets none come about; one can be of before it was asked.
func noteTooLarge(ctx context.Context, tx Tx, workspace ID, agents ...*Agent) error {
	behind := map[ID]*Agent{}
	var ids []ID
	for _, g := range agents {
		if g.Status != nil && g.Revoked.IsZero() && g.Desired != g.Applied {
			behind[g.ID] = g
			ids = append(ids, g.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	contents, err := tx.BundleContents(ctx, workspace, ids)
	if err != nil {
		return err
	}
	for i := range contents {
		if c := &contents[i]; c.size() > wire.MaxBundle {
			behind[c.Agent].Status.BundleError = fmt.Sprintf("the bundle of flows is not sent (too_large): it has about %d bytes, and one agent can have at most %d; undeploy flows from this agent, or deploy smaller ones", c.size(), wire.MaxBundle)
		}
	}
	return nil
}
