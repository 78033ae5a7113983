package postgres_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/postgres"
	"github.com/outfeed/outfeed/internal/pgtest"
	"github.com/outfeed/outfeed/migrations"
)

// firewall is a path to the database that can forget its connections: what is sent over them is swallowed from then on.
type firewall struct {
	address string

	mu        sync.Mutex
	forgotten chan struct{}
}

// throughFirewall gives a path to the database that stays open until the test ends.
func throughFirewall(t *testing.T, db *pgtest.DB) *firewall {
	t.Helper()
	to, err := pgx.ParseConfig(db.URLFor(migrations.Application))
	if err != nil {
		t.Fatal(err)
	}
	network, address := pgxAddress(to)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &firewall{address: listener.Addr().String(), forgotten: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { f.pass(ctx, conn, network, address) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		all.Wait()
	})
	return f
}

func pgxAddress(c *pgx.ConnConfig) (network, address string) {
	if c.Host[0] == '/' {
		return "unix", c.Host + "/.s.PGSQL." + strconv.Itoa(int(c.Port))
	}
	return "tcp", net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
}

// pass carries a connection until one side closes it. When it is forgotten nothing comes through, not even its end.
func (f *firewall) pass(ctx context.Context, near net.Conn, network, address string) {
	defer near.Close() //nolint:errcheck // a test's
	far, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return
	}
	defer far.Close() //nolint:errcheck // a test's
	f.mu.Lock()
	forgotten := f.forgotten
	f.mu.Unlock()
	ended := make(chan struct{}, 2)
	carry := func(to, from net.Conn) {
		_, _ = io.Copy(swallowing{to, forgotten}, from)
		ended <- struct{}{}
	}
	go carry(far, near)
	go carry(near, far)
	select {
	case <-ctx.Done():
	case <-ended:
		select {
		case <-forgotten:
			<-ctx.Done()
		default:
		}
	}
}

// swallowing writes until the connection is forgotten.
type swallowing struct {
	to        io.Writer
	forgotten <-chan struct{}
}

func (s swallowing) Write(b []byte) (int, error) {
	select {
	case <-s.forgotten:
		return len(b), nil
	default:
		return s.to.Write(b)
	}
}

// forget swallows what the connections of now carry; later ones work.
func (f *firewall) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.forgotten)
	f.forgotten = make(chan struct{})
}

// TestSilentConnectionsAreReplaced lets a firewall forget all connections of one replica. What it revokes itself is told at
// once, and what another one revokes as soon as the dead listener is noticed.
func TestSilentConnectionsAreReplaced(t *testing.T) {
	t.Parallel()
	db := migrated(t)
	wall, other := throughFirewall(t, db), opened(t, db)
	to, err := pgx.ParseConfig(db.URLFor(migrations.Application))
	if err != nil {
		t.Fatal(err)
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(to.User, to.Password), Host: wall.address, Path: to.Database, RawQuery: "sslmode=disable"}
	st, err := postgres.Open(t.Context(), settings(t, u.String()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(st.Close)
	running(t, st)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	changed, err := st.WatchDesired(ctx, tenantA, "agent")
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []struct {
		what  string
		store *postgres.Store
	}{{"another replica", other}, {"itself", st}} {
		wall.forget()
		begun := time.Now()
		notify(t, from.store, fleet.DesiredChanged, "agent")
		select {
		case <-changed:
			t.Logf("a change by %s is told after %s", from.what, time.Since(begun).Round(time.Millisecond))
		case <-ctx.Done():
			t.Fatalf("a change by %s is not told", from.what)
		}
	}
}
