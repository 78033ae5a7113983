package tunnel

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"

	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

// errRotated is why a session ends when the agent's keys have changed: the next one shows the new ones.
var errRotated = errors.New("the agent's keys have changed")

// Rotate asks for new keys: in this session, or at the beginning of the next one when they are prepared already.
func (c *Client) Rotate() {
	select {
	case c.rotate <- struct{}{}:
	default:
	}
}

// rotateWhenAsked goes on with a rotation that was cut off, and begins one when this machine asks for it.
func (s *session) rotateWhenAsked(ctx context.Context) error {
	if _, begun := s.settings.Identity.PreparedKeys(); begun {
		if err := s.sendRotate(); err != nil {
			return err
		}
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.rotate:
		}
		if err := s.sendRotate(); err != nil {
			return err
		}
	}
}

// sendRotate brings the next keys, which are on disk before. Sending them twice changes nothing.
func (s *session) sendRotate() error {
	next, err := s.settings.Identity.PrepareKeys()
	s.noteRotation(err)
	if err != nil {
		// As on a full disk. The present keys are good, so the session goes on; the next one is asked again.
		s.settings.Log.Warn("the agent's keys could not be changed now", slog.String("error", err.Error()))
		return nil
	}
	public := ed25519.PublicKey(next.Key[ed25519.SeedSize:])
	message, err := seal.RotateMessage(s.inner, s.settings.Agent, public, next.ReceiveKey)
	if err != nil {
		return err
	}
	return s.send(&wire.ControlUp{Message: &wire.ControlUp_Rotate{Rotate: &wire.Rotate{
		Ed25519PublicKey: public, X25519PublicKey: next.ReceiveKey, Signature: ed25519.Sign(next.Key, message),
	}}})
}

// noteRotation keeps why the keys could not be changed, or that they can.
func (c *Client) noteRotation(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rotation = ""
	if err != nil {
		c.rotation = err.Error()
	}
}

// rotated ends the session, so that the next one shows the new keys.
func (s *session) rotated(r *wire.Rotated) error {
	if err := s.settings.Identity.SwapKeys(r.GetEd25519PublicKey()); err != nil {
		return err
	}
	return errRotated
}
