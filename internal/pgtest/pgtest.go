// Package pgtest gives each test a PostgreSQL database of its own, cloned from a template in one server per test binary.
//
// A package uses it with `func TestMain(m *testing.M) { pgtest.Main(m, prepare) }` and pgtest.New(t) in each test, which
// may run in parallel. It is for tests only.
package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/internal/pgserver"
)

// Owner is the role that owns every test database; it may create roles, and is no superuser.
const Owner = "outfeed_owner"

// template is the database that New clones.
const template = "template_outfeed"

// server is the one of this test binary: Main sets it before any test runs.
var server *pgserver.Server

// DB is one test's database.
type DB struct{ Name string }

// OwnerURL is the address for the role that owns the database.
func (d *DB) OwnerURL() string { return server.URL(Owner, d.Name) }

// SuperURL is the address for the superuser, for what only a superuser can look at.
func (d *DB) SuperURL() string { return server.URL(pgserver.Superuser, d.Name) }

// URLFor is the address for another role. The server accepts the roles outfeed_app and outfeed_mes.
func (d *DB) URLFor(role string) string { return server.URL(role, d.Name) }

// Main starts the server, lets prepare fill the template as its owner (nil leaves it empty), runs the tests, stops the
// server and exits.
func Main(m *testing.M, prepare func(ctx context.Context, ownerURL string) error) {
	code, err := run(m, prepare)
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = 1
	}
	os.Exit(code) //nolint:forbidigo // this is the end of a TestMain
}

func run(m *testing.M, prepare func(context.Context, string) error) (code int, err error) {
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		return 1, fmt.Errorf("make a folder: %w", err)
	}
	defer os.RemoveAll(dir)                      //nolint:errcheck // the folder is the system's temporary one
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the server's account must be able to enter
		return 1, fmt.Errorf("open the folder: %w", err)
	}
	s, err := pgserver.New(pgserver.Settings{
		Dir:        dir + "/pg",
		Parameters: map[string]string{"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "300", "shared_buffers": "64MB"},
		Logger:     slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return 1, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.Run(ctx, func() { close(ready) }) }()
	defer func() {
		cancel()
		if stopErr := <-ended; err == nil {
			err = stopErr
		}
	}()
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		return 1, err
	}
	server = s
	if err := makeTemplate(ctx, prepare); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func makeTemplate(ctx context.Context, prepare func(context.Context, string) error) error {
	err := exec(ctx, server.URL(pgserver.Superuser, "postgres"),
		"CREATE ROLE "+Owner+" LOGIN CREATEROLE CREATEDB",
		"CREATE ROLE outfeed_mes LOGIN",
		"CREATE DATABASE "+template+" OWNER "+Owner)
	if err != nil {
		return err
	}
	if prepare == nil {
		return nil
	}
	if err := prepare(ctx, server.URL(Owner, template)); err != nil {
		return fmt.Errorf("prepare the template database: %w", err)
	}
	return nil
}

// New makes a database for one test and drops it afterwards.
func New(tb testing.TB) *DB {
	tb.Helper()
	if server == nil {
		tb.Fatal("pgtest.New needs func TestMain(m *testing.M) { pgtest.Main(m, …) } in this package")
	}
	name := "t_" + strings.ToLower(rand.Text())
	admin := server.URL(pgserver.Superuser, "postgres")
	if err := exec(tb.Context(), admin, "CREATE DATABASE "+name+" TEMPLATE "+template+" OWNER "+Owner); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := exec(ctx, admin, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			tb.Error(err)
		}
	})
	return &DB{Name: name}
}

// exec runs statements one by one, each on its own: CREATE DATABASE allows no transaction.
func exec(ctx context.Context, url string, statements ...string) error {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to the test server: %w", err)
	}
	defer c.Close(ctx) //nolint:errcheck // nothing is pending on it
	for _, sql := range statements {
		if _, err := c.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}
