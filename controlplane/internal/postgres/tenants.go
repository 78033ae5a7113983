package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

// FindAPIKey finds whom a key belongs to, before the tenant is known.
func (s *Store) FindAPIKey(ctx context.Context, hash []byte) (fleet.FoundAPIKey, error) {
	f := fleet.FoundAPIKey{Actor: fleet.Actor{Kind: fleet.APIKeyKind}}
	err := s.pool.QueryRow(ctx, "SELECT tenant_id, id, workspace_id, name, role, last_used_at FROM outfeed_lookup_api_key($1)", hash).
		Scan(&f.Actor.Tenant, &f.Actor.Ref, &f.Actor.Workspace, &f.Actor.Name, &f.Actor.Role, maybe(&f.LastUsed))
	return f, unreachable(noRow(err))
}

// FindSession finds whose a session is, before the tenant is known.
func (s *Store) FindSession(ctx context.Context, hash []byte) (fleet.FoundSession, error) {
	f := fleet.FoundSession{Actor: fleet.Actor{Kind: fleet.SessionKind}}
	err := s.pool.QueryRow(ctx, "SELECT tenant_id, id, workspace_id, name, role, last_used_at FROM outfeed_lookup_session($1)", hash).
		Scan(&f.Actor.Tenant, &f.Actor.Ref, &f.Actor.Workspace, &f.Actor.Name, &f.Actor.Role, maybe(&f.LastUsed))
	return f, unreachable(noRow(err))
}

// FindAgent finds whose key it is, before the tenant is known.
func (s *Store) FindAgent(ctx context.Context, fingerprint string) (fleet.FoundAgent, error) {
	var f fleet.FoundAgent
	err := s.pool.QueryRow(ctx, "SELECT tenant_id, workspace_id, id, revoked, standing FROM outfeed_lookup_agent_key($1)", fingerprint).
		Scan(&f.Tenant, &f.Workspace, &f.Agent, &f.Revoked, &f.Standing)
	return f, unreachable(noRow(err))
}

// FindToken finds the tenant of a token.
func (s *Store) FindToken(ctx context.Context, token fleet.ID) (fleet.ID, error) {
	var tenant fleet.ID
	err := s.pool.QueryRow(ctx, "SELECT outfeed_lookup_token($1)", string(token)).Scan(maybeID(&tenant))
	if err == nil && tenant == "" {
		return "", fleet.ErrNoRow
	}
	return tenant, unreachable(noRow(err))
}

func (t *tx) CreateTenant(ctx context.Context, n fleet.Tenant, ownerEmail string) (fleet.Tenant, error) {
	if err := t.do(ctx, "SELECT outfeed_create_tenant(@tenant, @name, @email)", args{"name": n.Name, "email": ownerEmail}); err != nil {
		return fleet.Tenant{}, err
	}
	return one(ctx, t, "SELECT tenant_id, name, created_at FROM tenants WHERE tenant_id = @tenant", nil,
		func(row pgx.CollectableRow) (n fleet.Tenant, err error) {
			return scanned(row, &n, &n.ID, &n.Name, &n.Created)
		})
}

func (t *tx) OtherTenants(ctx context.Context) (bool, error) {
	return one(ctx, t, "SELECT outfeed_other_tenants(@tenant)", nil, func(row pgx.CollectableRow) (others bool, err error) {
		return scanned(row, &others, &others)
	})
}

func (t *tx) CreateWorkspace(ctx context.Context, id fleet.ID, name string) error {
	return t.do(ctx, "INSERT INTO workspaces (tenant_id, id, name) VALUES (@tenant, @id, @name)", args{"id": id, "name": name})
}

func (t *tx) LockWorkspace(ctx context.Context, workspace fleet.ID) error {
	return t.must(ctx, "SELECT id FROM workspaces WHERE tenant_id = @tenant AND id = @workspace FOR NO KEY UPDATE", args{"workspace": workspace})
}

func scanAPIKey(row pgx.CollectableRow) (k fleet.APIKey, err error) {
	return scanned(row, &k, &k.ID, &k.Name, &k.Role, &k.Created, maybe(&k.LastUsed))
}

func (t *tx) APIKeys(ctx context.Context, workspace fleet.ID) ([]fleet.APIKey, error) {
	return many(ctx, t, `
		SELECT id, name, role, created_at, last_used_at FROM api_keys
		WHERE tenant_id = @tenant AND workspace_id = @workspace AND revoked_at IS NULL ORDER BY id`,
		args{"workspace": workspace}, scanAPIKey)
}

func (t *tx) CreateAPIKey(ctx context.Context, workspace fleet.ID, k fleet.APIKey, hash []byte) (fleet.APIKey, error) {
	return one(ctx, t, `
		INSERT INTO api_keys (tenant_id, id, workspace_id, name, role, key_hash)
		VALUES (@tenant, @id, @workspace, @name, @role, @hash)
		RETURNING id, name, role, created_at, last_used_at`,
		args{"id": k.ID, "workspace": workspace, "name": k.Name, "role": k.Role, "hash": hash}, scanAPIKey)
}

