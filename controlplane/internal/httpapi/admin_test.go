package httpapi_test

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outfeed/outfeed/controlplane/internal/httpapi"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/apitest"
	"github.com/outfeed/outfeed/internal/secret"
)

func serveAdmin(t *testing.T, f *apitest.Fleet, token string) *caller {
	t.Helper()
	registry := prometheus.NewRegistry()
	// Both listeners of one process share a registry.
	httpapi.New(httpapi.Settings{Fleet: f, Registry: registry, Logger: slog.New(slog.DiscardHandler)})
	handler := httpapi.NewAdmin(httpapi.AdminSettings{
		Fleet: f, Token: secret.New(token), Gatherer: registry, Registry: registry, Logger: slog.New(slog.DiscardHandler),
	})
	server := apitest.ServeHandler(t, handler)
	return &caller{t: t, url: server.URL, key: token, client: &http.Client{}}
}

func TestOperatorMakesTenants(t *testing.T) {
	t.Parallel()
	f := apitest.New()
	c := serveAdmin(t, f, "operator")
	created := get[api.TenantCreated](c, 201, "POST", "/admin/tenants", `{"name":"Press AG","owner_email":"anna@press.example"}`)
	if created.Tenant.Name != "Press AG" || created.Key == "" {
		t.Errorf("created %+v", created)
	}
	if a, err := f.Authenticate(t.Context(), secret.New(created.Key)); err != nil || string(a.Tenant) != created.Tenant.ID {
		t.Errorf("the key is %+v, %v", a, err)
	}
	problemOf(c, 422, "POST", "/admin/tenants", `{"name":"Press AG","owner_email":"anna"}`)
	problemOf(c, 404, "GET", "/api/v1/me", "")
	_, text := c.do("GET", "/metrics", "")
	if !strings.Contains(string(text), `outfeed_api_requests_total{listener="admin",operation="create-tenant",status="201"} 1`) {
		t.Errorf("metrics are %s", text)
	}
}

func TestOperatorEndpointsWantTheToken(t *testing.T) {
	t.Parallel()
	c := serveAdmin(t, apitest.New(), "operator")
	none := serveAdmin(t, apitest.New(), "")
	body := `{"name":"Press AG","owner_email":"anna@press.example"}`
	for _, key := range []string{"", "operato", "operator2", apitest.OwnerKey} {
		problemOf(c.as(key), 401, "POST", "/admin/tenants", body)
		problemOf(c.as(key), 401, "GET", "/metrics", "")
		problemOf(none.as(key), 401, "POST", "/admin/tenants", body)
	}
	problemOf(none.as("").with("Authorization", "Bearer "), 401, "POST", "/admin/tenants", body)
	if response, _ := c.as("").do("GET", "/healthz", ""); response.StatusCode != http.StatusOK {
		t.Errorf("healthz: status %d", response.StatusCode)
	}
}
