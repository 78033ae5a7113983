package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

// keptSessions is how many of an agent's sessions are kept, by its connect counter.
const keptSessions = 100

func scanToken(row pgx.CollectableRow) (t fleet.EnrollToken, err error) {
	return scanned(row, &t, &t.ID, &t.Labels, &t.Created, &t.Expires, maybe(&t.Used), maybeID(&t.Agent))
}

func (t *tx) CreateToken(ctx context.Context, workspace fleet.ID, n fleet.EnrollToken, hash []byte, ttl time.Duration) (fleet.EnrollToken, error) {
	return one(ctx, t, `
		INSERT INTO enroll_tokens (tenant_id, id, workspace_id, secret_hash, labels, expires_at)
		VALUES (@tenant, @id, @workspace, @hash, @labels, now() + @ttl::interval)
		RETURNING id, labels, created_at, expires_at, used_at, agent_id::text`,
		args{"id": n.ID, "workspace": workspace, "hash": hash, "labels": labels(n.Labels), "ttl": ttl}, scanToken)
}

func (t *tx) Tokens(ctx context.Context, workspace fleet.ID) ([]fleet.EnrollToken, error) {
	return many(ctx, t, `
		SELECT id, labels, created_at, expires_at, used_at, agent_id::text FROM enroll_tokens
		WHERE tenant_id = @tenant AND workspace_id = @workspace ORDER BY id DESC LIMIT 1000`,
		args{"workspace": workspace}, scanToken)
}

func (t *tx) UseToken(ctx context.Context, id fleet.ID, hash []byte) (workspace fleet.ID, l map[string]string, err error) {
	_, err = one(ctx, t, `
		UPDATE enroll_tokens SET used_at = now()
		WHERE tenant_id = @tenant AND id = @id AND secret_hash = @hash AND used_at IS NULL AND expires_at > now()
		RETURNING workspace_id, labels`,
		args{"id": id, "hash": hash},
		func(row pgx.CollectableRow) (struct{}, error) { return scanned(row, &struct{}{}, &workspace, &l) })
	return workspace, l, err
}

func (t *tx) TokenByHash(ctx context.Context, id fleet.ID, hash []byte) (fleet.EnrollToken, error) {
	return one(ctx, t, `
		SELECT id, labels, created_at, expires_at, used_at, agent_id::text FROM enroll_tokens
		WHERE tenant_id = @tenant AND id = @id AND secret_hash = @hash`,
		args{"id": id, "hash": hash}, scanToken)
}

func (t *tx) SetTokenAgent(ctx context.Context, id, agent fleet.ID) error {
	return t.must(ctx, "UPDATE enroll_tokens SET agent_id = @agent WHERE tenant_id = @tenant AND id = @id", args{"id": id, "agent": agent})
}

// labels writes no labels as an empty object.
func labels(l map[string]string) map[string]string {
	if l == nil {
		return map[string]string{}
	}
	return l
}

func (t *tx) AgentNames(ctx context.Context, workspace fleet.ID, prefix string) ([]string, error) {
	return many(ctx, t, `
		SELECT name FROM agents
		WHERE tenant_id = @tenant AND workspace_id = @workspace AND revoked_at IS NULL AND starts_with(name, @prefix)`,
		args{"workspace": workspace, "prefix": prefix}, pgx.RowTo[string])
}

func agentArgs(a fleet.NewAgent) args {
	return args{
		"id": a.ID, "workspace": a.Workspace, "name": a.Name, "labels": labels(a.Labels), "hostname": a.Host.Hostname,
		"os": a.Host.OS, "arch": a.Host.Arch, "version": a.Host.Version, "public_key": a.PublicKey,
		"sealing_key": a.SealingKey, "fingerprint": a.Fingerprint,
	}
}

func (t *tx) CreateAgent(ctx context.Context, a fleet.NewAgent) error {
	return t.do(ctx, `
		INSERT INTO agents (tenant_id, id, workspace_id, name, labels, hostname, os, arch, version, public_key, sealing_key, fingerprint)
		VALUES (@tenant, @id, @workspace, @name, @labels, @hostname, @os, @arch, @version, @public_key, @sealing_key, @fingerprint)`,
		agentArgs(a))
}