func (t *tx) RevokeAPIKey(ctx context.Context, workspace, id fleet.ID) error {
	return t.must(ctx, `
		UPDATE api_keys SET revoked_at = now()
		WHERE tenant_id = @tenant AND workspace_id = @workspace AND id = @id AND revoked_at IS NULL`,
		args{"workspace": workspace, "id": id})
}

func (t *tx) TouchAPIKey(ctx context.Context, id fleet.ID) error {
	return t.do(ctx, "UPDATE api_keys SET last_used_at = now() WHERE tenant_id = @tenant AND id = @id", args{"id": id})
}

func (t *tx) CreateSignIn(ctx context.Context, s fleet.NewSignIn, hash []byte) (expires time.Time, err error) {
	return one(ctx, t, `
		INSERT INTO sessions (tenant_id, id, hash, api_key_id, workspace_id, expires_at)
		SELECT k.tenant_id, @id, @hash, k.id, k.workspace_id, now() + @ttl::interval FROM api_keys k
		WHERE k.tenant_id = @tenant AND k.workspace_id = @workspace AND k.id = @key AND k.revoked_at IS NULL
		RETURNING expires_at`,
		args{"id": s.ID, "hash": hash, "workspace": s.Workspace, "key": s.APIKey, "ttl": s.TTL}, pgx.RowTo[time.Time])
}

func (t *tx) TouchSignIn(ctx context.Context, id fleet.ID) error {
	return t.do(ctx, "UPDATE sessions SET last_used_at = now() WHERE tenant_id = @tenant AND id = @id", args{"id": id})
}

func (t *tx) EndSignIn(ctx context.Context, id fleet.ID) error {
	return t.must(ctx, "UPDATE sessions SET ended_at = now() WHERE tenant_id = @tenant AND id = @id AND ended_at IS NULL", args{"id": id})
}

func (t *tx) AuditHead(ctx context.Context) (seq int64, hash []byte, err error) {
	rows, err := t.tx.Query(ctx, "SELECT audit_seq, audit_hash FROM tenants WHERE tenant_id = @tenant", t.with(nil))
	if err != nil {
		return 0, nil, fmt.Errorf("read the head of the audit log: %w", err)
	}
	_, err = pgx.CollectOneRow(rows, func(row pgx.CollectableRow) (struct{}, error) {
		return scanned(row, &struct{}{}, &seq, &hash)
	})
	return seq, hash, noRow(err)
}

func (t *tx) Audit(ctx context.Context, e fleet.AuditEntry) error {
	// The update is the lock: nobody else adds to the chain before this transaction ends. clock_timestamp and not now,
	// so that the times rise with the sequence.
	e, err := one(ctx, t, `
		UPDATE tenants SET audit_seq = audit_seq + 1 WHERE tenant_id = @tenant
		RETURNING audit_seq, audit_hash, clock_timestamp()`, nil,
		func(row pgx.CollectableRow) (fleet.AuditEntry, error) {
			return scanned(row, &e, &e.Seq, &e.Previous, &e.At)
		})
	if err != nil {
		return err
	}
	hash := e.ComputeHash(t.tenant)
	if err := t.do(ctx, `
		INSERT INTO audit_log (tenant_id, seq, at, actor_kind, actor_ref, actor_name, action, object_kind, object_id, object_name,
			detail, previous, hash)
		VALUES (@tenant, @seq, @at, @actor_kind, @actor_ref, @actor_name, @action, @object_kind, @object_id, @object_name,
			@detail, @previous, @hash)`,
		args{
			"seq": e.Seq, "at": e.At, "actor_kind": e.ActorKind, "actor_ref": e.ActorRef, "actor_name": e.ActorName,
			"action": e.Action, "object_kind": e.ObjectKind, "object_id": e.ObjectID, "object_name": e.ObjectName,
			"detail": e.Detail, "previous": e.Previous, "hash": hash,
		}); err != nil {
		return err
	}
	return t.must(ctx, "UPDATE tenants SET audit_hash = @hash WHERE tenant_id = @tenant", args{"hash": hash})
}

func (t *tx) AuditEntries(ctx context.Context, after int64, limit int) ([]fleet.AuditEntry, error) {
	return many(ctx, t, `
		SELECT seq, at, actor_kind, actor_ref, actor_name, action, object_kind, object_id, object_name, detail, previous, hash
		FROM audit_log WHERE tenant_id = @tenant AND seq > @after ORDER BY seq LIMIT @limit`,
		args{"after": after, "limit": limit},
		func(row pgx.CollectableRow) (e fleet.AuditEntry, err error) {
			return scanned(row, &e, &e.Seq, &e.At, &e.ActorKind, &e.ActorRef, &e.ActorName, &e.Action, &e.ObjectKind, &e.ObjectID,
				&e.ObjectName, &e.Detail, &e.Previous, &e.Hash)
		})
}
