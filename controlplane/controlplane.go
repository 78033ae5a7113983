// Package controlplane is the composition root of outfeed-controlplane: it puts the database, the domain, the gateway, the
// API and the dashboard together.
//
// Only its main and the end-to-end tests import it. Run may be called once.
package controlplane

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/outfeed/outfeed/controlplane/internal/auth"
	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/gateway"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi"
	"github.com/outfeed/outfeed/controlplane/internal/pgembed"
	"github.com/outfeed/outfeed/controlplane/internal/postgres"
	"github.com/outfeed/outfeed/controlplane/internal/web"
	"github.com/outfeed/outfeed/internal/buildinfo"
	"github.com/outfeed/outfeed/internal/lifecycle"
	"github.com/outfeed/outfeed/internal/logging"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/internal/socket"
)

// Logger writes the log as configured.
func (c *Config) Logger(w io.Writer) *slog.Logger {
	return logging.New(w, c.LogLevel, c.LogFormat)
}

// ControlPlane is the cloud side of Outfeed.
type ControlPlane struct {
	config Config
	log    *slog.Logger
}

// New makes a control plane. It touches nothing before Run.
func New(c Config, log *slog.Logger) *ControlPlane { return &ControlPlane{config: c, log: log} }

// Run serves until ctx ends. The listeners stop first, then the tunnels, then the database.
func (c *ControlPlane) Run(ctx context.Context) error {
	// PostgreSQL's own account must be able to enter; what is secret inside has its own mode.
	if err := os.MkdirAll(c.config.DataDir, 0o711); err != nil { //nolint:gosec // see above
		return fmt.Errorf("make the data directory: %w", err)
	}
	if err := c.config.checkKeyFiles(); err != nil {
		return fmt.Errorf("the control plane does not start with keys that others may have:\n%w", err)
	}
	if !c.config.DatabaseURL.Empty() {
		return c.serve(ctx, c.config.DatabaseURL)
	}
	return c.withPrivateDatabase(ctx, c.serve)
}

// withPrivateDatabase runs the private PostgreSQL around serve.
func (c *ControlPlane) withPrivateDatabase(ctx context.Context, serve func(context.Context, secret.String) error) error {
	db, err := pgembed.New(c.config.DataDir, c.log)
	if err != nil {
		return err
	}
	// The database outlives what uses it.
	dbCtx, stopDB := context.WithCancel(context.WithoutCancel(ctx))
	defer stopDB()
	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan struct{})
	g.Go(func() error { return db.Run(dbCtx, func() { close(ready) }) })
	g.Go(func() error {
		defer stopDB()
		select {
		case <-ready:
		case <-ctx.Done():
			return nil
		}
		at := db.Addresses()
		if err := postgres.Prepare(ctx, secret.New(at.Superuser), pgembed.OwnerRole, pgembed.Database); err != nil {
			return fmt.Errorf("prepare the private PostgreSQL: %w", err)
		}
		if err := postgres.Migrate(ctx, secret.New(at.Owner), pgembed.AppRole); err != nil {
			return fmt.Errorf("migrate the private PostgreSQL: %w", err)
		}
		return serve(ctx, secret.New(at.App))
	})
	return g.Wait() //nolint:wrapcheck // each part says what it is
}

// serve opens the store and serves everything on it.
func (c *ControlPlane) serve(ctx context.Context, database secret.String) error {
	store, err := postgres.Open(ctx, postgres.Settings{URL: database, Logger: c.log})
	if err != nil {
		return err
	}
	defer store.Close()
	keys, err := c.keys(ctx, store)
	if err != nil {
		return fmt.Errorf("load the control plane's keys: %w", err)
	}
	identity, ok := keys.Identity.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("the control plane's identity is not an Ed25519 key")
	}
	service := fleet.New(fleet.Settings{
		Store: store, Secrets: keys.Vault, Identity: identity, BundleKey: keys.Bundle, Replica: replica(),
		Tenancy: c.config.tenancy(), Tester: newTester(c.config.FlowTest),
	})
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	tunnels, err := gateway.New(gateway.Settings{Fleet: service, Key: keys.Identity, Log: c.log, Registerer: registry})
	if err != nil {
		return fmt.Errorf("prepare the gateway: %w", err)
	}
	listeners, err := c.listeners(ctx, service, tunnels, registry)
	if err != nil {
		return err
	}
	c.log.InfoContext(ctx, "control plane serves", "url", c.config.PublicURL, "fingerprint", service.Fingerprint(), "version", buildinfo.Version())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return lifecycle.UnlessDone(ctx, store.Run(ctx)) })
	g.Go(func() error { return lifecycle.UnlessDone(ctx, tunnels.Run(ctx)) })
	for _, l := range listeners {
		g.Go(func() error { return lifecycle.UnlessDone(ctx, httpapi.Serve(ctx, l.listener, l.settings)) })
	}
	return g.Wait() //nolint:wrapcheck // each part says what it is
}

