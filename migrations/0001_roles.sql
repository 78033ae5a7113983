-- The roles. They belong to the whole server, so another database of it may have made them already, perhaps at this
-- very moment.
--
-- outfeed_app     what the control plane is while it serves. It can log in, and has no password until an operator sets
--                 one, so that it can do so only where the server knows its callers otherwise.
-- outfeed_lookup  nobody. It owns the functions that answer before a tenant is known, and may read just what they need.

-- +goose Up
-- +goose StatementBegin
DO $$
DECLARE
    missing record;
BEGIN
    FOR missing IN
        SELECT name, attributes
        FROM (VALUES ('outfeed_app', 'LOGIN'), ('outfeed_lookup', 'NOLOGIN')) AS wanted (name, attributes)
        WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.name)
    LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I %s NOSUPERUSER NOCREATEDB NOCREATEROLE', missing.name, missing.attributes);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role % is missing and % may not create roles', missing.name, current_user
                    USING HINT = format('As a superuser: CREATE ROLE outfeed_app LOGIN; CREATE ROLE outfeed_lookup NOLOGIN; GRANT outfeed_lookup TO %I; then migrate again.', current_user);
        END;
    END LOOP;
END
$$;
-- +goose StatementEnd

GRANT USAGE ON SCHEMA public TO outfeed_app, outfeed_lookup;

-- What the control plane asks at its start. The versions themselves are the owner's.
-- +goose StatementBegin
CREATE FUNCTION outfeed_schema_version() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
AS $$
    SELECT max(v.version_id) FROM public.goose_db_version v WHERE v.is_applied
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION outfeed_schema_version() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outfeed_schema_version() TO outfeed_app;
