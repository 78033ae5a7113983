// Package mux runs several streams over one connection: yamux with limits on what a peer may do.
//
// It knows nothing of what the streams carry, and it dials nothing. yamux as it comes lets one peer exhaust memory and
// goroutines, so every frame is looked at before yamux sees it, and a peer that exceeds a limit loses its session. A
// Session is safe for concurrent use; of a Stream, reading and writing are each for one goroutine at a time.
package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// The limits on a peer.
const (
	// MaxStreams is how many streams a peer may have open.
	MaxStreams = 256
	// MaxUnread is how many bytes of a peer may wait to be read, over all its streams.
	MaxUnread = 16 << 20
	// MaxPings is how many pings a peer may send per second, and how many at once.
	MaxPings = 10

	acceptBacklog = 8
	// streamWindow is how many bytes a peer may send ahead on one stream; yamux allows no less.
	streamWindow = 256 << 10

	// A dead peer is noticed after one keep-alive interval and one write time-out: within 40 s.
	keepAliveMin = 10 * time.Second
	keepAliveMax = 15 * time.Second
	writeTimeout = 25 * time.Second
	closeTimeout = 30 * time.Second

	// writeStep is the most that is written under one write time-out, so that a slow link makes progress.
	writeStep = 64 << 10
)

// ErrLimit is when a peer exceeded a limit; its session has ended.
var ErrLimit = errors.New("the peer exceeded a limit of the tunnel")

// ErrWriteTimeout is when the peer took nothing for too long; its session has ended.
var ErrWriteTimeout = errors.New("the peer took nothing for too long")

// Session is one connection with its streams.
type Session struct {
	inner        *yamux.Session
	guard        *guard
	writeTimeout time.Duration
}

// timing is when a session gives up on its peer.
type timing struct{ keepAlive, write time.Duration }

func usual() timing {
	return timing{
		keepAlive: keepAliveMin + rand.N(keepAliveMax-keepAliveMin), //nolint:gosec // jitter needs no cryptographic randomness
		write:     writeTimeout,
	}
}

// Client starts the dialling side on a connection, which it owns from then on.
func Client(conn net.Conn, log *slog.Logger) (*Session, error) {
	return start(newGuard(conn, 0), yamux.Client, usual(), log)
}

// Server starts the accepting side on a connection, which it owns from then on.
func Server(conn net.Conn, log *slog.Logger) (*Session, error) {
	return start(newGuard(conn, 1), yamux.Server, usual(), log)
}

type starter func(io.ReadWriteCloser, *yamux.Config) (*yamux.Session, error)

func start(g *guard, side starter, t timing, log *slog.Logger) (*Session, error) {
	inner, err := side(g, config(t, log))
	if err != nil {
		return nil, fmt.Errorf("start the streams of the tunnel: %w", err)
	}
	return &Session{inner: inner, guard: g, writeTimeout: t.write}, nil
}

func config(t timing, log *slog.Logger) *yamux.Config {
	c := yamux.DefaultConfig()
	c.AcceptBacklog = acceptBacklog
	c.KeepAliveInterval = t.keepAlive
	c.ConnectionWriteTimeout = t.write
	c.MaxStreamWindowSize = streamWindow
	c.StreamOpenTimeout = t.write
	c.StreamCloseTimeout = closeTimeout
	c.LogOutput = nil
	c.Logger = yamuxLog{log}
	return c
}

// Open starts a stream.
func (s *Session) Open() (*Stream, error) {
	inner, err := s.inner.OpenStream()
	if err != nil {
		return nil, s.explain("open a stream", err)
	}
	return &Stream{inner: inner, session: s}, nil
}

// Accept waits for a stream of the peer.
func (s *Session) Accept(ctx context.Context) (*Stream, error) {
	inner, err := s.inner.AcceptStreamWithContext(ctx)
	if err != nil {
		return nil, s.explain("accept a stream", err)
	}
	return &Stream{inner: inner, session: s}, nil
}

// Close ends the session and unblocks everything that waits on its streams. A second call does nothing.
func (s *Session) Close() error {
	if err := s.inner.Close(); err != nil {
		return fmt.Errorf("close the tunnel: %w", err)
	}
	return nil
}

// Done is closed once the session has ended, from whichever side.
func (s *Session) Done() <-chan struct{} { return s.inner.CloseChan() }

// explain prefers the limit that was exceeded to what it led to.
func (s *Session) explain(doing string, err error) error {
	if cause := s.guard.violation(); cause != nil {
		return fmt.Errorf("%s: %w", doing, cause)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Stream is one conversation.
type Stream struct {
	inner   *yamux.Stream
	session *Session
	closed  sync.Once
}

// Read reads what the peer sent; io.EOF after the peer closed the stream.
func (s *Stream) Read(p []byte) (int, error) {
	n, err := s.inner.Read(p)
	s.session.guard.consumed(s.inner.StreamID(), n)
	if err != nil && s.session.guard.violation() != nil {
		err = s.session.guard.violation()
	}
	return n, err
}

// Write sends to the peer. When the peer takes nothing for the write time-out, the session ends: after that, yamux
// would leave the peer's reader waiting for ever.
func (s *Stream) Write(p []byte) (int, error) {
	total := 0
	for {
		step := p[total:min(len(p), total+writeStep)]
		if err := s.inner.SetWriteDeadline(time.Now().Add(s.session.writeTimeout)); err != nil {
			return total, fmt.Errorf("bound a write: %w", err)
		}
		n, err := s.inner.Write(step)
		total += n
		if errors.Is(err, yamux.ErrTimeout) || errors.Is(err, yamux.ErrConnectionWriteTimeout) {
			return total, errors.Join(ErrWriteTimeout, s.session.Close())
		}
		if err != nil {
			return total, s.session.explain("write", err)
		}
		if total == len(p) {
			return total, nil
		}
	}
}

// SetReadDeadline bounds the reads after it; the zero time lifts the bound.
func (s *Stream) SetReadDeadline(t time.Time) error {
	if err := s.inner.SetReadDeadline(t); err != nil {
		return fmt.Errorf("bound a read: %w", err)
	}
	return nil
}

// Close says that nothing more will be written or read.
func (s *Stream) Close() error {
	s.closed.Do(func() { s.session.guard.closedHere(s.inner.StreamID()) })
	if err := s.inner.Close(); err != nil {
		return fmt.Errorf("close a stream: %w", err)
	}
	return nil
}

// WithClose replaces how a connection is closed. The WebSocket's own Close waits for the peer's answer; a dead peer
// gives none, and a reader must not wait for it.
func WithClose(conn net.Conn, closeNow func() error) net.Conn {
	return closer{Conn: conn, closeNow: closeNow}
}

type closer struct {
	net.Conn
	closeNow func() error
}

// Close closes at once.
func (c closer) Close() error { return c.closeNow() }

// yamuxLog passes yamux's lines on as details; what matters is in the errors.
type yamuxLog struct{ log *slog.Logger }

func (l yamuxLog) Print(v ...any) {
	l.log.Debug("tunnel_streams", slog.String("detail", fmt.Sprint(v...)))
}

func (l yamuxLog) Println(v ...any) { l.Print(v...) }

func (l yamuxLog) Printf(format string, v ...any) { l.Print(fmt.Sprintf(format, v...)) }
