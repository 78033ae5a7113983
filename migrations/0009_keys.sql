-- The control plane's own keys lie in its data directory. What is recorded here of each is its fingerprint, which is
-- public, so that a start notices a key that is missing or another installation's before it makes a new one: agents pin
-- the identity and the bundle key, and stored credentials open with the master key alone.

-- +goose Up

-- No tenant's: a row is for the whole installation. So nobody but outfeed_lookup sees or changes it, and the control
-- plane only through the functions below.
CREATE TABLE installation_keys (
    name        text PRIMARY KEY CHECK (name IN ('master', 'identity', 'bundle')),
    fingerprint text NOT NULL CHECK (fingerprint ~ '^[0-9a-f]{64}$'),
    recorded_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE installation_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT (name, fingerprint), UPDATE (fingerprint, recorded_at) ON installation_keys TO outfeed_lookup;
CREATE POLICY lookup ON installation_keys TO outfeed_lookup USING (true) WITH CHECK (true);

-- What hangs on the keys is counted over all tenants.
GRANT SELECT (tenant_id, connection_id, field) ON connection_secrets TO outfeed_lookup;
CREATE POLICY counting ON connection_secrets FOR SELECT TO outfeed_lookup USING (true);

-- +goose StatementBegin
CREATE FUNCTION outfeed_installation_keys()
RETURNS TABLE (name text, fingerprint text, recorded_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT k.name, k.fingerprint, k.recorded_at FROM public.installation_keys k ORDER BY k.name
$$;
-- +goose StatementEnd

-- How many tenants there are, agents that are not revoked, and credentials.
-- +goose StatementBegin
CREATE FUNCTION outfeed_hang_on_keys()
RETURNS TABLE (tenants bigint, agents bigint, credentials bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT (SELECT count(*) FROM public.tenants),
        (SELECT count(*) FROM public.agents a WHERE a.revoked_at IS NULL),
        (SELECT count(DISTINCT (s.tenant_id, s.connection_id, s.field)) FROM public.connection_secrets s)
$$;
-- +goose StatementEnd

-- Records a key, and gives the fingerprint that is recorded after that. What is recorded already stays, but for when it is
-- the one that the caller names as replaced: of two that record different keys at once one wins, and both learn which.
-- +goose StatementBegin
CREATE FUNCTION outfeed_record_key(key_name text, new_fingerprint text, replaced text)
RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    INSERT INTO public.installation_keys AS k (name, fingerprint) VALUES (key_name, new_fingerprint)
    ON CONFLICT (name) DO UPDATE SET
        fingerprint = CASE WHEN k.fingerprint = replaced THEN excluded.fingerprint ELSE k.fingerprint END,
        recorded_at = CASE WHEN k.fingerprint = replaced THEN now() ELSE k.recorded_at END
    RETURNING k.fingerprint
$$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION outfeed_installation_keys() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outfeed_installation_keys() TO outfeed_app;
REVOKE ALL ON FUNCTION outfeed_hang_on_keys() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outfeed_hang_on_keys() TO outfeed_app;
REVOKE ALL ON FUNCTION outfeed_record_key(text, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outfeed_record_key(text, text, text) TO outfeed_app;

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
    FOREACH handed IN ARRAY ARRAY['outfeed_installation_keys()', 'outfeed_hang_on_keys()', 'outfeed_record_key(text, text, text)']
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
