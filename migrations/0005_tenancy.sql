-- A control plane for one tenant asks whether there is one already.

-- +goose Up

GRANT SELECT (tenant_id) ON tenants TO outfeed_lookup;
CREATE POLICY counting ON tenants FOR SELECT TO outfeed_lookup USING (true);

-- Says whether there is a tenant other than that one. Of callers at the same time the later waits for the earlier's
-- transaction, so that two first tenants cannot both be the only one.
-- +goose StatementBegin
CREATE FUNCTION outfeed_other_tenants(own uuid)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('outfeed_other_tenants'));
    RETURN EXISTS (SELECT 1 FROM public.tenants t WHERE t.tenant_id <> own);
END
$$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION outfeed_other_tenants(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outfeed_other_tenants(uuid) TO outfeed_app;

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
    FOREACH handed IN ARRAY ARRAY['outfeed_other_tenants(uuid)']
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
