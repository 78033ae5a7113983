package httpapi

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	tcp "github.com/outfeed/outfeed/internal/socket"
)

// TestKernelIsReached has a handler take a connection over, as a tunnel does, and look through all layers for what the kernel
// knows of it: by that a bad link is told from a dead one.
func TestKernelIsReached(t *testing.T) {
	t.Parallel()
	server, client := outerTLS(t)
	for name, settings := range map[string]*tls.Config{"plain": nil, "TLS": server} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := listening(t)
			ctx, cancel := context.WithCancel(t.Context())
			handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				flow, ok := tcp.FlowOf(conn)
				_, _ = fmt.Fprintln(conn, ok && flow.Arrived > 0 && flow.RoundTrip < time.Minute)
				_ = conn.Close() // the other end has what it waits for
			})
			var running sync.WaitGroup
			defer running.Wait()
			defer cancel()
			running.Go(func() {
				if err := Serve(ctx, l, ServeSettings{Handler: handler, Logger: slog.New(slog.DiscardHandler), TLS: settings}); err != nil {
					t.Error(err)
				}
			})
			c := dialed(t, l.Addr().String())
			if settings != nil {
				c = tls.Client(c, client)
			}
			if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if said, _ := io.ReadAll(c); string(said) != "true\n" {
				t.Errorf("the handler said %q", said)
			}
		})
	}
}
