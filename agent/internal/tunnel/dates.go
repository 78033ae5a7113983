package tunnel

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"time"
)

// wireAnyDate is wire, also where this machine's clock or the outer certificate's dates are wrong: a machine whose battery
// died starts in 1970 and must still be reached. A certificate that is good but for its dates is taken, because the outer
// TLS keeps no secret of the agent's: whom it talks to is proved by the pinned key of the inner session, and a load
// balancer or an inspecting proxy could read as much as whoever has an old certificate's key.
func (d *dialer) wireAnyDate(ctx context.Context, log *slog.Logger) (net.Conn, error) {
	conn, err := d.wire(ctx, time.Now)
	then, ok := d.datesOf(err)
	if !ok {
		return conn, err
	}
	log.WarnContext(ctx, "the dates of the control plane's outer certificate do not fit this machine's clock; going on, since the inner session does not need them",
		slog.String("error", err.Error()), slog.Time("clock", time.Now()), slog.Time("as_of", then))
	return d.wire(ctx, func() time.Time { return then })
}

// datesOf gives a time at which the certificate would have been good, when an error is about its dates and it is the
// control plane's: credentials for an HTTPS proxy go to nobody whose certificate has expired.
func (d *dialer) datesOf(err error) (time.Time, bool) {
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	failed, hasCertificates := errors.AsType[*tls.CertificateVerificationError](err)
	if !isInvalid || invalid.Reason != x509.Expired || !hasCertificates || len(failed.UnverifiedCertificates) == 0 {
		return time.Time{}, false
	}
	leaf := failed.UnverifiedCertificates[0]
	target, err := url.Parse(d.target)
	if err != nil || leaf.VerifyHostname(target.Hostname()) != nil {
		return time.Time{}, false
	}
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2), true
}
