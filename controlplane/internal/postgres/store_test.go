package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/postgres"
	"github.com/outfeed/outfeed/internal/pgtest"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/migrations"
)

// TestMain leaves the template empty: these tests migrate themselves.
func TestMain(m *testing.M) { pgtest.Main(m, nil) }

func settings(t *testing.T, url string) postgres.Settings {
	t.Helper()
	return postgres.Settings{URL: secret.New(url), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

func migrated(t *testing.T) *pgtest.DB {
	t.Helper()
	db := pgtest.New(t)
	if err := postgres.Migrate(t.Context(), secret.New(db.OwnerURL()), ""); err != nil {
		t.Fatal(err)
	}
	return db
}

func opened(t *testing.T, db *pgtest.DB) *postgres.Store {
	t.Helper()
	st, err := postgres.Open(t.Context(), settings(t, db.URLFor(migrations.Application)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	return st
}

// running runs the store until the test ends.
func running(t *testing.T, st *postgres.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- st.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func super(t *testing.T, db *pgtest.DB, sql string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), db.SuperURL())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context()) //nolint:errcheck // the statement is done
	if _, err := c.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

const (
	tenantA = fleet.ID("00000000-0000-7000-8000-00000000000a")
	tenantB = fleet.ID("00000000-0000-7000-8000-00000000000b")
	spaceA  = fleet.ID("00000000-0000-7000-8000-0000000000aa")
)

// makeTenant makes a tenant with the workspace spaceA.
func makeTenant(t *testing.T, st *postgres.Store, tenant fleet.ID) {
	t.Helper()
	err := st.InTenant(t.Context(), tenant, func(ctx context.Context, tx fleet.Tx) error {
		if _, err := tx.CreateTenant(ctx, fleet.Tenant{ID: tenant, Name: "t"}, "o@example.com"); err != nil {
			return err
		}
		return tx.CreateWorkspace(ctx, spaceA, "w")
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMigrateInParallelAndAgain(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	_, err := postgres.Open(t.Context(), settings(t, db.SuperURL()))
	if err == nil {
		t.Error("a superuser was accepted on an empty database")
	}
	var wg sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		wg.Go(func() { errs[i] = postgres.Migrate(t.Context(), secret.New(db.OwnerURL()), "") })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrate(t.Context(), secret.New(db.OwnerURL()), migrations.Application); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrate(t.Context(), secret.New(db.URLFor(migrations.Application)), ""); err == nil || !strings.Contains(err.Error(), "owner") {
		t.Errorf("migrating as the application: %v", err)
	}
	if err := postgres.Migrate(t.Context(), secret.New("postgres://%zz"), ""); err == nil || !strings.Contains(err.Error(), "sslmode") {
		t.Errorf("an address that is none: %v", err)
	}
}

// The test server lets the role outfeed_mes in, so it stands for a role of the operator's choice. It belongs to the
// whole server, so this one test has all that is about it.
func TestARoleOfTheOperatorsChoice(t *testing.T) {
	t.Parallel()
	db := migrated(t)
	url := db.URLFor("outfeed_mes")
	if _, err := postgres.Open(t.Context(), settings(t, url)); err == nil || !strings.Contains(err.Error(), "lacks the rights") {
		t.Errorf("a role without rights: %v", err)
	}
	for range 2 {
		if err := postgres.Migrate(t.Context(), secret.New(db.OwnerURL()), "outfeed_mes"); err != nil {
			t.Fatal(err)
		}
	}
	st, err := postgres.Open(t.Context(), settings(t, url))
	if err != nil {
		t.Fatal(err)
	}
	makeTenant(t, st, tenantA)
	st.Close()
	super(t, db, "ALTER ROLE outfeed_mes BYPASSRLS")
	if _, err := postgres.Open(t.Context(), settings(t, url)); err == nil || !strings.Contains(err.Error(), "BYPASSRLS") {
		t.Errorf("a role with BYPASSRLS: %v", err)
	}
	super(t, db, "ALTER ROLE outfeed_mes NOBYPASSRLS; GRANT "+pgtest.Owner+" TO outfeed_mes")
	if _, err := postgres.Open(t.Context(), settings(t, url)); err == nil || !strings.Contains(err.Error(), "owns the tables") {
		t.Errorf("a role that may act for the owner: %v", err)
	}
	// A role that the server does not have is made, with a name that needs quoting.
	if err := postgres.Migrate(t.Context(), secret.New(db.OwnerURL()), `out"feed serve`); err != nil {
		t.Fatal(err)
	}
}

func TestPrepareMakesWhatIsMissing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	const name = `prepared "one"`
	t.Cleanup(func() {
		c, err := pgx.Connect(context.Background(), db.SuperURL())
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close(context.Background()) //nolint:errcheck // the statement is done
		if _, err := c.Exec(context.Background(), "DROP DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		if err := postgres.Prepare(t.Context(), secret.New(db.SuperURL()), "outfeed_mes_owner", name); err != nil {
			t.Fatal(err)
		}
	}
	c, err := pgx.Connect(t.Context(), db.SuperURL())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context()) //nolint:errcheck // the test is over
	var right bool
	err = c.QueryRow(t.Context(), `
		SELECT r.rolcanlogin AND r.rolcreaterole AND NOT r.rolsuper AND NOT r.rolbypassrls
		FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE d.datname = $1`, name).Scan(&right)
	if err != nil || !right {
		t.Errorf("the owner is not as it should be: %v", err)
	}
}

func TestOpenRefusesWhatWouldOpenTheTenants(t *testing.T) {
	t.Parallel()
	db := migrated(t)
	for url, want := range map[string]string{db.SuperURL(): "superuser", db.OwnerURL(): "owns the tables", "postgres://%zz": "sslmode"} {
		_, err := postgres.Open(t.Context(), settings(t, url))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want something with %q", err, want)
		}
	}
	empty := pgtest.New(t)
	_, err := postgres.Open(t.Context(), settings(t, empty.URLFor(migrations.Application)))
	if err == nil || !strings.Contains(err.Error(), "migrate") {
		t.Errorf("an empty database: %v", err)
	}
	super(t, db, "UPDATE goose_db_version SET is_applied = false WHERE version_id = (SELECT max(version_id) FROM goose_db_version)")
	_, err = postgres.Open(t.Context(), settings(t, db.URLFor(migrations.Application)))
	if err == nil || !strings.Contains(err.Error(), "run outfeed-controlplane migrate") {
		t.Errorf("an older schema: %v", err)
	}
}

func TestInTenant(t *testing.T) {
	t.Parallel()
	st := opened(t, migrated(t))
	makeTenant(t, st, tenantA)
	ctx := t.Context()
	locks := func(tenant fleet.ID) error {
		return st.InTenant(ctx, tenant, func(ctx context.Context, tx fleet.Tx) error { return tx.LockWorkspace(ctx, spaceA) })
	}
	if err := locks(tenantA); err != nil {
		t.Error(err)
	}
	if err := locks(tenantB); !errors.Is(err, fleet.ErrNoRow) {
		t.Errorf("another tenant's workspace: %v", err)
	}
	// An error rolls back.
	stop := errors.New("stop")
	err := st.InTenant(ctx, tenantA, func(ctx context.Context, tx fleet.Tx) error {
		return errors.Join(tx.CreateFlow(ctx, spaceA, tenantB, "f"), stop)
	})
	if !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	err = st.Snapshot(ctx, tenantA, func(ctx context.Context, tx fleet.Tx) error {
		flows, err := tx.Flows(ctx, spaceA)
		if len(flows) != 0 {
			t.Errorf("the flow stayed: %v", flows)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	err = st.Snapshot(ctx, tenantA, func(ctx context.Context, tx fleet.Tx) error { return tx.CreateFlow(ctx, spaceA, tenantB, "f") })
	if err == nil {
		t.Error("a snapshot wrote")
	}
}

// Two transactions that lock two agents in opposite orders: the database breaks one off, and it runs again.
func TestDeadlocksAreRepeated(t *testing.T) {
	t.Parallel()
	st := opened(t, migrated(t))
	makeTenant(t, st, tenantA)
	second := fleet.ID("00000000-0000-7000-8000-0000000000ab")
	err := st.InTenant(t.Context(), tenantA, func(ctx context.Context, tx fleet.Tx) error { return tx.CreateWorkspace(ctx, second, "w2") })
	if err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	both.Add(2)
	lock := func(first, then fleet.ID) error {
		var once sync.Once
		return st.InTenant(t.Context(), tenantA, func(ctx context.Context, tx fleet.Tx) error {
			if err := tx.LockWorkspace(ctx, first); err != nil {
				return err
			}
			once.Do(func() {
				both.Done()
				both.Wait()
			})
			return tx.LockWorkspace(ctx, then)
		})
	}
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() { errs[0] = lock(spaceA, second) })
	wg.Go(func() { errs[1] = lock(second, spaceA) })
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Error(err)
	}
}

// logged closes its channel when the text is written to it.
type logged struct {
	text string
	once sync.Once
	seen chan struct{}
}

func (l *logged) Write(p []byte) (int, error) {
	if strings.Contains(string(p), l.text) {
		l.once.Do(func() { close(l.seen) })
	}
	return len(p), nil
}

func TestExpiredSessionsAreRemoved(t *testing.T) {
	t.Parallel()
	db := migrated(t)
	st := opened(t, db)
	makeTenant(t, st, tenantB)
	const key = fleet.ID("00000000-0000-7000-8000-0000000000a1")
	sessions := []fleet.ID{"00000000-0000-7000-8000-0000000000b1", "00000000-0000-7000-8000-0000000000b2"}
	hashes := [][]byte{[]byte(strings.Repeat("1", 32)), []byte(strings.Repeat("2", 32))}
	err := st.InTenant(t.Context(), tenantB, func(ctx context.Context, tx fleet.Tx) error {
		if _, err := tx.CreateAPIKey(ctx, spaceA, fleet.APIKey{ID: key, Name: "k", Role: fleet.Viewer}, hashes[0]); err != nil {
			return err
		}
		for i := range sessions {
			if _, err := tx.CreateSignIn(ctx, fleet.NewSignIn{ID: sessions[i], Workspace: spaceA, APIKey: key, TTL: time.Hour}, hashes[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	super(t, db, "UPDATE sessions SET created_at = now() - interval '1 day', expires_at = now() WHERE id = '"+string(sessions[0])+"'")
	log := &logged{text: "removed expired sessions", seen: make(chan struct{})}
	set := settings(t, db.URLFor(migrations.Application))
	set.Logger = slog.New(slog.NewTextHandler(log, nil))
	keeper, err := postgres.Open(t.Context(), set)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keeper.Close)
	running(t, keeper)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	select {
	case <-log.seen:
	case <-ctx.Done():
		t.Fatal("nothing was removed")
	}
	c, err := pgx.Connect(t.Context(), db.SuperURL())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context()) //nolint:errcheck // the statement is done
	var left string
	if err := c.QueryRow(t.Context(), "SELECT string_agg(id::text, ' ') FROM sessions").Scan(&left); err != nil || left != string(sessions[1]) {
		t.Errorf("left is %s, %v, want %s", left, err, sessions[1])
	}
	if f, err := st.FindSession(t.Context(), hashes[1]); err != nil || f.Actor.Ref != sessions[1] {
		t.Errorf("got %+v, %v", f, err)
	}
}

func notify(t *testing.T, st *postgres.Store, kind string, id fleet.ID) {
	t.Helper()
	err := st.InTenant(t.Context(), tenantA, func(ctx context.Context, tx fleet.Tx) error {
		return tx.Notify(ctx, fleet.Notice{Event: fleet.Event{Kind: kind, ID: id}, Workspace: spaceA})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestNoticesComeAfterTheCommitAndOnlyThen(t *testing.T) {
	t.Parallel()
	db := migrated(t)
	st := opened(t, db)
	running(t, st)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	events, err := st.Watch(ctx, tenantA, spaceA)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Ready(ctx); err != nil {
		t.Error(err)
	}
	err = st.InTenant(ctx, tenantA, func(ctx context.Context, tx fleet.Tx) error {
		return errors.Join(tx.Notify(ctx, fleet.Notice{Event: fleet.Event{Kind: "run", ID: "rolled back"}, Workspace: spaceA}), errors.New("no"))
	})
	if err == nil {
		t.Fatal("it committed")
	}
	super(t, db, "NOTIFY outfeed, 'not ours'")
	for i, from := range []*postgres.Store{st, opened(t, db)} {
		id := fleet.ID(fmt.Sprint("f", i))
		notify(t, from, "flow", id)
		if e := <-events; e != (fleet.Event{Tenant: tenantA, Kind: "flow", ID: id}) {
			t.Errorf("got %+v, want %s once", e, id)
		}
	}
}

func TestASlowWatcherIsEnded(t *testing.T) {
	t.Parallel()
	st := opened(t, migrated(t))
	running(t, st)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	slow, err := st.Watch(ctx, tenantA, spaceA)
	if err != nil {
		t.Fatal(err)
	}
	quick, err := st.WatchDesired(ctx, tenantA, "agent")
	if err != nil {
		t.Fatal(err)
	}
	err = st.InTenant(ctx, tenantA, func(ctx context.Context, tx fleet.Tx) error {
		for i := range 300 {
			if err := tx.Notify(ctx, fleet.Notice{Event: fleet.Event{Kind: "run", FromSeq: int64(i)}, Workspace: spaceA}); err != nil {
				return err
			}
		}
		return tx.Notify(ctx, fleet.Notice{Event: fleet.Event{Kind: fleet.DesiredChanged, ID: "agent"}, Workspace: spaceA})
	})
	if err != nil {
		t.Fatal(err)
	}
	<-quick
	n := 0
	for range slow {
		n++
	}
	if n == 0 || n >= 300 {
		t.Errorf("it got %d of 300 events and then its end", n)
	}
	if ctx.Err() != nil {
		t.Error("it was not ended")
	}
}

func TestTheListenerReconnects(t *testing.T) {
	t.Parallel()
	db := migrated(t)
	st := opened(t, db)
	running(t, st)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	events, err := st.Watch(ctx, tenantA, spaceA)
	if err != nil {
		t.Fatal(err)
	}
	desired, err := st.WatchDesired(ctx, tenantA, "agent")
	if err != nil {
		t.Fatal(err)
	}
	super(t, db, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'")
	if e, open := <-events; open {
		t.Errorf("got %+v, want the end: events may have been missed", e)
	}
	if _, open := <-desired; !open {
		t.Error("the watch of the desired state ended; it must be told to look")
	}
	if events, err = st.Watch(ctx, tenantA, spaceA); err != nil {
		t.Fatal(err)
	}
	notify(t, opened(t, db), "flow", "f2")
	if e := <-events; e.ID != "f2" {
		t.Errorf("got %+v", e)
	}
}

func TestWatchingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	st := opened(t, migrated(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := st.Watch(ctx, tenantA, spaceA); err == nil {
		t.Error("a watch began although nobody listens")
	}
	if err := st.Ready(t.Context()); !errors.Is(err, fleet.ErrUnreachable) {
		t.Errorf("ready without a listener: %v", err)
	}
}
