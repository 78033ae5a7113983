package gatewaytest

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/outfeed/outfeed/controlplane/internal/auth"
	"github.com/outfeed/outfeed/controlplane/internal/gateway"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/apitest"
	"github.com/outfeed/outfeed/internal/lifecycle"
	"github.com/outfeed/outfeed/internal/source"
	"github.com/outfeed/outfeed/protocol/seal"
)

// APIKey is accepted by a Host's API.
const APIKey = apitest.ViewerKey

// CAFile is the file in a Host's folder with the certificate of the outer TLS, for clients to trust.
const CAFile = "ca.pem"

const (
	keyFile      = "key.pem"
	identityFile = "identity.seed"
)

// Settings is what code sets of a Host.
type Settings struct {
	// Dir keeps the keys, so that a second Host with the same folder is the same control plane.
	Dir string
	// Address is where it listens, such as 127.0.0.1:0.
	Address string
	// AdmitPerSecond is the gateway's; 0 for its default.
	AdmitPerSecond int
	// RushLasts is the gateway's; 0 for its default.
	RushLasts time.Duration
	// Proxies are believed when they say for whom they speak.
	Proxies source.Proxies
	Log     *slog.Logger
}

// Ready is what a Host says once it listens.
type Ready struct {
	// URL is https://host:port, and Fingerprint the control plane's.
	URL         string `json:"url"`
	Fingerprint string `json:"fingerprint"`
}

// Run serves until ctx ends. ready is called once it listens.
func Run(ctx context.Context, s Settings, ready func(Ready) error) error {
	key, err := identity(filepath.Join(s.Dir, identityFile))
	if err != nil {
		return err
	}
	certificate, err := outer(s.Dir)
	if err != nil {
		return err
	}
	registry, domain := prometheus.NewRegistry(), NewFleet()
	tunnels, err := gateway.New(gateway.Settings{Fleet: domain, Key: key, Log: s.Log, Registerer: registry, AdmitPerSecond: s.AdmitPerSecond, RushLasts: s.RushLasts})
	if err != nil {
		return fmt.Errorf("make the gateway: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.Address)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.Address, err)
	}
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return errors.New("the key is no Ed25519 key")
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return lifecycle.UnlessDone(ctx, tunnels.Run(ctx)) })
	g.Go(func() error {
		return lifecycle.UnlessDone(ctx, httpapi.Serve(ctx, listener, httpapi.ServeSettings{
			Handler: handler(tunnels, domain, registry, s.Log), Logger: s.Log, Proxies: s.Proxies, Registry: registry, Rush: tunnels.Rush,
			TLS: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}},
		}))
	})
	g.Go(func() error {
		return ready(Ready{URL: "https://" + listener.Addr().String(), Fingerprint: seal.Fingerprint(public)})
	})
	return g.Wait() //nolint:wrapcheck // each part says what it is
}

// handler is the product's with a few paths of the test's own.
func handler(tunnels *gateway.Gateway, domain *Fleet, registry *prometheus.Registry, log *slog.Logger) http.Handler {
	f := apitest.New()
	mux := http.NewServeMux()
	mux.Handle("/", httpapi.New(httpapi.Settings{
		Fleet: f, Auth: auth.New(auth.Settings{Keys: f, Sessions: f}), Tunnel: tunnels, Serving: tunnels.Serving, Registry: registry, Logger: log,
	}))
	mux.HandleFunc("GET /test/stats", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("collect") {
			// A stack shrinks by half in each collection, of which an idle program has one every two minutes.
			for range 3 {
				debug.FreeOSMemory()
			}
		}
		s, err := measure(domain, registry)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(s) // the client that hung up has no use for an error
	})
	mux.HandleFunc("GET /test/profile/{name}", func(w http.ResponseWriter, r *http.Request) {
		if p := pprof.Lookup(r.PathValue("name")); p != nil {
			_ = p.WriteTo(w, 1) // as above
		}
	})
	mux.HandleFunc("GET /test/cpu/{seconds}", func(w http.ResponseWriter, r *http.Request) {
		lasts, err := time.ParseDuration(r.PathValue("seconds") + "s")
		if err != nil || pprof.StartCPUProfile(w) != nil {
			http.Error(w, "no number of seconds, or a profile is under way", http.StatusBadRequest)
			return
		}
		defer pprof.StopCPUProfile()
		end := time.NewTimer(lasts)
		defer end.Stop()
		select {
		case <-end.C:
		case <-r.Context().Done():
		}
	})
	return mux
}

// identity loads the control plane's key, or makes it.
func identity(path string) (ed25519.PrivateKey, error) {
	seed, err := os.ReadFile(path) //nolint:gosec // the caller names it
	if errors.Is(err, fs.ErrNotExist) {
		seed = make([]byte, ed25519.SeedSize)
		if _, err = io.ReadFull(rand.Reader, seed); err == nil {
			err = os.WriteFile(path, seed, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("load the identity: %w", err)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// outer loads the certificate of the outer TLS, or makes it.
func outer(dir string) (tls.Certificate, error) {
	ca, private := filepath.Join(dir, CAFile), filepath.Join(dir, keyFile)
	if _, err := os.Stat(ca); errors.Is(err, fs.ErrNotExist) {
		if err := makeOuter(ca, private); err != nil {
			return tls.Certificate{}, err
		}
	}
	certificate, err := tls.LoadX509KeyPair(ca, private)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("load the certificate: %w", err)
	}
	return certificate, nil
}

func makeOuter(ca, private string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "host"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode a key: %w", err)
	}
	return errors.Join(
		os.WriteFile(private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), 0o600),
		os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
	)
}
