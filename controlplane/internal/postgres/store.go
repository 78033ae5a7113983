// Package postgres keeps the domain in PostgreSQL: it is the one place with SQL, and the only user of pgx.
//
// Every access runs in a transaction that names its tenant (InTenant, Snapshot), under row-level security and as a
// role that cannot get around it; what is asked before a tenant is known goes through functions of the schema.
// It holds no rules of the domain. A Store is safe for concurrent use; a transaction belongs to one goroutine.
package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgtype/zeronull"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/backoff"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/internal/socket"
	"github.com/outfeed/outfeed/migrations"
)

// Settings says how to reach the database.
type Settings struct {
	// URL is for the application role, never for the owner or a superuser.
	URL secret.String
	// MaxConns bounds the connections of this process; 0 means 20. One more listens.
	MaxConns int32
	Logger   *slog.Logger
}

// Store is the domain's storage. Its Run must be running for Watch and WatchDesired to work.
type Store struct {
	pool   *pgxpool.Pool
	listen *pgx.ConnConfig
	hub    *hub
	log    *slog.Logger
	// name tells this store from those of other replicas.
	name string
}

var _ fleet.Store = (*Store)(nil)

// Open connects, and refuses a role that row-level security does not bind or a schema that is older than this program.
// Close it after its Run has returned.
func Open(ctx context.Context, s Settings) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(s.URL.Reveal())
	if err != nil {
		return nil, errURL
	}
	cfg.MaxConns = s.MaxConns
	if cfg.MaxConns == 0 {
		cfg.MaxConns = 20
	}
	// A statement that takes this long hangs, and would hold its locks and its connection for ever.
	limits := map[string]string{
		"application_name": "outfeed-controlplane", "statement_timeout": "60s", "lock_timeout": "30s",
		"idle_in_transaction_session_timeout": "60s",
	}
	for name, value := range limits {
		if _, set := cfg.ConnConfig.RuntimeParams[name]; !set {
			cfg.ConnConfig.RuntimeParams[name] = value
		}
	}
	limitSilence(cfg)
	cfg.AfterConnect = func(_ context.Context, c *pgx.Conn) error {
		c.TypeMap().RegisterType(&pgtype.Type{
			Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
		})
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("prepare the connections to the database: %w", err)
	}
	st := &Store{pool: pool, listen: cfg.ConnConfig.Copy(), hub: newHub(), log: s.Logger, name: rand.Text()}
	if err := st.checkRole(ctx); err != nil {
		pool.Close()
		return nil, err
	}
	return st, nil
}

const (
	// connectWithin is how long a connection may take to be made, unless the URL says connect_timeout, and aliveWithin how long
	// one that has been idle has to show that it is alive.
	connectWithin = 5 * time.Second
	aliveWithin   = 3 * time.Second
)

// limitSilence sets bounds where the path to the database swallows packets: left to itself the kernel would try again minutes
// after it is healed.
func limitSilence(cfg *pgxpool.Config) {
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectWithin
	}
	cfg.PingTimeout = aliveWithin
	dialer := net.Dialer{
		Timeout:         cfg.ConnConfig.ConnectTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		d := dialer
		if strings.HasPrefix(network, "tcp") {
			d.Control = socket.Control
		}
		return d.DialContext(ctx, network, address)
	}
}

// Close gives the connections back.
func (s *Store) Close() { s.pool.Close() }

