package httpapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/internal/secret"
)

// AdminSettings is what the operator's listener needs. All must be set.
type AdminSettings struct {
	Fleet fleet.API
	// Token is what operators send as a bearer token. An empty one lets nobody in.
	Token secret.String
	// Gatherer gives /metrics its metrics; the listener's own go to Registry.
	Gatherer prometheus.Gatherer
	Registry prometheus.Registerer
	Logger   *slog.Logger
}

// NewAdmin makes the handler of the operator's listener: POST /admin/tenants and /metrics, both with the operator's
// token, and /healthz without.
func NewAdmin(s AdminSettings) http.Handler {
	svc := &service{
		fleet: s.Fleet, logger: s.Logger, timeout: defaultRequestTimeout,
		metrics: newMetrics(s.Registry, "admin"),
	}
	guarded := http.NewServeMux()
	svc.registerAdmin(newAPI(guarded, "Outfeed operator API"))
	guarded.Handle("GET /metrics", promhttp.HandlerFor(s.Gatherer, promhttp.HandlerOpts{}))
	guarded.HandleFunc("/", notFound(guarded))

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz)
	mux.Handle("/", apiHeaders(crossOrigin(nil, operatorOnly(s.Token, svc.recovered(legible(guarded))))))
	return transportHeaders(nil, newSeats().bounded(mux))
}

func (s *service) registerAdmin(h huma.API) {
	h.UseMiddleware(s.measured, s.received)
	op := operation{
		method: http.MethodPost, id: "create-tenant", tag: "tenants", summary: "Make a tenant", status: http.StatusCreated,
	}.huma()
	op.Path, op.Security = "/admin/tenants", nil
	huma.Register(h, op, func(ctx context.Context, in *body[api.TenantCreate]) (*body[api.TenantCreated], error) {
		ctx, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		tenant, key, err := s.fleet.CreateTenant(ctx, in.Body.Name, in.Body.OwnerEmail)
		if err != nil {
			return nil, s.problem(ctx, op.OperationID, err)
		}
		return answer(api.TenantCreated{
			Tenant: api.Tenant{ID: string(tenant.ID), Name: tenant.Name, CreatedAt: tenant.Created},
			Key:    key.Reveal(),
		}), nil
	})
}

// operatorOnly lets a request pass that carries the operator's token. The comparison takes the same time for every
// wrong token, of whatever length.
func operatorOnly(token secret.String, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte(token.Reveal()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, isBearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		have := sha256.Sum256([]byte(given))
		if !isBearer || token.Empty() || subtle.ConstantTimeCompare(have[:], want[:]) != 1 {
			p := newProblem(http.StatusUnauthorized, string(fleet.Unauthorized),
				"Send the operator's token as Authorization: Bearer …; it is in the file of OUTFEED_ADMIN_TOKEN_FILE.")
			p.headers.Set("WWW-Authenticate", `Bearer realm="outfeed operator"`)
			sendProblem(w, p)
			return
		}
		next.ServeHTTP(w, r)
	})
}