// replica names this process among those of the control plane.
func replica() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + "/" + uuid.NewString()
}

// served is an address and how it is served.
type served struct {
	listener net.Listener
	settings httpapi.ServeSettings
}

// listeners opens the addresses; when one fails, those before it are closed.
func (c *ControlPlane) listeners(ctx context.Context, service *fleet.Service, tunnels *gateway.Gateway, registry *prometheus.Registry) (all []served, err error) {
	defer func() {
		if err != nil {
			for _, s := range all {
				err = errors.Join(err, s.listener.Close())
			}
		}
	}()
	public, admin, err := c.handlers(service, tunnels, registry)
	if err != nil {
		return nil, err
	}
	var secure *tls.Config
	if c.config.TLSListen != "" {
		if secure, err = c.tls(ctx); err != nil {
			return nil, err
		}
	}
	for _, l := range []struct {
		variable, address string
		tls               *tls.Config
		handler           http.Handler
	}{
		{"OUTFEED_LISTEN", c.config.Listen, nil, public},
		{"OUTFEED_TLS_LISTEN", c.config.TLSListen, secure, public},
		{"OUTFEED_ADMIN_LISTEN", c.config.AdminListen, nil, admin},
	} {
		if l.address == "" {
			continue
		}
		listener, err := listen(ctx, l.address)
		if err != nil {
			return all, fmt.Errorf("%s: %w", l.variable, err)
		}
		all = append(all, served{listener: listener, settings: httpapi.ServeSettings{
			Handler: l.handler, Logger: c.log, TLS: l.tls, Proxies: c.config.TrustedProxies, Registry: registry,
			Rush: tunnels.Rush,
		}})
	}
	return all, nil
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	config := net.ListenConfig{Control: socket.Control}
	// The options of the socket are those of plain TCP.
	config.SetMultipathTCP(false)
	l, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	return l, nil
}

// tls is how the HTTPS address is served.
func (c *ControlPlane) tls(ctx context.Context) (*tls.Config, error) {
	certFile, _ := c.config.certificateFiles()
	_, missing := os.Stat(certFile)
	cert, err := c.config.certificate()
	if err != nil {
		return nil, err
	}
	if missing != nil {
		c.log.WarnContext(ctx, "made a certificate that signs itself; browsers and agents (ca_file) need it to trust this address", "file", certFile)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}, nil
}

// handlers makes what answers on the public and on the operators' addresses.
func (c *ControlPlane) handlers(service *fleet.Service, tunnels *gateway.Gateway, registry *prometheus.Registry) (public, admin http.Handler, err error) {
	publicURL, err := url.Parse(c.config.PublicURL)
	if err != nil {
		return nil, nil, fmt.Errorf("OUTFEED_PUBLIC_URL: %w", err)
	}
	token, err := c.adminToken()
	if err != nil {
		return nil, nil, err
	}
	public = httpapi.New(httpapi.Settings{
		Fleet: service, Auth: auth.New(auth.Settings{Keys: service, Sessions: service, PublicURL: publicURL}),
		Web: web.Handler(), Tunnel: tunnels, Serving: tunnels.Serving, Registry: registry, Logger: c.log, PublicURL: publicURL,
	})
	admin = httpapi.NewAdmin(httpapi.AdminSettings{Fleet: service, Token: token, Gatherer: registry, Registry: registry, Logger: c.log})
	return public, admin, nil
}