// checkRole refuses what would make row-level security an illusion.
func (s *Store) checkRole(ctx context.Context) error {
	var (
		role                            string
		super, bypass, owner, app, have bool
	)
	row := s.pool.QueryRow(ctx, `
		SELECT current_user, r.rolsuper, r.rolbypassrls,
			EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relname IN ('tenants', 'insights')
				AND pg_has_role(current_user, c.relowner, 'MEMBER')),
			EXISTS (SELECT FROM pg_roles WHERE rolname = 'outfeed_app' AND pg_has_role(current_user, oid, 'USAGE')),
			to_regprocedure('public.outfeed_schema_version()') IS NOT NULL
		FROM pg_roles r WHERE r.rolname = current_user`)
	if err := row.Scan(&role, &super, &bypass, &owner, &app, &have); err != nil {
		return fmt.Errorf("reach the database: %w", unreachable(err))
	}
	const fix = "; run outfeed-controlplane migrate as the owner, then give serve a URL for the role " + migrations.Application +
		" (set its password once: ALTER ROLE " + migrations.Application + " PASSWORD '…')"
	switch {
	case super:
		return errors.New("the database role " + role + " is a superuser, whom row-level security does not bind, so tenants would not be kept apart" + fix)
	case bypass:
		return errors.New("the database role " + role + " has BYPASSRLS, so tenants would not be kept apart" + fix)
	case owner:
		return errors.New("the database role " + role + " owns the tables, or may act for their owner, and could switch row-level security off" + fix)
	case !have:
		return errors.New("the database has no Outfeed schema yet: run outfeed-controlplane migrate as its owner")
	case !app:
		return errors.New("the database role " + role + " lacks the rights of " + migrations.Application + fix)
	}
	return s.checkSchema(ctx)
}

// checkSchema refuses a schema older than the program; a newer one is what an upgrade of several replicas looks like.
func (s *Store) checkSchema(ctx context.Context) error {
	want, err := newestMigration()
	if err != nil {
		return err
	}
	var have int64
	if err := s.pool.QueryRow(ctx, "SELECT outfeed_schema_version()").Scan(&have); err != nil {
		return fmt.Errorf("ask for the schema's version: %w", unreachable(err))
	}
	if have < want {
		return fmt.Errorf("the database's schema is version %d and this program needs %d: run outfeed-controlplane migrate as the owner", have, want)
	}
	return nil
}

// Ready says why the store cannot serve, or nil.
func (s *Store) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := s.pool.Ping(ctx); err != nil {
		return errors.Join(fleet.ErrUnreachable, err)
	}
	if !s.hub.isLive() {
		return fmt.Errorf("%w for notifications", fleet.ErrUnreachable)
	}
	return nil
}

// maxTries is how often a transaction runs that deadlocks keep breaking off.
const maxTries = 5

// InTenant runs fn in a transaction under the tenant's row-level security.
func (s *Store) InTenant(ctx context.Context, tenant fleet.ID, fn func(context.Context, fleet.Tx) error) error {
	return s.inTenant(ctx, tenant, pgx.TxOptions{}, fn)
}

// Snapshot runs fn in a read-only transaction that sees one moment.
func (s *Store) Snapshot(ctx context.Context, tenant fleet.ID, fn func(context.Context, fleet.Tx) error) error {
	return s.inTenant(ctx, tenant, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, fn)
}

func (s *Store) inTenant(ctx context.Context, tenant fleet.ID, o pgx.TxOptions, fn func(context.Context, fleet.Tx) error) error {
	wait := backoff.Backoff{Min: 10 * time.Millisecond, Max: time.Second}
	for try := 1; ; try++ {
		t := &tx{tenant: tenant, from: s.name}
		err := pgx.BeginTxFunc(ctx, s.pool, o, func(p pgx.Tx) error {
			if _, err := p.Exec(ctx, "SELECT set_config('app.tenant', $1, true)", string(tenant)); err != nil {
				return fmt.Errorf("set the tenant: %w", err)
			}
			t.tx = p
			return fn(ctx, t)
		})
		if err == nil {
			s.hub.deliver(t.notices...)
			return nil
		}
		if try == maxTries || !canRepeat(err) {
			return unreachable(err)
		}
		if wait.Wait(ctx) != nil {
			return unreachable(err)
		}
	}
}

