-- The tables. Each has tenant_id, composite keys that begin with it, and row-level security, enabled and forced: the
-- owner sees no row without a tenant either. nullif, because after a transaction that has set it app.tenant is '' and
-- not null. The application role gets what it uses, column by column where a row is else immutable; never TRUNCATE.

-- +goose Up

CREATE TABLE tenants (
    tenant_id   uuid PRIMARY KEY,
    name        text NOT NULL,
    owner_email text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- The head of the tenant's audit chain. Its row is the lock that puts the chain in an order.
    audit_seq   bigint NOT NULL DEFAULT 0,
    audit_hash  bytea NOT NULL DEFAULT ''
);
GRANT SELECT, UPDATE (audit_seq, audit_hash) ON tenants TO outfeed_app;

CREATE TABLE workspaces (
    tenant_id  uuid NOT NULL REFERENCES tenants,
    id         uuid NOT NULL,
    name       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name)
);
-- UPDATE, because locking the row needs it: changes of a workspace's configuration take turns.
GRANT SELECT, INSERT, UPDATE (name) ON workspaces TO outfeed_app;

CREATE TABLE api_keys (
    tenant_id    uuid NOT NULL,
    id           uuid NOT NULL,
    workspace_id uuid NOT NULL,
    name         text NOT NULL,
    role         text NOT NULL CHECK (role IN ('owner', 'editor', 'operator', 'viewer')),
    key_hash     bytea NOT NULL CHECK (octet_length(key_hash) = 32),
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked_at   timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces
);
CREATE INDEX api_keys_by_hash ON api_keys (key_hash);
GRANT SELECT, INSERT, UPDATE (last_used_at, revoked_at) ON api_keys TO outfeed_app;

-- Sessions of the dashboard. One begins with an API key, has its role and ends with it; its secret is stored as SHA-256.
CREATE TABLE sessions (
    tenant_id    uuid NOT NULL,
    id           uuid NOT NULL,
    hash         bytea NOT NULL CHECK (octet_length(hash) = 32),
    api_key_id   uuid NOT NULL,
    workspace_id uuid NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    ended_at     timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, api_key_id) REFERENCES api_keys,
    FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces,
    CHECK (expires_at <= created_at + interval '30 days')
);
CREATE INDEX sessions_by_hash ON sessions (hash);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);
GRANT SELECT, INSERT, UPDATE (last_used_at, ended_at) ON sessions TO outfeed_app;

