package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/outfeed/outfeed/internal/socket"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	// reachTimeout bounds the search for an address that works, TLS included, stepTimeout each step behind it: a proxy's
	// answer, TLS through the proxy, the upgrade, the inner handshake and the hello. A link of 2 s delay that loses every
	// fifth packet takes 40 s for a step now and then. wireTimeout bounds all up to the upgrade.
	reachTimeout = 30 * time.Second
	stepTimeout  = 60 * time.Second
	wireTimeout  = 2 * time.Minute
	// roundEvery is how often the addresses are looked up and tried anew while none has answered. A SYN that was lost is
	// sent again after 1, 3, 7 and 15 s, which is too late for a path that has just healed.
	roundEvery = 5 * time.Second
	// headStart is how long an address is tried alone before the next one is tried beside it.
	// https://www.rfc-editor.org/rfc/rfc8305#section-8
	headStart = 250 * time.Millisecond
	// maxAddresses bounds the addresses of one name that are tried in a round.
	maxAddresses = 16
	// Where manyShaking handshakes with an address go on, the next one begins no sooner than shakeEvery behind the last: a path
	// that has healed is found soon, and a control plane that is slow because all its agents come at once is not burdened by
	// ever more.
	manyShaking = 2
	shakeEvery  = 10 * time.Second
)

// UnreachedError is when nothing answered in the name of the control plane: the path there is broken, or it is not
// running. Such a try burdens nobody, so the next one may come soon.
type UnreachedError struct{ Err error }

func (e *UnreachedError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *UnreachedError) Unwrap() error { return e.Err }

// route opens the connection that the WebSocket upgrade runs on.
type route struct {
	*dialer
	roots *x509.CertPool
	// done is told of each step, and how long the next one may take before all is tried anew beside it.
	done func(patience time.Duration)
}

// plain connects to this machine.
func (r route) plain(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("read the address of the control plane: %w", err)
	}
	return r.moved(r.reach(ctx, host, port, dialTCP))
}

// moved tells of a connection on which nothing has been asked yet.
func (r route) moved(conn net.Conn, err error) (net.Conn, error) {
	if err == nil {
		r.done(r.names.patience())
	}
	return conn, err
}

// encrypted connects to the control plane, directly or through the proxy, and runs the outer TLS handshake.
func (r route) encrypted(ctx context.Context, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("read the address of the control plane: %w", err)
	}
	via, err := r.proxyFor(ctx)
	if err != nil {
		return nil, err
	}
	if via == nil {
		return r.moved(r.reach(ctx, host, port, r.dialTLS(host)))
	}
	conn, err := r.through(ctx, via, address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, stepTimeout, errors.New("no answer for "+stepTimeout.String()))
	defer cancel()
	outer, err := r.handshake(ctx, conn, host)
	if err != nil && !answered(err) {
		err = &UnreachedError{err}
	}
	return r.moved(outer, err)
}

// attempt connects to one address. It says when it is connected and goes on to a handshake, and when that has ended.
type attempt func(ctx context.Context, address string, shake func() (end func())) (net.Conn, error)

// dialTCP is an attempt without a handshake.
func dialTCP(ctx context.Context, address string, _ func() func()) (net.Conn, error) {
	return (&net.Dialer{Control: socket.Control}).DialContext(ctx, "tcp", address) //nolint:wrapcheck // it says what and where
}

// dialTLS counts an address as working only when the TLS handshake is through: behind a router that drops big packets, or
// on a half-dead load balancer, TCP alone connects.
func (r route) dialTLS(host string) attempt {
	return func(ctx context.Context, address string, shake func() func()) (net.Conn, error) {
		conn, err := dialTCP(ctx, address, nil)
		if err != nil {
			return nil, err
		}
		defer shake()()
		return r.handshake(ctx, conn, host)
	}
}

// handshake runs the outer TLS handshake over conn, which it closes when that fails.
func (r route) handshake(ctx context.Context, conn net.Conn, host string) (net.Conn, error) {
	config, said := outerConfig(r.roots, host), false
	if r.patient {
		config.NextProtos = append(config.NextProtos, wire.PatientProtocol)
	}
	verify := config.VerifyConnection
	config.VerifyConnection = func(s tls.ConnectionState) error {
		said = true
		return verify(s)
	}
	outer := tls.Client(conn, config)
	if err := outer.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if wrong, ok := errors.AsType[*CertificateError](err); ok {
			return nil, wrong
		}
		told := fmt.Errorf("begin TLS with %s: %w", conn.RemoteAddr(), err)
		if busy := crowded(told, err, said); busy != nil {
			return nil, busy
		}
		return nil, told
	}
	return outer, nil
}

// reach connects to a host. All its addresses are tried, one a little after the other, and the first that works wins;
// while none answers, they are looked up and tried again beside those that still wait.
func (d *dialer) reach(ctx context.Context, host, port string, open attempt) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, reachTimeout, errors.New("no answer for "+reachTimeout.String()))
	r := &race{names: d.names, host: host, port: port, open: open, shaking: map[string]shakes{}}
	d.names.begin()
	var rounds sync.WaitGroup
	defer rounds.Wait()
	defer cancel()
	results := make(chan net.Conn)
	running := 0
	start := func() {
		running++
		rounds.Go(func() { deliver(ctx, results, r.round(ctx)) })
	}
	start()
	again := time.NewTicker(roundEvery)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			start()
		case <-ctx.Done():
			return nil, r.unreached(context.Cause(ctx))
		case conn := <-results:
			if conn != nil {
				d.names.reached(host, conn)
				return conn, nil
			}
			if running--; running == 0 {
				return nil, r.unreached(errNoAddress)
			}
		}
	}
}