// canRepeat says whether the database broke a transaction off only because of another one: serialization failure,
// deadlock, or a row that another one made first.
func canRepeat(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "40001" || pg.Code == "40P01" || pg.Code == "23505")
}

// unreachable marks errors of the connection, so that the domain can tell them from mistakes.
func unreachable(err error) error {
	if err == nil {
		return nil
	}
	lost := errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, pgx.ErrTxClosed)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		// Connection exceptions, insufficient resources, and a server that is starting or stopping.
		class := pg.Code[:min(2, len(pg.Code))]
		lost = class == "08" || class == "53" || pg.Code == "57P01" || pg.Code == "57P02" || pg.Code == "57P03"
	} else if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		lost = true
	} else if _, ok := errors.AsType[net.Error](err); ok {
		lost = true
	}
	if lost {
		return errors.Join(fleet.ErrUnreachable, err)
	}
	return err
}

// tx is a transaction under a tenant.
type tx struct {
	tx     pgx.Tx
	tenant fleet.ID
	// from is the store's name, and notices are what it tells its watchers after the commit.
	from    string
	notices []fleet.Notice
}

// args are the named arguments of a statement. @tenant is always there.
type args = pgx.NamedArgs

func (t *tx) with(a args) args {
	if a == nil {
		a = args{}
	}
	a["tenant"] = t.tenant
	return a
}

// exec runs a statement and says how many rows it touched.
func (t *tx) exec(ctx context.Context, sql string, a args) (int64, error) {
	tag, err := t.tx.Exec(ctx, sql, t.with(a))
	if err != nil {
		return 0, fmt.Errorf("write to the database: %w", err)
	}
	return tag.RowsAffected(), nil
}

// do is exec for where the number of rows says nothing.
func (t *tx) do(ctx context.Context, sql string, a args) error {
	_, err := t.exec(ctx, sql, a)
	return err
}

// must is exec for where one row must be touched; fleet.ErrNoRow when none was.
func (t *tx) must(ctx context.Context, sql string, a args) error {
	n, err := t.exec(ctx, sql, a)
	if err == nil && n == 0 {
		return fleet.ErrNoRow
	}
	return err
}

// many reads rows.
func many[T any](ctx context.Context, t *tx, sql string, a args, scan pgx.RowToFunc[T]) ([]T, error) {
	rows, err := t.tx.Query(ctx, sql, t.with(a))
	if err != nil {
		return nil, fmt.Errorf("read from the database: %w", err)
	}
	out, err := pgx.CollectRows(rows, scan)
	if err != nil {
		return nil, fmt.Errorf("read from the database: %w", err)
	}
	return out, nil
}

// one reads the first row; fleet.ErrNoRow when there is none.
func one[T any](ctx context.Context, t *tx, sql string, a args, scan pgx.RowToFunc[T]) (T, error) {
	rows, err := t.tx.Query(ctx, sql, t.with(a))
	if err != nil {
		var none T
		return none, fmt.Errorf("read from the database: %w", err)
	}
	out, err := pgx.CollectOneRow(rows, scan)
	return out, noRow(err)
}

// scanned reads a row into the fields of v and gives v, in that order.
func scanned[T any](row pgx.CollectableRow, v *T, fields ...any) (T, error) {
	if err := row.Scan(fields...); err != nil {
		return *v, fmt.Errorf("read a row: %w", err)
	}
	return *v, nil
}

func noRow(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrNoRows):
		return fleet.ErrNoRow
	default:
		return fmt.Errorf("read from the database: %w", err)
	}
}

// orNull writes the zero time as NULL, and reads it back.
func orNull(t time.Time) zeronull.Timestamptz { return zeronull.Timestamptz(t) }

func maybe(t *time.Time) *zeronull.Timestamptz { return (*zeronull.Timestamptz)(t) }

// maybeID reads NULL as no id.
func maybeID(id *fleet.ID) *zeronull.Text { return (*zeronull.Text)(id) }
