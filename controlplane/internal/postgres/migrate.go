package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/migrations"
)

// oldestServer is the first PostgreSQL that has what the schema uses, as server_version_num.
const oldestServer = 150000

// Migrate brings the database to this program's schema, as the role that owns it, and may be run again at any time; of
// several at once one works and the others wait. appRole is the role that the control plane will serve as: "" or
// migrations.Application is the one that the schema makes; another one is made if it is missing, and gets its rights.
// A role that is made can log in and has no password: an operator sets one with ALTER ROLE … PASSWORD.
func Migrate(ctx context.Context, ownerURL secret.String, appRole string) (err error) {
	cfg, err := pgx.ParseConfig(ownerURL.Reveal())
	if err != nil {
		return errURL
	}
	if cfg.User == migrations.Application || cfg.User == appRole {
		return fmt.Errorf("migrate connects as %s, the role that the control plane serves as, which must own nothing: migrate as the database's owner", cfg.User)
	}
	db := stdlib.OpenDB(*cfg)
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := checkServer(ctx, db); err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 600))
	if err != nil {
		return fmt.Errorf("prepare the lock of the migrations: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, migrations.Files, goose.WithSessionLocker(locker), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate the database %s: %w", cfg.Database, err)
	}
	if appRole == "" || appRole == migrations.Application {
		return nil
	}
	return grantApplication(ctx, db, appRole)
}

var errURL = errors.New("the database's address cannot be read: write it like postgres://user:password@host:5432/database?sslmode=verify-full")

func checkServer(ctx context.Context, db *sql.DB) error {
	var version int
	if err := db.QueryRowContext(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return fmt.Errorf("reach the database as its owner: %w", err)
	}
	if version < oldestServer {
		return fmt.Errorf("the database is PostgreSQL %d.%d, and Outfeed needs 15 or newer: upgrade it", version/10000, version%10000)
	}
	return nil
}

// grantApplication makes a role of the operator's choice a member of the application role.
func grantApplication(ctx context.Context, db *sql.DB, role string) error {
	statements := []struct{ need, statement string }{
		{"NOT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", "format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', $1::text)"},
		{"NOT pg_has_role($1::name, 'outfeed_app', 'MEMBER')", "format('GRANT outfeed_app TO %I', $1::text)"},
	}
	for _, s := range statements {
		var ddl string
		err := db.QueryRowContext(ctx, "SELECT "+s.statement+" WHERE "+s.need, role).Scan(&ddl)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at the role %s: %w", role, err)
		}
		if _, err := db.ExecContext(ctx, ddl); err != nil {
			return fmt.Errorf("prepare the role %s (as a superuser: %s): %w", role, ddl, err)
		}
	}
	return nil
}

// newestMigration is the version of the schema that this program was built for.
func newestMigration() (int64, error) {
	var newest int64
	names, err := fs.Glob(migrations.Files, "*.sql")
	if err != nil {
		return 0, fmt.Errorf("list the migrations: %w", err)
	}
	for _, n := range names {
		number, _, _ := strings.Cut(n, "_")
		v, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("the migration %s has no number: %w", n, err)
		}
		newest = max(newest, v)
	}
	return newest, nil
}
