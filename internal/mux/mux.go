// Package mux runs several streams over one connection: yamux with limits on what a peer may do, and the WebSocket that
// carries the connection, with limits of its own.
//
// It knows nothing of what the streams carry, nor of whom it speaks to. yamux as it comes lets one peer exhaust memory
// and goroutines, so every frame is looked at before yamux sees it, and a peer that exceeds a limit loses its session.
// What a session costs while nothing happens is kept small, as a gateway has thousands. A Session is safe for concurrent
// use; of a Stream, reading and writing are each for one goroutine at a time.
package mux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

// The limits on a peer.
const (
	// MaxStreams is how many streams a peer may have open.
	MaxStreams = 256
	// MaxUnread is how many bytes of a peer may wait to be read, over all its streams.
	MaxUnread = 16 << 20
	// MaxPings is how many pings a peer may send per second, and how many at once: in yamux, and in the WebSocket.
	MaxPings = 10
	// MaxFrames is how many frames with a body of less than 5 bytes a peer may send per second, and how many at once.
	MaxFrames = 5000
	// MaxStrangerStreams and MaxStrangerUnread are the limits on a peer that is not known yet, and the next two those on one
	// that was and is trusted: it is one of thousands.
	MaxStrangerStreams = 2
	MaxStrangerUnread  = 64 << 10
	MaxTrustedStreams  = 4
	MaxTrustedUnread   = 2*trustedWindow + MaxStrangerUnread

	acceptBacklog = 8
	// streamWindow is how many bytes a peer may send ahead on one stream, and so how many are on their way on a long link.
	// trustedWindow is the same for one of thousands: what is not read stays in this process's memory.
	streamWindow  = 1 << 20
	trustedWindow = 256 << 10
	// maxFrame is the largest body of a frame that is taken; one that is sent is no larger than writeStep.
	maxFrame = 256 << 10

	// The peer is asked for a sign of life every 10 to 15 s, and dead after 30 s without one, and two round trips more where
	// the link is a bad one. Where the last answer took longer than slowAnswer, it is asked every slowKeepAlive, whether it
	// has answered or not. On a link of 4 s there and back that loses every fifth packet in each direction, the time between
	// two answers was more than 30 s twice an hour even so, and more than 40 s once. So a link that is bad but alive gets
	// badSilence.
	keepAliveMin  = 10 * time.Second
	keepAliveMax  = 15 * time.Second
	maxSilence    = 30 * time.Second
	slowAnswer    = time.Second
	slowKeepAlive = 5 * time.Second
	// A peer that takes nothing for so long has lost its session, even if it gives signs of life.
	writeTimeout = badSilence
	// openTimeout is how long a stream may wait to be accepted. Whether the peer lives is no question of it.
	openTimeout  = 2 * time.Minute
	closeTimeout = 30 * time.Second

	// writeStep is the most that is written under one write time-out, so that a slow link makes progress: four records of
	// TLS with yamux' header. serverStep is that of the accepting side, which has many sessions and says little: yamux
	// keeps a buffer of that size for each session that has once used it.
	writeStep  = 4*recordSize - headerSize
	serverStep = recordSize - headerSize
	// slowStep is that of a bad link, on which a few kilobytes may take half a minute: nothing that is whole comes out of
	// a record of TLS before its last byte, and a sign of life waits for what is in front of it.
	slowStep = 1 << 10
)

// ErrLimit is when a peer exceeded a limit; its session has ended.
var ErrLimit = errors.New("the peer exceeded a limit of the tunnel")

// ErrWriteTimeout is when the peer took nothing for too long; its session has ended.
var ErrWriteTimeout = errors.New("the peer took nothing for too long")

// ErrSilent is when the peer gave no sign of life for too long; its session has ended.
var ErrSilent = errors.New("the peer gave no sign of life for too long")

// ErrReadTimeout is when nothing came until a stream's read deadline; the session goes on.
var ErrReadTimeout error = yamux.ErrTimeout

// Session is one connection with its streams.
type Session struct {
	inner  *yamux.Session
	guard  *guard
	timing timing
	// step is the most that one frame carries while slow is not set, which it is until an answer has come soon.
	step int
	slow atomic.Bool
	link *link

	mu sync.Mutex
	// next is when the peer is asked for a sign of life; nil once the session is closed.
	next *time.Timer
	// beats counts what next has started or will start.
	beats sync.WaitGroup
}