// race is the search for an address of a host that works.
type race struct {
	names      *names
	host, port string
	open       attempt

	mu     sync.Mutex
	failed error
	// shaking are the handshakes that go on with each address.
	shaking map[string]shakes
}

// shakes are how many handshakes go on, and when the last one began.
type shakes struct {
	count int
	last  time.Time
}

// shake notes that a handshake begins with an address, until end.
func (r *race) shake(address string) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shaking[address] = shakes{r.shaking[address].count + 1, time.Now()}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		s := r.shaking[address]
		s.count--
		r.shaking[address] = s
	}
}

// isBusy says whether enough handshakes go on with an address for now.
func (r *race) isBusy(address string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.shaking[address]
	// The rounds come by a clock of their own, a little sooner or later than this.
	return s.count >= manyShaking && time.Since(s.last) < shakeEvery-roundEvery/2
}

// note keeps the error that says most: that of a certificate, else of who has no time, else of a connection, else of a lookup.
func (r *race) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if weight(err) >= weight(r.failed) {
		r.failed = err
	}
}

func weight(err error) int {
	if err == nil {
		return 0
	}
	if _, ok := errors.AsType[*CertificateError](err); ok {
		return 4
	}
	if _, ok := errors.AsType[*CrowdedError](err); ok {
		return 3
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return 1
	}
	return 2
}

// errNoAddress is when a name resolves to nothing.
var errNoAddress = errors.New("the name has no address")

// unreached marks the error of a path on which nothing has answered. A certificate is an answer, and so is a cut of one. silence is what it is
// when no try has failed.
func (r *race) unreached(silence error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = silence
	}
	if answered(r.failed) {
		return r.failed
	}
	if lookup, ok := errors.AsType[*net.DNSError](r.failed); ok {
		return &UnreachedError{fmt.Errorf("the name %s cannot be resolved (%s); check the name, and the DNS server of this machine: %w", r.host, lookup.Err, r.failed)}
	}
	return &UnreachedError{r.failed}
}

// deliver hands over a connection, or nil when there is none, and closes what nobody waits for any more.
func deliver(ctx context.Context, to chan<- net.Conn, conn net.Conn) {
	select {
	case to <- conn:
	case <-ctx.Done():
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// round looks the host up and tries its addresses until one works; nil when all have failed.
func (r *race) round(ctx context.Context) net.Conn {
	ctx, cancel := context.WithCancel(ctx)
	var workers sync.WaitGroup
	defer workers.Wait()
	defer cancel()
	answers := make(chan []netip.Addr)
	workers.Go(func() {
		defer close(answers)
		r.lookup(ctx, answers)
	})
	results := make(chan net.Conn)
	waiting := lineup{names: r.names, until: time.Now().Add(heldBack)}
	seen := map[netip.Addr]bool{}
	trying := 0
	next := time.NewTimer(0)
	defer next.Stop()
	for answers != nil || !waiting.isEmpty() || trying > 0 {
		select {
		case <-ctx.Done():
			return nil
		case found, ok := <-answers:
			if !ok {
				answers = nil
			}
			waiting.add(fresh(found, seen))
			if trying == 0 {
				next.Reset(0)
			}
		case <-next.C:
			at, wait, ok := waiting.next(answers != nil || trying > 0)
			if !ok {
				if wait > 0 {
					next.Reset(wait)
				}
				continue
			}
			address := net.JoinHostPort(at.String(), r.port)
			if r.isBusy(address) {
				next.Reset(0)
				continue
			}
			trying++
			workers.Go(func() { deliver(ctx, results, r.try(ctx, at)) })
			next.Reset(headStart)
		case conn := <-results:
			if conn != nil {
				return conn
			}
			trying--
			next.Reset(0)
		}
	}
	return nil
}

func (r *race) try(ctx context.Context, at netip.Addr) net.Conn {
	began, address := time.Now(), net.JoinHostPort(at.String(), r.port)
	conn, err := r.open(ctx, address, func() func() { return r.shake(address) })
	if err != nil && ctx.Err() == nil {
		r.note(err)
	}
	if err != nil && (ctx.Err() == nil || time.Since(began) >= fairTry) {
		r.names.failed(at)
	}
	return conn
}

// fresh is what is new of the found addresses, as many as may be tried.
func fresh(found []netip.Addr, seen map[netip.Addr]bool) []netip.Addr {
	var out []netip.Addr
	for _, a := range found {
		if a = a.Unmap(); !seen[a] && len(seen) < maxAddresses {
			seen[a] = true
			out = append(out, a)
		}
	}
	return out
}

// interleave takes from both in turn, so that a family of addresses that leads nowhere does not hold up the other.
func interleave(a, b []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(a)+len(b))
	for i := range max(len(a), len(b)) {
		if i < len(b) {
			out = append(out, b[i])
		}
		if i < len(a) {
			out = append(out, a[i])
		}
	}
	return out
}
