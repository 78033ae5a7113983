package httpapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// maxStreams is how many streams an HTTP/2 connection may have open at once, and freeStreams how many requests of one
	// whose client is not known yet are begun at once. More are held back, each for heldBack: not for ever, as what would
	// let the first ones end may lie behind the next.
	maxStreams  = 32
	freeStreams = 8
	heldBack    = 25 * time.Millisecond
	// What one stream and one connection may send of bodies that nobody has read yet. Less would end requests of clients that
	// send before they are told how much they may.
	maxStreamBuffer  = 64 << 10
	maxConnectionBuf = 64 << 10
	// A connection that takes nothing for unreadTimeout is closed, and one that says nothing for silentTimeout is asked
	// whether it lives.
	unreadTimeout = 30 * time.Second
	silentTimeout = 30 * time.Second

	// A frame that makes work and carries nothing has a price: a connection can spend so much at once, and so much in each
	// second. 1 KiB that is written to it earns it the price of saying that it has read that.
	maxAllowance    = 2000
	allowanceSecond = 500
	earningBytes    = 1 << 10
	pricePiece      = 1
	priceControl    = 10
	// priceRequest is given back when the request reaches a handler. One that does not is wrong, too much, or taken back
	// before it began. Clients may send 100 before they are told how many are taken.
	priceRequest = 20
	// pieceBytes is how much a part of a body carries at least, other than the last, that has no price.
	pieceBytes = 256
)

// Frames of HTTP/2 (RFC 9113, 4.1 and 6).
const (
	preface          = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	frameHead        = 9
	frameData        = 0
	frameHeaders     = 1
	frameWindow      = 8
	flagEndOfStream  = 1
	framePayloadSize = 16 << 10
)

var (
	errFlood    = errors.New("the HTTP/2 client sends too many frames that carry nothing")
	errNotHTTP2 = errors.New("the client agreed to speak HTTP/2, and does not")
)

// http2Limits are what the server lets one connection do.
func http2Limits() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerStream: maxStreamBuffer, MaxReceiveBufferPerConnection: maxConnectionBuf,
		MaxReadFrameSize: framePayloadSize, WriteByteTimeout: unreadTimeout, SendPingTimeout: silentTimeout,
	}
}

// setUpHTTP2 has the server take its settings for HTTP/2 now, while it has no IdleTimeout. With one, net/http starts a timer for
// it when a connection ends that has streams open, and holds all that belongs to the connection until then (Go 1.26,
// closeAllStreamsOnConnClose): 20 KB for each client that comes, is closed and comes again. changed sets the time in its place.
func setUpHTTP2(server *http.Server) {
	_ = server.Serve(noListener{}) // it ends at once
}

// noListener has no connections.
type noListener struct{}

func (noListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (noListener) Close() error              { return nil }
func (noListener) Addr() net.Addr            { return &net.TCPAddr{} }

// protocols are those of a listener. A metered connection looks to the server as if it had no TLS.
func protocols(config *tls.Config) *http.Protocols {
	all := new(http.Protocols)
	all.SetHTTP1(true)
	if config != nil {
		all.SetHTTP2(true)
		all.SetUnencryptedHTTP2(true)
	}
	return all
}

// streams is what an HTTP/2 connection has under way. It is safe for concurrent use.
type streams struct {
	// tls is what the requests would know from the server if it knew of the TLS.
	tls tls.ConnectionState
	// over closes with the connection, and freed says that a request has ended.
	over  chan struct{}
	ended sync.Once
	freed chan struct{}

	mu sync.Mutex
	// running are the requests with a handler, and asked those that were let in and have not got one, or never will.
	running, asked int
	// known says that the credentials of a request were right.
	known bool
	// allowance is what the connection can spend, as of counted. written are bytes that have earned nothing yet.
	allowance, written int
	counted            time.Time
}

func newStreams(state tls.ConnectionState) *streams {
	return &streams{
		tls: state, over: make(chan struct{}), freed: make(chan struct{}, 1), allowance: maxAllowance, counted: time.Now(),
	}
}

// metered is the connection of a request where it has HTTP/2 and is metered, else nil.
func metered(ctx context.Context) *conn {
	if one := connIn(ctx); one != nil && one.streams.Load() != nil {
		return one
	}
	return nil
}

func (s *streams) close() {
	s.ended.Do(func() { close(s.over) })
}

// begin is when a handler begins.
func (s *streams) begin() {
	s.mu.Lock()
	s.running++
	if s.asked > 0 {
		s.asked--
	}
	s.allowance += priceRequest
	s.mu.Unlock()
	s.tell()
}

// end is when it is done.
func (s *streams) end() {
	s.mu.Lock()
	s.running--
	s.mu.Unlock()
	s.tell()
}

// recognize notes that the credentials of a request were right.
func (s *streams) recognize() {
	s.mu.Lock()
	s.known = true
	s.mu.Unlock()
	s.tell()
}

// tell has a request that is held back look whether it may begin.
func (s *streams) tell() {
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

func (s *streams) isKnown() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known
}

// mayBegin says whether another request may begin now.
func (s *streams) mayBegin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known || s.running+s.asked < freeStreams
}

