package migrations_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/outfeed/outfeed/internal/pgtest"
	"github.com/outfeed/outfeed/migrations"
)

func TestMain(m *testing.M) { pgtest.Main(m, migrate) }

func migrate(ctx context.Context, url string) error { return migrateTo(ctx, url, math.MaxInt64) }

func migrateTo(ctx context.Context, url string, version int64) error {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*cfg)
	defer db.Close() //nolint:errcheck // the migrations are done
	p, err := goose.NewProvider(goose.DialectPostgres, db, migrations.Files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	_, err = p.UpTo(ctx, version)
	return err
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return c
}

func get[T any](t *testing.T, q interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}, sql string, args ...any,
) []T {
	t.Helper()
	rows, err := q.Query(t.Context(), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return out
}

const (
	tenantA = "00000000-0000-7000-8000-00000000000a"
	tenantB = "00000000-0000-7000-8000-00000000000b"
)

// within runs fn in a transaction that is rolled back, under a tenant; "" leaves the setting alone.
func within(t *testing.T, c *pgx.Conn, tenant string, fn func(tx pgx.Tx)) {
	t.Helper()
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context()) //nolint:errcheck // that is what it is for
	if tenant != "" {
		if _, err := tx.Exec(t.Context(), "SELECT set_config('app.tenant', $1, true)", tenant); err != nil {
			t.Fatal(err)
		}
	}
	fn(tx)
}