func (t *tx) RenewAgent(ctx context.Context, a fleet.NewAgent) error {
	return t.must(ctx, `
		UPDATE agents SET labels = @labels, hostname = @hostname, os = @os, arch = @arch, version = @version,
			sealing_key = @sealing_key, desired = desired + 1
		WHERE tenant_id = @tenant AND id = @id AND revoked_at IS NULL`, agentArgs(a))
}

// selectAgents is read by scanAgent, behind a WITH that says which agents: all that is known of them, or what a list shows. A
// session that nobody has heard of for a minute is over: its control plane was killed. One that was heard of in the future
// is, too: the database's clock was set back since.
func selectAgents(status, connectors string) string {
	return `
	SELECT a.id, a.workspace_id, a.name, a.labels, a.hostname, a.os, a.arch, a.version, a.fingerprint, a.created_at, a.revoked_at,
		a.desired, a.applied, a.stored_seq, a.refused_insights,
		(SELECT coalesce(json_object_agg(r.reason, r.insights), '{}') FROM insight_receipts r WHERE r.tenant_id = a.tenant_id AND r.agent_id = a.id),
		` + status + `, ` + connectors + `,
		a.lock, a.clock_skew, a.rotate_asked_at, a.rotated_at,
		EXISTS (SELECT FROM agent_sessions s WHERE s.tenant_id = a.tenant_id AND s.agent_id = a.id AND s.ended_at IS NULL
			AND s.seen_at BETWEEN now() - interval '60 seconds' AND now() + interval '60 seconds'),
		(SELECT s.seen_at FROM agent_sessions s WHERE s.tenant_id = a.tenant_id AND s.agent_id = a.id ORDER BY s.counter DESC LIMIT 1)
	FROM chosen a
	ORDER BY a.revoked_at IS NOT NULL, a.name, a.id`
}

// byRef chooses one agent.
const byRef = `
	WITH chosen AS NOT MATERIALIZED (
		SELECT * FROM agents WHERE tenant_id = @tenant AND workspace_id = @workspace
			AND (id::text = @ref OR (name = @ref AND revoked_at IS NULL)))`

// What a list shows of an agent, also of one that was heard of last before that was kept apart.
const (
	briefStatus = "coalesce(a.brief, a.status)"
	kinds       = "coalesce(a.connector_kinds, ARRAY(SELECT c ->> 'kind' FROM json_array_elements(a.connectors) c))"
	briefKinds  = "(SELECT coalesce(json_agg(json_build_object('kind', kind)), '[]') FROM unnest(" + kinds + ") kind)"
)

func scanAgent(row pgx.CollectableRow) (a fleet.Agent, err error) {
	var status, connectors, lock []byte
	err = row.Scan(&a.ID, &a.Workspace, &a.Name, &a.Labels, &a.Hostname, &a.OS, &a.Arch, &a.Version, &a.Fingerprint, &a.Created,
		maybe(&a.Revoked), &a.Desired, &a.Applied, &a.StoredSeq, &a.RefusedInsights, &a.Receipts, &status, &connectors,
		&lock, &a.ClockSkew, maybe(&a.RotationAsked), maybe(&a.Rotated), &a.Connected, maybe(&a.LastSeen))
	if err != nil {
		return a, fmt.Errorf("read an agent: %w", err)
	}
	if status != nil {
		if err := json.Unmarshal(status, &a.Status); err != nil {
			return a, fmt.Errorf("read the status of the agent %s: %w", a.ID, err)
		}
	}
	if a.Lock, err = readLock(lock); err != nil {
		return a, err
	}
	if err := json.Unmarshal(connectors, &a.Connectors); err != nil {
		return a, fmt.Errorf("read the connectors of the agent %s: %w", a.ID, err)
	}
	return a, nil
}

// scanBrief is scanAgent for a list.
func scanBrief(row pgx.CollectableRow) (fleet.Agent, error) {
	a, err := scanAgent(row)
	if err == nil && a.Status != nil {
		brief := a.Status.Brief()
		a.Status = &brief
	}
	return a, err
}

// mostListed is from how many bytes of their statuses on a page of agents ends, however few they are.
const mostListed = 2 << 20

