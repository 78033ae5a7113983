package mux

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	tcp "github.com/outfeed/outfeed/internal/socket"
)

const (
	// lentBuffer is what the WebSocket library gets to shake hands, which it does without them.
	lentBuffer = 16

	// overheadBurst and overheadPerSecond bound the bytes of a WebSocket that carry no message, such as pings, empty
	// messages and the headers of tiny fragments; a quarter of what is carried comes on top.
	overheadBurst     = 256 << 10
	overheadPerSecond = 64 << 10
)

// Upgrade answers a request for a WebSocket and gives the connection that it carries. The handler may then return: the
// connection is the caller's, and nothing of the request is kept. Without an error nothing more may be answered; with
// one, the answer was given.
func Upgrade(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	t := &takeover{ResponseWriter: w}
	shaken, err := websocket.Accept(t, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil, fmt.Errorf("upgrade a request to a WebSocket: %w", err)
	}
	_ = shaken.CloseNow() // it had only a lent connection
	return newAccepted(t.conn, t.early), nil
}

// AwaitFirst waits until something has come over a connection that Upgrade gave, or it is closed. It reads nothing, and needs
// little of a stack, so that a peer that says nothing costs little. Where the system cannot tell, it does not wait.
func AwaitFirst(conn net.Conn) {
	if a, ok := conn.(*accepted); ok && len(a.early) > 0 {
		return
	}
	tcp.Await(conn)
}

// Dial opens a WebSocket with a client whose transport is ready for it, and gives the connection that it carries. The
// answer is that of websocket.Dial; its body needs no closing.
func Dial(ctx context.Context, url string, client *http.Client) (net.Conn, *http.Response, error) {
	s := &socket{pings: newBucket(MaxPings), local: nowhere{}, remote: nowhere{}}
	inside := *client
	transport := client.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	inside.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		got := &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { s.below = c.Conn }}
		answer, err := transport.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), got)))
		if err != nil {
			return answer, err //nolint:wrapcheck // the client wraps it
		}
		if conn, ok := answer.Body.(io.ReadWriteCloser); ok {
			s.raw = &gather{conn: conn, overhead: overheadBurst}
			answer.Body = s.raw
		}
		return answer, nil
	})
	ws, answer, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient: &inside, CompressionMode: websocket.CompressionDisabled, OnPingReceived: s.pinged, OnPongReceived: s.ponged,
	})
	if err != nil {
		return nil, answer, err //nolint:wrapcheck // the caller knows what it dialled
	}
	s.ws = ws
	return s, answer, nil
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip calls the function.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// takeover is a ResponseWriter that keeps the connection which is taken over, and lends it to who takes it.
type takeover struct {
	http.ResponseWriter
	conn  net.Conn
	early []byte
}

// Hijack takes the connection with what was read of it already.
func (t *takeover) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("take the connection over: %w", err)
	}
	early, err := buffers.Peek(buffers.Reader.Buffered())
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	t.conn = conn
	if len(early) > 0 {
		t.early = append(t.early, early...)
	}
	return lent{conn}, bufio.NewReadWriter(bufio.NewReaderSize(lent{conn}, lentBuffer), bufio.NewWriterSize(lent{conn}, lentBuffer)), nil
}

// lent is a connection that stays open when it is closed.
type lent struct{ net.Conn }

// Close does nothing.
func (lent) Close() error { return nil }

// buffers are what messages are put together in; an idle connection has none.
var buffers = sync.Pool{New: func() any { return new([]byte) }} //nolint:gochecknoglobals // a pool holds no state

// buffer takes an empty one.
func buffer() *[]byte {
	buf, ok := buffers.Get().(*[]byte)
	if !ok {
		buf = new([]byte)
	}
	*buf = (*buf)[:0]
	return buf
}

// gather is the connection below a WebSocket that was dialled. It sends a message that the WebSocket writes in pieces as one piece, and
// counts what carries no message.
type gather struct {
	conn io.ReadWriteCloser

	// overhead is how many bytes may yet come that carry no message, at refilled. Only the reading goroutine uses them.
	overhead int64
	refilled time.Time

	mu sync.Mutex
	// held is the message that is being put together, nil when there is none.
	held *[]byte
}

// Read reads what the peer sent.
func (g *gather) Read(p []byte) (int, error) {
	n, err := g.conn.Read(p)
	now := time.Now()
	if !g.refilled.IsZero() {
		g.overhead = min(overheadBurst, g.overhead+int64(now.Sub(g.refilled).Seconds()*overheadPerSecond))
	}
	g.refilled = now
	if g.overhead -= int64(n); g.overhead < 0 {
		return 0, errors.Join(fmt.Errorf("%w: too many bytes of a WebSocket that carry no message", ErrLimit), g.conn.Close())
	}
	return n, err //nolint:wrapcheck // the WebSocket compares it with io.EOF
}

