package apitest

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outfeed/outfeed/controlplane/internal/auth"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi"
)

// Options change how Serve serves. The zero Options are fine.
type Options struct {
	PublicURL   *url.URL
	Heartbeat   time.Duration
	Web, Tunnel http.Handler
	Serving     func() bool
}

// Server is the API of a Fleet on a free port of this machine.
type Server struct {
	// URL is its address, like http://127.0.0.1:1234.
	URL string
	// Stop stops it and waits. The end of the test does, too.
	Stop func()
}

// Serve serves the API until the test ends.
func Serve(t *testing.T, f *Fleet, o Options) *Server {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	handler := httpapi.New(httpapi.Settings{
		Fleet: f, Auth: auth.New(auth.Settings{Keys: f, Sessions: f, PublicURL: o.PublicURL}),
		Web: o.Web, Tunnel: o.Tunnel, Serving: o.Serving, PublicURL: o.PublicURL, Heartbeat: o.Heartbeat,
		Registry: prometheus.NewRegistry(), Logger: logger,
	})
	return ServeHandler(t, handler)
}

// ServeHandler serves a handler until the test ends.
func ServeHandler(t *testing.T, handler http.Handler) *Server {
	t.Helper()
	var listening net.ListenConfig
	listener, err := listening.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := httpapi.Serve(ctx, listener, httpapi.ServeSettings{Handler: handler, Logger: slog.New(slog.DiscardHandler)}); err != nil {
			t.Errorf("the server failed: %v", err)
		}
	}()
	stop := func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return &Server{URL: "http://" + listener.Addr().String(), Stop: stop}
}
