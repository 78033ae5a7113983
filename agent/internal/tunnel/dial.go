package tunnel

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/outfeed/outfeed/internal/address"
	"github.com/outfeed/outfeed/internal/backoff"
	"github.com/outfeed/outfeed/internal/mux"
	"github.com/outfeed/outfeed/protocol/seal"
)

// Path is where a control plane accepts tunnels.
const Path = "/tunnel/v1"

// BusyError is when the control plane, or what is in front of it, does not take the connection now.
type BusyError struct {
	Status     int
	RetryAfter time.Duration
}

func (e *BusyError) Error() string {
	if e.turn() {
		return fmt.Sprintf("the control plane, or what is in front of it, is refusing connections from this address for now and asks to come back in %s (it answered %d %s): "+
			"it is busy or restarting, or too many connections come from this address, from other programs or agents behind it; "+
			"the agent comes back by itself, and what its flows produce waits here", e.RetryAfter, e.Status, http.StatusText(e.Status))
	}
	text := fmt.Sprintf("the control plane answered %d %s instead of opening the tunnel", e.Status, http.StatusText(e.Status))
	switch e.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return text + "; it is busy or restarting"
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return text + "; what answers there is a load balancer that does not reach the control plane, which may be down or restarting"
	case http.StatusNotFound:
		return text + "; check the URL"
	default:
		return text + "; check the URL, and whether a proxy in between lets WebSockets through"
	}
}

// turn says whether the answer gives a time to come back, as the control plane's own does.
func (e *BusyError) turn() bool {
	return e.RetryAfter > 0 && (e.Status == http.StatusServiceUnavailable || e.Status == http.StatusTooManyRequests)
}

// dialer reaches the control plane through whatever is in between.
type dialer struct {
	target string
	proxy  proxyFunc
	caFile string
	names  *names
	// patient says that this agent can as well come later. It is set before a connection is opened.
	patient bool
	// passwordIsGood says that the proxy has accepted its password since this agent started, and not refused it since then.
	passwordIsGood atomic.Bool
}