// carried notes that n bytes of what was read were of a message.
func (g *gather) carried(n int) {
	g.overhead = min(overheadBurst, g.overhead+int64(n)+int64(n)/4)
}

// hold begins a message.
func (g *gather) hold() {
	buf := buffer()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = buf
}

// send ends a message and sends it.
func (g *gather) send() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	buf := g.held
	g.held = nil
	defer buffers.Put(buf)
	_, err := g.conn.Write(*buf)
	return err //nolint:wrapcheck // TLS looks at it
}

// Write sends, or adds to the message.
func (g *gather) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held != nil {
		*g.held = append(*g.held, p...)
		return len(p), nil
	}
	return g.conn.Write(p) //nolint:wrapcheck // as in Read
}

// Close closes at once.
func (g *gather) Close() error { return g.conn.Close() } //nolint:wrapcheck // as in Read

// socket is the dialling side of a WebSocket as a connection: every Write is one binary message, and every binary message can be read.
type socket struct {
	ws  *websocket.Conn
	raw *gather
	// below is the connection that carries the WebSocket.
	below         net.Conn
	local, remote net.Addr

	// message is the one that is being read. Only Read uses it.
	message io.Reader
	pings   bucket
	// deadline is when writes end; nil for never.
	deadline atomic.Pointer[time.Time]
}

// Read reads what messages carry; io.EOF after the peer has closed the WebSocket.
func (s *socket) Read(p []byte) (int, error) {
	for {
		if s.message == nil {
			kind, message, err := s.ws.Reader(context.Background())
			if err != nil {
				return 0, ended(err)
			}
			if kind != websocket.MessageBinary {
				return 0, errors.Join(fmt.Errorf("%w: a message of text", ErrLimit), s.raw.Close())
			}
			s.message = message
		}
		n, err := s.message.Read(p)
		s.raw.carried(n)
		if errors.Is(err, io.EOF) {
			s.message, err = nil, nil
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// ended makes of an orderly close what it means for a connection.
func ended(err error) error {
	if status := websocket.CloseStatus(err); status == websocket.StatusNormalClosure || status == websocket.StatusGoingAway {
		return io.EOF
	}
	return err
}

// Write sends one message.
func (s *socket) Write(p []byte) (int, error) {
	ctx := context.Background()
	if at := s.deadline.Load(); at != nil {
		bounded, cancel := context.WithDeadline(ctx, *at)
		defer cancel()
		ctx = bounded
		// The library's own bound ends with the message that it hands down.
		stop := context.AfterFunc(bounded, func() { _ = s.raw.Close() })
		defer stop()
	}
	s.raw.hold()
	err := s.ws.Write(ctx, websocket.MessageBinary, p)
	if err = errors.Join(err, s.raw.send()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// pinged answers the pings of whoever is in between, within bounds. The reading goroutine calls it.
func (s *socket) pinged(context.Context, []byte) bool {
	if s.pings.take() {
		return true
	}
	// Closing what is below ends the read; closing the WebSocket would wait for it.
	_ = s.raw.Close()
	return false
}

func (s *socket) ponged(ctx context.Context, payload []byte) { s.pinged(ctx, payload) }

// Close closes at once, without waiting for the peer.
func (s *socket) Close() error { return s.ws.CloseNow() } //nolint:wrapcheck // TLS looks at it

// NetConn is the connection that carries the WebSocket; nothing may be read from it or written to it.
func (s *socket) NetConn() net.Conn { return s.below }

// LocalAddr is this side's address, where it is known.
func (s *socket) LocalAddr() net.Addr { return s.local }

// RemoteAddr is the peer's address, where it is known.
func (s *socket) RemoteAddr() net.Addr { return s.remote }

// SetWriteDeadline bounds the writes after it; a write that is bounded and does not end closes the connection.
func (s *socket) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		s.deadline.Store(nil)
		return nil
	}
	s.deadline.Store(&t)
	return nil
}

// SetReadDeadline is not needed and not there.
func (*socket) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetDeadline is not there either.
func (*socket) SetDeadline(time.Time) error { return os.ErrNoDeadline }

// nowhere is the address of a connection whose transport does not tell it.
type nowhere struct{}

// Network is websocket.
func (nowhere) Network() string { return "websocket" }

// String says that it is not known.
func (nowhere) String() string { return "unknown" }