CREATE TABLE agents (
    tenant_id     uuid NOT NULL,
    id            uuid NOT NULL,
    workspace_id  uuid NOT NULL,
    name          text NOT NULL,
    labels        jsonb NOT NULL DEFAULT '{}',
    hostname      text NOT NULL,
    os            text NOT NULL,
    arch          text NOT NULL,
    version       text NOT NULL,
    -- Ed25519: who the agent is. X25519: to seal credentials to it.
    public_key    bytea NOT NULL CHECK (octet_length(public_key) = 32),
    sealing_key   bytea NOT NULL CHECK (octet_length(sealing_key) = 32),
    -- SHA-256 of public_key in hex.
    fingerprint   text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    revoked_at    timestamptz,
    -- The greatest connect counter seen, and when a lower or equal one was last seen after it.
    counter       bigint NOT NULL DEFAULT 0,
    clone_seen_at timestamptz,
    -- The last insight sequence stored. This, with the row's lock, is what makes insights arrive exactly once.
    stored_seq    bigint NOT NULL DEFAULT 0,
    -- The sequences up to stored_seq that hold no insight: damaged or gone on the agent, and those in refused_insights.
    lost_insights    bigint NOT NULL DEFAULT 0,
    refused_insights bigint NOT NULL DEFAULT 0,
    -- The serial of the desired state, from one so that zero means none; and the one that the agent reported.
    desired       bigint NOT NULL DEFAULT 1,
    applied       bigint NOT NULL DEFAULT 0,
    status        json,
    connectors    json NOT NULL DEFAULT '[]',
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX agents_by_name ON agents (tenant_id, workspace_id, name) WHERE revoked_at IS NULL;
CREATE UNIQUE INDEX agents_by_key ON agents (tenant_id, fingerprint) WHERE revoked_at IS NULL;
CREATE INDEX agents_by_fingerprint ON agents (fingerprint);
GRANT SELECT, INSERT, UPDATE ON agents TO outfeed_app;

CREATE TABLE enroll_tokens (
    tenant_id    uuid NOT NULL,
    id           uuid NOT NULL,
    workspace_id uuid NOT NULL,
    secret_hash  bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
    labels       jsonb NOT NULL DEFAULT '{}',
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    used_at      timestamptz,
    agent_id     uuid,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces,
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents,
    CHECK (expires_at <= created_at + interval '1 hour')
);
CREATE INDEX enroll_tokens_by_id ON enroll_tokens (id);
GRANT SELECT, INSERT, UPDATE (used_at, agent_id) ON enroll_tokens TO outfeed_app;

CREATE TABLE agent_sessions (
    tenant_id  uuid NOT NULL,
    agent_id   uuid NOT NULL,
    -- The agent's connect counter names the session.
    counter    bigint NOT NULL,
    -- The control plane's process that holds the tunnel.
    replica    text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    -- Refreshed by every status report: a killed control plane cannot say that its sessions ended.
    seen_at    timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz,
    PRIMARY KEY (tenant_id, agent_id, counter),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents
) WITH (fillfactor = 70);
GRANT SELECT, INSERT, DELETE, UPDATE (seen_at, ended_at) ON agent_sessions TO outfeed_app;

CREATE TABLE connections (
    tenant_id    uuid NOT NULL,
    id           uuid NOT NULL,
    workspace_id uuid NOT NULL,
    name         text NOT NULL,
    kind         text NOT NULL,
    -- What is not secret.
    options      json NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, workspace_id, name),
    FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces
);
GRANT SELECT, INSERT, DELETE, UPDATE (kind, options, updated_at) ON connections TO outfeed_app;

CREATE TABLE connection_secrets (
    tenant_id     uuid NOT NULL,
    connection_id uuid NOT NULL,
    field         text NOT NULL,
    -- Rises with every change of the field, and is part of what the encryption binds.
    version       bigint NOT NULL,
    -- The data key under the master key, and the secret under the data key.
    wrapped_key   bytea NOT NULL,
    ciphertext    bytea NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, connection_id, field),
    FOREIGN KEY (tenant_id, connection_id) REFERENCES connections ON DELETE CASCADE
);
GRANT SELECT, INSERT, DELETE, UPDATE (version, wrapped_key, ciphertext, created_at) ON connection_secrets TO outfeed_app;

CREATE TABLE flows (
    tenant_id    uuid NOT NULL,
    id           uuid NOT NULL,
    workspace_id uuid NOT NULL,
    name         text NOT NULL,
    description  text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    -- The highest version, and the highest published one; zero for none.
    latest       int NOT NULL DEFAULT 0,
    published    int NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, workspace_id, name),
    FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces
);
GRANT SELECT, INSERT, UPDATE (description, updated_at, latest, published) ON flows TO outfeed_app;

CREATE TABLE flow_versions (
    tenant_id    uuid NOT NULL,
    flow_id      uuid NOT NULL,
    version      int NOT NULL CHECK (version > 0),
    definition   text NOT NULL,
    sha256       text NOT NULL,
    -- The connections that the text names, to know whom a change of one touches.
    connections  text[] NOT NULL,
    egress       json NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    created_by   text NOT NULL,
    published_at timestamptz,
    PRIMARY KEY (tenant_id, flow_id, version),
    FOREIGN KEY (tenant_id, flow_id) REFERENCES flows
);
GRANT SELECT, INSERT, UPDATE (egress, published_at) ON flow_versions TO outfeed_app;

CREATE TABLE deployments (
    tenant_id  uuid NOT NULL,
    id         uuid NOT NULL,
    flow_id    uuid NOT NULL,
    version    int NOT NULL,
    agent_id   uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, flow_id, agent_id),
    FOREIGN KEY (tenant_id, flow_id, version) REFERENCES flow_versions,
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents
);
CREATE INDEX deployments_by_agent ON deployments (tenant_id, agent_id);
GRANT SELECT, INSERT, DELETE, UPDATE (version, created_at) ON deployments TO outfeed_app;

