package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

const selectConnections = `
	SELECT c.id, c.name, c.kind, c.options, c.created_at, c.updated_at,
		ARRAY(SELECT s.field FROM connection_secrets s WHERE s.tenant_id = c.tenant_id AND s.connection_id = c.id ORDER BY s.field)
	FROM connections c
	WHERE c.tenant_id = @tenant AND c.workspace_id = @workspace AND (@ref = '' OR c.id::text = @ref OR c.name = @ref)
	ORDER BY c.name`

func scanConnection(row pgx.CollectableRow) (c fleet.Connection, err error) {
	var options []byte
	if err := row.Scan(&c.ID, &c.Name, &c.Kind, &options, &c.Created, &c.Updated, &c.SecretNames); err != nil {
		return c, fmt.Errorf("read a connection: %w", err)
	}
	c.Options, err = fleet.DecodeOptions(options)
	return c, err
}

func (t *tx) Connections(ctx context.Context, workspace fleet.ID) ([]fleet.Connection, error) {
	return many(ctx, t, selectConnections, args{"workspace": workspace, "ref": ""}, scanConnection)
}

func (t *tx) ConnectionByRef(ctx context.Context, workspace fleet.ID, ref string) (fleet.Connection, error) {
	if ref == "" {
		return fleet.Connection{}, fleet.ErrNoRow
	}
	return one(ctx, t, selectConnections, args{"workspace": workspace, "ref": ref}, scanConnection)
}

func connectionArgs(c fleet.Connection) (args, error) {
	if c.Options == nil {
		c.Options = map[string]any{}
	}
	options, err := json.Marshal(c.Options)
	if err != nil {
		return nil, fmt.Errorf("write the options of the connection %s: %w", c.Name, err)
	}
	return args{"id": c.ID, "name": c.Name, "kind": c.Kind, "options": string(options)}, nil
}

func (t *tx) CreateConnection(ctx context.Context, workspace fleet.ID, c fleet.Connection) error {
	a, err := connectionArgs(c)
	if err != nil {
		return err
	}
	a["workspace"] = workspace
	return t.do(ctx, `
		INSERT INTO connections (tenant_id, id, workspace_id, name, kind, options)
		VALUES (@tenant, @id, @workspace, @name, @kind, @options::json)`, a)
}

func (t *tx) UpdateConnection(ctx context.Context, c fleet.Connection) error {
	a, err := connectionArgs(c)
	if err != nil {
		return err
	}
	return t.must(ctx, `
		UPDATE connections SET kind = @kind, options = @options::json, updated_at = now()
		WHERE tenant_id = @tenant AND id = @id`, a)
}

func (t *tx) DeleteConnection(ctx context.Context, id fleet.ID) error {
	return t.must(ctx, "DELETE FROM connections WHERE tenant_id = @tenant AND id = @id", args{"id": id})
}

func (t *tx) Secrets(ctx context.Context, connection fleet.ID) ([]fleet.StoredSecret, error) {
	return many(ctx, t, `
		SELECT field, version, wrapped_key, ciphertext FROM connection_secrets
		WHERE tenant_id = @tenant AND connection_id = @connection ORDER BY field`,
		args{"connection": connection},
		func(row pgx.CollectableRow) (s fleet.StoredSecret, err error) {
			return scanned(row, &s, &s.Field, &s.Version, &s.WrappedKey, &s.Ciphertext)
		})
}

func (t *tx) PutSecret(ctx context.Context, connection fleet.ID, s fleet.StoredSecret) error {
	return t.do(ctx, `
		INSERT INTO connection_secrets (tenant_id, connection_id, field, version, wrapped_key, ciphertext)
		VALUES (@tenant, @connection, @field, @version, @wrapped_key, @ciphertext)
		ON CONFLICT (tenant_id, connection_id, field) DO UPDATE
		SET version = excluded.version, wrapped_key = excluded.wrapped_key, ciphertext = excluded.ciphertext, created_at = now()`,
		args{"connection": connection, "field": s.Field, "version": s.Version, "wrapped_key": s.WrappedKey, "ciphertext": s.Ciphertext})
}

func (t *tx) DeleteSecret(ctx context.Context, connection fleet.ID, field string) error {
	return t.do(ctx, "DELETE FROM connection_secrets WHERE tenant_id = @tenant AND connection_id = @connection AND field = @field",
		args{"connection": connection, "field": field})
}

func (t *tx) ConnectionUses(ctx context.Context, workspace fleet.ID, name string) ([]fleet.ConnectionUse, error) {
	return many(ctx, t, `
		SELECT f.name, d.agent_id
		FROM deployments d
		JOIN flows f ON f.tenant_id = d.tenant_id AND f.id = d.flow_id
		JOIN flow_versions v ON v.tenant_id = d.tenant_id AND v.flow_id = d.flow_id AND v.version = d.version
		WHERE d.tenant_id = @tenant AND f.workspace_id = @workspace AND @name = ANY (v.connections)
		ORDER BY f.name, d.agent_id`,
		args{"workspace": workspace, "name": name},
		func(row pgx.CollectableRow) (u fleet.ConnectionUse, err error) {
			return scanned(row, &u, &u.FlowName, &u.Agent)
		})
}
