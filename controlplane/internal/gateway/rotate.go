package gateway

import (
	"context"
	"crypto/ed25519"
	"log/slog"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

// askRotation asks the agent for new keys where they are wanted: at the beginning as the hello's answer had it, later as
// the domain says.
func (p *peer) askRotation(ctx context.Context, s *session, first, wanted bool) error {
	if !first {
		err := insist(ctx, func() (tryErr error) {
			wanted, tryErr = p.gateway.fleet.RotationWanted(ctx, p.id)
			return tryErr
		})
		switch {
		case err != nil && (fatal(err) || ctx.Err() != nil):
			return refuse(err)
		case err != nil:
			p.log.ErrorContext(ctx, "whether an agent shall change its keys could not be read", slog.String("error", err.Error()))
			return nil
		}
	}
	if !wanted || p.asked {
		return nil
	}
	// Once in a session is enough: what was begun goes on by itself, also in the next one.
	p.asked = true
	p.tell(s, func(o *outbox) {
		o.rotate = &wire.ControlDown{Message: &wire.ControlDown_RotateNow{RotateNow: &wire.RotateNow{}}}
	})
	return nil
}

// rotate stores the agent's next keys, which the agent proves to have.
func (p *peer) rotate(ctx context.Context, r *wire.Rotate) error {
	message, err := seal.RotateMessage(&p.inner, string(p.id.Agent), r.GetEd25519PublicKey(), r.GetX25519PublicKey())
	if err != nil || !ed25519.Verify(r.GetEd25519PublicKey(), message, r.GetSignature()) {
		return breach("the rotation's signature is not valid for this session")
	}
	present, next := fleet.Keys{Ed25519: p.key}, fleet.Keys{Ed25519: r.GetEd25519PublicKey(), X25519: r.GetX25519PublicKey()}
	if err := insist(ctx, func() error { return p.gateway.fleet.Rotate(ctx, p.id, present, next) }); err != nil {
		return refuse(err)
	}
	p.log.InfoContext(ctx, "an agent has next keys", slog.String("fingerprint", seal.Fingerprint(next.Ed25519)))
	return p.send(&wire.ControlDown{Message: &wire.ControlDown_Rotated{Rotated: &wire.Rotated{Ed25519PublicKey: next.Ed25519}}})
}
