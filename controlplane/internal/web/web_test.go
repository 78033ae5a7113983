package web

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func buildFixture() fs.FS {
	return fstest.MapFS{
		"index.html":              {Data: []byte("<!doctype html><title>Outfeed</title>")},
		"favicon.svg":             {Data: []byte("<svg/>")},
		".gitkeep":                {},
		"assets/index-4f2a.js":    {Data: []byte("plain script")},
		"assets/index-4f2a.js.gz": {Data: []byte("packed script")},
		"assets/inter-9a.woff2":   {Data: []byte("font")},
	}
}

func handling(t *testing.T, dist fs.FS) http.Handler {
	t.Helper()
	h, err := newHandler(dist)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// seen is an answer that remembers where in memory its body lay.
type seen struct {
	http.ResponseWriter
	at *byte
}

func (s *seen) Write(p []byte) (int, error) {
	s.at = &p[0]
	return len(p), nil
}

// TestAnswersCopyNothing has a file asked for twice: who asks for many and reads none must not make as many copies.
func TestAnswersCopyNothing(t *testing.T) {
	t.Parallel()
	h := handling(t, buildFixture())
	var answers [2]seen
	for i := range answers {
		answers[i].ResponseWriter = httptest.NewRecorder()
		h.ServeHTTP(&answers[i], httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/assets/index-4f2a.js", http.NoBody))
	}
	if answers[0].at == nil || answers[0].at != answers[1].at {
		t.Error("each answer has a copy of the file")
	}
}

func ask(t *testing.T, h http.Handler, method, target string, header http.Header) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, http.NoBody)
	if header != nil {
		r.Header = header
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestHandlerServesFilesAndRoutes(t *testing.T) {
	t.Parallel()
	const page = "<!doctype html><title>Outfeed</title>"
	cases := []struct {
		name, method, target string
		status               int
		body, kind, cache    string
	}{
		{"the root", "GET", "/", 200, page, "text/html; charset=utf-8", "no-cache"},
		{"the page by name", "GET", "/index.html", 200, page, "text/html; charset=utf-8", "no-cache"},
		{"a route", "GET", "/agents/press-hall", 200, page, "text/html; charset=utf-8", "no-cache"},
		{"a route with a query", "GET", "/insights?name=press_health", 200, page, "text/html; charset=utf-8", "no-cache"},
		{"a route to a name with a dot", "GET", "/agents/press.local", 200, page, "text/html; charset=utf-8", "no-cache"},
		{"a script", "GET", "/assets/index-4f2a.js", 200, "plain script", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"},
		{"a font", "GET", "/assets/inter-9a.woff2", 200, "font", "font/woff2", "public, max-age=31536000, immutable"},
		{"a file without a hash", "GET", "/favicon.svg", 200, "<svg/>", "image/svg+xml", "no-cache"},
		{"only the head", "HEAD", "/", 200, "", "text/html; charset=utf-8", "no-cache"},
		{"a missing script", "GET", "/assets/index-0000.js", 404, "404 page not found\n", "text/plain; charset=utf-8", ""},
		{"a missing asset without an extension", "GET", "/assets/index", 404, "404 page not found\n", "text/plain; charset=utf-8", ""},
		{"the folder of assets", "GET", "/assets/", 200, page, "text/html; charset=utf-8", "no-cache"},
		{"a path of the API", "GET", "/api/v1/nothing", 404, "404 page not found\n", "text/plain; charset=utf-8", ""},
		{"a climbing path", "GET", "/../../web.go", 404, "404 page not found\n", "text/plain; charset=utf-8", ""},
		{"a hidden file", "GET", "/.gitkeep", 404, "404 page not found\n", "text/plain; charset=utf-8", ""},
		{"a packed twin", "GET", "/assets/index-4f2a.js.gz", 404, "404 page not found\n", "text/plain; charset=utf-8", ""},
		{"writing", "POST", "/agents", 405, "The dashboard is read with GET.\n", "text/plain; charset=utf-8", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := ask(t, handling(t, buildFixture()), c.method, c.target, nil)
			if w.Code != c.status {
				t.Errorf("status %d, want %d", w.Code, c.status)
			}
			if got := w.Body.String(); got != c.body {
				t.Errorf("body %q, want %q", got, c.body)
			}
			if got := w.Header().Get("Content-Type"); got != c.kind {
				t.Errorf("type %q, want %q", got, c.kind)
			}
			if got := w.Header().Get("Cache-Control"); got != c.cache {
				t.Errorf("caching %q, want %q", got, c.cache)
			}
		})
	}
}

func TestEveryAnswerIsLockedDown(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"/", "/agents", "/assets/index-4f2a.js", "/assets/missing.js"} {
		h := ask(t, handling(t, buildFixture()), http.MethodGet, target, nil).Header()
		policy := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: the policy %q lacks %q", target, policy, want)
			}
		}
		for _, never := range []string{"unsafe", "http:", "https:", "*"} {
			if strings.Contains(policy, never) {
				t.Errorf("%s: the policy %q allows %q", target, policy, never)
			}
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: headers %v", target, h)
		}
	}
}

