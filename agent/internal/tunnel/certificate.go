package tunnel

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// CertificateError is when the outer TLS certificate is not one to trust, so that only a person can help.
type CertificateError struct {
	problem string
	err     error
}

func (e *CertificateError) Error() string { return e.problem + ": " + e.err.Error() }

// Unwrap gives the cause.
func (e *CertificateError) Unwrap() error { return e.err }

// outerConfig is the TLS of the outer connection to a host.
func outerConfig(roots *x509.CertPool, host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: host,
		// Without a word on the application protocol some load balancers choose HTTP/2, which carries no upgrade.
		NextProtos:         []string{"http/1.1"},
		InsecureSkipVerify: true, //nolint:gosec // verified below, but for the dates
		VerifyConnection:   func(s tls.ConnectionState) error { return verify(s, roots, host) },
	}
}

// verify checks the chain and the name as crypto/tls does. The dates are not looked at, because a wrong clock must not
// lock an agent out: whom it talks to is settled by the pinned key inside.
func verify(s tls.ConnectionState, roots *x509.CertPool, host string) error {
	leaf := s.PeerCertificates[0]
	at := time.Now()
	if at.Before(leaf.NotBefore) {
		at = leaf.NotBefore
	}
	if at.After(leaf.NotAfter) {
		at = leaf.NotAfter
	}
	options := x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: at, Intermediates: x509.NewCertPool()}
	for _, c := range s.PeerCertificates[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := leaf.Verify(options)
	if err == nil {
		return nil
	}
	return &CertificateError{problem: certificateProblem(leaf, host, err), err: err}
}

// certificateProblem adds what to do, as behind an inspecting proxy.
func certificateProblem(leaf *x509.Certificate, host string, err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return fmt.Sprintf("the server's certificate was issued by %q, which this machine does not trust; if that is your company's proxy, set its CA file", leaf.Issuer)
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "the server's certificate, issued by " + fmt.Sprintf("%q, is not for %s; check the URL, and whether something in between answers instead", leaf.Issuer, host)
	}
	return fmt.Sprintf("the server's certificate, issued by %q, is not valid", leaf.Issuer)
}
