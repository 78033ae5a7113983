-- Agents under attack: the value of the newest session, by which a copied data directory shows itself; the lock that
-- follows; and keys that change without a moment in which neither works.

-- +goose Up

ALTER TABLE agents
    -- Rises with every session value that was made, and is part of each.
    ADD COLUMN session_serial   bigint NOT NULL DEFAULT 0,
    -- SHA-256 of the value that the newest session brought, of the one that its hello showed, and whether the agent has
    -- proved that it kept the newest: until then the one before is good too.
    ADD COLUMN session_hash     bytea CHECK (octet_length(session_hash) = 32),
    ADD COLUMN session_before   bytea CHECK (octet_length(session_before) = 32),
    ADD COLUMN session_kept     boolean NOT NULL DEFAULT false,
    -- The values of copies that an owner decided against. They are refused for good and lock nothing.
    ADD COLUMN refused_sessions bytea[] NOT NULL DEFAULT '{}',
    -- Since when both copies are locked, what is known of them, and what the other one showed last.
    ADD COLUMN locked_at        timestamptz,
    ADD COLUMN lock             json,
    ADD COLUMN lock_session     bytea CHECK (octet_length(lock_session) = 32),
    ADD COLUMN lock_counter     bigint,
    -- How far the agent's clock was before this one at its newest hello, in seconds.
    ADD COLUMN clock_skew       bigint NOT NULL DEFAULT 0,
    -- Since when new keys are asked for, the keys that the agent has made and not shown yet, and when it last changed them.
    ADD COLUMN rotate_asked_at  timestamptz,
    ADD COLUMN next_public_key  bytea CHECK (octet_length(next_public_key) = 32),
    ADD COLUMN next_sealing_key bytea CHECK (octet_length(next_sealing_key) = 32),
    ADD COLUMN next_fingerprint text,
    ADD COLUMN rotated_at       timestamptz,
    ADD CONSTRAINT agents_lock_is_whole CHECK ((locked_at IS NULL) = (lock IS NULL));
CREATE INDEX agents_by_next_fingerprint ON agents (next_fingerprint) WHERE next_fingerprint IS NOT NULL;

ALTER TABLE agent_sessions
    ADD COLUMN hostname text NOT NULL DEFAULT '',
    ADD COLUMN address  text NOT NULL DEFAULT '';

-- The keys that agents had. Who shows one has a copy of a data directory from before.
CREATE TABLE retired_keys (
    tenant_id   uuid NOT NULL,
    agent_id    uuid NOT NULL,
    fingerprint text NOT NULL,
    retired_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, agent_id, fingerprint),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents
);
CREATE INDEX retired_keys_by_fingerprint ON retired_keys (fingerprint);
GRANT SELECT, INSERT ON retired_keys TO outfeed_app;
ALTER TABLE retired_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON retired_keys
    USING (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid);

GRANT SELECT (next_fingerprint) ON agents TO outfeed_lookup;
GRANT SELECT (tenant_id, agent_id, fingerprint) ON retired_keys TO outfeed_lookup;
CREATE POLICY lookup ON retired_keys FOR SELECT TO outfeed_lookup USING (true);

-- Whose a key is: the one that an agent has, the one that it will have, or one that it had. A key that was revoked and
-- enrolled again belongs to the living agent.
-- +goose StatementBegin
CREATE FUNCTION outfeed_lookup_agent_key(key_fingerprint text)
RETURNS TABLE (tenant_id uuid, workspace_id uuid, id uuid, revoked boolean, standing text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT k.tenant_id, k.workspace_id, k.id, k.revoked_at IS NOT NULL, k.standing
    FROM (
        SELECT a.tenant_id, a.workspace_id, a.id, a.revoked_at, a.created_at, 'present' AS standing, 1 AS place
        FROM public.agents a WHERE a.fingerprint = key_fingerprint
        UNION ALL
        SELECT a.tenant_id, a.workspace_id, a.id, a.revoked_at, a.created_at, 'next', 2
        FROM public.agents a WHERE a.next_fingerprint = key_fingerprint
        UNION ALL
        SELECT a.tenant_id, a.workspace_id, a.id, a.revoked_at, a.created_at, 'retired', 3
        FROM public.retired_keys r JOIN public.agents a ON a.tenant_id = r.tenant_id AND a.id = r.agent_id
        WHERE r.fingerprint = key_fingerprint
    ) AS k
    ORDER BY k.revoked_at IS NOT NULL, k.place, k.created_at DESC
    LIMIT 1
$$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION outfeed_lookup_agent_key(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outfeed_lookup_agent_key(text) TO outfeed_app;

-- Giving a function to a role needs membership in it, and that the role may create in the schema; both for this moment
-- only, because who is a member could read as the role does.
-- +goose StatementBegin
DO $$
DECLARE
    was_member boolean := pg_has_role(current_user, 'outfeed_lookup', 'MEMBER');
    handed     text;
BEGIN
    IF current_setting('server_version_num')::int >= 160000 THEN
        -- Since 16 who made the role administers it, and counts as a member without being able to become it.
        was_member := pg_has_role(current_user, 'outfeed_lookup', 'SET');
    END IF;
    IF NOT was_member THEN
        EXECUTE format('GRANT outfeed_lookup TO %I', current_user);
    END IF;
    GRANT CREATE ON SCHEMA public TO outfeed_lookup;
    FOREACH handed IN ARRAY ARRAY['outfeed_lookup_agent_key(text)']
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO outfeed_lookup', handed);
    END LOOP;
    REVOKE CREATE ON SCHEMA public FROM outfeed_lookup;
    IF NOT was_member THEN
        EXECUTE format('REVOKE outfeed_lookup FROM %I', current_user);
    END IF;
EXCEPTION
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION '% may not hand functions to the role outfeed_lookup: %', current_user, SQLERRM
            USING HINT = format('As a superuser: GRANT outfeed_lookup TO %I; then migrate again.', current_user);
END
$$;
-- +goose StatementEnd
