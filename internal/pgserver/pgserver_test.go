//go:build unix

package pgserver_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/internal/pgserver"
)

// run starts a server and gives a function that stops it and waits.
func run(t *testing.T, dir string) (*pgserver.Server, func() error) {
	t.Helper()
	s, err := pgserver.New(pgserver.Settings{Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("the server did not start: %v", err)
	}
	stop := func() error { cancel(); return <-ended }
	return s, stop
}

// enterable is a folder that the account that root steps down to may enter, which t.TempDir is not.
func enterable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgserver") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })      //nolint:errcheck // the folder is the system's temporary one
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // that is its purpose
		t.Fatal(err)
	}
	return dir
}

func query(t *testing.T, s *pgserver.Server, sql string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, s.URL(pgserver.Superuser, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx) //nolint:errcheck // the test is over
	var out string
	if err := c.QueryRow(ctx, sql).Scan(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestServerKeepsItsDataAcrossStopAndKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(enterable(t), "pg")
	s, stop := run(t, dir)
	query(t, s, "with a as (select 1) select set_config('x.y', 'z', false) from a")
	if got := query(t, s, "select current_setting('listen_addresses')"); got != "" {
		t.Errorf("it listens on %q, want no TCP at all", got)
	}
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}

	// A server that is killed is started again.
	s, stop = run(t, dir)
	pid := postmaster(t, dir)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		p, ok := readPID(dir)
		return ok && p != pid && ping(t, s)
	})
	if err := stop(); err != nil {
		t.Fatalf("stop after a restart: %v", err)
	}
}

func TestASecondParentIsRefused(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(enterable(t), "pg")
	first, stop := run(t, dir)
	second, err := pgserver.New(pgserver.Settings{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	err = second.Run(t.Context(), func() { t.Error("the second server became ready") })
	if err == nil || !strings.Contains(err.Error(), "in use by process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("got %v, want who uses it", err)
	}
	if got := query(t, first, "select 'undisturbed'"); got != "undisturbed" {
		t.Errorf("got %q", got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestLongPathsGetAShortSocket(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(enterable(t), strings.Repeat("long", 25))
	s, stop := run(t, dir)
	if got := query(t, s, "select 'here'"); got != "here" {
		t.Errorf("got %q", got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func ping(t *testing.T, s *pgserver.Server) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, s.URL(pgserver.Superuser, "postgres"))
	if err != nil {
		return false
	}
	return c.Close(ctx) == nil
}

func readPID(dir string) (int, bool) {
	text, err := os.ReadFile(filepath.Join(dir, "pgdata", "postmaster.pid"))
	if err != nil {
		return 0, false
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	return pid, err == nil
}

func postmaster(t *testing.T, dir string) int {
	t.Helper()
	pid, ok := readPID(dir)
	if !ok {
		t.Fatal("no postmaster.pid")
	}
	return pid
}

// waitFor polls what no signal tells: the state of another process.
func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatal("it did not come about within a minute")
		case <-tick.C:
		}
	}
}
