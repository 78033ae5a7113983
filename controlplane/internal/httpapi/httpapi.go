// Package httpapi serves the HTTP API of the control plane, its OpenAPI document, and the two listeners' routes.
//
// It turns requests into calls of fleet.API and errors into RFC 9457 problems; it holds no rule of the domain, no SQL,
// and it never takes a tenant from a request. The handlers are safe for concurrent use and hold no state of their own
// but the count of open event streams, so any number of replicas can serve.
package httpapi

import (
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/secret"
)

// Auth finds out who is asking. auth.Authenticator is one. It is safe for concurrent use.
type Auth interface {
	// Authenticate finds who sent a request. Credentials that are missing or wrong are a *fleet.Error with Unauthorized.
	Authenticate(r *http.Request) (fleet.Actor, error)
	// SignIn begins a dashboard session with an API key. An error with a method RetryAfter() time.Duration says that
	// this address has failed too often.
	SignIn(r *http.Request, key secret.String) (fleet.Actor, *http.Cookie, error)
	// SignOut ends the session of a request, if it has one. The cookie makes the browser forget it.
	SignOut(r *http.Request) (*http.Cookie, error)
}

// Settings is what the public listener needs. Fleet, Auth, Registry and Logger must be set.
type Settings struct {
	Fleet fleet.API
	Auth  Auth
	// Web serves the dashboard at /, Tunnel the agents at /tunnel/v1; a nil one is not found.
	Web, Tunnel http.Handler
	// Serving says whether Tunnel lets agents in; while it does not, this replica is not ready. nil when there is no such
	// question.
	Serving func() bool
	// Registry takes the metrics of the API.
	Registry prometheus.Registerer
	Logger   *slog.Logger
	// PublicURL is the address that people and agents use; nil when it is not known. Its origin may send requests that
	// change something, even where a proxy changed the Host header, and https makes browsers insist on it. Whoever makes
	// an enrolment token is told it.
	PublicURL *url.URL
	// Heartbeat is how often an event stream shows that it lives; 0 means 15 s.
	Heartbeat time.Duration
	// RequestTimeout bounds the work of one request that is not a stream; 0 means 30 s.
	RequestTimeout time.Duration
}

const (
	maxBodyBytes          = 2 << 20
	bodyReadTimeout       = 30 * time.Second
	defaultHeartbeat      = 15 * time.Second
	defaultRequestTimeout = 30 * time.Second
	readyTimeout          = 5 * time.Second
	prefix                = "/api/v1"
)

// service is what the operations share.
type service struct {
	fleet   fleet.API
	auth    Auth
	logger  *slog.Logger
	metrics *metrics
	streams *streamLimit
	// serving is nil, or says whether agents are let in.
	serving func() bool
	// agentURL is where agents connect; empty when it is not known.
	agentURL string

	heartbeat, timeout time.Duration
}

// New makes the handler of the public listener: the API and its document under /api/v1, the agents' tunnel, /healthz,
// /readyz, and the dashboard on every other path.
func New(s Settings) http.Handler {
	svc := newService(s)
	apiMux := http.NewServeMux()
	document := svc.register(apiMux)
	apiMux.HandleFunc("GET "+prefix+"/openapi.json", serveDocument(document))
	apiMux.HandleFunc("/", notFound(apiMux))

	inner := http.NewServeMux()
	inner.Handle("/api/", apiHeaders(crossOrigin(s.PublicURL, svc.recovered(legible(newCompressor().serve(apiMux))))))
	inner.HandleFunc("GET /healthz", healthz)
	inner.HandleFunc("GET /readyz", svc.readyz)
	if s.Web != nil {
		inner.Handle("/", webHeaders(s.Web))
	}
	mux := http.NewServeMux()
	mux.Handle("/", newSeats().bounded(inner))
	if s.Tunnel != nil {
		mux.Handle("/tunnel/v1", s.Tunnel)
	}
	return transportHeaders(s.PublicURL, mux)
}

func newService(s Settings) *service {
	svc := &service{
		fleet:     s.Fleet,
		auth:      s.Auth,
		logger:    s.Logger,
		metrics:   newMetrics(s.Registry, "public"),
		streams:   newStreamLimit(),
		serving:   s.Serving,
		heartbeat: s.Heartbeat,
		timeout:   s.RequestTimeout,
	}
	if s.PublicURL != nil {
		svc.agentURL = s.PublicURL.String()
	}
	if svc.heartbeat <= 0 {
		svc.heartbeat = defaultHeartbeat
	}
	if svc.timeout <= 0 {
		svc.timeout = defaultRequestTimeout
	}
	return svc
}