// fill puts one row into every table for a tenant, as the application role.
func fill(t *testing.T, c *pgx.Conn, tenant string) {
	t.Helper()
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Replace(tenant, "7000", "7001", 1)
	key := strings.Repeat(tenant[len(tenant)-1:], 64)
	for _, sql := range []string{
		"SELECT set_config('app.tenant', @t, true)",
		"SELECT outfeed_create_tenant(@t::uuid, 'tenant', 'owner@example.com')",
		"INSERT INTO workspaces (tenant_id, id, name) VALUES (@t, @id, 'w')",
		"INSERT INTO api_keys (tenant_id, id, workspace_id, name, role, key_hash) VALUES (@t, @id, @id, 'k', 'owner', decode(@key, 'hex'))",
		`INSERT INTO sessions (tenant_id, id, hash, api_key_id, workspace_id, expires_at)
		 VALUES (@t, @id, decode(@key, 'hex'), @id, @id, now() + interval '1 hour')`,
		`INSERT INTO agents (tenant_id, id, workspace_id, name, hostname, os, arch, version, public_key, sealing_key, fingerprint)
		 VALUES (@t, @id, @id, 'a', 'h', 'o', 'a', 'v', decode(@key, 'hex'), decode(@key, 'hex'), @key)`,
		`INSERT INTO enroll_tokens (tenant_id, id, workspace_id, secret_hash, expires_at)
		 VALUES (@t, @id, @id, decode(@key, 'hex'), now() + interval '1 hour')`,
		"INSERT INTO retired_keys (tenant_id, agent_id, fingerprint) VALUES (@t, @id, 'retired-' || @key)",
		"UPDATE agents SET next_fingerprint = 'next-' || @key WHERE tenant_id = @t",
		"INSERT INTO agent_sessions (tenant_id, agent_id, counter, replica) VALUES (@t, @id, 1, 'r')",
		"INSERT INTO connections (tenant_id, id, workspace_id, name, kind, options) VALUES (@t, @id, @id, 'c', 'file', '{}')",
		"INSERT INTO connection_secrets (tenant_id, connection_id, field, version, wrapped_key, ciphertext) VALUES (@t, @id, 'f', 1, '', '')",
		"INSERT INTO flows (tenant_id, id, workspace_id, name) VALUES (@t, @id, @id, 'f')",
		`INSERT INTO flow_versions (tenant_id, flow_id, version, definition, sha256, connections, egress, created_by)
		 VALUES (@t, @id, 1, '', '', '{}', '{}', '')`,
		"INSERT INTO deployments (tenant_id, id, flow_id, version, agent_id) VALUES (@t, @id, @id, 1, @id)",
		`INSERT INTO runs (tenant_id, id, workspace_id, agent_id, flow_id, version, status, started_at, records_read, bytes_read,
			records_failed, records_late, insights, error, steps, sample)
		 VALUES (@t, @id, @id, @id, @id, 1, 'ok', now(), 0, 0, 0, 0, 0, '', '[]', '[]')`,
		"INSERT INTO insight_names (tenant_id, workspace_id, flow_id, name) VALUES (@t, @id, @id, 'n')",
		"INSERT INTO refused_insights (tenant_id, agent_id, seq, reason, record) VALUES (@t, @id, 1, 'r', '')",
		"INSERT INTO insight_receipts (tenant_id, agent_id, reason, insights) VALUES (@t, @id, 'damaged', 1)",
		"INSERT INTO missing_insights (tenant_id, agent_id, first_seq, last_seq, reason) VALUES (@t, @id, 1, 1, 'damaged')",
		`INSERT INTO insights (tenant_id, workspace_id, agent_id, seq, flow_id, flow_version, name, insight_time, received_at, key_json, values_json)
		 SELECT @t, @id, @id, 1, @id, 1, 'n', now(), at, '{}', '{}' FROM (VALUES (now()), ('1999-01-01')) AS v (at)`,
		`INSERT INTO audit_log (tenant_id, seq, at, actor_kind, actor_ref, actor_name, action, object_kind, object_id, object_name, detail, previous, hash)
		 VALUES (@t, 1, now(), '', '', '', '', '', '', '', '{}', '', decode(@key, 'hex'))`,
	} {
		if _, err := tx.Exec(t.Context(), sql, pgx.NamedArgs{"t": tenant, "id": id, "key": key}); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// relations are everything that holds rows of tenants: all but goose's own list, and the keys of the installation.
func relations(t *testing.T, c *pgx.Conn) []string {
	t.Helper()
	return get[string](t, c, `
		SELECT relname FROM pg_class
		WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f') AND relname NOT IN ('goose_db_version', 'installation_keys')
		ORDER BY relname`)
}

// faults says what is wrong with the protection of a relation. The keys of the installation are no tenant's, and for the
// rest like all others.
const faults = `
	SELECT format('%s: %s', c.relname, f.fault)
	FROM pg_class c
	CROSS JOIN LATERAL (VALUES
		(c.relkind IN ('r', 'p'), 'it is no table, and would read as its owner'),
		(c.relrowsecurity, 'row-level security is not enabled'),
		(c.relforcerowsecurity, 'row-level security is not forced'),
		(c.relname = 'installation_keys' OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND a.attnotnull), 'it has no tenant_id'),
		(c.relname = 'installation_keys' OR EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polcmd = '*' AND p.polroles = '{0}'
			AND pg_get_expr(p.polqual, p.polrelid) = $1 AND pg_get_expr(p.polwithcheck, p.polrelid) = $1), 'it lacks the policy of the tenant'),
		(NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname <> 'tenant'
			AND p.polroles <> ARRAY['outfeed_lookup'::regrole::oid]), 'it has a policy for others than outfeed_lookup'),
		(c.relname = 'installation_keys' OR EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p' AND k.conkey[1] =
			(SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')), 'its primary key does not begin with tenant_id'),
		(NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.conkey[1] <>
			(SELECT a.attnum FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')), 'it has a foreign key that leaves the tenant'),
		(NOT has_table_privilege('outfeed_app', c.oid, 'TRUNCATE, TRIGGER, REFERENCES'), 'outfeed_app may do too much to it'),
		(NOT c.relispartition OR NOT has_any_column_privilege('outfeed_app', c.oid, 'SELECT, INSERT, UPDATE'), 'a partition is open by its own name')
	) AS f (fine, fault)
	WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname <> 'goose_db_version' AND NOT f.fine
	ORDER BY 1`

const policy = "(tenant_id = (NULLIF(current_setting('app.tenant'::text, true), ''::text))::uuid)"

func TestEveryRelationIsProtected(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	owner := connect(t, db.OwnerURL())
	if found := get[string](t, owner, faults, policy); len(found) > 0 {
		t.Errorf("the schema has faults:\n%s", strings.Join(found, "\n"))
	}
	// The check itself must notice a table that somebody adds without thinking of it.
	for sql, want := range map[string]string{
		"CREATE TABLE extra (tenant_id uuid NOT NULL, id uuid NOT NULL, PRIMARY KEY (tenant_id, id))":                                                          "not enabled",
		"CREATE TABLE extra (tenant_id uuid PRIMARY KEY); ALTER TABLE extra ENABLE ROW LEVEL SECURITY":                                                         "not forced",
		"CREATE TABLE extra (id uuid PRIMARY KEY)":                                                                                                             "no tenant_id",
		"CREATE TABLE extra (tenant_id uuid PRIMARY KEY); ALTER TABLE extra ENABLE ROW LEVEL SECURITY; CREATE POLICY tenant ON extra USING (true)":             "lacks the policy",
		"CREATE VIEW extra AS SELECT * FROM agents":                                                                                                            "no table",
		"CREATE TABLE extra PARTITION OF insights FOR VALUES FROM ('2001-01-01') TO ('2001-02-01'); GRANT SELECT ON extra TO outfeed_app":                      "open by its own name",
		"CREATE TABLE extra (tenant_id uuid, id uuid, a uuid UNIQUE, PRIMARY KEY (tenant_id, id)); ALTER TABLE extra ADD FOREIGN KEY (a) REFERENCES extra (a)": "leaves the tenant",
		"CREATE TABLE extra (tenant_id uuid PRIMARY KEY); GRANT ALL ON extra TO outfeed_app":                                                                   "too much",
		"CREATE POLICY more ON agents FOR SELECT TO outfeed_app USING (true)":                                                                                  "others than outfeed_lookup",
	} {
		within(t, owner, "", func(tx pgx.Tx) {
			if _, err := tx.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			if found := strings.Join(get[string](t, tx, faults, policy), "\n"); !strings.Contains(found, want) {
				t.Errorf("after %s the check says %q, want something with %q", sql, found, want)
			}
		})
	}
}

func TestEachTenantSeesItsOwnRowsOnly(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	owner, app := connect(t, db.OwnerURL()), connect(t, db.URLFor(migrations.Application))
	fill(t, app, tenantA)
	fill(t, app, tenantB)
	super := connect(t, db.SuperURL())
	for _, relation := range relations(t, owner) {
		name := pgx.Identifier{relation}.Sanitize()
		total := get[int](t, super, "SELECT count(*)::int FROM "+name)[0]
		partition := strings.HasPrefix(relation, "insights_")
		if total == 0 && !partition {
			t.Errorf("%s: fill puts no row into it, so nothing is tried", relation)
		}
		for who, c := range map[string]*pgx.Conn{"the owner": owner, "the application": app} {
			if who == "the application" && partition {
				continue
			}
			for tenant, want := range map[string]int{"": 0, tenantA: total / 2, tenantB: total / 2} {
				within(t, c, tenant, func(tx pgx.Tx) {
					if got := get[int](t, tx, "SELECT count(*)::int FROM "+name)[0]; got != want {
						t.Errorf("%s as %s under the tenant %q: %d rows, want %d", relation, who, tenant, got, want)
					}
					if got := get[int](t, tx, "SELECT count(*)::int FROM "+name+" WHERE tenant_id <> $1", orNobody(tenant))[0]; got != 0 {
						t.Errorf("%s as %s under %q: %d rows of others", relation, who, tenant, got)
					}
				})
			}
		}
		if total == 0 {
			continue
		}
		// A row cannot be given to another tenant, and another's cannot be touched: not even by the owner.
		within(t, owner, tenantA, func(tx pgx.Tx) {
			_, err := tx.Exec(t.Context(), "UPDATE "+name+" SET tenant_id = $1", tenantB)
			wantCode(t, relation+": giving a row away", err, "42501")
		})
		within(t, owner, tenantA, func(tx pgx.Tx) {
			tag, err := tx.Exec(t.Context(), "UPDATE "+name+" SET tenant_id = tenant_id WHERE tenant_id = $1", tenantB)
			if err != nil || tag.RowsAffected() != 0 {
				t.Errorf("%s: touching another's row: %v, %v", relation, tag, err)
			}
		})
	}
}

func orNobody(tenant string) string {
	if tenant == "" {
		return "00000000-0000-0000-0000-000000000000"
	}
	return tenant
}

func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != code {
		t.Errorf("%s: got %v, want SQLSTATE %s", what, err, code)
	}
}

// The keys of the installation are recorded once. Only who names the one that is recorded replaces it.
func TestInstallationKeys(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	owner, app := connect(t, db.OwnerURL()), connect(t, db.URLFor(migrations.Application))
	a, b, c := strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 64)
	for _, try := range []struct{ name, fingerprint, replaced, want string }{
		{"identity", a, "", a},
		{"identity", b, "", a},
		{"identity", b, c, a},
		{"bundle", b, a, b},
		{"identity", c, a, c},
		{"identity", b, a, c},
	} {
		got := get[string](t, app, "SELECT outfeed_record_key($1, $2, $3)", try.name, try.fingerprint, try.replaced)
		if len(got) != 1 || got[0] != try.want {
			t.Errorf("recording %+v gives %v", try, got)
		}
	}
	if got := get[string](t, app, "SELECT name || left(fingerprint, 1) FROM outfeed_installation_keys()"); fmt.Sprint(got) != "[bundleb identityc]" {
		t.Errorf("recorded are %v", got)
	}
	if n := get[int](t, owner, "SELECT count(*)::int FROM installation_keys")[0]; n != 0 {
		t.Errorf("the owner sees %d rows", n)
	}
	for _, wrong := range [][2]string{{"admin", a}, {"master", "A" + a[1:]}, {"master", a[1:]}} {
		_, err := app.Exec(t.Context(), "SELECT outfeed_record_key($1, $2, '')", wrong[0], wrong[1])
		wantCode(t, fmt.Sprint(wrong), err, "23514")
	}
	hang := "SELECT tenants || ' ' || agents || ' ' || credentials FROM outfeed_hang_on_keys()"
	if got := get[string](t, app, hang)[0]; got != "0 0 0" {
		t.Errorf("on an empty database hang %s", got)
	}
	fill(t, app, tenantA)
	fill(t, app, tenantB)
	within(t, app, tenantA, func(tx pgx.Tx) {
		if _, err := tx.Exec(t.Context(), "UPDATE agents SET revoked_at = now()"); err != nil {
			t.Fatal(err)
		}
		if got := get[string](t, tx, hang)[0]; got != "2 1 2" {
			t.Errorf("tenants, agents and credentials are %s", got)
		}
	})
}

