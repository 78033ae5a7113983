package fleet

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/outfeed/outfeed/internal/secret"
)

// The kinds of actor that people are.
const (
	// APIKeyKind is an actor whom an API key has authenticated.
	APIKeyKind = "api_key"
	// SessionKind is an actor whom a session of the dashboard has authenticated.
	SessionKind = "session"
)

// sessionPrefix begins every session's secret.
const sessionPrefix = "ofs_"

// The bounds of how long a session lasts.
const (
	shortestSession = time.Second
	longestSession  = 30 * 24 * time.Hour
)

// CreateSession begins a session of an actor whom an API key has authenticated. A session begins no other one, or it
// would last for ever.
func (s *Service) CreateSession(ctx context.Context, a Actor, ttl time.Duration) (secret.String, error) {
	if err := require(a, Viewer); err != nil {
		return secret.String{}, err
	}
	if a.Kind != APIKeyKind {
		return secret.String{}, fail(Forbidden, "a session begins with an API key: sign in with one")
	}
	if ttl < shortestSession || ttl > longestSession {
		return secret.String{}, fail(Invalid, "a session lasts from %s to %s, not %s", shortestSession, longestSession, ttl)
	}
	id, err := newID()
	if err != nil {
		return secret.String{}, public(err)
	}
	text, hash := newSecret(sessionPrefix)
	err = s.write(ctx, a.Tenant, func(ctx context.Context, tx Tx) error {
		expires, err := tx.CreateSignIn(ctx, NewSignIn{ID: id, Workspace: a.Workspace, APIKey: a.Ref, TTL: ttl}, hash)
		if errors.Is(err, ErrNoRow) {
			return fail(Unauthorized, "the API key %q was revoked: sign in with another one", a.Name)
		}
		if err != nil {
			return err
		}
		return audit(ctx, tx, a, object{"session", id, a.Name}, what{"create", map[string]any{"api_key": a.Ref, "expires": expires}})
	})
	if err != nil {
		return secret.String{}, err
	}
	return text, nil
}

// AuthenticateSession finds whose a session is. Its role and name are those that its API key has at this moment.
func (s *Service) AuthenticateSession(ctx context.Context, session secret.String) (Actor, error) {
	f, err := s.findSession(ctx, session)
	if errors.Is(err, ErrNoRow) {
		return Actor{}, fail(Unauthorized, "the session has ended: sign in again")
	}
	if err != nil {
		return Actor{}, public(err)
	}
	if time.Since(f.LastUsed) > touchEvery {
		err = s.write(ctx, f.Actor.Tenant, func(ctx context.Context, tx Tx) error { return tx.TouchSignIn(ctx, f.Actor.Ref) })
	}
	if err != nil {
		return Actor{}, err
	}
	return f.Actor, nil
}

// EndSession ends a session; one that has ended, or never was, is no error.
func (s *Service) EndSession(ctx context.Context, session secret.String) error {
	f, err := s.findSession(ctx, session)
	if errors.Is(err, ErrNoRow) {
		return nil
	}
	if err != nil {
		return public(err)
	}
	return s.write(ctx, f.Actor.Tenant, func(ctx context.Context, tx Tx) error {
		if err := tx.EndSignIn(ctx, f.Actor.Ref); errors.Is(err, ErrNoRow) {
			return nil // somebody else has ended it just now, and said so in the audit log
		} else if err != nil {
			return err
		}
		return audit(ctx, tx, f.Actor, object{"session", f.Actor.Ref, f.Actor.Name}, what{"end", nil})
	})
}

// findSession finds a session by its secret; ErrNoRow when it is nobody's.
func (s *Service) findSession(ctx context.Context, session secret.String) (FoundSession, error) {
	if !strings.HasPrefix(session.Reveal(), sessionPrefix) {
		return FoundSession{}, ErrNoRow
	}
	return s.store.FindSession(ctx, hashOf(session.Reveal()))
}