// timing is when a session asks whether its peer lives, and when it gives it up.
type timing struct {
	keepAlive, silence, write time.Duration
	// slowAnswer is from when on an answer is late, slowKeepAlive how often the peer is asked then, and badSilence what
	// silence is over a bad link; 0 for the usual.
	slowAnswer, slowKeepAlive, badSilence time.Duration
}

func usual() timing {
	return timing{
		keepAlive: keepAliveMin + rand.N(keepAliveMax-keepAliveMin), //nolint:gosec // jitter needs no cryptographic randomness
		silence:   maxSilence,
		write:     writeTimeout,
	}
}

// Client starts the dialling side on a connection, which it owns from then on.
func Client(conn net.Conn, log *slog.Logger) (*Session, error) {
	s, err := start(newGuard(conn, 0), yamux.Client, usual(), log)
	if err != nil {
		return nil, err
	}
	s.step = writeStep
	return s, nil
}

// Server starts the accepting side on a connection, which it owns from then on.
func Server(conn net.Conn, log *slog.Logger) (*Session, error) {
	return start(newGuard(conn, 1), yamux.Server, usual(), log)
}

// ServerForStranger is Server for a peer that is not known yet: until Trust it may open few streams
// and send little, and after it no more than two conversations need.
func ServerForStranger(conn net.Conn, log *slog.Logger) (*Session, error) {
	g := newGuard(conn, 1)
	g.limits = limits{streams: MaxStrangerStreams, unread: MaxStrangerUnread}
	return start(g, narrow, usual(), log)
}

// narrow is yamux.Server with the window of one of thousands.
func narrow(conn io.ReadWriteCloser, c *yamux.Config) (*yamux.Session, error) {
	c.MaxStreamWindowSize = trustedWindow
	return yamux.Server(conn, c) //nolint:wrapcheck // start wraps it
}

// Trust widens the limits on a stranger.
func (s *Session) Trust() {
	s.guard.allow(limits{streams: MaxTrustedStreams, unread: MaxTrustedUnread})
}

// whole fills in what is not set.
func (t timing) whole() timing {
	t.slowAnswer = cmp.Or(t.slowAnswer, slowAnswer)
	t.slowKeepAlive = cmp.Or(t.slowKeepAlive, slowKeepAlive)
	t.badSilence = cmp.Or(t.badSilence, badSilence)
	return t
}

type starter func(io.ReadWriteCloser, *yamux.Config) (*yamux.Session, error)

func start(g *guard, side starter, t timing, log *slog.Logger) (*Session, error) {
	t = t.whole()
	inner, err := side(g, config(t, log))
	if err != nil {
		return nil, fmt.Errorf("start the streams of the tunnel: %w", err)
	}
	s := &Session{inner: inner, guard: g, timing: t, step: serverStep, link: newLink(g.Conn)}
	s.beats.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slow.Store(true)
	s.next = time.AfterFunc(0, s.beat)
	return s, nil
}

// beat asks the peer for a sign of life, or gives it up. A timer calls it: a goroutine that waits would cost each session
// its stack.
func (s *Session) beat() {
	defer s.beats.Done()
	if s.inner.IsClosed() {
		return
	}
	silence := s.guard.silence()
	s.link.look()
	if silence > s.timing.keepAlive+s.timing.slowAnswer && s.link.maybeBad() {
		s.slow.Store(true)
	}
	left := s.timing.silence + s.link.late() - silence
	if left <= 0 && silence < s.timing.badSilence && s.link.badButAlive() {
		left = s.timing.slowKeepAlive
	}
	if left <= 0 || s.link.unheard() {
		s.guard.fail(ErrSilent)
		_ = s.inner.Close() // it gives no error
		return
	}
	s.beatAfter(min(s.every(), left))
	for _, stream := range s.guard.idle() {
		stream.Shrink()
	}
	// Whether the answer came is seen by when the peer was last heard: on a slow link it may come late, behind much else.
	asked := time.Now()
	_, _ = s.inner.Ping()
	took := time.Since(asked)
	if slow := took > s.timing.slowAnswer && s.link.maybeBad(); s.slow.Swap(slow) != slow && slow {
		s.beatAfter(max(0, s.every()-took))
	}
}

// every is how often the peer is asked for a sign of life now.
func (s *Session) every() time.Duration {
	if s.slow.Load() {
		return min(s.timing.slowKeepAlive, s.timing.keepAlive)
	}
	return s.timing.keepAlive
}