// After a transaction that has set it, app.tenant reads as an empty string: that must be no tenant and no error.
func TestTheTenantEndsWithTheTransaction(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	app := connect(t, db.URLFor(migrations.Application))
	fill(t, app, tenantA)
	if n := get[int](t, app, "SELECT count(*)::int FROM agents")[0]; n != 0 {
		t.Errorf("%d rows are seen after the transaction", n)
	}
}

func TestTheApplicationRoleIsHarmless(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	owner, app := connect(t, db.OwnerURL()), connect(t, db.URLFor(migrations.Application))
	fill(t, app, tenantA)
	for _, role := range []string{"outfeed_app", "outfeed_lookup"} {
		got := get[bool](t, owner, `
			SELECT r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication
				OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid) OR EXISTS (SELECT FROM pg_class c WHERE c.relowner = r.oid)
				OR has_schema_privilege(r.oid, 'public', 'CREATE')
			FROM pg_roles r WHERE r.rolname = $1`, role)
		if len(got) != 1 || got[0] {
			t.Errorf("the role %s may do too much, or is missing: %v", role, got)
		}
	}
	for _, sql := range []string{
		"TRUNCATE insights", "DELETE FROM insights", "UPDATE insights SET seq = 2", "DELETE FROM audit_log", "UPDATE audit_log SET detail = ''",
		"UPDATE flow_versions SET definition = ''", "UPDATE api_keys SET role = 'owner'", "UPDATE enroll_tokens SET expires_at = now()",
		"UPDATE refused_insights SET reason = ''", "UPDATE insight_receipts SET reason = 'x'", "DELETE FROM insight_receipts", "UPDATE missing_insights SET reason = 'x'", "DELETE FROM sessions", "UPDATE sessions SET expires_at = now()", "UPDATE sessions SET api_key_id = id",
		"DELETE FROM agents", "INSERT INTO tenants (tenant_id, name, owner_email) VALUES ('" + tenantA + "', '', '')", "UPDATE tenants SET name = ''",
		"SELECT * FROM installation_keys", "INSERT INTO installation_keys (name, fingerprint) VALUES ('master', '')", "DELETE FROM installation_keys",
		"SELECT * FROM insights_default", "SELECT * FROM goose_db_version", "SET ROLE outfeed_lookup", "SET ROLE " + pgtest.Owner,
		"SET row_security = off; SELECT * FROM agents", "DROP TABLE runs", "ALTER TABLE agents NO FORCE ROW LEVEL SECURITY", "CREATE TABLE mine (id int)",
	} {
		within(t, app, tenantA, func(tx pgx.Tx) {
			_, err := tx.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
			wantCode(t, sql, err, "42501")
		})
	}
}

