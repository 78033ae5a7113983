package gatewaytest_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outfeed/outfeed/controlplane/internal/gateway/gatewaytest"
	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

// long is set by make faults.
var long = flag.Bool("long", false, "run the tests of faults at length")

// deadline is how long anything here may take to come about; nothing fails because a machine is slow.
const deadline = 3 * time.Minute

// programs builds the child processes once.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "outfeed-tunnels")
	if err != nil {
		return "", err
	}
	c := exec.Command("go", "build", "-o", dir, //nolint:gosec // the test's own time limit bounds it
		"./controlplane/internal/gateway/gatewaytest/cmd/host", "./agent/internal/tunnel/cmd/swarm")
	c.Dir = filepath.Join("..", "..", "..", "..")
	if out, err := c.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("build the child processes: %w\n%s", err, out)
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	if crowd := os.Getenv(crowdVariable); crowd != "" {
		if err := crowdProgram(crowd); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	code := m.Run()
	if dir, _ := programs(); dir != "" {
		_ = os.RemoveAll(dir)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// child is a process that ends when its standard input does.
type child struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout io.Reader
	ended  sync.Once
}

func start(t *testing.T, name string, args ...string) *child {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: exec.Command(filepath.Join(dir, name), args...)} //nolint:gosec,noctx // it was built just now, and kill ends it
	c.cmd.Stderr = t.Output()
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if c.stdout, err = c.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err = c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

// kill ends it as a power cut would, and waits.
func (c *child) kill() {
	c.ended.Do(func() {
		_ = c.cmd.Process.Signal(syscall.SIGKILL) // it may have ended
		_ = c.cmd.Wait()
	})
}

// stop asks it to end, and waits.
func (c *child) stop() {
	c.ended.Do(func() {
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
		_ = c.cmd.Wait()
	})
}

// host is a gateway in a process of its own.
type host struct {
	*child
	gatewaytest.Ready
	dir   string
	roots *x509.CertPool
	api   *http.Client
}

func startHost(t *testing.T, dir string, args ...string) *host {
	t.Helper()
	h := &host{dir: dir}
	h.child = start(t, "host", append([]string{"-dir", dir}, args...)...)
	line, err := bufio.NewReader(h.stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("the host did not start: %v", err)
	}
	if err = json.Unmarshal(line, &h.Ready); err != nil {
		t.Fatal(err)
	}
	trusted, err := trusting(dir)
	if err != nil {
		t.Fatal(err)
	}
	h.roots = trusted.RootCAs
	h.api = h.client(false)
	return h
}

// trusting is a client's configuration for the host with this folder.
func trusting(dir string) (*tls.Config, error) {
	pem, err := os.ReadFile(filepath.Join(dir, gatewaytest.CAFile))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate")
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, nil
}

func (h *host) tls() *tls.Config { return &tls.Config{RootCAs: h.roots, MinVersion: tls.VersionTLS13} }

// client is an HTTP client, whose requests each open a connection when fresh.
func (h *host) client(fresh bool) *http.Client {
	transport := &http.Transport{TLSClientConfig: h.tls(), DisableKeepAlives: fresh}
	h.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: deadline}
}

func (h *host) get(ctx context.Context, c *http.Client, path string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+gatewaytest.APIKey)
	answer, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close() //nolint:errcheck // it is only read
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, answer.Status)
	}
	return body, err
}

func (h *host) stats(query string) gatewaytest.Stats {
	h.t.Helper()
	var s gatewaytest.Stats
	body, err := h.get(h.t.Context(), h.api, "/test/stats"+query)
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// rss is the resident memory of the host's process in bytes.
func (h *host) rss() int64 {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(h.cmd.Process.Pid), "status"))
	if err != nil {
		h.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			if err != nil {
				h.t.Fatal(err)
			}
			return kb << 10
		}
	}
	h.t.Fatal("no resident memory")
	return 0
}

// eventually tries until it works.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	limit := time.NewTimer(deadline)
	defer limit.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// agent is an agent that a test leads by the hand.
type agent struct {
	inner   *tls.Conn
	streams *mux.Session
	control *mux.Stream
}

// inside opens the layers up to the inner TLS session.
func (h *host) inside(ctx context.Context) (*tls.Conn, ed25519.PrivateKey, error) {
	return h.insideBy(ctx, &http.Client{Transport: &http.Transport{TLSClientConfig: h.tls(), DisableKeepAlives: true}})
}

func (h *host) insideBy(ctx context.Context, client *http.Client) (*tls.Conn, ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	inner, err := h.insideAs(ctx, client, key)
	return inner, key, err
}

func (h *host) insideAs(ctx context.Context, client *http.Client, key ed25519.PrivateKey) (*tls.Conn, error) {
	config, err := seal.ClientConfig(key, h.Fingerprint)
	if err != nil {
		return nil, err
	}
	conn, _, err := mux.Dial(ctx, h.URL+"/tunnel/v1", client) //nolint:bodyclose // it is the connection
	if err != nil {
		return nil, err
	}
	inner := tls.Client(conn, config)
	if err = inner.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return inner, nil
}

// connect says hello and waits for the welcome.
func (h *host) connect(ctx context.Context) (*agent, error) {
	return h.connectBy(ctx, &http.Client{Transport: &http.Transport{TLSClientConfig: h.tls(), DisableKeepAlives: true}})
}

func (h *host) connectBy(ctx context.Context, client *http.Client) (*agent, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return h.connectAs(ctx, client, key)
}

func (h *host) connectAs(ctx context.Context, client *http.Client, key ed25519.PrivateKey) (*agent, error) {
	inner, err := h.insideAs(ctx, client, key)
	if err != nil {
		return nil, err
	}
	a := &agent{inner: inner}
	if a.streams, err = mux.Client(inner, slog.New(slog.DiscardHandler)); err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	if err = a.hello(key); err != nil {
		return nil, errors.Join(err, a.streams.Close())
	}
	return a, nil
}

func (a *agent) hello(key ed25519.PrivateKey) error {
	state := a.inner.ConnectionState()
	message, err := seal.HelloMessage(&state, 1)
	if err != nil {
		return err
	}
	if a.control, err = a.open(wire.KindControl); err != nil {
		return err
	}
	hello := &wire.Hello{Counter: 1, Signature: ed25519.Sign(key, message)}
	if err = wire.WriteMessage(a.control, &wire.ControlUp{Message: &wire.ControlUp_Hello{Hello: hello}}); err != nil {
		return err
	}
	down := &wire.ControlDown{}
	if err = wire.ReadMessage(a.control, down); err != nil {
		return err
	}
	if down.GetWelcome() == nil {
		return fmt.Errorf("instead of a welcome came %v", down)
	}
	return nil
}

func (a *agent) open(kind wire.Kind) (*mux.Stream, error) {
	stream, err := a.streams.Open()
	if err != nil {
		return nil, err
	}
	return stream, wire.WriteMessage(stream, wire.NewHeader(kind))
}
