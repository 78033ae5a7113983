package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	// A link of 2 s delay that loses every fifth packet takes 20 s for TLS and the headers now and then.
	readHeaderTimeout = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
	shutdownTimeout   = 15 * time.Second
)

// stoppingKey is the key of the channel that closes when the server begins to stop.
type stoppingKey struct{}

// stopping closes when the server of a request begins to stop; it is nil for a request that Serve did not take.
func stopping(ctx context.Context) <-chan struct{} {
	done, _ := ctx.Value(stoppingKey{}).(<-chan struct{})
	return done
}

// Serve serves h on l until ctx ends, and then stops: it takes no new requests, ends the event streams, and gives the
// requests that are under way 15 s. It closes l. The connections that it holds without a request are bounded. Connections that a handler took over (the tunnels) are that handler's
// to end. For TLS, give a listener of crypto/tls.
func Serve(ctx context.Context, l net.Listener, h http.Handler, logger *slog.Logger) error {
	requests := context.WithValue(context.WithoutCancel(ctx), stoppingKey{}, ctx.Done())
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ConnState:         newCrowd(maxFresh, maxIdle).changed,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(limit); err != nil {
		logger.WarnContext(ctx, "requests did not end in time and were cut", "error", err)
		_ = server.Close() // cutting is what is left to do
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	}
	return nil
}