// The functions that answer without a tenant: nobody but the application may call them, each with a pinned path.
func TestFunctionsArePinnedAndClosed(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	owner := connect(t, db.OwnerURL())
	found := get[string](t, owner, `
		SELECT p.proname FROM pg_proc p
		WHERE p.pronamespace = 'public'::regnamespace AND (
			NOT p.prosecdef
			OR NOT coalesce(p.proconfig @> ARRAY['search_path=pg_catalog, public, pg_temp'], false)
			OR EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
				WHERE a.grantee NOT IN (p.proowner, 'outfeed_app'::regrole)))`)
	if len(found) > 0 {
		t.Errorf("these functions are open or not pinned: %v", found)
	}
	owners := get[string](t, owner, `
		SELECT p.proname FROM pg_proc p
		WHERE p.pronamespace = 'public'::regnamespace AND p.proowner <> 'outfeed_lookup'::regrole ORDER BY 1`)
	if want := []string{"outfeed_make_partitions", "outfeed_schema_version"}; fmt.Sprint(owners) != fmt.Sprint(want) {
		t.Errorf("the owner's functions are %v, want %v: the others have a narrow owner", owners, want)
	}
}

func TestLookupsAnswerWithoutATenant(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	app := connect(t, db.URLFor(migrations.Application))
	fill(t, app, tenantA)
	fill(t, app, tenantB)
	for _, tenant := range []string{tenantA, tenantB} {
		key := strings.Repeat(tenant[len(tenant)-1:], 64)
		id := strings.Replace(tenant, "7000", "7001", 1)
		for sql, arg := range map[string]string{
			"SELECT tenant_id::text FROM outfeed_lookup_api_key(decode($1, 'hex'))":  key,
			"SELECT tenant_id::text FROM outfeed_lookup_session(decode($1, 'hex'))":  key,
			"SELECT tenant_id::text FROM outfeed_lookup_agent($1)":                   key,
			"SELECT tenant_id::text FROM outfeed_lookup_agent_key($1)":               key,
			"SELECT tenant_id::text FROM outfeed_lookup_agent_key('next-' || $1)":    key,
			"SELECT tenant_id::text FROM outfeed_lookup_agent_key('retired-' || $1)": key,
			"SELECT outfeed_lookup_token($1::text::uuid)::text":                      id,
		} {
			if got := get[string](t, app, sql, arg); len(got) != 1 || got[0] != tenant {
				t.Errorf("%s: got %v, want %s", sql, got, tenant)
			}
		}
	}
}

