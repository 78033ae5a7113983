package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/outfeed/outfeed/internal/address"
	"github.com/outfeed/outfeed/internal/excerpt"
)

// proxyFunc gives the proxy for a request; nil for none. It is http.Transport's.
type proxyFunc func(*http.Request) (*url.URL, error)

func proxyOf(setting string) (proxyFunc, error) {
	switch setting {
	case "":
		return address.ProxyFromEnvironment, nil
	case "none":
		return func(*http.Request) (*url.URL, error) { return nil, nil }, nil //nolint:nilnil // how a proxyFunc says: no proxy
	}
	via, err := address.Proxy(setting)
	if err != nil {
		return nil, err
	}
	return http.ProxyURL(via), nil
}

// ProxyError is when a proxy refuses, so that only a person can help.
type ProxyError struct {
	// Host is the proxy's address, Problem what is wrong with it, as the end of a sentence.
	Host, Problem string
	// Credentials is set when the user and the password were not accepted. Trying them again soon may lock the account.
	Credentials bool
}

func (e *ProxyError) Error() string { return "the proxy " + e.Host + " " + e.Problem }

// UnsurePasswordError is when a proxy was told a password that it has not accepted from this agent before, and gave no answer. A
// few proxies hang up on a wrong password, or check it for longer than anybody waits. Trying it again soon may lock the account.
type UnsurePasswordError struct{ Err error }

func (e *UnsurePasswordError) Error() string {
	return e.Err.Error() + "; check the user and the password too: the agent tries them again seldom, because a few wrong passwords lock an account in many companies"
}

// Unwrap gives the cause.
func (e *UnsurePasswordError) Unwrap() error { return e.Err }

// proxyFor is the proxy that stands before the target; nil for none.
func (d *dialer) proxyFor(ctx context.Context) (*url.URL, error) {
	if d.proxy == nil {
		return nil, nil //nolint:nilnil // nil is no proxy, as in http.Transport
	}
	// The rules of NO_PROXY are for https, not for wss.
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https"+strings.TrimPrefix(d.target, "wss"), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("look for a proxy: %w", err)
	}
	return d.proxy(request)
}

// through asks the proxy for a connection to the address and gives it.
func (r route) through(ctx context.Context, via *url.URL, address string) (net.Conn, error) {
	open, port := attempt(dialTCP), "80"
	if via.Scheme == "https" {
		open, port = r.dialTLS(via.Hostname()), "443"
	}
	if via.Port() != "" {
		port = via.Port()
	}
	conn, err := r.reach(ctx, via.Hostname(), port, open)
	if _, plain := errors.AsType[tls.RecordHeaderError](err); plain {
		return nil, &UnreachedError{fmt.Errorf("the proxy %s does not speak TLS there; check its port, and whether its address must begin with http:// instead of https://: %w", via.Host, err)}
	}
	if err != nil {
		return nil, fmt.Errorf("the proxy %s cannot be reached; check its address, and whether it runs: %w", via.Host, err)
	}
	r.done(r.proxyPatience(via))
	if err := r.judge(via, ask(ctx, conn, via, address)); err != nil {
		_ = conn.Close()
		return nil, err
	}
	r.done(stepPatience)
	return conn, nil
}

// proxyPatience is how long a proxy may take for its answer before all is tried anew beside it.
func (d *dialer) proxyPatience(via *url.URL) time.Duration {
	switch {
	case via.User == nil:
		return stepPatience
	case d.passwordIsGood.Load():
		return passwordPatience
	default:
		return unsurePatience
	}
}

// judge notes what the outcome of a CONNECT says of the password, and marks the silence after one that may be wrong.
func (d *dialer) judge(via *url.URL, err error) error {
	if via.User == nil {
		return err
	}
	if err == nil {
		d.passwordIsGood.Store(true)
		return nil
	}
	if refusal, ok := errors.AsType[*ProxyError](err); ok && refusal.Credentials {
		d.passwordIsGood.Store(false)
	}
	if silence, ok := errors.AsType[*unansweredError](err); ok && !d.passwordIsGood.Load() {
		return &UnsurePasswordError{silence}
	}
	return err
}

// unansweredError is when a proxy was asked, at least in part, and has not answered as one does.
type unansweredError struct{ err error }

func (e *unansweredError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *unansweredError) Unwrap() error { return e.err }