func TestGzipGoesToThoseWhoTakeIt(t *testing.T) {
	t.Parallel()
	cases := []struct{ accept, encoding, body string }{
		{"gzip, deflate, br", "gzip", "packed script"},
		{"br, GZIP;q=0.5", "gzip", "packed script"},
		{"gzip;q=0", "", "plain script"},
		{"gzip; q=0.0", "", "plain script"},
		{"br", "", "plain script"},
		{"", "", "plain script"},
	}
	for _, c := range cases {
		w := ask(t, handling(t, buildFixture()), http.MethodGet, "/assets/index-4f2a.js", http.Header{"Accept-Encoding": {c.accept}})
		if got := w.Header().Get("Content-Encoding"); got != c.encoding {
			t.Errorf("%q: encoding %q, want %q", c.accept, got, c.encoding)
		}
		if got := w.Body.String(); got != c.body {
			t.Errorf("%q: body %q, want %q", c.accept, got, c.body)
		}
		if w.Header().Get("Vary") != "Accept-Encoding" {
			t.Errorf("%q: caches must be told that the encoding varies", c.accept)
		}
	}
}

func TestUnchangedPageIsNotSentAgain(t *testing.T) {
	t.Parallel()
	h := handling(t, buildFixture())
	tag := ask(t, h, http.MethodGet, "/", nil).Header().Get("Etag")
	again := ask(t, h, http.MethodGet, "/", http.Header{"If-None-Match": {tag}})
	if again.Code != http.StatusNotModified || again.Body.Len() != 0 {
		t.Errorf("status %d with %d bytes, want 304 with none", again.Code, again.Body.Len())
	}
	if stale := ask(t, h, http.MethodGet, "/", http.Header{"If-None-Match": {`"old"`}}); stale.Code != http.StatusOK {
		t.Errorf("status %d for another tag, want 200", stale.Code)
	}
}

func TestMissingBuildSaysWhatToDo(t *testing.T) {
	t.Parallel()
	w := ask(t, handling(t, fstest.MapFS{".gitkeep": {}}), http.MethodGet, "/agents", nil)
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "The dashboard was not built: run make build") {
		t.Errorf("status %d, body %q", w.Code, w.Body.String())
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("caching %q, want no-store", got)
	}
}

// TestEmbeddedPageObeysItsPolicy checks the real build where there is one, and the note in its place where there is none.
func TestEmbeddedPageObeysItsPolicy(t *testing.T) {
	t.Parallel()
	page, err := built.ReadFile("dist/" + indexFile)
	w := ask(t, Handler(), http.MethodGet, "/", nil)
	if err != nil {
		if w.Code != http.StatusServiceUnavailable {
			t.Errorf("status %d without a build, want 503", w.Code)
		}
		return
	}
	if w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), page) {
		t.Errorf("status %d, %d bytes, want the page of %d bytes", w.Code, w.Body.Len(), len(page))
	}
	for _, never := range []string{"<style", "style=", "<script>", "onload=", "http://", "https://"} {
		if bytes.Contains(page, []byte(never)) {
			t.Errorf("the page has %q, which the policy would refuse", never)
		}
	}
}

// The built files must say the same packed and plain; make test builds them first.
func TestPackedTwinsAreTheirFiles(t *testing.T) {
	t.Parallel()
	err := fs.WalkDir(built, "dist", func(name string, e fs.DirEntry, err error) error {
		plain, isTwin := strings.CutSuffix(name, ".gz")
		if err != nil || e.IsDir() || !isTwin {
			return err
		}
		packed, err := built.Open(name)
		if err != nil {
			return err
		}
		defer packed.Close() //nolint:errcheck // it is in memory
		unpacked, err := gzip.NewReader(packed)
		if err != nil {
			return err
		}
		got, err := io.ReadAll(unpacked)
		if err != nil {
			return err
		}
		want, err := built.ReadFile(plain)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what %s says", name, plain)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