// A session that ended or expired, or whose key was revoked, is nobody's. Sweeping takes the expired ones only, and a
// session's key is one of its own tenant.
func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	app, super := connect(t, db.URLFor(migrations.Application)), connect(t, db.SuperURL())
	fill(t, app, tenantA)
	fill(t, app, tenantB)
	for what, c := range map[string]struct {
		sql  string
		left int
	}{
		"nothing":        {"SELECT $1::text", 1},
		"its end":        {"UPDATE sessions SET ended_at = now() WHERE tenant_id = $1::text::uuid", 1},
		"its expiry":     {"UPDATE sessions SET created_at = now() - interval '1 day', expires_at = now() WHERE tenant_id = $1::text::uuid", 0},
		"its key is off": {"UPDATE api_keys SET revoked_at = now() WHERE tenant_id = $1::text::uuid", 1},
	} {
		within(t, super, "", func(tx pgx.Tx) {
			if _, err := tx.Exec(t.Context(), c.sql, tenantA); err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(t.Context(), "SET LOCAL ROLE "+migrations.Application); err != nil {
				t.Fatal(err)
			}
			for tenant, want := range map[string]bool{tenantA: what == "nothing", tenantB: true} {
				found := get[string](t, tx, "SELECT tenant_id::text FROM outfeed_lookup_session(decode($1, 'hex'))", strings.Repeat(tenant[len(tenant)-1:], 64))
				if (len(found) == 1) != want {
					t.Errorf("after %s the session of %s is found as %v, want %v", what, tenant, found, want)
				}
			}
			if n := get[int](t, tx, "SELECT outfeed_sweep_sessions()::int")[0]; n != 1-c.left {
				t.Errorf("after %s, %d sessions were swept, want %d", what, n, 1-c.left)
			}
		})
	}
	within(t, app, tenantA, func(tx pgx.Tx) {
		_, err := tx.Exec(t.Context(), `INSERT INTO sessions (tenant_id, id, hash, api_key_id, workspace_id, expires_at)
			VALUES ($1::text::uuid, gen_random_uuid(), sha256(''), $3::text::uuid, $2::text::uuid, now())`,
			tenantA, strings.Replace(tenantA, "7000", "7001", 1), strings.Replace(tenantB, "7000", "7001", 1))
		wantCode(t, "a session of another tenant's key", err, "23503")
	})
}

func TestMigratingAgainChangesNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	owner := connect(t, db.OwnerURL())
	before := relations(t, owner)
	if err := migrate(t.Context(), db.OwnerURL()); err != nil {
		t.Fatal(err)
	}
	if after := relations(t, owner); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("the relations were %v and are %v", before, after)
	}
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	owner, app := connect(t, db.OwnerURL()), connect(t, db.URLFor(migrations.Application))
	count := func() int {
		return get[int](t, owner, "SELECT count(*)::int FROM pg_inherits WHERE inhparent = 'insights'::regclass")[0]
	}
	if n := count(); n != 5 {
		t.Fatalf("there are %d partitions, want this month, three ahead and the default", n)
	}
	if made := get[int](t, app, "SELECT outfeed_make_partitions(3)")[0]; made != 0 {
		t.Errorf("made %d partitions again", made)
	}

	// Rows of a month that has no partition go to the default one, and move when the month gets its own.
	fill(t, app, tenantA)
	inMay := "UPDATE insights_default SET received_at = date_trunc('month', now(), 'UTC') + interval '5 months 3 days'"
	if _, err := connect(t, db.SuperURL()).Exec(t.Context(), inMay); err != nil {
		t.Fatal(err)
	}
	if made := get[int](t, app, "SELECT outfeed_make_partitions(6)")[0]; made != 3 {
		t.Errorf("made %d partitions, want 3", made)
	}
	super := connect(t, db.SuperURL())
	if n := get[int](t, super, "SELECT count(*)::int FROM insights_default")[0]; n != 0 {
		t.Errorf("%d rows are left in the default partition", n)
	}
	if n := get[int](t, super, "SELECT count(*)::int FROM insights")[0]; n != 2 {
		t.Errorf("there are %d insights, want both", n)
	}
	if found := get[string](t, owner, faults, policy); len(found) > 0 {
		t.Errorf("the new partitions have faults:\n%s", strings.Join(found, "\n"))
	}
	for _, sql := range []string{"SELECT outfeed_make_partitions(-1)", "SELECT outfeed_make_partitions(25)", "SELECT outfeed_make_partitions(NULL)"} {
		if _, err := app.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s was accepted", sql)
		}
	}
}

