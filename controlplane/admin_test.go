package controlplane

import (
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outfeed/outfeed/controlplane/internal/httpapi"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/apitest"
	"github.com/outfeed/outfeed/internal/secret"
)

func TestCreateTenant(t *testing.T) {
	t.Parallel()
	token := strings.Repeat("t", 40)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	server := httptest.NewServer(httpapi.NewAdmin(httpapi.AdminSettings{
		Fleet: apitest.New(), Token: secret.New(token), Gatherer: registry, Registry: registry, Logger: slog.New(slog.DiscardHandler),
	}))
	t.Cleanup(server.Close)
	c := Config{AdminListen: server.Listener.Addr().String(), AdminTokenFile: file}
	if made, err := CreateTenant(t.Context(), c, "Press AG", "anna@press.example"); err != nil || made.APIKey == "" {
		t.Errorf("got %+v, %v", made, err)
	}
	for _, wrong := range []struct{ name, owner, want string }{
		{"x", "nomail", "--owner: expected string to be RFC 5322 email"},
		{"", "anna@press.example", "the tenant's name is empty"},
		{" ", "anna@press.example", "the tenant's name is empty"},
		{strings.Repeat("x", 101), "anna@press.example", "the tenant's name: expected length <= 100"},
	} {
		if _, err := CreateTenant(t.Context(), c, wrong.name, wrong.owner); err == nil || !strings.Contains(err.Error(), wrong.want) {
			t.Errorf("%q, %q: got %v, want something with %q", wrong.name, wrong.owner, err, wrong.want)
		}
	}
}