// ask lets a request in.
func (s *streams) ask() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
}

// earn counts what was written.
func (s *streams) earn(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written += n
	s.allowance += s.written / earningBytes
	s.written %= earningBytes
}

// spend is false when there is not enough left.
func (s *streams) spend(price int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.allowance < price {
		now := time.Now()
		s.allowance += int(now.Sub(s.counted).Seconds() * allowanceSecond)
		s.counted = now
	}
	if s.allowance = min(s.allowance, maxAllowance); s.allowance < price {
		return false
	}
	s.allowance -= price
	return true
}

// meter is an HTTP/2 connection above its TLS. It sees each frame before the server does: requests that are too many at once
// stay where they are, so that they cost neither a goroutine nor memory here, and floods of what carries nothing end the
// connection. One goroutine reads at a time.
type meter struct {
	net.Conn
	one     *conn
	streams *streams
	// spoken is how much of the preface has come, and payload how much of a frame is still to come.
	spoken, payload int
	// head is the beginning of a frame, of which have bytes have come.
	head [frameHead]byte
	have int
}

// NetConn is the connection below TLS.
func (m *meter) NetConn() net.Conn { return m.one }

// Write sends.
func (m *meter) Write(p []byte) (int, error) {
	n, err := m.Conn.Write(p)
	m.streams.earn(n)
	return n, err //nolint:wrapcheck // the server looks at it
}

// Read gives what has come, and does not give the head of a frame before its time.
func (m *meter) Read(p []byte) (int, error) {
	switch {
	case m.spoken < len(preface):
		n, err := m.Conn.Read(p[:min(len(p), len(preface)-m.spoken)])
		if !bytes.Equal(p[:n], []byte(preface[m.spoken:m.spoken+n])) {
			return 0, errNotHTTP2
		}
		m.spoken += n
		return n, err //nolint:wrapcheck // the server looks at it
	case m.payload > 0:
		n, err := m.Conn.Read(p[:min(len(p), m.payload)])
		m.payload -= n
		return n, err //nolint:wrapcheck // as above
	}
	n, err := m.Conn.Read(p[:min(len(p), frameHead-m.have)])
	m.have += copy(m.head[m.have:], p[:n])
	if m.have == frameHead {
		m.have = 0
		if tooMuch := m.weigh(); tooMuch != nil {
			return 0, tooMuch
		}
	}
	return n, err //nolint:wrapcheck // as above
}

// weigh looks at a frame.
func (m *meter) weigh() error {
	m.payload = int(binary.BigEndian.Uint32(m.head[:4]) >> 8)
	price := priceControl
	switch m.head[3] {
	case frameData:
		switch {
		case m.head[4]&flagEndOfStream != 0 || m.payload >= pieceBytes:
			return nil
		case m.payload > 0:
			price = pricePiece
		}
	case frameWindow:
		price = pricePiece
	case frameHeaders:
		if err := m.hold(); err != nil {
			return err
		}
		m.streams.ask()
		price = priceRequest
	}
	if !m.streams.spend(price) {
		return errFlood
	}
	return nil
}

// hold keeps a request back while its connection has enough.
func (m *meter) hold() error {
	if m.streams.mayBegin() {
		return nil
	}
	limit := time.NewTimer(heldBack)
	defer limit.Stop()
	for !m.streams.mayBegin() {
		select {
		case <-m.streams.freed:
		case <-m.streams.over:
			return net.ErrClosed
		case <-limit.C:
			return nil
		}
	}
	return nil
}
