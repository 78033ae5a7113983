package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype/zeronull"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

// readLock reads the column of that name; nothing for an agent that is not locked.
func readLock(text []byte) (*fleet.AgentLock, error) {
	var lock *fleet.AgentLock
	if text == nil {
		return lock, nil
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		return lock, fmt.Errorf("read the lock of an agent: %w", err)
	}
	return lock, nil
}

func (t *tx) LockConnect(ctx context.Context, agent fleet.ID) (fleet.ConnectState, error) {
	return one(ctx, t, `
		SELECT workspace_id, name, revoked_at IS NOT NULL, lock, stored_seq, desired, sealing_key, rotate_asked_at IS NOT NULL,
			counter, session_hash, session_before, session_kept, refused_sessions, session_serial, fingerprint, next_fingerprint, lock_session
		FROM agents WHERE tenant_id = @tenant AND id = @agent FOR NO KEY UPDATE`, args{"agent": agent},
		func(row pgx.CollectableRow) (c fleet.ConnectState, err error) {
			var lock []byte
			c, err = scanned(row, &c, &c.Workspace, &c.Name, &c.Revoked, &lock, &c.StoredSeq, &c.Desired, &c.SealingKey, &c.RotationAsked,
				&c.Counter, &c.Session, &c.Before, &c.Kept, &c.Refused, &c.Serial, &c.Fingerprint, (*zeronull.Text)(&c.NextFingerprint), &c.OtherSession)
			if err != nil {
				return c, err
			}
			c.Lock, err = readLock(lock)
			return c, err
		})
}

func (t *tx) LastSession(ctx context.Context, agent fleet.ID) (fleet.LockSide, error) {
	return one(ctx, t, `
		SELECT hostname, address, seen_at, counter FROM agent_sessions
		WHERE tenant_id = @tenant AND agent_id = @agent ORDER BY counter DESC LIMIT 1`, args{"agent": agent},
		func(row pgx.CollectableRow) (l fleet.LockSide, err error) {
			return scanned(row, &l, &l.Hostname, &l.Address, &l.Seen, &l.Counter)
		})
}

func (t *tx) SetLock(ctx context.Context, agent fleet.ID, l fleet.AgentLock, session []byte) error {
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("write the lock of an agent: %w", err)
	}
	a := args{"agent": agent, "lock": string(text), "session": session, "counter": l.Other.Counter}
	if err := t.must(ctx, `
		UPDATE agents SET locked_at = coalesce(locked_at, now()), lock = @lock::json, lock_session = @session, lock_counter = @counter
		WHERE tenant_id = @tenant AND id = @agent`, a); err != nil {
		return err
	}
	return t.do(ctx, "UPDATE agent_sessions SET ended_at = now() WHERE tenant_id = @tenant AND agent_id = @agent AND ended_at IS NULL", a)
}

func (t *tx) MarkKept(ctx context.Context, agent fleet.ID) error {
	return t.must(ctx, "UPDATE agents SET session_kept = true WHERE tenant_id = @tenant AND id = @agent", args{"agent": agent})
}

func (t *tx) Unlock(ctx context.Context, agent fleet.ID, m fleet.ConnectMemory) error {
	refused := m.Refused
	if refused == nil {
		refused = [][]byte{}
	}
	return t.must(ctx, `
		UPDATE agents SET locked_at = NULL, lock = NULL, lock_session = NULL, lock_counter = NULL, counter = @counter,
			session_hash = @session, session_before = @before, session_kept = @kept, refused_sessions = @refused
		WHERE tenant_id = @tenant AND id = @agent`,
		args{"agent": agent, "counter": m.Counter, "session": m.Session, "before": m.Before, "kept": m.Kept, "refused": refused})
}

func (t *tx) AskRotation(ctx context.Context, agent fleet.ID) error {
	return t.must(ctx, "UPDATE agents SET rotate_asked_at = coalesce(rotate_asked_at, now()) WHERE tenant_id = @tenant AND id = @agent",
		args{"agent": agent})
}

func (t *tx) SetNextKeys(ctx context.Context, agent fleet.ID, next fleet.Keys, fingerprint string) error {
	return t.must(ctx, `
		UPDATE agents SET next_public_key = @public, next_sealing_key = @sealing, next_fingerprint = @fingerprint
		WHERE tenant_id = @tenant AND id = @agent`,
		args{"agent": agent, "public": next.Ed25519, "sealing": next.X25519, "fingerprint": fingerprint})
}

func (t *tx) AdoptKeys(ctx context.Context, agent fleet.ID) error {
	a := args{"agent": agent}
	if err := t.do(ctx, `
		INSERT INTO retired_keys (tenant_id, agent_id, fingerprint)
		SELECT tenant_id, id, fingerprint FROM agents WHERE tenant_id = @tenant AND id = @agent
		ON CONFLICT DO NOTHING`, a); err != nil {
		return err
	}
	return t.must(ctx, `
		UPDATE agents SET public_key = next_public_key, sealing_key = next_sealing_key, fingerprint = next_fingerprint,
			next_public_key = NULL, next_sealing_key = NULL, next_fingerprint = NULL, rotate_asked_at = NULL, rotated_at = now(),
			desired = desired + 1
		WHERE tenant_id = @tenant AND id = @agent AND next_fingerprint IS NOT NULL`, a)
}

func (t *tx) BeginSession(ctx context.Context, s fleet.NewSession) (lost int64, err error) {
	a := args{
		"agent": s.Agent, "counter": s.Counter, "replica": s.Replica, "hostname": s.Host.Hostname, "os": s.Host.OS, "arch": s.Host.Arch,
		"version": s.Host.Version, "applied": s.Applied, "connectors": string(s.Connectors), "kinds": s.Kinds, "oldest": s.Counter - keptSessions,
		"address": s.Address, "skew": s.Skew, "serial": s.Serial, "session": s.Session, "before": s.Before,
		"lost": fleet.LostReceipts(),
	}
	statements := []string{
		"UPDATE agent_sessions SET ended_at = now() WHERE tenant_id = @tenant AND agent_id = @agent AND ended_at IS NULL",
		// Those that are not below are of a copy that an owner decided against.
		"DELETE FROM agent_sessions WHERE tenant_id = @tenant AND agent_id = @agent AND (counter < @oldest OR counter >= @counter)",
		`INSERT INTO agent_sessions (tenant_id, agent_id, counter, replica, hostname, address)
		VALUES (@tenant, @agent, @counter, @replica, @hostname, @address)`,
	}
	for _, sql := range statements {
		if err := t.do(ctx, sql, a); err != nil {
			return 0, err
		}
	}
	// The agent is locked, so that its receipts are those of what is stored of it.
	return one(ctx, t, `
		UPDATE agents SET counter = @counter, hostname = @hostname, os = @os, arch = @arch, version = @version, applied = @applied,
			connectors = @connectors::json, connector_kinds = @kinds::text[], clock_skew = @skew,
			session_serial = @serial, session_hash = @session, session_before = @before, session_kept = false
		WHERE tenant_id = @tenant AND id = @agent
		RETURNING (SELECT coalesce(sum(insights), 0)::bigint FROM insight_receipts
			WHERE tenant_id = @tenant AND agent_id = @agent AND reason = ANY (@lost::text[]))`, a, pgx.RowTo[int64])
}
