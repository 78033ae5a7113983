package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// InstallationKey is what is recorded of a key of the control plane.
type InstallationKey struct {
	// Name is master, identity or bundle; Fingerprint has 64 hex digits.
	Name, Fingerprint string
	Recorded          time.Time
}

// InstallationKeys lists what is recorded; nothing is before the first start.
func (s *Store) InstallationKeys(ctx context.Context) ([]InstallationKey, error) {
	rows, err := s.pool.Query(ctx, "SELECT name, fingerprint, recorded_at FROM outfeed_installation_keys()")
	if err != nil {
		return nil, fmt.Errorf("read which keys are recorded: %w", unreachable(err))
	}
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByPos[InstallationKey])
	if err != nil {
		return nil, fmt.Errorf("read which keys are recorded: %w", unreachable(err))
	}
	return keys, nil
}

// RecordKeys records keys together and gives what is recorded after that, which differs where another process was first. A
// key that is recorded already stays, but for when replaced has its fingerprint under its name.
func (s *Store) RecordKeys(ctx context.Context, keys, replaced map[string]string) (map[string]string, error) {
	out := map[string]string{}
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// One order for all, so that two that record at once do not block each other.
		for _, name := range []string{"master", "identity", "bundle"} {
			if keys[name] == "" {
				continue
			}
			var now string
			row := tx.QueryRow(ctx, "SELECT outfeed_record_key($1, $2, $3)", name, keys[name], replaced[name])
			if err := row.Scan(&now); err != nil {
				return fmt.Errorf("record the fingerprint of the %s key: %w", name, err)
			}
			out[name] = now
		}
		return nil
	})
	return out, unreachable(err)
}

// HangOnKeys counts what the keys of the control plane are the keys to.
type HangOnKeys struct {
	// Tenants there are, Agents that are not revoked, and Credentials of connections.
	Tenants, Agents, Credentials int64
}

// HangOnKeys counts over all tenants.
func (s *Store) HangOnKeys(ctx context.Context) (HangOnKeys, error) {
	var h HangOnKeys
	row := s.pool.QueryRow(ctx, "SELECT tenants, agents, credentials FROM outfeed_hang_on_keys()")
	if err := row.Scan(&h.Tenants, &h.Agents, &h.Credentials); err != nil {
		return HangOnKeys{}, fmt.Errorf("count what hangs on the keys: %w", unreachable(err))
	}
	return h, nil
}