// ask sends a CONNECT and reads the answer.
func ask(ctx context.Context, conn net.Conn, via *url.URL, address string) error {
	if err := conn.SetDeadline(time.Now().Add(stepTimeout)); err != nil {
		return fmt.Errorf("bound the wait for the proxy: %w", err)
	}
	// Closing is what ends a read that waits.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	request := &http.Request{
		Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address,
		Header: http.Header{"User-Agent": {"outfeed-agent"}},
	}
	if via.User != nil {
		password, _ := via.User.Password()
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(via.User.Username()+":"+password)))
	}
	if err := request.Write(conn); err != nil {
		return &UnreachedError{&unansweredError{fmt.Errorf("the proxy %s took no request: %w", via.Host, err)}}
	}
	// What the proxy says before the connection is through is bounded; behind the headers it says nothing, since it is the
	// agent that speaks first.
	answer, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, 64<<10)), request) //nolint:bodyclose // it is the connection
	if err != nil {
		return &UnreachedError{&unansweredError{unanswered(via, err)}}
	}
	// Any 2xx is a connection (RFC 9110, 9.3.6), and what its headers say of a body does not count.
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		return refusedByProxy(via, answer)
	}
	if !stop() {
		return context.Cause(ctx)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("lift the bound of the wait for the proxy: %w", err)
	}
	return nil
}

// unanswered turns what came instead of a proxy's answer into what to do about it.
func unanswered(via *url.URL, err error) error {
	var late net.Error
	switch {
	case errors.As(err, &late) && late.Timeout():
		return fmt.Errorf("the proxy %s took the connection and has said nothing for %s; check whether it is an HTTP proxy, its port, and whether it is overloaded", via.Host, stepTimeout)
	case isCut(err):
		return fmt.Errorf("the proxy %s closed the connection without an answer; check its port, whether its address must begin with https://, and whether it lets this machine in", via.Host)
	case strings.Contains(err.Error(), "malformed"):
		return fmt.Errorf("the proxy %s does not answer as an HTTP proxy does; check its port, and whether its address must begin with https://: %s", via.Host, excerpt.Runes(err.Error(), 120))
	default:
		return fmt.Errorf("the proxy %s gave no answer: %w", via.Host, err)
	}
}

// refusedByProxy turns a proxy's answer into what to do about it.
func refusedByProxy(via *url.URL, answer *http.Response) error {
	refusal := &ProxyError{Host: via.Host}
	switch answer.StatusCode {
	case http.StatusProxyAuthRequired:
		switch offered := answer.Header.Values("Proxy-Authenticate"); {
		case !offersBasic(offered):
			refusal.Problem = fmt.Sprintf("asks for %s, which the agent does not speak; ask its administrator for Basic authentication or for an exception", schemes(offered))
		case via.User == nil:
			refusal.Problem = "wants a user and a password; set them in the proxy's URL"
		default:
			refusal.Problem = "does not accept this user and password; they may be wrong or expired"
			refusal.Credentials = true
		}
		return refusal
	case http.StatusForbidden, http.StatusMethodNotAllowed:
		refusal.Problem = "does not allow connections to the control plane; ask its administrator to allow CONNECT"
		return refusal
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return &UnreachedError{fmt.Errorf("the proxy %s answered %s: %s", via.Host, answer.Status, squidSays(answer.Header))}
	default:
		refusal.Problem = "answered " + answer.Status + " instead of connecting; check its address and port, and ask its administrator whether it allows CONNECT"
		if to, err := answer.Location(); err == nil && to.Host != "" {
			refusal.Problem = fmt.Sprintf("answered %s and sends on to %s, which may be a page to sign in at; ask its administrator for access without it", answer.Status, to.Host)
		}
		return refusal
	}
}

// squidSays is why a proxy reached nothing; squid says it in a header.
func squidSays(header http.Header) string {
	code, _, _ := strings.Cut(header.Get("X-Squid-Error"), " ")
	switch code {
	case "ERR_DNS_FAIL":
		return "it cannot resolve the control plane's name; check the name, and the DNS of the proxy"
	case "ERR_CONNECT_FAIL":
		return "it cannot connect to the control plane; ask its administrator whether a firewall is behind it"
	default:
		return "it cannot resolve the control plane's name, or not connect to it; check the name, and what the proxy may reach"
	}
}

func offersBasic(offered []string) bool {
	for _, o := range offered {
		if scheme, _, _ := strings.Cut(o, " "); strings.EqualFold(scheme, "Basic") {
			return true
		}
	}
	// A proxy that does not say is tried with Basic.
	return len(offered) == 0
}

func schemes(offered []string) string {
	names := make([]string, len(offered))
	for i, o := range offered {
		names[i], _, _ = strings.Cut(o, " ")
	}
	return strings.Join(names, " or ")
}
