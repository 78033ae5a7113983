package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
)

// apiVersion is the version of the API, which is not that of the build: it changes with the path's v1 only.
const apiVersion = "1"

// Security schemes of the document; the session's cookie is named by auth, and both of its names start like this.
const (
	bearerScheme  = "api_key"
	sessionScheme = "session"
	sessionCookie = "outfeed-session"
)

// newAPI makes a huma API that knows only JSON and describes itself as OpenAPI 3.1.
func newAPI(mux *http.ServeMux, title string) huma.API {
	config := huma.DefaultConfig(title, apiVersion)
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil
	config.NoFormatFallback = false
	config.Transformers = []huma.Transformer{plainProblem}
	registry := config.Components.Schemas
	registry.RegisterTypeAlias(reflect.TypeFor[huma.ErrorModel](), reflect.TypeFor[api.Problem]())
	registry.RegisterTypeAlias(reflect.TypeFor[json.RawMessage](), reflect.TypeFor[map[string]any]())
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		bearerScheme: {Type: "http", Scheme: "bearer", Description: "An API key: Authorization: Bearer ofk_…"},
		sessionScheme: {
			Type: "apiKey", In: "cookie", Name: sessionCookie,
			Description: "A dashboard session from POST /api/v1/session. Over https the cookie's name has the prefix __Host-.",
		},
	}
	return humago.New(mux, config)
}

// finishDocument puts the last touches to a document whose operations are all registered, and encodes it. Lists are
// never null, neither in requests nor in answers.
func finishDocument(document *huma.OpenAPI) ([]byte, error) {
	for _, s := range document.Components.Schemas.Map() {
		listsNotNull(s)
	}
	for _, item := range document.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Delete} {
			listsNotNullIn(op)
		}
	}
	text, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the OpenAPI document: %w", err)
	}
	return append(text, '\n'), nil
}

func listsNotNullIn(op *huma.Operation) {
	if op == nil {
		return
	}
	for _, p := range op.Parameters {
		listsNotNull(p.Schema)
	}
}

func listsNotNull(s *huma.Schema) {
	if s == nil {
		return
	}
	if s.Type == huma.TypeArray {
		s.Nullable = false
	}
	listsNotNull(s.Items)
	for _, p := range s.Properties {
		listsNotNull(p)
	}
	if more, ok := s.AdditionalProperties.(*huma.Schema); ok {
		listsNotNull(more)
	}
}

func serveDocument(document []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(document) // the client that hung up has no use for an error
	}
}
