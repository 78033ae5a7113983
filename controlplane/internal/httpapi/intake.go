package httpapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outfeed/outfeed/internal/source"
)

const (
	// maxHead is how much of a request's head is collected before the server gets the connection whole or not, and
	// firstHead is what is taken at once. Most heads are shorter than maxHead.
	maxHead   = 1 << 10
	firstHead = 64
	// maxHello is how much of a client's first TLS record is collected before TLS gets it whole or not. With the key shares
	// of today it has about 1,500 to 2,000 bytes.
	maxHello = 4 << 10
	// recordHead is the part of a TLS record that tells its length, and recordHandshake the first byte of one that begins.
	recordHead      = 5
	recordHandshake = 22
	// sip is how much is read at once of a connection whose head is not whole.
	sip = 256
)

// intake takes connections, and hands them to the server when the head of their request is whole. Until then a connection
// has a goroutine with a small stack and a small buffer, and what TLS keeps: the buffers of HTTP come later. So a server can
// hold several times as many slow clients as those buffers would let it, and has to cut fewer.
type intake struct {
	net.Listener
	crowd *crowd
	// config is nil for plain HTTP.
	config     *tls.Config
	handshakes *prometheus.CounterVec
	log        *slog.Logger

	ready  chan net.Conn
	failed chan error
	// ended closes with the listener.
	ended  chan struct{}
	ending sync.Once
	taken  sync.WaitGroup
}

func (c *crowd) listen(l net.Listener, s ServeSettings) *intake {
	deferAccept(l)
	c.secure = s.TLS != nil
	var registry prometheus.Registerer
	if c.secure {
		registry = s.Registry
	}
	return &intake{
		Listener: l, crowd: c, config: s.TLS, handshakes: newHandshakes(registry), log: s.Logger,
		ready: make(chan net.Conn), failed: make(chan error), ended: make(chan struct{}),
	}
}

// Accept gives a connection whose client has said what it wants.
func (in *intake) Accept() (net.Conn, error) {
	select {
	case c := <-in.ready:
		return c, nil
	case err := <-in.failed:
		return nil, err
	case <-in.ended:
		return nil, net.ErrClosed
	}
}

// Close ends the taking, and closes what was not handed over.
func (in *intake) Close() error {
	in.ending.Do(func() { close(in.ended) })
	err := in.Listener.Close()
	for _, one := range in.crowd.waiting() {
		one.cut()
	}
	return err //nolint:wrapcheck // the server looks at it
}