func (t *tx) Agents(ctx context.Context, workspace fleet.ID, after *fleet.AgentCursor, limit int) (page []fleet.Agent, more bool, err error) {
	a := args{"workspace": workspace, "limit": limit + 1, "begin": after == nil, "revoked": false, "name": "", "id": workspace}
	if after != nil {
		a["revoked"], a["name"], a["id"] = after.Revoked, after.Name, after.ID
	}
	rows, err := t.tx.Query(ctx, `
		WITH chosen AS NOT MATERIALIZED (
			SELECT * FROM agents WHERE tenant_id = @tenant AND workspace_id = @workspace
				AND (@begin OR (revoked_at IS NOT NULL, name, id) > (@revoked::boolean, @name::text, @id::uuid))
			ORDER BY revoked_at IS NOT NULL, name, id LIMIT @limit)`+selectAgents(briefStatus, briefKinds), t.with(a))
	if err != nil {
		return nil, false, fmt.Errorf("read from the database: %w", err)
	}
	defer rows.Close()
	for size := 0; rows.Next(); {
		if len(page) == limit || size >= mostListed {
			return page, true, nil
		}
		for _, value := range rows.RawValues() {
			size += len(value)
		}
		agent, err := scanBrief(rows)
		if err != nil {
			return nil, false, err
		}
		page = append(page, agent)
	}
	if err := rows.Err(); err != nil {
		return nil, false, fmt.Errorf("read from the database: %w", err)
	}
	return page, false, nil
}

func (t *tx) AgentNamesAndLabels(ctx context.Context, workspace fleet.ID) ([]fleet.Agent, error) {
	return many(ctx, t, `
		SELECT id, name, labels FROM agents
		WHERE tenant_id = @tenant AND workspace_id = @workspace AND revoked_at IS NULL ORDER BY name, id`,
		args{"workspace": workspace},
		func(row pgx.CollectableRow) (a fleet.Agent, err error) {
			return scanned(row, &a, &a.ID, &a.Name, &a.Labels)
		})
}

func (t *tx) Connectors(ctx context.Context, workspace fleet.ID) ([][]byte, error) {
	// The agent that was heard of last is asked, for each kind. That is also the one that was heard of last among those that
	// offer the same kinds, so that one of those is enough: there are thousands of agents, and few sets of kinds.
	return many(ctx, t, `
		SELECT offered.connectors FROM (
			SELECT DISTINCT ON (a.kinds) a.connectors, s.seen_at FROM (
				SELECT id, tenant_id, connectors, `+kinds+` AS kinds FROM agents a
				WHERE tenant_id = @tenant AND workspace_id = @workspace AND revoked_at IS NULL) a
			LEFT JOIN LATERAL (
				SELECT seen_at FROM agent_sessions WHERE tenant_id = a.tenant_id AND agent_id = a.id ORDER BY counter DESC LIMIT 1) s ON true
			ORDER BY a.kinds, s.seen_at DESC NULLS LAST) offered
		ORDER BY offered.seen_at NULLS FIRST`,
		args{"workspace": workspace}, pgx.RowTo[[]byte])
}

func (t *tx) AgentByRef(ctx context.Context, workspace fleet.ID, ref string) (fleet.Agent, error) {
	if ref == "" {
		return fleet.Agent{}, fleet.ErrNoRow
	}
	return one(ctx, t, byRef+selectAgents("a.status", "a.connectors"), args{"workspace": workspace, "ref": ref}, scanAgent)
}

func (t *tx) BriefAgent(ctx context.Context, workspace fleet.ID, ref string) (fleet.Agent, error) {
	if ref == "" {
		return fleet.Agent{}, fleet.ErrNoRow
	}
	return one(ctx, t, byRef+selectAgents(briefStatus, briefKinds), args{"workspace": workspace, "ref": ref}, scanBrief)
}

func (t *tx) AgentByFingerprint(ctx context.Context, fingerprint string) (fleet.NewAgent, error) {
	return one(ctx, t, `
		SELECT id, workspace_id, name FROM agents
		WHERE tenant_id = @tenant AND fingerprint = @fingerprint AND revoked_at IS NULL`,
		args{"fingerprint": fingerprint},
		func(row pgx.CollectableRow) (a fleet.NewAgent, err error) {
			return scanned(row, &a, &a.ID, &a.Workspace, &a.Name)
		})
}

