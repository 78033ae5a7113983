package httpapi

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// ask sends a request to a handler behind a compressor and gives the answer, unpacked.
func ask(t *testing.T, c *compressor, method, encoding string, h http.HandlerFunc) (answer answered, text string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "/", nil)
	if encoding != "" {
		r.Header.Set("Accept-Encoding", encoding)
	}
	w := httptest.NewRecorder()
	c.serve(h).ServeHTTP(w, r)
	answer = answered{w.Code, w.Header()}
	body := w.Body.Bytes()
	if answer.Header.Get("Content-Encoding") != "gzip" {
		return answer, string(body)
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body, err = io.ReadAll(unpacked); err != nil {
		t.Fatal(err)
	}
	return answer, string(body)
}

// answered is how an answer begins.
type answered struct {
	StatusCode int
	Header     http.Header
}

func writes(kind string, status int, parts ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		if status != 0 {
			w.WriteHeader(status)
		}
		for _, part := range parts {
			_, _ = io.WriteString(w, part)
		}
	}
}

func TestWhatIsCompressed(t *testing.T) {
	t.Parallel()
	long := strings.Repeat(`{"name":"press-health"}`, 1000)
	huge := strings.Repeat(long, 500)
	for _, c := range []struct {
		name, method, encoding, kind string
		status                       int
		parts                        []string
		packed                       bool
	}{
		{"a long answer", "GET", "gzip, deflate, br", "application/json", 200, []string{long}, true},
		{"without a status", "GET", "gzip", "application/json", 0, []string{long}, true},
		{"in parts", "GET", "br;q=1, GZIP;q=0.5", "application/json; charset=utf-8", 200, []string{long, "short", huge, long}, true},
		{"a long problem", "GET", "gzip", "application/problem+json", 422, []string{long}, true},
		{"a short answer", "GET", "gzip", "application/json", 200, []string{"{}"}, false},
		{"short at first", "GET", "gzip", "application/json", 200, []string{"{}", long}, false},
		{"no answer", "GET", "gzip", "application/json", 200, nil, false},
		{"no content", "GET", "gzip", "", 204, nil, false},
		{"a client that does not want it", "GET", "", "application/json", 200, []string{long}, false},
		{"a client that rules it out", "GET", "gzip;q=0, br", "application/json", 200, []string{long}, false},
		{"a client that says nonsense", "GET", "gzip;q=much", "application/json", 200, []string{long}, false},
		{"an answer to POST, which may hold a secret", "POST", "gzip", "application/json", 201, []string{long}, false},
		{"the event stream", "GET", "gzip", "text/event-stream", 200, []string{long}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			answer, text := ask(t, newCompressor(), c.method, c.encoding, writes(c.kind, c.status, c.parts...))
			if want := strings.Join(c.parts, ""); text != want {
				t.Errorf("%d bytes came, want %d", len(text), len(want))
			}
			if packed := answer.Header.Get("Content-Encoding") == "gzip"; packed != c.packed {
				t.Errorf("packed is %t", packed)
			}
			if want := max(c.status, 200); answer.StatusCode != want {
				t.Errorf("the status is %d, want %d", answer.StatusCode, want)
			}
			if c.packed && answer.Header.Get("Vary") != "Accept-Encoding" {
				t.Error("a cache in between is not told")
			}
		})
	}
}

// More answers at once than there are places are sent as they are, and every place is given back.
func TestCompressorIsBounded(t *testing.T) {
	t.Parallel()
	c := newCompressor()
	long := strings.Repeat("x", minCompressed)
	var nested func(depth int) http.HandlerFunc
	packed := 0
	nested = func(depth int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			writes("application/json", 200, long)(w, r)
			if depth == 0 {
				return
			}
			answer, text := ask(t, c, "GET", "gzip", nested(depth-1)) //nolint:contextcheck // each is a request of its own
			if text != long {
				t.Errorf("%d bytes came", len(text))
			}
			if answer.Header.Get("Content-Encoding") == "gzip" {
				packed++
			}
		}
	}
	for range 3 {
		packed = 0
		ask(t, c, "GET", "gzip", nested(2*maxCompressing))
		if packed != maxCompressing-1 {
			t.Errorf("beside the first, %d answers were compressed at once", packed)
		}
	}
}

// A handler that panics in the middle gives its place back, and whoever answers in its stead is understood.
func TestCompressorAfterAPanic(t *testing.T) {
	t.Parallel()
	c := newCompressor()
	for range 2 * maxCompressing {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.Header.Set("Accept-Encoding", "gzip")
		func() {
			defer func() {
				_ = recover()
				sendProblem(w, newProblem(http.StatusInternalServerError, "internal", "It is broken."))
			}()
			c.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				writes("application/json", 200, strings.Repeat("x", minCompressed))(w, r)
				panic("in the middle")
			})).ServeHTTP(w, r)
		}()
		if w.Code != http.StatusInternalServerError || w.Header().Get("Content-Encoding") != "" || !strings.Contains(w.Body.String(), "It is broken.") {
			t.Fatalf("status %d, %v: %s", w.Code, w.Header(), w.Body)
		}
	}
	if len(c.places) != 0 {
		t.Errorf("%d places are taken", len(c.places))
	}
}