// run takes connections until Close, and returns when all are handed over or closed. It never waits for anything but a
// connection, unless there can be none: then it waits until the server has noted that.
func (in *intake) run() {
	defer in.taken.Wait()
	for {
		raw, err := in.Listener.Accept()
		if err != nil {
			select {
			case in.failed <- err:
			case <-in.ended:
				return
			}
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		peer := raw.RemoteAddr().String()
		one := &conn{Conn: raw, crowd: in.crowd, from: source.Site(peer), mayTell: in.crowd.proxies.Trust(peer)}
		in.crowd.move(one, early)
		in.taken.Go(func() { in.receive(one) })
		in.crowd.ending.yield()
	}
}

// drop is for a connection that is not handed over.
func (in *intake) drop(one *conn) {
	in.crowd.move(one, working)
	_ = one.Close() // it may be closed
	one.ended()
}

// receive waits for the first message.
func (in *intake) receive(one *conn) {
	select {
	case <-in.ended:
		in.drop(one)
		return
	default:
	}
	_ = one.SetDeadline(time.Now().Add(readHeaderTimeout)) // what is closed fails at once
	switch {
	case one.mayTell && one.readProxy() != nil:
		in.drop(one)
	case in.config == nil:
		in.collect(one, nil)
	case !in.mayBegin(one):
		in.drop(one)
	default:
		// The handshake needs a large stack, and what comes before and after it needs a small one. A goroutine's own would
		// stay large.
		in.taken.Go(func() { in.shake(one) })
	}
}

// mayBegin waits for a connection's turn to begin its handshake. It is false when there will be none.
func (in *intake) mayBegin(one *conn) bool {
	if one.readHello() != nil {
		return false
	}
	switch {
	case one.isPatient && !in.crowd.hasTime(one.from):
		one.excuse()
	case in.crowd.turns.take(one) && !gone(one.Conn):
		one.heard.Store(false)
		return true
	case !one.wasCut.Load():
		// Its client has gone while it waited.
		return false
	}
	in.handshakes.WithLabelValues(handshakeRefused).Inc()
	return false
}

// shake does the handshake.
func (in *intake) shake(one *conn) {
	in.crowd.move(one, shaking)
	over := tls.Server(one, in.config)
	err := over.Handshake() //nolint:noctx // the deadline ends it
	in.crowd.turns.give(one)
	in.handshakes.WithLabelValues(one.result(err)).Inc()
	if err != nil {
		in.log.Debug("a client did not finish the TLS handshake", "remote", one.RemoteAddr().String(), "error", err)
		if refused, ok := errors.AsType[tls.RecordHeaderError](err); ok && refused.Conn != nil && looksLikeHTTP(refused.RecordHeader) {
			_, _ = io.WriteString(refused.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nThis is an HTTPS address: write https:// before it.\n") // it is closed next
		}
		in.drop(one)
		return
	}
	if over.ConnectionState().NegotiatedProtocol == "h2" {
		in.handStreams(one, over)
		return
	}
	one.atOnce = true
	in.taken.Go(func() { in.collect(one, over) })
}

// looksLikeHTTP says whether a record's head is the beginning of a request.
func looksLikeHTTP(head [recordHead]byte) bool {
	switch string(head[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		return true
	}
	return false
}

// collect waits until the head of the first request is whole, or too long to be held here. over is the TLS, nil for none.
func (in *intake) collect(one *conn, over *tls.Conn) {
	in.crowd.move(one, heads)
	var head []byte
	var err error
	if over != nil {
		head, err = in.decrypted(over, nil)
	}
	small := make([]byte, sip)
	for err == nil && !whole(head) {
		var n int
		n, err = one.sip(small)
		switch {
		case n > 0 && over == nil:
			head, err = append(head, small[:n]...), nil
		case n > 0:
			one.ahead = small[:n]
			head, err = in.decrypted(over, head)
		}
	}
	if err != nil {
		in.drop(one)
		return
	}
	one.atOnce = false
	if over == nil {
		one.ahead = head
		in.hand(one, one)
		return
	}
	in.hand(one, &headed{Conn: over, one: one, head: head})
}

// decrypted appends what has come. It works in a goroutine of its own, whose stack is gone afterwards.
func (in *intake) decrypted(over *tls.Conn, head []byte) ([]byte, error) {
	done := make(chan error, 1)
	in.taken.Go(func() {
		if head == nil {
			head = make([]byte, 0, firstHead)
		}
		for {
			if len(head) == cap(head) {
				head = append(make([]byte, 0, 2*cap(head)), head...)
			}
			n, err := over.Read(head[len(head):cap(head)])
			head = head[:len(head)+n]
			if errors.Is(err, errNothingYet) {
				err = nil
				n = 0
			}
			if err != nil || n == 0 || len(head) >= maxHead {
				done <- err
				return
			}
		}
	})
	err := <-done
	return head, err
}

// whole says whether a head has its end, or is too long to be held here. The server takes lines that end with a bare LF too.
func whole(head []byte) bool {
	return len(head) >= maxHead || bytes.Contains(head, []byte("\n\r\n")) || bytes.Contains(head, []byte("\n\n"))
}

// hand gives a connection to the server.
func (in *intake) hand(one *conn, c net.Conn) {
	in.crowd.move(one, fresh)
	_ = one.SetDeadline(time.Time{}) // as above; the server sets its own
	select {
	case in.ready <- c:
	case <-in.ended:
		in.drop(one)
	}
}

// handStreams gives the server a connection with HTTP/2. That of a proxy that tells in each request for whom it speaks is
// nobody's, so it is not metered.
func (in *intake) handStreams(one *conn, over *tls.Conn) {
	state := newStreams(over.ConnectionState())
	one.streams.Store(state)
	if one.client.Load() == nil && in.crowd.proxies.Trust(one.RemoteAddr().String()) {
		state.recognize()
		in.hand(one, over)
		return
	}
	in.hand(one, &meter{Conn: over, one: one, streams: state})
}

// headed is a connection of which something was read.
type headed struct {
	*tls.Conn
	one  *conn
	head []byte
}

// Read gives what was read first. The server reads from one goroutine at a time.
func (h *headed) Read(p []byte) (int, error) {
	if len(h.head) == 0 {
		return h.Conn.Read(p) //nolint:wrapcheck // the server looks at it
	}
	n := copy(p, h.head)
	if h.head = h.head[n:]; len(h.head) == 0 {
		h.head = nil
	}
	return n, nil
}

// CloseWrite says goodbye, as conn's does.
func (h *headed) CloseWrite() error {
	_ = h.Conn.CloseWrite() // it may be closed
	return h.one.CloseWrite()
}

// errNothingYet is what a connection that does not wait gives while nothing has come. TLS can go on after an error that is a
// time-out.
var errNothingYet = os.ErrDeadlineExceeded

// connKey is the key of the conn in a request's context.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	if one := under(c); one != nil {
		return context.WithValue(ctx, connKey{}, one)
	}
	return ctx
}

func connIn(ctx context.Context) *conn {
	one, _ := ctx.Value(connKey{}).(*conn)
	return one
}