// beatAfter sets when the next beat is.
func (s *Session) beatAfter(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil && !s.next.Reset(d) {
		s.beats.Add(1)
	}
}

func config(t timing, log *slog.Logger) *yamux.Config {
	c := yamux.DefaultConfig()
	c.AcceptBacklog = acceptBacklog
	c.EnableKeepAlive = false
	c.ConnectionWriteTimeout = t.write
	c.MaxStreamWindowSize = streamWindow
	c.StreamOpenTimeout = openTimeout
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
	s.guard.taken(inner)
	return &Stream{inner: inner, session: s}, nil
}

// Accept waits for a stream of the peer.
func (s *Session) Accept(ctx context.Context) (*Stream, error) {
	inner, err := s.inner.AcceptStreamWithContext(ctx)
	if err != nil {
		return nil, s.explain("accept a stream", err)
	}
	s.guard.accepted()
	s.guard.taken(inner)
	return &Stream{inner: inner, session: s}, nil
}

// AwaitStream calls f once, in a goroutine of its own, as soon as there is a stream to accept or the session ends. So a
// session that waits costs no goroutine. One wait at a time is possible.
func (s *Session) AwaitStream(f func()) { s.guard.awaitStream(f) }

// Close ends the session and unblocks everything that waits on its streams. A second call does nothing.
func (s *Session) Close() error {
	s.mu.Lock()
	if s.next != nil && s.next.Stop() {
		s.beats.Done()
	}
	s.next = nil
	s.mu.Unlock()
	err := s.inner.Close()
	s.beats.Wait()
	if err != nil {
		return fmt.Errorf("close the tunnel: %w", err)
	}
	return nil
}

// Done is closed once the session has ended, from whichever side.
func (s *Session) Done() <-chan struct{} { return s.inner.CloseChan() }

// explain prefers why the peer lost its session to what that led to.
func (s *Session) explain(doing string, err error) error {
	if cause := s.guard.violation(); cause != nil {
		return fmt.Errorf("%s: %w", doing, cause)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// most is how much one frame carries now.
func (s *Session) most() int {
	if s.slow.Load() {
		return slowStep
	}
	return s.step
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
		return n, s.session.guard.violation()
	}
	if errors.Is(err, yamux.ErrTimeout) && s.session.guard.over() {
		return n, io.EOF
	}
	return n, err //nolint:wrapcheck // callers compare it with io.EOF
}

// Readable says whether Read would return at once: with something, or because the stream or the session has ended.
func (s *Stream) Readable() bool {
	g := s.session.guard
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.readable(g.streams[s.inner.StreamID()])
}

// Await calls f once, in a goroutine of its own, as soon as the stream is readable. One wait at a time is possible.
func (s *Stream) Await(f func()) { s.session.guard.await(s.inner.StreamID(), f) }

// Write sends to the peer. When the peer takes nothing for the write time-out, the session ends: after that, yamux
// would leave the peer's reader waiting for ever.
func (s *Stream) Write(p []byte) (int, error) {
	total := 0
	for {
		step := p[total:min(len(p), total+s.session.most())]
		if err := s.inner.SetWriteDeadline(time.Now().Add(s.session.timing.write)); err != nil {
			return total, fmt.Errorf("bound a write: %w", err)
		}
		n, err := s.inner.Write(step)
		total += n
		if errors.Is(err, yamux.ErrTimeout) && s.session.guard.over() {
			return total, s.session.explain("write", yamux.ErrSessionShutdown)
		}
		if errors.Is(err, yamux.ErrTimeout) || errors.Is(err, yamux.ErrConnectionWriteTimeout) {
			s.session.guard.fail(ErrWriteTimeout)
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

// yamuxLog passes yamux's lines on as details; what matters is in the errors.
type yamuxLog struct{ log *slog.Logger }

func (l yamuxLog) Print(v ...any) {
	l.log.Debug("tunnel_streams", slog.Any("detail", lazily(func() string { return fmt.Sprint(v...) })))
}

func (l yamuxLog) Println(v ...any) { l.Print(v...) }

func (l yamuxLog) Printf(format string, v ...any) {
	l.log.Debug("tunnel_streams", slog.Any("detail", lazily(func() string { return fmt.Sprintf(format, v...) })))
}

// lazily is a text that is made only when it is logged: a peer decides how often yamux has something to say.
type lazily func() string

// LogValue makes the text.
func (f lazily) LogValue() slog.Value { return slog.StringValue(f()) }
