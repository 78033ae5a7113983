package tunnel

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

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
	text := fmt.Sprintf("the control plane answered %d %s instead of opening the tunnel", e.Status, http.StatusText(e.Status))
	switch e.Status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return text + "; it is busy or restarting"
	case http.StatusNotFound:
		return text + "; check the URL"
	default:
		return text + "; check the URL, and whether a proxy in between lets WebSockets through"
	}
}

// dialer reaches the control plane through whatever is in between.
type dialer struct {
	target string
	proxy  proxyFunc
	caFile string
}

func newDialer(l Link) (*dialer, error) {
	u, err := url.Parse(l.URL)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("%q is not the address of a control plane: it must read https://host or https://host:port", l.URL)
	}
	if u.Scheme, err = webSocketScheme(u); err != nil {
		return nil, err
	}
	u.Path = strings.TrimSuffix(u.Path, "/") + Path
	u.RawQuery, u.Fragment = "", ""
	d := &dialer{target: u.String(), caFile: l.CAFile}
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
	case u.Scheme == "http" && isLoopback(u.Hostname()):
		return "ws", nil
	case u.Scheme == "http":
		return "", fmt.Errorf("%s is not encrypted; use https:// (http:// is accepted only for this machine itself, as http://127.0.0.1:PORT)", u)
	default:
		return "", fmt.Errorf("%q is not the address of a control plane: it must begin with https://", u)
	}
}

type proxyFunc func(*http.Request) (*url.URL, error)

func proxyOf(setting string) (proxyFunc, error) {
	switch setting {
	case "":
		return http.ProxyFromEnvironment, nil
	case "none":
		return func(*http.Request) (*url.URL, error) { return nil, nil }, nil //nolint:nilnil // how http.Transport is told: no proxy
	}
	via, err := url.Parse(setting)
	if err != nil || via.Host == "" || (via.Scheme != "http" && via.Scheme != "https") {
		// The text may hold a password, so it is not repeated.
		return nil, errors.New("the proxy's address is not valid: it must read http://host:port or http://user:password@host:port")
	}
	return http.ProxyURL(via), nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// wire opens the outer connection: TCP, a proxy's CONNECT where there is one, TLS and the WebSocket upgrade.
func (d *dialer) wire(ctx context.Context) (net.Conn, error) {
	roots, err := d.roots()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:                  d.proxy,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  dialTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		DisableKeepAlives:      true,
		OnProxyConnectResponse: proxyAnswer,
	}
	defer transport.CloseIdleConnections()
	conn, answer, err := mux.Dial(ctx, d.target, &http.Client{ //nolint:bodyclose // Dial closes it, or it is the connection
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
	if err != nil {
		// A proxy's refusal to CONNECT comes back as an answer without a status.
		if answer != nil && answer.StatusCode != 0 && answer.StatusCode != http.StatusSwitchingProtocols {
			return nil, &BusyError{Status: answer.StatusCode, RetryAfter: retryAfter(answer.Header.Get("Retry-After"))}
		}
		return nil, fmt.Errorf("connect to %s: %w", d.target, explainTLS(err))
	}
	return conn, nil
}

// secure runs the inner TLS session over the outer connection, which it closes when that fails.
func secure(ctx context.Context, outer net.Conn, key ed25519.PrivateKey, fingerprint string) (*tls.Conn, error) {
	config, err := seal.ClientConfig(key, fingerprint)
	if err != nil {
		return nil, errors.Join(err, outer.Close())
	}
	inner := tls.Client(outer, config)
	if err := inner.HandshakeContext(ctx); err != nil {
		_ = outer.Close()
		if wrong, ok := errors.AsType[*seal.FingerprintError](err); ok {
			return nil, wrong
		}
		return nil, fmt.Errorf("agree on keys with the control plane inside the tunnel: %w", err)
	}
	return inner, nil
}

// connect opens all three layers and gives the streams with the state of the inner TLS session.
func (d *dialer) connect(ctx context.Context, key ed25519.PrivateKey, fingerprint string, log *slog.Logger) (*mux.Session, *tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, errors.New("it took longer than "+dialTimeout.String()))
	defer cancel()
	outer, err := d.wire(ctx)
	if err != nil {
		return nil, nil, err
	}
	inner, err := secure(ctx, outer, key, fingerprint)
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

// proxyAnswer turns a proxy's answer into what to do about it.
func proxyAnswer(_ context.Context, proxy *url.URL, _ *http.Request, answer *http.Response) error {
	switch answer.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusProxyAuthRequired:
		if proxy.User == nil {
			return fmt.Errorf("the proxy %s wants a user and a password; set them in the proxy's URL", proxy.Host)
		}
		return fmt.Errorf("the proxy %s does not accept this user and password", proxy.Host)
	case http.StatusForbidden:
		return fmt.Errorf("the proxy %s does not allow connections to the control plane; ask its administrator to allow CONNECT", proxy.Host)
	default:
		return fmt.Errorf("the proxy %s answered %s", proxy.Host, answer.Status)
	}
}

// explainTLS adds what to do where the outer certificate is not trusted, as behind an inspecting proxy.
func explainTLS(err error) error {
	unknown, ok := errors.AsType[x509.UnknownAuthorityError](err)
	if !ok {
		return err
	}
	issuer := "unknown"
	if unknown.Cert != nil {
		issuer = unknown.Cert.Issuer.String()
	}
	return fmt.Errorf("the server's certificate was issued by %q, which this machine does not trust; if that is your company's proxy, set its CA file: %w", issuer, err)
}

// retryAfter reads the header of that name: seconds or a date, at most a day.
func retryAfter(header string) time.Duration {
	const longest = 24 * time.Hour
	if seconds, err := strconv.ParseUint(header, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, longest)
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return min(max(time.Until(at), 0), longest)
}
