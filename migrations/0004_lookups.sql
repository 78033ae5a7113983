-- What is asked before a tenant is known. Each function answers one question about one thing that the caller already
-- holds (a hash, a fingerprint, an id) and runs as outfeed_lookup, whose own policies and column rights let it read
-- that and nothing else. The application role has no other way past the tenant's policy.

-- +goose Up

GRANT SELECT (tenant_id, id, workspace_id, name, role, key_hash, last_used_at, revoked_at) ON api_keys TO outfeed_lookup;
CREATE POLICY lookup ON api_keys FOR SELECT TO outfeed_lookup USING (true);

-- Expired sessions of all tenants are removed at once; the policy keeps the living ones from that.
GRANT SELECT (tenant_id, id, hash, api_key_id, workspace_id, expires_at, last_used_at, ended_at), DELETE ON sessions TO outfeed_lookup;
CREATE POLICY lookup ON sessions FOR SELECT TO outfeed_lookup USING (true);
CREATE POLICY sweep ON sessions FOR DELETE TO outfeed_lookup USING (expires_at <= now());

GRANT SELECT (tenant_id, id, workspace_id, fingerprint, created_at, revoked_at) ON agents TO outfeed_lookup;
CREATE POLICY lookup ON agents FOR SELECT TO outfeed_lookup USING (true);

GRANT SELECT (tenant_id, id) ON enroll_tokens TO outfeed_lookup;
CREATE POLICY lookup ON enroll_tokens FOR SELECT TO outfeed_lookup USING (true);

GRANT INSERT (tenant_id, name, owner_email) ON tenants TO outfeed_lookup;
CREATE POLICY creation ON tenants FOR INSERT TO outfeed_lookup WITH CHECK (true);

-- +goose StatementBegin
CREATE FUNCTION outfeed_lookup_api_key(hash bytea)
RETURNS TABLE (tenant_id uuid, id uuid, workspace_id uuid, name text, role text, last_used_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT k.tenant_id, k.id, k.workspace_id, k.name, k.role, k.last_used_at
    FROM public.api_keys k
    WHERE k.key_hash = hash AND k.revoked_at IS NULL
    LIMIT 1
$$;
-- +goose StatementEnd

-- Whose a session is, with the role and the name of its key. One that ended or expired, or whose key was revoked, is
-- nobody's.
-- +goose StatementBegin
CREATE FUNCTION outfeed_lookup_session(session_hash bytea)
RETURNS TABLE (tenant_id uuid, id uuid, workspace_id uuid, name text, role text, last_used_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT s.tenant_id, s.id, s.workspace_id, k.name, k.role, s.last_used_at
    FROM public.sessions s
    JOIN public.api_keys k ON k.tenant_id = s.tenant_id AND k.id = s.api_key_id AND k.workspace_id = s.workspace_id
    WHERE s.hash = session_hash AND s.ended_at IS NULL AND s.expires_at > now() AND k.revoked_at IS NULL
    LIMIT 1
$$;
-- +goose StatementEnd

-- Removes the sessions that have expired, of every tenant, and says how many they were.
-- +goose StatementBegin
CREATE FUNCTION outfeed_sweep_sessions()
RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    WITH swept AS (DELETE FROM public.sessions s WHERE s.expires_at <= now() RETURNING s.id)
    SELECT count(*) FROM swept
$$;
-- +goose StatementEnd

-- A key that was revoked and enrolled again belongs to the living agent.
-- +goose StatementBegin
CREATE FUNCTION outfeed_lookup_agent(key_fingerprint text)
RETURNS TABLE (tenant_id uuid, workspace_id uuid, id uuid, revoked boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT a.tenant_id, a.workspace_id, a.id, a.revoked_at IS NOT NULL
    FROM public.agents a
    WHERE a.fingerprint = key_fingerprint
    ORDER BY a.revoked_at IS NOT NULL, a.created_at DESC
    LIMIT 1
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION outfeed_lookup_token(token_id uuid)
RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT t.tenant_id FROM public.enroll_tokens t WHERE t.id = token_id LIMIT 1
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION outfeed_create_tenant(new_tenant uuid, new_name text, new_owner_email text)
RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    INSERT INTO public.tenants (tenant_id, name, owner_email) VALUES (new_tenant, new_name, new_owner_email)
$$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION outfeed_lookup_api_key(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outfeed_lookup_api_key(bytea) TO outfeed_app;
REVOKE ALL ON FUNCTION outfeed_lookup_session(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outfeed_lookup_session(bytea) TO outfeed_app;
REVOKE ALL ON FUNCTION outfeed_sweep_sessions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outfeed_sweep_sessions() TO outfeed_app;
REVOKE ALL ON FUNCTION outfeed_lookup_agent(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outfeed_lookup_agent(text) TO outfeed_app;
REVOKE ALL ON FUNCTION outfeed_lookup_token(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outfeed_lookup_token(uuid) TO outfeed_app;
REVOKE ALL ON FUNCTION outfeed_create_tenant(uuid, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outfeed_create_tenant(uuid, text, text) TO outfeed_app;

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
    FOREACH handed IN ARRAY ARRAY['outfeed_lookup_api_key(bytea)', 'outfeed_lookup_session(bytea)', 'outfeed_sweep_sessions()',
        'outfeed_lookup_agent(text)', 'outfeed_lookup_token(uuid)', 'outfeed_create_tenant(uuid, text, text)']
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
