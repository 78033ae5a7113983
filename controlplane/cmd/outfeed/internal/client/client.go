// Package client speaks the HTTP API for the outfeed command.
//
// It sends requests, decodes answers and follows the event stream. It prints nothing and reads no configuration. A
// Client is safe for concurrent use; a Stream belongs to one goroutine.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/internal/address"
	"github.com/outfeed/outfeed/internal/secret"
)

const (
	requestTimeout = time.Minute
	// maxAnswer bounds an answer, in bytes: ten thousand insights of several kilobytes each.
	maxAnswer = 64 << 20
	prefix    = "/api/v1"
)

// Settings says where the API is and who asks.
type Settings struct {
	// URL is the control plane's address, like https://outfeed.example.
	URL string
	// Key is an API key.
	Key secret.String
	// CA is the PEM text of more certificate authorities to trust, besides the system's.
	CA []byte
	// UserAgent names the program.
	UserAgent string
}

// Client speaks to one control plane.
type Client struct {
	settings Settings
	base     *url.URL
	http     *http.Client
}

// ProblemError is an answer that says no.
type ProblemError struct{ api.Problem }

func (e *ProblemError) Error() string {
	lines := []string{e.Detail}
	if e.Detail == "" {
		lines[0] = fmt.Sprintf("The control plane answered with status %d and no reason.", e.Status)
	}
	for _, field := range e.Errors {
		lines = append(lines, "  "+field.Location+": "+field.Message)
	}
	for _, p := range e.Problems {
		lines = append(lines, fmt.Sprintf("  line %d, column %d: %s", p.Line, p.Column, p.Message))
	}
	return strings.Join(lines, "\n")
}

// New makes a client. It sends nothing yet.
func New(s Settings) (*Client, error) {
	base, err := address.ControlPlane(strings.TrimRight(s.URL, "/"))
	if err != nil {
		return nil, err
	}
	if base.Path != "" || base.RawQuery != "" {
		return nil, fmt.Errorf("%q has more than scheme, host and port; give one like https://outfeed.example", s.URL)
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(s.CA) > 0 {
		if trust.RootCAs, err = x509.SystemCertPool(); err != nil {
			trust.RootCAs = x509.NewCertPool() // a system without its own authorities trusts the given ones
		}
		if !trust.RootCAs.AppendCertsFromPEM(s.CA) {
			return nil, errors.New("the file of --ca has no certificate in PEM form (-----BEGIN CERTIFICATE-----)")
		}
	}
	transport := &http.Transport{
		Proxy: address.ProxyFromEnvironment, TLSClientConfig: trust, ForceAttemptHTTP2: true,
		TLSHandshakeTimeout: 15 * time.Second, ResponseHeaderTimeout: requestTimeout,
		IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
	}
	return &Client{settings: s, base: base, http: &http.Client{Transport: transport, CheckRedirect: noRedirect}}, nil
}

// noRedirect keeps the key from travelling to an address that nobody chose.
func noRedirect(to *http.Request, _ []*http.Request) error {
	return fmt.Errorf("the control plane sends on to %s://%s; log in with that address if it is right",
		to.URL.Scheme, to.URL.Host)
}

// URL is the control plane's address.
func (c *Client) URL() string { return c.base.String() }

// Get asks for something.
func Get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	return send[T](ctx, c, http.MethodGet, withQuery(path, query), nil)
}

// Post sends a request and gives the answer.
func Post[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	return send[T](ctx, c, http.MethodPost, path, body)
}

// Put sends what something shall be and gives what it became.
func Put[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	return send[T](ctx, c, http.MethodPut, path, body)
}

// Order sends a request that has no answer but success. A nil body is none.
func (c *Client) Order(ctx context.Context, method, path string, body any) error {
	_, err := send[struct{}](ctx, c, method, path, body)
	return err
}

func withQuery(path string, query url.Values) string {
	if len(query) == 0 {
		return path
	}
	return path + "?" + query.Encode()
}

func send[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var answer T
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := c.open(ctx, method, path, body)
	if err != nil {
		return answer, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode == http.StatusNoContent {
		return answer, nil
	}
	// Members that this build does not know are of a newer control plane, and left alone.
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&answer); err != nil {
		return answer, fmt.Errorf("the answer of %s to %s %s could not be read: %w", c.base, method, prefix+path, err)
	}
	return answer, nil
}

// open sends a request and gives the answer when it is a good one; its body is the caller's to close.
func (c *Client) open(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.base.String()+prefix+path, content)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	r.Header.Set("Authorization", "Bearer "+c.settings.Key.Reveal())
	r.Header.Set("User-Agent", c.settings.UserAgent)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(r)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if response.StatusCode < http.StatusMultipleChoices {
		return response, nil
	}
	defer func() { _ = response.Body.Close() }()
	return nil, problemIn(response)
}

// problemIn reads why an answer says no. What is not a problem of the API comes from something in between.
func problemIn(response *http.Response) error {
	if !strings.HasPrefix(response.Header.Get("Content-Type"), api.ProblemType) {
		return &ProblemError{api.Problem{
			Status: response.StatusCode,
			Detail: fmt.Sprintf("%s answered %s, and not as a control plane does. Is the address right?",
				response.Request.URL.Host, response.Status),
		}}
	}
	problem := &ProblemError{}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&problem.Problem); err != nil {
		return fmt.Errorf("the control plane answered %s with a reason that could not be read: %w", response.Status, err)
	}
	problem.Status = response.StatusCode
	return problem
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
		return fmt.Errorf("the request was given up: %w", cause)
	}
	// The outermost *url.Error only repeats method and address.
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Errorf("%s has a certificate of an unknown authority; log in with --ca FILE if it is yours: %w", c.base, err)
	}
	return fmt.Errorf("cannot reach the control plane at %s: %w", c.base, err)
}
