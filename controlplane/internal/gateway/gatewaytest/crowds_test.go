package gatewaytest_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outfeed/outfeed/controlplane/internal/gateway/gatewaytest"
	"github.com/outfeed/outfeed/internal/mux"
)

// crowdVariable has the test's own program be a crowd of attackers, in a process of its own.
const crowdVariable = "OUTFEED_TEST_CROWD"

// siege is a crowd of attackers who come back when they lose their connection.
type siege struct {
	// Address is the host's, Dir its folder.
	Address string `json:"address"`
	Dir     string `json:"dir"`
	// Fingerprint is the host's, for those who go as far as the inner session.
	Fingerprint string `json:"fingerprint"`
	// Kind is what they do, Attackers how many they are, and Sources from how many addresses they come.
	Kind      string `json:"kind"`
	Attackers int    `json:"attackers"`
	Sources   int    `json:"sources"`
	// Pause is how long each waits until it comes back, as the tools for this do. With 0 a crowd this large comes so often
	// that what it costs is handshakes.
	Pause time.Duration `json:"pause"`
}

// kinds are what attackers do with a connection, until it ends, when clients who come anew are served beside them.
func kinds() map[string]func(ctx context.Context, dial dialer) error {
	return map[string]func(ctx context.Context, dial dialer) error{
		"slow headers":   dribble("GET / HTTP/1.1\r\nHost: h\r\nX: "),
		"slow sign-ins":  dribble("POST /api/v1/session HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n{\"api_key\":\""),
		"slow bodies":    dribble("POST /api/v1/flows/check HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + gatewaytest.APIKey + "\r\nContent-Type: application/json\r\nContent-Length: 1900000\r\n\r\n{\"text\":\"" + strings.Repeat("x", 100_000)),
		"unread bodies":  dribble("GET /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n"),
		"idle":           dribble("GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
		"connections":    silent,
		"handshakes":     handshakes,
		"half-open":      dribble("GET /tunnel/v1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"),
		"unread answers": unread,
	}
}

// others are what attackers do beside whom agents may have to try again.
func others() map[string]func(ctx context.Context, dial dialer) error {
	return map[string]func(ctx context.Context, dial dialer) error{
		"half-open TLS": hello, "strangers": func(ctx context.Context, dial dialer) error { return inside(ctx, dial, nil) },
		"comers and goers": func(ctx context.Context, dial dialer) error { return inside(ctx, dial, comeAndGo) },
	}
}

// hello begins the outer TLS, and never reads the answer.
func hello(ctx context.Context, dial dialer) error {
	conn, err := dial.tcp(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	config := dial.config.Clone()
	if config.ServerName, _, err = net.SplitHostPort(dial.Address); err == nil {
		err = tls.Client(deaf{conn}, config).HandshakeContext(ctx)
	}
	return errors.Join(err, conn.Close())
}

// deaf is a connection of which nothing is heard until its end.
type deaf struct{ net.Conn }

func (d deaf) Read([]byte) (int, error) {
	if _, err := io.Copy(io.Discard, d.Conn); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

// inside goes as far as the inner session, with a key that is an agent's, and then does something, or says nothing.
func inside(ctx context.Context, dial dialer, do func(context.Context, *agent) error) error {
	h := &host{Ready: gatewaytest.Ready{URL: "https://" + dial.Address, Fingerprint: dial.Fingerprint}, roots: dial.config.RootCAs}
	inner, key, err := h.insideBy(ctx, &http.Client{Transport: &http.Transport{TLSClientConfig: h.tls(), DisableKeepAlives: true, DialContext: dial.DialContext}})
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = inner.NetConn().Close() })
	defer stop()
	if do == nil {
		_, err = io.Copy(io.Discard, inner)
		return errors.Join(err, inner.Close())
	}
	a := &agent{inner: inner}
	if a.streams, err = mux.Client(inner, slog.New(slog.DiscardHandler)); err != nil {
		return errors.Join(err, inner.Close())
	}
	return errors.Join(a.hello(key), do(ctx, a), a.streams.Close())
}

func comeAndGo(context.Context, *agent) error { return nil }

type dialer struct {
	net.Dialer
	siege
	config *tls.Config
}

func (d dialer) tcp(ctx context.Context) (net.Conn, error) {
	return d.DialContext(ctx, "tcp", d.Address)
}

func (d dialer) tls(ctx context.Context) (net.Conn, error) {
	return (&tls.Dialer{NetDialer: &d.Dialer, Config: d.config}).DialContext(ctx, "tcp", d.Address)
}

// dribble says something, and then a byte each second.
func dribble(begin string) func(context.Context, dialer) error {
	return func(ctx context.Context, dial dialer) error {
		conn, err := dial.tls(ctx)
		if err != nil {
			return err
		}
		defer conn.Close() //nolint:errcheck // it is over
		ended := make(chan struct{})
		var reading sync.WaitGroup
		defer reading.Wait()
		defer conn.Close() //nolint:errcheck // ends the reading
		reading.Go(func() {
			defer close(ended)
			_, _ = io.Copy(io.Discard, conn)
		})
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for text := begin; ; text = "x" {
			if _, err = conn.Write([]byte(text)); err != nil {
				return err
			}
			select {
			case <-tick.C:
			case <-ended:
				return io.EOF
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// silent connects and says nothing.
func silent(ctx context.Context, dial dialer) error {
	conn, err := dial.tcp(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_, err = io.Copy(io.Discard, conn)
	return errors.Join(err, conn.Close())
}

// handshakes begins one after the other.
func handshakes(ctx context.Context, dial dialer) error {
	conn, err := dial.tls(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}

// unread asks again and again, and takes no answer.
func unread(ctx context.Context, dial dialer) error {
	conn, err := dial.tls(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close() //nolint:errcheck // it is over
	return endlessly(conn, []byte(strings.Repeat("GET /api/v1/openapi.json HTTP/1.1\r\nHost: h\r\n\r\n", 100)))
}

// crowdProgram is a siege until its standard input ends. It prints how often an attacker came, in each second.
func crowdProgram(text string) error {
	if err := yielding(); err != nil {
		return err
	}
	var s siege
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	config, err := trusting(s.Dir)
	if err != nil {
		return err
	}
	all := kinds()
	maps.Copy(all, others())
	maps.Copy(all, h2Kinds())
	do := all[s.Kind]
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	var came atomic.Int64
	var running sync.WaitGroup
	for n := range s.Attackers {
		d := dialer{siege: s, config: config}
		if s.Sources > 1 {
			d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 1, byte(n%s.Sources>>8), byte(n%s.Sources))} //nolint:gosec // as wanted
		} // else that of everybody else here
		running.Go(func() {
			for ctx.Err() == nil {
				came.Add(1)
				_ = do(ctx, d)
				if s.Pause > 0 {
					pause(ctx, s.Pause)
				}
			}
		})
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			fmt.Println(came.Swap(0))
		case <-ctx.Done():
		}
	}
	running.Wait()
	return nil
}

func pause(ctx context.Context, how time.Duration) {
	timer := time.NewTimer(how)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// yielding starts this program anew so that it gets no processor that anybody else wants. Attackers have machines of their
// own, so they do not take the processor from whom they attack. In Linux a policy is a thread's, and the threads of a program
// that is started have that of the thread that starts it.
func yielding() error {
	runtime.LockOSThread()
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return err
	}
	if attr.Policy == unix.SCHED_IDLE {
		runtime.UnlockOSThread()
		return nil
	}
	if err = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
		return fmt.Errorf("take the lowest priority: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, os.Environ()) //nolint:gosec // it is this program
}

// probe is what an honest client does, at a fixed rate and with a new connection each time. A client that comes late
// because the one before took long would hide what those that do not wait see: so nobody waits, and time counts from when
// the client was to begin.
type probe struct {
	name  string
	every time.Duration
	do    func(ctx context.Context) error

	mu     sync.Mutex
	took   []time.Duration
	failed []error
}

func (p *probe) run(ctx context.Context) {
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	var all sync.WaitGroup
	defer all.Wait()
	for n, began := 1, time.Now(); ; n++ {
		intended := began.Add(time.Duration(n) * p.every)
		for time.Now().Before(intended) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
		all.Go(func() {
			err := p.do(context.WithoutCancel(ctx))
			took := time.Since(intended)
			p.mu.Lock()
			defer p.mu.Unlock()
			p.took = append(p.took, took)
			if err != nil {
				p.failed = append(p.failed, err)
			}
		})
	}
}

// p99 counts one that failed as the slowest of all.
func (p *probe) p99() time.Duration {
	took := append(slices.Clone(p.took), slices.Repeat([]time.Duration{deadline}, len(p.failed))...)
	slices.Sort(took)
	return took[len(took)*99/100]
}

// connected are clients of the API who keep their connections, of which each has a few.
func (h *host) connected(t *testing.T) []*probe {
	t.Helper()
	const clients = 16
	transport := &http.Transport{TLSClientConfig: h.tls(), MaxConnsPerHost: clients, MaxIdleConnsPerHost: clients}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: deadline}
	get := func(ctx context.Context) error {
		_, err := h.get(ctx, client, "/api/v1/agents")
		return err
	}
	return []*probe{{name: "API", every: 25 * time.Millisecond, do: get}}
}

// probes are what has to go on: the API, whether the replica is ready, and agents that connect.
func (h *host) probes() []*probe {
	get := func(path string) func(context.Context) error {
		client := h.client(true)
		return func(ctx context.Context) error {
			_, err := h.get(ctx, client, path)
			return err
		}
	}
	agent := func(ctx context.Context) error {
		a, err := h.connect(ctx)
		if err != nil {
			return err
		}
		return a.streams.Close()
	}
	return []*probe{
		{name: "API", every: 25 * time.Millisecond, do: get("/api/v1/agents")},
		{name: "readyz", every: 50 * time.Millisecond, do: get("/readyz")},
		{name: "agents", every: 100 * time.Millisecond, do: agent},
	}
}

// back is how long attackers wait until they come back.
const back = time.Second

// TestCrowds has crowds of attackers at a gateway in a process of its own, from one address, the same as everybody else's,
// and from many. Honest clients, who come anew each time, are served in time, and the memory stays within bounds.
func TestCrowds(t *testing.T) {
	inTurn(t)
	attackers, lasts, what := 1000, time.Second, []string{"slow headers", "slow bodies"}
	if *long {
		attackers, lasts, what = 5000, 20*time.Second, slices.Sorted(maps.Keys(kinds()))
	}
	for _, kind := range what {
		for _, sources := range []int{1, 1000} {
			t.Run(fmt.Sprintf("%s from %d", kind, sources), func(t *testing.T) {
				h := startHost(t, t.TempDir())
				h.besieged(t, siege{Kind: kind, Attackers: attackers, Sources: sources, Pause: back}, h.probes(), lasts)
			})
		}
	}
}

// TestStorm has attackers who come back at once, so that they begin handshakes as fast as these can be computed. Whoever is
// connected already goes on in time, and the memory stays within bounds; new clients have to try again.
func TestStorm(t *testing.T) {
	inTurn(t)
	attackers, lasts := 500, time.Second
	if *long {
		attackers, lasts = 5000, 20*time.Second
	}
	for _, sources := range []int{1, 1000} {
		t.Run(fmt.Sprintf("from %d", sources), func(t *testing.T) {
			h := startHost(t, t.TempDir())
			h.besieged(t, siege{Kind: "slow headers", Attackers: attackers, Sources: sources}, h.connected(t), lasts)
		})
	}
}

// allowed is how many of so many clients may fail. The short form shares its machine with others, and looks only whether all
// but a few are served.
func allowed(clients int) int {
	if *long {
		return clients / 100
	}
	return max(1, clients/4)
}

// check holds a probe to what it must find: at length within a time too.
func (p *probe) check(t *testing.T) {
	t.Helper()
	slices.Sort(p.took)
	t.Logf("  %s: %d, p50 %v, p99 %v, %d failed", p.name, len(p.took), p.took[len(p.took)/2], p.p99(), len(p.failed))
	if *long && p.p99() > maxP99 || len(p.failed) > allowed(len(p.took)) {
		t.Errorf("%s: the p99 is %v; %d of %d failed: %v", p.name, p.p99(), len(p.failed), len(p.took), errors.Join(p.failed[:min(3, len(p.failed))]...))
	}
}

// load is how many wanted the processor lately.
func load(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))[0]
}

// sieged is a siege of this host.
func (h *host) sieged(s siege) siege {
	s.Address, s.Dir, s.Fingerprint = strings.TrimPrefix(h.URL, "https://"), h.dir, h.Fingerprint
	return s
}

func (h *host) besieged(t *testing.T, s siege, probes []*probe, lasts time.Duration) {
	t.Helper()
	s = h.sieged(s)
	for _, p := range probes {
		if err := p.do(t.Context()); err != nil {
			t.Fatalf("%s before the siege: %v", p.name, err)
		}
	}
	bystander, err := h.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before, busy := h.stats("?collect").RSS, load(t)
	crowd := startCrowd(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	var running sync.WaitGroup
	for _, p := range probes {
		running.Go(func() { p.run(ctx) })
	}
	var peak int64
	running.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			peak = max(peak, h.rss())
			<-tick.C
		}
	})
	var batches int
	running.Go(func() {
		if batches, err = bystander.report(ctx); err != nil {
			t.Errorf("another agent: %v", err)
		}
	})
	running.Wait()
	after := h.stats("")
	came := crowd.end()
	grew := peak - before
	t.Logf("%d attackers, %d sources, coming %v times a second, at a load of %s before: memory grew by %.1f MiB, %d batches of another agent", s.Attackers, s.Sources, came, busy, mib(grew), batches)
	h.handshakes(after)
	for _, p := range probes {
		p.check(t)
	}
	if grew > maxGrowth {
		t.Errorf("memory grew by %d bytes", grew)
	}
	if batches == 0 {
		t.Error("another agent got nothing through")
	}
	if err := bystander.streams.Close(); err != nil {
		t.Error(err)
	}
}

// besiegers is a siege's process.
type besiegers struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout io.Reader
}

func startCrowd(t *testing.T, s siege) *besiegers {
	t.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b := &besiegers{cmd: exec.Command(self)} //nolint:noctx,gosec // end ends it
	b.cmd.Env = append(os.Environ(), crowdVariable+"="+string(text))
	b.cmd.Stderr = t.Output()
	if b.stdin, err = b.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if b.stdout, err = b.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err = b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return b
}

// end ends it, and gives what it printed.
func (b *besiegers) end() []string {
	_ = b.stdin.Close() // it ends with it
	said, _ := io.ReadAll(b.stdout)
	_ = b.cmd.Wait()
	return strings.Fields(string(said))
}
