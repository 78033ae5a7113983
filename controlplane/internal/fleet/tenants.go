package fleet

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/outfeed/outfeed/internal/secret"
)

// apiKeyPrefix begins every API key, so that people and scanners know one when they see it.
const apiKeyPrefix = "ofk_"

// touchEvery is how exact APIKey.LastUsed is: not every request writes it.
const touchEvery = time.Minute

// newSecret makes 32 random bytes as text after a prefix, and the hash under which it is found.
func newSecret(prefix string) (secret.String, []byte) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // it never fails: the program ends instead
	text := prefix + base64.RawURLEncoding.EncodeToString(b)
	return secret.New(text), hashOf(text)
}

func hashOf(text string) []byte {
	h := sha256.Sum256([]byte(text))
	return h[:]
}

// CreateTenant makes a tenant with a workspace and an owner's API key.
func (s *Service) CreateTenant(ctx context.Context, name, ownerEmail string) (Tenant, secret.String, error) {
	if err := checkName("the tenant's name", name); err != nil {
		return Tenant{}, secret.String{}, err
	}
	if err := checkName("the owner's e-mail address", ownerEmail); err != nil {
		return Tenant{}, secret.String{}, err
	}
	if !strings.Contains(ownerEmail, "@") {
		return Tenant{}, secret.String{}, fail(Invalid, "%q is not an e-mail address", ownerEmail)
	}
	ids, err := newIDs(3)
	if err != nil {
		return Tenant{}, secret.String{}, public(err)
	}
	tenant, workspace, key := ids[0], ids[1], ids[2]
	text, hash := newSecret(apiKeyPrefix)
	var t Tenant
	err = s.write(ctx, tenant, func(ctx context.Context, tx Tx) (err error) {
		if err := s.roomForTenant(ctx, tx); err != nil {
			return err
		}
		if t, err = tx.CreateTenant(ctx, Tenant{ID: tenant, Name: name}, ownerEmail); err != nil {
			return err
		}
		if err := tx.CreateWorkspace(ctx, workspace, "default"); err != nil {
			return err
		}
		if _, err := tx.CreateAPIKey(ctx, workspace, APIKey{ID: key, Name: ownerEmail, Role: Owner}, hash); err != nil {
			return err
		}
		return audit(ctx, tx, Actor{Kind: "admin", Name: "admin"}, object{"tenant", tenant, name}, what{"create", map[string]any{"owner_email": ownerEmail, "workspace": workspace, "api_key": key}})
	})
	if err != nil {
		return Tenant{}, secret.String{}, err
	}
	return t, text, nil
}

// roomForTenant refuses a second tenant where there may be one.
func (s *Service) roomForTenant(ctx context.Context, tx Tx) error {
	if s.tenancy != OneTenant {
		return nil
	}
	others, err := tx.OtherTenants(ctx)
	if err == nil && others {
		err = fail(Conflict, "this control plane is for one tenant, and has it; OUTFEED_MODE=saas allows more")
	}
	return err
}

func newIDs(n int) ([]ID, error) {
	out := make([]ID, n)
	for i := range out {
		id, err := newID()
		if err != nil {
			return nil, err
		}
		out[i] = id
	}
	return out, nil
}

// Authenticate finds who an API key belongs to.
func (s *Service) Authenticate(ctx context.Context, key secret.String) (Actor, error) {
	unknown := fail(Unauthorized, "the API key is unknown or was revoked; `outfeed login` sets another one")
	if !strings.HasPrefix(key.Reveal(), apiKeyPrefix) {
		return Actor{}, unknown
	}
	f, err := s.store.FindAPIKey(ctx, hashOf(key.Reveal()))
	if errors.Is(err, ErrNoRow) {
		return Actor{}, unknown
	}
	if err != nil {
		return Actor{}, public(err)
	}
	if time.Since(f.LastUsed) > touchEvery {
		err = s.write(ctx, f.Actor.Tenant, func(ctx context.Context, tx Tx) error { return tx.TouchAPIKey(ctx, f.Actor.Ref) })
	}
	return f.Actor, err
}

// APIKeys lists the workspace's keys.
func (s *Service) APIKeys(ctx context.Context, a Actor) (out []APIKey, err error) {
	if err := require(a, Owner); err != nil {
		return nil, err
	}
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		out, err = tx.APIKeys(ctx, a.Workspace)
		return err
	})
	return out, err
}

// CreateAPIKey makes a key; its text is shown this once.
func (s *Service) CreateAPIKey(ctx context.Context, a Actor, name string, role Role) (APIKey, secret.String, error) {
	if err := require(a, Owner); err != nil {
		return APIKey{}, secret.String{}, err
	}
	if err := checkName("the key's name", name); err != nil {
		return APIKey{}, secret.String{}, err
	}
	if rank(role) == 0 {
		return APIKey{}, secret.String{}, fail(Invalid, "there is no role %q; the roles are owner, editor, operator and viewer", role)
	}
	id, err := newID()
	if err != nil {
		return APIKey{}, secret.String{}, public(err)
	}
	text, hash := newSecret(apiKeyPrefix)
	k := APIKey{ID: id, Name: name, Role: role}
	err = s.write(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		if k, err = tx.CreateAPIKey(ctx, a.Workspace, APIKey{ID: id, Name: name, Role: role}, hash); err != nil {
			return err
		}
		return audit(ctx, tx, a, object{"api_key", id, name}, what{"create", map[string]any{"role": role}})
	})
	if err != nil {
		return APIKey{}, secret.String{}, err
	}
	return k, text, nil
}

// RevokeAPIKey ends a key at once. The last owner's key stays, or nobody could make another.
func (s *Service) RevokeAPIKey(ctx context.Context, a Actor, id ID) error {
	if err := require(a, Owner); err != nil {
		return err
	}
	return s.write(ctx, a.Tenant, func(ctx context.Context, tx Tx) error {
		if err := tx.LockWorkspace(ctx, a.Workspace); err != nil {
			return err
		}
		keys, err := tx.APIKeys(ctx, a.Workspace)
		if err != nil {
			return err
		}
		var key *APIKey
		owners := 0
		for i := range keys {
			if keys[i].ID == id {
				key = &keys[i]
			} else if keys[i].Role == Owner {
				owners++
			}
		}
		if key == nil {
			return found(ErrNoRow, "api key", string(id))
		}
		if owners == 0 {
			return fail(Conflict, "%q is the last key with the role owner: make another one before you revoke it", key.Name)
		}
		if err := tx.RevokeAPIKey(ctx, a.Workspace, id); err != nil {
			return err
		}
		return audit(ctx, tx, a, object{"api_key", id, key.Name}, what{"revoke", nil})
	})
}

// Subscribe gives the workspace's events.
func (s *Service) Subscribe(ctx context.Context, a Actor) (<-chan Event, error) {
	if err := require(a, Viewer); err != nil {
		return nil, err
	}
	events, err := s.store.Watch(ctx, a.Tenant, a.Workspace)
	return events, public(err)
}
