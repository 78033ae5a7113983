package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/jackc/pgx/v5"

	"github.com/outfeed/outfeed/internal/pgserver"
)

// broker is a Mosquitto with a password, whose queues are not bounded: what an agent misses, it gets later.
type broker struct {
	t                 *testing.T
	address, password string
	config            string
	process           *process
}

func newBroker(t *testing.T) *broker {
	t.Helper()
	dir := t.TempDir()
	b := &broker{t: t, address: freeAddress(t), password: rand.Text(), config: filepath.Join(dir, "mosquitto.conf")}
	host, port, err := net.SplitHostPort(b.address)
	if err != nil {
		t.Fatal(err)
	}
	passwords := filepath.Join(dir, "passwords")
	tool := program(t, "mosquitto_passwd")
	//nolint:gosec // the system's own tool
	if out, err := exec.CommandContext(t.Context(), tool, "-b", "-c", passwords, "plant", b.password).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_passwd: %v: %s", err, out)
	}
	text := fmt.Sprintf("listener %s %s\nallow_anonymous false\npassword_file %s\nmax_queued_messages 0\npersistence false\nuser root\n", port, host, passwords)
	if err := os.WriteFile(b.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start()
	return b
}

func (b *broker) start() {
	b.t.Helper()
	b.process = start(b.t, b.config+".log", nil, program(b.t, "mosquitto"), "-c", b.config)
	eventually(b.t, "the broker answers", func() error {
		c, err := net.Dial("tcp", b.address) //nolint:noctx // loopback answers at once
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// program finds a program of the system, also where Debian keeps those of administrators.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin") {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && !info.IsDir() { //nolint:gosec // a folder of PATH
			return p
		}
	}
	t.Fatalf("%s is missing: run make e2e, which installs it", name)
	return ""
}

// connection is the CONN.yaml entry of the broker, as press.
func (b *broker) connection() string {
	return fmt.Sprintf("press: {kind: mqtt, address: %q, username: plant, password: %q}\n", b.address, b.password)
}

// publisher sends numbered messages with QoS 1, each confirmed by the broker.
type publisher struct {
	t      *testing.T
	client mqtt.Client
}

func (b *broker) publisher() *publisher {
	b.t.Helper()
	o := mqtt.NewClientOptions().AddBroker("tcp://" + b.address).SetClientID("press").SetUsername("plant").SetPassword(b.password)
	p := &publisher{t: b.t, client: mqtt.NewClient(o)}
	p.wait(p.client.Connect())
	b.t.Cleanup(func() { p.client.Disconnect(0) })
	return p
}

func (p *publisher) wait(t mqtt.Token) {
	p.t.Helper()
	if !t.WaitTimeout(deadline) {
		p.t.Fatal("the broker did not answer")
	}
	if err := t.Error(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *publisher) send(topic, message string) {
	p.t.Helper()
	p.wait(p.client.Publish(topic, 1, false, message))
}

// database is a PostgreSQL of the plant's own.
type database struct {
	server *pgserver.Server
	socket string
}

func newDatabase(t *testing.T) *database {
	t.Helper()
	dir := enterable(t)
	s, err := pgserver.New(pgserver.Settings{Dir: dir, Parameters: map[string]string{"fsync": "off"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	d := &database{server: s, socket: filepath.Join(dir, "socket")}
	d.exec(t, "CREATE ROLE outfeed_mes LOGIN SUPERUSER")
	return d
}

func (d *database) connect(t *testing.T) *pgx.Conn {
	t.Helper()
	return d.connectTo(t, "postgres")
}

// connectTo connects to a database of the server as its superuser, until the test ends.
func (d *database) connectTo(t *testing.T, name string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), d.server.URL(pgserver.Superuser, name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c.Close(ctx) //nolint:errcheck // the test is over
	})
	return c
}

func (d *database) exec(t *testing.T, statements ...string) {
	t.Helper()
	c := d.connect(t)
	for _, sql := range statements {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}
