package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

// BundleContents counts what AgentFlows, Connections and Secrets would give. The length of a text is known without reading it.
func (t *tx) BundleContents(ctx context.Context, workspace fleet.ID, agents []fleet.ID) ([]fleet.BundleContent, error) {
	return many(ctx, t, `
		WITH deployed AS (
			SELECT d.agent_id, octet_length(v.definition) + octet_length(f.name) AS bytes, v.connections
			FROM deployments d
			JOIN flows f ON f.tenant_id = d.tenant_id AND f.id = d.flow_id
			JOIN flow_versions v ON v.tenant_id = d.tenant_id AND v.flow_id = d.flow_id AND v.version = d.version
			WHERE d.tenant_id = @tenant AND d.agent_id = ANY (@agents::uuid[])),
		used AS (
			SELECT DISTINCT d.agent_id, name FROM deployed d, unnest(d.connections) name),
		sized AS (
			SELECT c.name, octet_length(c.name) + octet_length(c.kind) + octet_length(c.options::text) + s.bytes AS bytes, s.secrets
			FROM connections c, LATERAL (
				SELECT count(*) AS secrets, coalesce(sum(octet_length(field) + octet_length(ciphertext)), 0) AS bytes
				FROM connection_secrets WHERE tenant_id = c.tenant_id AND connection_id = c.id) s
			WHERE c.tenant_id = @tenant AND c.workspace_id = @workspace AND c.name IN (SELECT name FROM used)),
		flows_of AS (
			SELECT agent_id, count(*) AS flows, sum(bytes) AS bytes FROM deployed GROUP BY agent_id),
		connections_of AS (
			SELECT agent_id, count(*) AS connections, sum(secrets) AS secrets, sum(bytes) AS bytes
			FROM used JOIN sized USING (name) GROUP BY agent_id)
		SELECT a.id, a.name, (f.bytes + coalesce(c.bytes, 0))::bigint, f.flows, coalesce(c.connections, 0), coalesce(c.secrets, 0)::bigint
		FROM agents a
		JOIN flows_of f ON f.agent_id = a.id
		LEFT JOIN connections_of c ON c.agent_id = a.id
		WHERE a.tenant_id = @tenant AND a.workspace_id = @workspace
		ORDER BY a.name, a.id`,
		args{"workspace": workspace, "agents": texts(agents)},
		func(row pgx.CollectableRow) (c fleet.BundleContent, err error) {
			return scanned(row, &c, &c.Agent, &c.Name, &c.Bytes, &c.Flows, &c.Connections, &c.Secrets)
		})
}
