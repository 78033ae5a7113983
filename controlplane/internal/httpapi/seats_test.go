package httpapi_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/apitest"
)

// slowRequest sends the beginning of a request.
func slowRequest(t *testing.T, s *apitest.Server, text string) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err = io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

const slowSignIn = "POST /api/v1/session HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"

// TestSlowBodiesMakeRoom has more requests than there are seats, whose bodies do not come: the oldest are told so, and a
// request that comes whole is answered.
func TestSlowBodiesMakeRoom(t *testing.T) {
	t.Parallel()
	s := apitest.Serve(t, apitest.New(), apitest.Options{})
	var answers sync.WaitGroup
	problems := make(chan *http.Response, 300)
	var conns []net.Conn
	for range 300 {
		conn := slowRequest(t, s, slowSignIn)
		conns = append(conns, conn)
		answers.Go(func() {
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // closing the connection does it
			if err == nil {
				problems <- answer
			}
		})
	}
	first := <-problems
	var p api.Problem
	if err := json.NewDecoder(first.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if first.StatusCode != http.StatusServiceUnavailable || first.Header.Get("Retry-After") == "" || !first.Close ||
		!strings.Contains(p.Detail, "too many requests") || !strings.Contains(p.Detail, "Try again") {
		t.Errorf("the answer is %s, %v, %+v", first.Status, first.Header, p)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/api/v1/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+apitest.ViewerKey)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("meanwhile the API answers %s", answer.Status)
	}
	for _, conn := range conns {
		_ = conn.Close() // ends those that still wait
	}
	answers.Wait()
}

// TestBodiesThatAreRefused has bodies that are too large, and one without credentials, which nobody reads.
func TestBodiesThatAreRefused(t *testing.T) {
	t.Parallel()
	s := apitest.Serve(t, apitest.New(), apitest.Options{})
	for name, c := range map[string]struct {
		head   string
		length int
		want   int
	}{
		"a large sign-in": {"POST /api/v1/session", 5000, http.StatusRequestEntityTooLarge},
		"a large flow":    {"POST /api/v1/flows/check", 3 << 20, http.StatusRequestEntityTooLarge},
		"a stranger's":    {"POST /api/v1/flows/check", 3 << 20, http.StatusUnauthorized},
		"a slow nothing":  {"GET /healthz", 3 << 20, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			head := c.head + " HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
			if c.want == http.StatusRequestEntityTooLarge {
				head += "Authorization: Bearer " + apitest.ViewerKey + "\r\n"
			}
			conn := slowRequest(t, s, head+fmt.Sprintf("Content-Length: %d\r\n\r\n", c.length))
			var sending sync.WaitGroup
			if c.want == http.StatusRequestEntityTooLarge {
				sending.Go(func() { _, _ = io.WriteString(conn, strings.Repeat("x", c.length)) })
			}
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer answer.Body.Close() //nolint:errcheck // the connection ends with it
			if answer.StatusCode != c.want {
				t.Errorf("the answer is %s", answer.Status)
			}
			// Nobody waits for the rest.
			if err = conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
			sending.Wait()
		})
	}
}