-- Run reports. The flow is what the agent says and may be unknown here, so no key binds it.
CREATE TABLE runs (
    tenant_id      uuid NOT NULL,
    id             uuid NOT NULL,
    workspace_id   uuid NOT NULL,
    agent_id       uuid NOT NULL,
    flow_id        uuid NOT NULL,
    version        int NOT NULL,
    status         text NOT NULL,
    started_at     timestamptz NOT NULL,
    ended_at       timestamptz,
    records_read   bigint NOT NULL,
    bytes_read     bigint NOT NULL,
    records_failed bigint NOT NULL,
    records_late   bigint NOT NULL,
    insights       bigint NOT NULL,
    error          text NOT NULL,
    steps          json NOT NULL,
    sample         json NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents
);
CREATE INDEX runs_newest ON runs (tenant_id, workspace_id, started_at DESC, id DESC);
CREATE INDEX runs_by_flow ON runs (tenant_id, flow_id, started_at DESC, id DESC);
CREATE INDEX runs_by_agent ON runs (tenant_id, agent_id, started_at DESC, id DESC);
CREATE INDEX runs_running ON runs (tenant_id, agent_id, flow_id) WHERE status = 'running';
GRANT SELECT, INSERT, UPDATE ON runs TO outfeed_app;

-- Which insights exist, so that listing their names reads no insights.
CREATE TABLE insight_names (
    tenant_id    uuid NOT NULL,
    workspace_id uuid NOT NULL,
    flow_id      uuid NOT NULL,
    name         text NOT NULL,
    PRIMARY KEY (tenant_id, workspace_id, flow_id, name),
    FOREIGN KEY (tenant_id, workspace_id) REFERENCES workspaces
);
GRANT SELECT, INSERT ON insight_names TO outfeed_app;

-- Insights that could never be stored, so that one of them does not hold up those behind it. The newest of each agent are
-- kept; agents.refused_insights counts them all.
CREATE TABLE refused_insights (
    tenant_id   uuid NOT NULL,
    agent_id    uuid NOT NULL,
    seq         bigint NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    reason      text NOT NULL,
    -- The beginning of the wire.InsightRecord as it came.
    record      bytea NOT NULL CHECK (octet_length(record) <= 65536),
    PRIMARY KEY (tenant_id, agent_id, seq),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents
);
GRANT SELECT, INSERT, DELETE ON refused_insights TO outfeed_app;

-- What the outside may rely on is who did what when, in the order of seq. Rows are never changed: no role but the
-- owner could, and the chain of hashes would show it.
CREATE TABLE audit_log (
    tenant_id   uuid NOT NULL REFERENCES tenants,
    seq         bigint NOT NULL CHECK (seq > 0),
    at          timestamptz NOT NULL,
    actor_kind  text NOT NULL,
    actor_ref   text NOT NULL,
    actor_name  text NOT NULL,
    action      text NOT NULL,
    object_kind text NOT NULL,
    object_id   text NOT NULL,
    object_name text NOT NULL,
    -- A JSON object; as text, because its bytes are hashed.
    detail      text NOT NULL,
    previous    bytea NOT NULL,
    hash        bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (tenant_id, seq)
);
GRANT SELECT, INSERT ON audit_log TO outfeed_app;

-- +goose StatementBegin
DO $$
DECLARE
    relation text;
BEGIN
    FOREACH relation IN ARRAY ARRAY[
        'tenants', 'workspaces', 'api_keys', 'sessions', 'agents', 'enroll_tokens', 'agent_sessions', 'connections',
        'connection_secrets', 'flows', 'flow_versions', 'deployments', 'runs', 'insight_names', 'refused_insights',
        'audit_log']
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', relation);
        EXECUTE format($policy$CREATE POLICY tenant ON %I
            USING (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid)
            WITH CHECK (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid)$policy$, relation);
    END LOOP;
END
$$;
-- +goose StatementEnd
