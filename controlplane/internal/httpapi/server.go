package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outfeed/outfeed/internal/source"
)

const (
	// A link of 2 s delay that loses every fifth packet takes 20 s for TLS and the headers now and then.
	readHeaderTimeout = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 64 << 10
	shutdownTimeout   = 15 * time.Second
	// tailTimeout is how long the rest of a request may take that is answered already.
	tailTimeout = time.Second
)

// stoppingKey is the key of the channel that closes when the server begins to stop.
type stoppingKey struct{}

// stopping closes when the server of a request begins to stop; it is nil for a request that Serve did not take.
func stopping(ctx context.Context) <-chan struct{} {
	done, _ := ctx.Value(stoppingKey{}).(<-chan struct{})
	return done
}

// ServeSettings is how a listener is served. Handler and Logger must be set.
type ServeSettings struct {
	Handler http.Handler
	Logger  *slog.Logger
	// TLS is nil for plain HTTP.
	TLS *tls.Config
	// Registry takes the metrics of TLS, which are those of one listener; it may be nil.
	Registry prometheus.Registerer
	// Proxies are believed when they say for whom they speak: with X-Forwarded-For, or with the PROXY protocol.
	Proxies source.Proxies
	// Rush says whether many agents may come at once now. While they may and many TLS handshakes go on, agents that can come
	// later are told to; nil for never.
	Rush func() bool
}

// Serve serves on l, a listener of plain TCP, until ctx ends, and then stops: it takes no new requests, ends the event
// streams, and gives the requests that are under way 15 s. It closes l. The connections that it holds without a request are
// bounded. Connections that a handler took over (the tunnels) are that handler's to end. The handler sees in RemoteAddr
// where a request comes from, which behind one of the proxies is what that says, without a port.
func Serve(ctx context.Context, l net.Listener, s ServeSettings) error {
	requests := context.WithValue(context.WithoutCancel(ctx), stoppingKey{}, ctx.Done())
	crowd := newCrowd(usualLimits(), s.Proxies)
	crowd.rush = s.Rush
	server := &http.Server{
		Handler:           crowd.serve(s.Handler),
		ReadHeaderTimeout: readHeaderTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ConnContext:       withConn,
		ConnState:         crowd.changed,
		ErrorLog:          slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
		HTTP2:             http2Limits(),
		Protocols:         protocols(s.TLS),
	}
	setUpHTTP2(server)
	server.IdleTimeout = idleTimeout
	in := crowd.listen(l, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(in) }()
	var taking sync.WaitGroup
	defer taking.Wait()
	defer in.Close() //nolint:errcheck // the server has closed it, unless it failed
	taking.Go(in.run)
	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(limit); err != nil {
		s.Logger.WarnContext(ctx, "requests did not end in time and were cut", "error", err)
		_ = server.Close() // cutting is what is left to do
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	}
	return nil
}

// serve gives a request the address that it comes from, and looks after what is left of it when it was answered.
func (c *crowd) serve(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one := connIn(r.Context())
		peer := r.RemoteAddr
		if one != nil {
			if told := one.client.Load(); told != nil {
				peer = *told
			}
		}
		r.RemoteAddr = c.proxies.Client(peer, r.Header)
		if one := metered(r.Context()); one != nil {
			state := one.streams.Load()
			r.TLS = &state.tls
			state.begin()
			defer state.end()
		}
		next.ServeHTTP(w, r)
		if one == nil {
			return
		}
		c.finish(one, w, r)
	})
}

// finish bounds what comes after a handler: the server sends what it still holds of the answer, and reads what it can of the
// rest of the request. Neither may take for ever, nor be done for too many at once.
func (c *crowd) finish(one *conn, w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	if r.ProtoMajor > 1 {
		// A stream that is answered is reset, so only the answer is left.
		_ = control.Flush() // whoever hung up has no use for it
		return
	}
	if one.takenOver.Load() {
		return
	}
	_ = control.SetReadDeadline(time.Now().Add(tailTimeout)) // a connection that is closed has nothing left to read
	c.move(one, leaving)
}