func (t *tx) RevokeAgent(ctx context.Context, agent fleet.ID) error {
	a := args{"agent": agent}
	if err := t.must(ctx, "UPDATE agents SET revoked_at = now() WHERE tenant_id = @tenant AND id = @agent AND revoked_at IS NULL", a); err != nil {
		return err
	}
	if err := t.do(ctx, "UPDATE agent_sessions SET ended_at = now() WHERE tenant_id = @tenant AND agent_id = @agent AND ended_at IS NULL", a); err != nil {
		return err
	}
	return t.do(ctx, "DELETE FROM deployments WHERE tenant_id = @tenant AND agent_id = @agent", a)
}

func (t *tx) BumpDesired(ctx context.Context, agents []fleet.ID) error {
	// Locked in one order, so that two changes that touch the same agents do not wait for each other.
	return t.do(ctx, `
		UPDATE agents SET desired = desired + 1
		WHERE tenant_id = @tenant AND id IN (
			SELECT id FROM agents WHERE tenant_id = @tenant AND id = ANY (@agents::uuid[]) AND revoked_at IS NULL ORDER BY id FOR NO KEY UPDATE)`,
		args{"agents": texts(agents)})
}

func texts(ids []fleet.ID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}

func scanAgentState(row pgx.CollectableRow) (a fleet.AgentState, err error) {
	var lock []byte
	if a, err = scanned(row, &a, &a.Workspace, &a.Name, &a.Revoked, &lock, &a.StoredSeq, &a.Desired, &a.SealingKey, &a.RotationAsked); err != nil {
		return a, err
	}
	a.Lock, err = readLock(lock)
	return a, err
}

const selectAgentState = `
	SELECT workspace_id, name, revoked_at IS NOT NULL, lock, stored_seq, desired, sealing_key, rotate_asked_at IS NOT NULL
	FROM agents WHERE tenant_id = @tenant AND id = @agent`

func (t *tx) LockAgent(ctx context.Context, agent fleet.ID) (fleet.AgentState, error) {
	return one(ctx, t, selectAgentState+" FOR NO KEY UPDATE", args{"agent": agent}, scanAgentState)
}

func (t *tx) AgentState(ctx context.Context, agent fleet.ID) (fleet.AgentState, error) {
	return one(ctx, t, selectAgentState, args{"agent": agent}, scanAgentState)
}

func (t *tx) EndSession(ctx context.Context, agent fleet.ID, counter int64) error {
	return t.do(ctx, `
		UPDATE agent_sessions SET ended_at = now()
		WHERE tenant_id = @tenant AND agent_id = @agent AND counter = @counter AND ended_at IS NULL`,
		args{"agent": agent, "counter": counter})
}

func (t *tx) SaveStatus(ctx context.Context, id fleet.AgentIdentity, applied int64, skew *int64, s fleet.AgentStatus) (running bool, err error) {
	text, err := json.Marshal(s)
	if err != nil {
		return false, fmt.Errorf("write an agent's status: %w", err)
	}
	brief, err := json.Marshal(s.Brief())
	if err != nil {
		return false, fmt.Errorf("write an agent's status in brief: %w", err)
	}
	a := args{"agent": id.Agent, "session": id.Session, "applied": applied, "skew": skew, "status": string(text), "brief": string(brief)}
	running, err = one(ctx, t, `
		UPDATE agents SET status = @status::json, brief = @brief::json, applied = @applied,
			clock_skew = CASE WHEN abs(clock_skew - @skew) >= 60 THEN @skew ELSE clock_skew END
		WHERE tenant_id = @tenant AND id = @agent AND revoked_at IS NULL AND locked_at IS NULL
		RETURNING counter = @session AND EXISTS (SELECT FROM runs r WHERE r.tenant_id = @tenant AND r.agent_id = @agent AND r.status = 'running')`, a, pgx.RowTo[bool])
	if err != nil {
		return false, err
	}
	return running, t.do(ctx, "UPDATE agent_sessions SET seen_at = now() WHERE tenant_id = @tenant AND agent_id = @agent AND ended_at IS NULL", a)
}
