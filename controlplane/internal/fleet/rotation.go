package fleet

import (
	"context"
	"errors"

	"github.com/outfeed/outfeed/protocol/seal"
)

// RotateAgent asks an agent for new keys.
func (s *Service) RotateAgent(ctx context.Context, a Actor, ref string) (out Agent, err error) {
	if err := require(a, Owner); err != nil {
		return Agent{}, err
	}
	err = s.write(ctx, a.Tenant, func(ctx context.Context, tx Tx) error {
		g, err := tx.AgentByRef(ctx, a.Workspace, ref)
		if err != nil {
			return found(err, "agent", ref)
		}
		switch {
		case !g.Revoked.IsZero():
			return fail(Conflict, "the agent %q was revoked, so it has no keys to change", g.Name)
		case g.Lock != nil:
			return fail(Conflict, "the agent %q is locked: decide first which copy goes on, with `outfeed agent unlock %s`", g.Name, g.Name)
		}
		if err := tx.AskRotation(ctx, g.ID); err != nil {
			return err
		}
		if err := notifyAgents(ctx, tx, a.Workspace, []ID{g.ID}); err != nil {
			return err
		}
		if out, err = tx.AgentByRef(ctx, a.Workspace, string(g.ID)); err != nil {
			return err
		}
		return audit(ctx, tx, a, object{"agent", g.ID, g.Name}, what{"ask_rotation", nil})
	})
	return out, err
}

// RotationWanted says whether the agent shall make new keys.
func (s *Service) RotationWanted(ctx context.Context, id AgentIdentity) (wanted bool, err error) {
	err = s.read(ctx, id.Tenant, func(ctx context.Context, tx Tx) error {
		st, err := agentState(tx.AgentState(ctx, id.Agent))
		wanted = st.RotationAsked
		return err
	})
	return wanted, err
}

// Rotate stores the agent's next keys. Storing the same ones again changes nothing, and others take their place: the
// session proves that they are of the agent itself.
func (s *Service) Rotate(ctx context.Context, id AgentIdentity, present, next Keys) error {
	if len(next.Ed25519) != 32 || len(next.X25519) != 32 {
		return fail(Invalid, "the agent sent next keys of a wrong size: update outfeed-agent")
	}
	fingerprint := seal.Fingerprint(next.Ed25519)
	known, err := s.store.FindAgent(ctx, fingerprint)
	if err != nil && !errors.Is(err, ErrNoRow) {
		return public(err)
	}
	if err == nil && !known.Revoked && (known.Agent != id.Agent || known.Tenant != id.Tenant || known.Standing == KeyRetired) {
		return fail(Conflict, "the agent's next key is in use already, or was: update outfeed-agent")
	}
	return s.write(ctx, id.Tenant, func(ctx context.Context, tx Tx) error {
		st, err := tx.LockConnect(ctx, id.Agent)
		if _, err = agentState(st.AgentState, err); err != nil {
			return err
		}
		switch {
		case st.Fingerprint != seal.Fingerprint(present.Ed25519):
			return fail(Conflict, "this session is of a key that is not the agent's present one: connect again")
		case fingerprint == st.Fingerprint:
			return fail(Conflict, "the agent's next key is its present one: update outfeed-agent")
		case fingerprint == st.NextFingerprint:
			return nil
		}
		if err := tx.SetNextKeys(ctx, id.Agent, next, fingerprint); err != nil {
			return err
		}
		return audit(ctx, tx, agentActor(id, st.Name), object{"agent", id.Agent, st.Name},
			what{"prepare_rotation", map[string]any{"fingerprint": fingerprint}})
	})
}

// adopt makes the next keys the present ones: the agent has said hello with them, so it has no others any more. What it
// runs is sealed to the new key and sent again.
func adopt(ctx context.Context, tx Tx, id AgentIdentity, st ConnectState) error {
	if err := tx.AdoptKeys(ctx, id.Agent); err != nil {
		return err
	}
	return audit(ctx, tx, agentActor(id, st.Name), object{"agent", id.Agent, st.Name},
		what{"rotate", map[string]any{"before": st.Fingerprint, "fingerprint": st.NextFingerprint}})
}
