package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

const selectFlows = `
	SELECT id, name, description, created_at, updated_at, latest, published FROM flows
	WHERE tenant_id = @tenant AND workspace_id = @workspace AND (@ref = '' OR id::text = @ref OR name = @ref)
	ORDER BY name`

func scanFlow(row pgx.CollectableRow) (f fleet.Flow, err error) {
	return scanned(row, &f, &f.ID, &f.Name, &f.Description, &f.Created, &f.Updated, &f.Latest, &f.Published)
}

func (t *tx) Flows(ctx context.Context, workspace fleet.ID) ([]fleet.Flow, error) {
	return many(ctx, t, selectFlows, args{"workspace": workspace, "ref": ""}, scanFlow)
}

func (t *tx) FlowByRef(ctx context.Context, workspace fleet.ID, ref string) (fleet.Flow, error) {
	if ref == "" {
		return fleet.Flow{}, fleet.ErrNoRow
	}
	return one(ctx, t, selectFlows, args{"workspace": workspace, "ref": ref}, scanFlow)
}

func (t *tx) CreateFlow(ctx context.Context, workspace, id fleet.ID, name string) error {
	return t.do(ctx, "INSERT INTO flows (tenant_id, id, workspace_id, name) VALUES (@tenant, @id, @workspace, @name)",
		args{"id": id, "workspace": workspace, "name": name})
}

func (t *tx) AddVersion(ctx context.Context, v fleet.NewVersion) error {
	egress, writes, err := manifests(v.FlowVersion)
	if err != nil {
		return err
	}
	a := args{
		"flow": v.Flow, "version": v.Version, "definition": v.Definition, "sha256": v.SHA256, "connections": v.Connections,
		"egress": egress, "writes": writes, "by": v.CreatedBy, "description": v.Description,
	}
	if err := t.do(ctx, `
		INSERT INTO flow_versions (tenant_id, flow_id, version, definition, sha256, connections, egress, writes, created_by)
		VALUES (@tenant, @flow, @version, @definition, @sha256, @connections, @egress::json, @writes::json, @by)`, a); err != nil {
		return err
	}
	return t.must(ctx, `
		UPDATE flows SET latest = @version, description = @description, updated_at = now()
		WHERE tenant_id = @tenant AND id = @flow`, a)
}

const selectVersions = `
	SELECT flow_id, version, definition, sha256, created_at, created_by, published_at, egress, writes FROM flow_versions
	WHERE tenant_id = @tenant AND flow_id = @flow AND (@version = 0 OR version = @version)
	ORDER BY version DESC`

func scanVersion(row pgx.CollectableRow) (v fleet.FlowVersion, err error) {
	var egress, writes []byte
	err = row.Scan(&v.Flow, &v.Version, &v.Definition, &v.SHA256, &v.Created, &v.CreatedBy, maybe(&v.Published), &egress, &writes)
	if err != nil {
		return v, fmt.Errorf("read a version: %w", err)
	}
	if err := json.Unmarshal(egress, &v.Egress); err != nil {
		return v, fmt.Errorf("read the egress manifest of version %d: %w", v.Version, err)
	}
	if err := json.Unmarshal(writes, &v.Writes); err != nil {
		return v, fmt.Errorf("read what version %d writes: %w", v.Version, err)
	}
	return v, nil
}

// manifests gives, as JSON, what leaves the plant and what is written into it.
func manifests(v fleet.FlowVersion) (egress, writes string, err error) {
	e, err := json.Marshal(v.Egress)
	if err != nil {
		return "", "", fmt.Errorf("write an egress manifest: %w", err)
	}
	if len(v.Writes) == 0 {
		return string(e), "[]", nil
	}
	w, err := json.Marshal(v.Writes)
	if err != nil {
		return "", "", fmt.Errorf("write what a version writes: %w", err)
	}
	return string(e), string(w), nil
}

func (t *tx) FlowVersions(ctx context.Context, flow fleet.ID) ([]fleet.FlowVersion, error) {
	return many(ctx, t, selectVersions, args{"flow": flow, "version": 0}, scanVersion)
}

func (t *tx) FlowVersion(ctx context.Context, flow fleet.ID, version int) (fleet.FlowVersion, error) {
	if version <= 0 {
		return fleet.FlowVersion{}, fleet.ErrNoRow
	}
	return one(ctx, t, selectVersions, args{"flow": flow, "version": version}, scanVersion)
}

func (t *tx) PublishVersion(ctx context.Context, v fleet.FlowVersion) error {
	egress, writes, err := manifests(v)
	if err != nil {
		return err
	}
	a := args{"flow": v.Flow, "version": v.Version, "egress": egress, "writes": writes}
	if err := t.must(ctx, `
		UPDATE flow_versions SET published_at = now(), egress = @egress::json, writes = @writes::json
		WHERE tenant_id = @tenant AND flow_id = @flow AND version = @version AND published_at IS NULL`, a); err != nil {
		return err
	}
	return t.must(ctx, `
		UPDATE flows SET published = greatest(published, @version), updated_at = now()
		WHERE tenant_id = @tenant AND id = @flow`, a)
}

func (t *tx) Deployments(ctx context.Context, workspace fleet.ID) ([]fleet.Deployment, error) {
	return many(ctx, t, `
		SELECT d.id, d.flow_id, f.name, d.version, d.agent_id, d.created_at
		FROM deployments d JOIN flows f ON f.tenant_id = d.tenant_id AND f.id = d.flow_id
		WHERE d.tenant_id = @tenant AND f.workspace_id = @workspace
		ORDER BY f.name, d.agent_id`,
		args{"workspace": workspace}, scanDeployment)
}

func scanDeployment(row pgx.CollectableRow) (d fleet.Deployment, err error) {
	return scanned(row, &d, &d.ID, &d.Flow, &d.Name, &d.Version, &d.Agent, &d.Created)
}

func (t *tx) PutDeployment(ctx context.Context, d fleet.Deployment) error {
	return t.do(ctx, `
		INSERT INTO deployments (tenant_id, id, flow_id, version, agent_id)
		VALUES (@tenant, @id, @flow, @version, @agent)
		ON CONFLICT (tenant_id, flow_id, agent_id) DO UPDATE SET version = excluded.version, created_at = now()`,
		args{"id": d.ID, "flow": d.Flow, "version": d.Version, "agent": d.Agent})
}

func (t *tx) DeleteDeployment(ctx context.Context, id fleet.ID) error {
	return t.must(ctx, "DELETE FROM deployments WHERE tenant_id = @tenant AND id = @id", args{"id": id})
}

func (t *tx) AgentFlows(ctx context.Context, agent fleet.ID) ([]fleet.AgentFlow, error) {
	return many(ctx, t, `
		SELECT d.id, d.flow_id, f.name, d.version, d.agent_id, d.created_at, v.definition, v.sha256, v.connections
		FROM deployments d
		JOIN flows f ON f.tenant_id = d.tenant_id AND f.id = d.flow_id
		JOIN flow_versions v ON v.tenant_id = d.tenant_id AND v.flow_id = d.flow_id AND v.version = d.version
		WHERE d.tenant_id = @tenant AND d.agent_id = @agent
		ORDER BY f.name`,
		args{"agent": agent},
		func(row pgx.CollectableRow) (f fleet.AgentFlow, err error) {
			d := &f.Deployment
			return scanned(row, &f, &d.ID, &d.Flow, &d.Name, &d.Version, &d.Agent, &d.Created, &f.Definition, &f.SHA256, &f.Connections)
		})
}