func newDialer(l Link) (*dialer, error) {
	u, err := address.ControlPlane(l.URL)
	if err != nil {
		return nil, err
	}
	if u.Scheme, err = webSocketScheme(u); err != nil {
		return nil, err
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + Path
	u.RawQuery, u.Fragment = "", ""
	d := &dialer{target: u.String(), caFile: l.CAFile, names: newNames()}
	if u.Scheme == "ws" {
		// This machine itself is never behind a proxy.
		return d, nil
	}
	if d.proxy, err = proxyOf(l.Proxy.Reveal()); err != nil {
		return nil, err
	}
	return d, nil
}

func webSocketScheme(u *url.URL) (string, error) {
	switch {
	case u.Scheme == "https":
		return "wss", nil
	case isLoopback(u.Hostname()):
		return "ws", nil
	default:
		return "", fmt.Errorf("%s is not encrypted; use https:// (http:// is accepted only for this machine itself, as http://127.0.0.1:PORT)", u)
	}
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// wire opens the outer connection: TCP, a proxy's CONNECT where there is one, TLS and the WebSocket upgrade. It says when each
// of these is done.
func (d *dialer) wire(ctx context.Context, done func(patience time.Duration)) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, wireTimeout, errors.New("it took longer than "+wireTimeout.String()))
	defer cancel()
	roots, err := d.roots()
	if err != nil {
		return nil, err
	}
	r := route{dialer: d, roots: roots, done: done}
	var open atomic.Bool
	// Only the upgrade is left to the transport, which would connect to one address after the other, and whose errors of a
	// proxy say less.
	transport := &http.Transport{
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			return r.plain(ctx, address)
		},
		DialTLSContext: func(_ context.Context, _, address string) (net.Conn, error) {
			conn, err := r.encrypted(ctx, address)
			open.Store(err == nil)
			return conn, err
		},
		ResponseHeaderTimeout:  stepTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives:      true,
	}
	defer transport.CloseIdleConnections()
	conn, answer, err := mux.Dial(ctx, d.target, &http.Client{ //nolint:bodyclose // Dial closes it, or it is the connection
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
	if err != nil {
		if answer != nil && answer.StatusCode != http.StatusSwitchingProtocols {
			return nil, &BusyError{Status: answer.StatusCode, RetryAfter: retryAfter(answer.Header.Get("Retry-After"), answer.Header.Get("Date"))}
		}
		return nil, d.explain(err, open.Load())
	}
	done(d.names.patience())
	return conn, nil
}

// secure runs the inner TLS session over the outer connection, which it closes when that fails.
func secure(ctx context.Context, outer net.Conn, key ed25519.PrivateKey, fingerprint string) (*tls.Conn, error) {
	config, err := seal.ClientConfig(key, fingerprint)
	if err != nil {
		return nil, errors.Join(err, outer.Close())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, stepTimeout, errors.New("no answer for "+stepTimeout.String()))
	defer cancel()
	inner := tls.Client(outer, config)
	if err := inner.HandshakeContext(ctx); err != nil {
		_ = outer.Close()
		if wrong, ok := errors.AsType[*seal.FingerprintError](err); ok {
			return nil, wrong
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		told := fmt.Errorf("agree on keys with the control plane inside the tunnel: %w", wordless(err))
		if busy := crowded(told, err, true); busy != nil {
			return nil, busy
		}
		return nil, &UnreachedError{told}
	}
	return inner, nil
}

// connect opens all three layers and gives the streams with the state of the inner TLS session. What fails is tried again soon
// while there is an address that has not been tried.
func (d *dialer) connect(ctx context.Context, key ed25519.PrivateKey, fingerprint string, log *slog.Logger) (*mux.Session, *tls.ConnectionState, error) {
	open := func(ctx context.Context, done func(time.Duration)) (*tls.Conn, error) {
		outer, err := d.wire(ctx, done)
		if err != nil {
			return nil, err
		}
		return secure(ctx, outer, key, fingerprint)
	}
	inner, err := hedge(ctx, open)
	for err != nil && ctx.Err() == nil && d.goesElsewhere(err) {
		log.WarnContext(ctx, "an address of the control plane leads nowhere, and another one is tried", slog.String("error", err.Error()))
		if backoff.Sleep(ctx, rand.N(elsewhereWithin)) != nil { //nolint:gosec // jitter needs no cryptographic randomness
			break
		}
		inner, err = hedge(ctx, open)
	}
	if err != nil {
		return nil, nil, err
	}
	streams, err := mux.Client(inner, log)
	if err != nil {
		return nil, nil, errors.Join(err, inner.Close())
	}
	state := inner.ConnectionState()
	return streams, &state, nil
}

// elsewhereWithin is how soon another address is tried after one that led nowhere.
const elsewhereWithin = time.Second

// goesElsewhere says whether a try failed that may do better over another address.
func (d *dialer) goesElsewhere(err error) bool {
	_, proxy := errors.AsType[*ProxyError](err)
	_, unsure := errors.AsType[*UnsurePasswordError](err)
	return !proxy && !unsure && d.names.hasUntried() && d.names.mayGoElsewhere()
}

// explain takes off what the layers in between have put before an error, and marks the silence behind an open connection.
// open is whether TLS was through.
func (d *dialer) explain(err error, open bool) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	told := fmt.Errorf("connect to %s: %w", d.target, wordless(err))
	if answered(err) {
		return told
	}
	if busy := crowded(told, err, open); busy != nil {
		return busy
	}
	return &UnreachedError{told}
}

// wordless says what it can mean that a connection was closed before anything was said on it.
func wordless(err error) error {
	if !isCut(err) {
		return err
	}
	return fmt.Errorf("the connection was closed without a word (%w): by a firewall or a load balancer, or by the control plane, which is busy, "+
		"restarting, or refuses connections from this address for now because too many come from it; the agent comes back by itself", err)
}

// answered says whether an error came of an answer: the control plane's, a proxy's, a certificate that is not trusted, or
// what is said by who has no time.
func answered(err error) bool {
	_, proxy := errors.AsType[*ProxyError](err)
	_, certificate := errors.AsType[*CertificateError](err)
	_, crowded := errors.AsType[*CrowdedError](err)
	return proxy || certificate || crowded
}

func (d *dialer) roots() (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if d.caFile == "" {
		return roots, nil
	}
	pem, err := os.ReadFile(d.caFile)
	if err != nil {
		return nil, fmt.Errorf("read the certificate authorities: %w", err)
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", d.caFile)
	}
	return roots, nil
}

// retryAfter reads the header of that name: seconds or a date, at most a quarter of an hour. Anybody in between can write it,
// as a proxy does with a page for a day of maintenance; the control plane itself asks for a minute at most. A date is compared
// with the answer's own, if it has one, because this machine's clock may be wrong.
func retryAfter(header, date string) time.Duration {
	const longest = 15 * time.Minute
	if seconds, err := strconv.ParseUint(header, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, longest)
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	from, err := http.ParseTime(date)
	if err != nil {
		from = time.Now()
	}
	return min(max(at.Sub(from), 0), longest)
}
