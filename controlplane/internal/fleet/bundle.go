package fleet

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

func publicKey(k ed25519.PrivateKey) []byte { return slices.Clone([]byte(k[ed25519.SeedSize:])) }

// bundleLife is how long an agent accepts a bundle. It is signed anew whenever it is sent, so this bounds only for how long
// one that somebody got hold of is good for anything.
const bundleLife = 24 * time.Hour

// Bundle gives the agent's desired state, signed now, with the secrets sealed to it.
func (s *Service) Bundle(ctx context.Context, id AgentIdentity) ([]byte, uint64, error) {
	var b *wire.Bundle
	err := s.read(ctx, id.Tenant, func(ctx context.Context, tx Tx) error {
		st, err := agentState(tx.AgentState(ctx, id.Agent))
		if err != nil {
			return err
		}
		now := time.Now()
		b = &wire.Bundle{
			TenantId: string(id.Tenant), AgentId: string(id.Agent),
			Serial: uint64(st.Desired), Issued: now.UnixMicro(), Expires: now.Add(bundleLife).UnixMicro(), //nolint:gosec // never negative
		}
		flows, err := tx.AgentFlows(ctx, id.Agent)
		if err != nil {
			return err
		}
		used := map[string]bool{}
		for _, f := range flows {
			for _, name := range f.Connections {
				used[name] = true
			}
			bf, err := bundleFlow(f)
			if err != nil {
				return err
			}
			b.Flows = append(b.Flows, bf)
		}
		all, err := tx.Connections(ctx, id.Workspace)
		if err != nil {
			return err
		}
		for _, c := range all {
			if !used[c.Name] {
				continue
			}
			bc, err := s.bundleConnection(ctx, tx, id, c, st.SealingKey)
			if err != nil {
				return err
			}
			b.Connections = append(b.Connections, bc)
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	payload, err := proto.MarshalOptions{Deterministic: true}.Marshal(b)
	if err != nil {
		return nil, 0, public(fmt.Errorf("write a bundle: %w", err))
	}
	envelope, err := seal.Sign(s.bundleKey, seal.BundlePayload, payload)
	if err != nil {
		return nil, 0, public(fmt.Errorf("sign a bundle: %w", err))
	}
	return envelope, b.GetSerial(), nil
}

func bundleFlow(f AgentFlow) (*wire.BundleFlow, error) {
	sum, err := hex.DecodeString(f.SHA256)
	if err != nil {
		return nil, fmt.Errorf("the hash of the flow %s cannot be read: %w", f.Deployment.Name, err)
	}
	return &wire.BundleFlow{
		DeploymentId: string(f.Deployment.ID), FlowId: string(f.Deployment.Flow), Name: f.Deployment.Name,
		Version: uint32(min(max(f.Deployment.Version, 0), math.MaxInt32)), Definition: []byte(f.Definition), Sha256: sum,
	}, nil
}

// bundleConnection opens a connection's secrets and seals them to the agent.
func (s *Service) bundleConnection(ctx context.Context, tx Tx, id AgentIdentity, c Connection, key []byte) (*wire.BundleConnection, error) {
	options, err := json.Marshal(c.Options)
	if err != nil {
		return nil, fmt.Errorf("write the options of the connection %s: %w", c.Name, err)
	}
	out := &wire.BundleConnection{ConnectionId: string(c.ID), Name: c.Name, Kind: c.Kind, OptionsJson: options, SealedSecrets: map[string][]byte{}}
	stored, err := tx.Secrets(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	for _, sec := range stored {
		plain, err := s.secrets.Open(SecretRef{Tenant: id.Tenant, Connection: c.ID, Field: sec.Field, Version: sec.Version}, sec.SealedSecret)
		if err != nil {
			return nil, fmt.Errorf("open the secret %s of the connection %s: %w", sec.Field, c.Name, err)
		}
		to := seal.SecretContext{Tenant: string(id.Tenant), Agent: string(id.Agent), Connection: string(c.ID), Field: sec.Field}
		if out.SealedSecrets[sec.Field], err = seal.SealTo(key, to, plain); err != nil {
			return nil, fmt.Errorf("seal the secret %s of the connection %s: %w", sec.Field, c.Name, err)
		}
	}
	return out, nil
}