// The listings that people wait for read an index, newest first, and no sort.
func TestListingsUseTheirIndexes(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	app := connect(t, db.URLFor(migrations.Application))
	fill(t, app, tenantA)
	for where, index := range map[string]string{
		"workspace_id = '" + tenantA + "'":                "workspace_id_insight_time",
		"workspace_id = '" + tenantA + "' AND name = 'n'": "workspace_id_name",
		"flow_id = '" + tenantA + "'":                     "flow_id_insight_time",
	} {
		within(t, app, tenantA, func(tx pgx.Tx) {
			if _, err := tx.Exec(t.Context(), "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off", pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(err)
			}
			plan := strings.Join(get[string](t, tx, "EXPLAIN SELECT * FROM insights WHERE tenant_id = '"+tenantA+"' AND "+where+
				" ORDER BY insight_time DESC, agent_id DESC, seq DESC LIMIT 10"), "\n")
			if !strings.Contains(plan, index) || strings.Contains(plan, "Sort Key: insights.insight_time") && !strings.Contains(plan, "Merge Append") {
				t.Errorf("%s: the plan does not use %s:\n%s", where, index, plan)
			}
		})
	}
}

// What was lost before there were receipts is one of them afterwards.
func TestReceiptsTakeOverWhatWasLost(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	super := connect(t, db.SuperURL())
	earlier := &pgtest.DB{Name: db.Name + "_earlier"}
	exec := func(c *pgx.Conn, sql string) {
		t.Helper()
		if _, err := c.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec(super, "CREATE DATABASE "+earlier.Name+" OWNER "+pgtest.Owner+" TEMPLATE template0")
	t.Cleanup(func() {
		if _, err := super.Exec(context.Background(), "DROP DATABASE "+earlier.Name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	if err := migrateTo(t.Context(), earlier.OwnerURL(), 6); err != nil {
		t.Fatal(err)
	}
	c := connect(t, earlier.SuperURL())
	for i, lost := range []int{0, 7} {
		id := strings.Replace(tenantA, "7000", fmt.Sprintf("700%d", i+2), 1)
		exec(c, "INSERT INTO tenants (tenant_id, name, owner_email) VALUES ('"+id+"', 't', 'o')")
		exec(c, "INSERT INTO workspaces (tenant_id, id, name) VALUES ('"+id+"', '"+id+"', 'w')")
		exec(c, fmt.Sprintf(`INSERT INTO agents (tenant_id, id, workspace_id, name, hostname, os, arch, version, public_key, sealing_key, fingerprint, stored_seq, lost_insights)
			VALUES ('%s', '%s', '%s', 'a', 'h', 'o', 'a', 'v', decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex'), 'f', 10, %d)`, id, id, id, lost))
	}
	if err := migrate(t.Context(), earlier.OwnerURL()); err != nil {
		t.Fatal(err)
	}
	if got := get[string](t, c, "SELECT reason || ' ' || insights FROM insight_receipts"); fmt.Sprint(got) != "[other 7]" {
		t.Errorf("the receipts are %v", got)
	}
	if got := get[bool](t, c, "SELECT relforcerowsecurity FROM pg_class WHERE relname IN ('agents', 'insight_receipts')"); fmt.Sprint(got) != "[true true]" {
		t.Errorf("row-level security is forced: %v", got)
	}
}

func TestFilesAreNumberedWithoutGaps(t *testing.T) {
	t.Parallel()
	names, err := fs.Glob(migrations.Files, "*")
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range names {
		if !strings.HasPrefix(n, fmt.Sprintf("%04d_", i+1)) {
			t.Errorf("file %d is %s", i+1, n)
		}
	}
}
