package httpapi_test

import (
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/outfeed/outfeed/controlplane/internal/httpapi"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The document in the repository is what the dashboard's types are made from.
func TestDocumentIsUpToDate(t *testing.T) {
	t.Parallel()
	handler := httpapi.New(httpapi.Settings{Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/openapi.json", nil))
	if recorder.Code != http.StatusOK {
		t.Fatalf("status is %d", recorder.Code)
	}
	served, err := io.ReadAll(recorder.Body)
	if err != nil {
		t.Fatal(err)
	}
	const golden = "openapi.json"
	if *update {
		if err = os.WriteFile(golden, served, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(stored), string(served)); diff != "" {
		t.Errorf("openapi.json is not what is served; run go test ./controlplane/internal/httpapi -run Document -update\n%s", diff)
	}
	var document struct {
		OpenAPI string `json:"openapi"`
	}
	if err = json.Unmarshal(served, &document); err != nil || document.OpenAPI != "3.1.0" {
		t.Errorf("the document is of OpenAPI %q, %v", document.OpenAPI, err)
	}
}
