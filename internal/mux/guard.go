package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

// The frames of yamux: version, type (1 byte each), flags (2), stream (4), length (4), big-endian.
// https://github.com/hashicorp/yamux/blob/master/spec.md
const (
	headerSize = 12

	typeData   = 0
	typeWindow = 1
	typePing   = 2
	typeGoAway = 3

	flagOpen   = 1
	flagAnswer = 2
	flagFinish = 4
	flagReset  = 8
)

const (
	// maxTracked bounds the streams that are remembered, the peer's and our own.
	maxTracked = 2 * MaxStreams
	// smallFrame is the size from which the body of a frame counts: an acknowledgement, which many may come of, has more.
	smallFrame = 5
	// recordSize is what goes into one record of TLS: with its frame of a WebSocket and the record of TLS around that, it
	// is no larger than what one record of the outer TLS carries.
	recordSize = 16<<10 - 64
)

// guard is the connection as yamux sees it: it reads every frame's header on the way in and fails the connection when
// the peer exceeds a limit. On the way out it joins what yamux writes in two pieces.
type guard struct {
	net.Conn
	// quiet is the WebSocket below, where reading it need not wait; nil where it does.
	quiet *accepted
	// lively says that much is coming, and pace why. Only Read uses pace.
	lively atomic.Bool
	pace   pace
	// peerParity is the lowest bit of the ids of the streams that the peer opens.
	peerParity uint32

	// begun is the header of a frame whose body comes next, when half. Only Write uses them.
	begun [headerSize]byte
	half  bool

	// header collects a frame's header, and skip is what is left of a frame's body. Only Read uses them.
	header [headerSize]byte
	have   int
	skip   uint32

	mu      sync.Mutex
	streams map[uint32]*tracked
	// opened is how many of them the peer opened, and lastOpened the newest one's id.
	opened     int
	lastOpened uint32
	unread     int
	pings      bucket
	frames     bucket
	// heard is when the peer last said something that it could only say after hearing this side.
	heard  time.Time
	limits limits
	failed error
	// closing says that the connection is being closed, and closed that it was, after which everything is ready. opening is
	// called once the peer opens a
	// stream, of which unaccepted were not accepted yet; nil when nobody waits.
	closing    bool
	closed     bool
	opening    func()
	unaccepted int
}

// limits are those that differ between a stranger and a known peer.
type limits struct{ streams, unread int }

// tracked is what is remembered of a stream until both sides have closed it.
type tracked struct {
	// inner is nil while nobody has taken the stream.
	inner *yamux.Stream
	// ready is called once there is something to read; nil when nobody waits.
	ready                   func()
	unread                  int
	byPeer                  bool
	closedHere, closedThere bool
}

func newGuard(conn net.Conn, peerParity uint32) *guard {
	return &guard{
		Conn: conn, quiet: quietBelow(conn), peerParity: peerParity, streams: map[uint32]*tracked{}, heard: time.Now(),
		pings: newBucket(MaxPings), frames: newBucket(MaxFrames), limits: limits{streams: MaxStreams, unread: MaxUnread},
	}
}

// Write sends to the peer. The header of a frame waits for its body, which yamux writes next.
func (g *guard) Write(p []byte) (n int, err error) {
	if g.quiet == nil || g.lively.Load() {
		return g.write(p)
	}
	Aside(func() { n, err = g.write(p) })
	return n, err
}

func (g *guard) write(p []byte) (int, error) {
	if !g.half {
		if len(p) == headerSize && p[1] == typeData && binary.BigEndian.Uint32(p[8:]) > 0 {
			g.half = true
			return copy(g.begun[:], p), nil
		}
		return g.Conn.Write(p) //nolint:wrapcheck // yamux logs it
	}
	g.half = false
	buf := buffer()
	*buf = append(append(*buf, g.begun[:]...), p...)
	defer buffers.Put(buf)
	for rest := *buf; len(rest) > 0; {
		n := min(len(rest), recordSize)
		if _, err := g.Conn.Write(rest[:n]); err != nil {
			return 0, err //nolint:wrapcheck // as above
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// Read reads from the peer, within the limits.
func (g *guard) Read(p []byte) (int, error) {
	if g.quiet != nil && !g.lively.Load() {
		return g.readAside(p)
	}
	return g.read(p)
}

func (g *guard) read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if limit := g.inspect(p[:n]); limit != nil {
		return 0, limit
	}
	if g.quiet != nil && n > 0 {
		g.lively.Store(g.pace.lively(time.Now()))
	}
	return n, err //nolint:wrapcheck // yamux compares it with io.EOF
}

func (g *guard) inspect(p []byte) error {
	for len(p) > 0 {
		if g.skip > 0 {
			n := min(int64(g.skip), int64(len(p)))
			p = p[n:]
			g.skip -= uint32(n) //nolint:gosec // at most skip
			continue
		}
		n := copy(g.header[g.have:], p)
		g.have += n
		p = p[n:]
		if g.have < headerSize {
			return nil
		}
		g.have = 0
		if err := g.frame(); err != nil {
			return err
		}
	}
	return nil
}

func (g *guard) frame() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed != nil {
		return g.failed
	}
	g.failed = g.check()
	return g.failed
}

// check looks at the header that has been read. mu is held.
func (g *guard) check() error {
	kind := g.header[1]
	flags := binary.BigEndian.Uint16(g.header[2:])
	id := binary.BigEndian.Uint32(g.header[4:])
	length := binary.BigEndian.Uint32(g.header[8:])
	switch {
	case g.header[0] != 0 || kind > typeGoAway:
		return fmt.Errorf("%w: a frame of version %d and type %d", ErrLimit, g.header[0], kind)
	case (kind != typeData || length < smallFrame) && !g.frames.take():
		return fmt.Errorf("%w: more than %d frames a second that carry little or nothing", ErrLimit, MaxFrames)
	case kind == typePing:
		return g.ping(flags)
	case kind == typeGoAway:
		return nil
	case kind == typeWindow && flags&flagOpen == 0:
		g.heard = time.Now()
	}
	if flags&flagOpen != 0 {
		if err := g.open(id); err != nil {
			return err
		}
	}
	if kind == typeData {
		if err := g.arrived(id, length); err != nil {
			return err
		}
	}
	if flags&(flagFinish|flagReset) != 0 {
		return g.closedByPeer(id)
	}
	return nil
}

func (g *guard) closedByPeer(id uint32) error {
	s, err := g.own(id)
	if err != nil {
		return err
	}
	s.closedThere = true
	s.wake()
	g.forget(id, s)
	return nil
}

// own finds a stream, and begins to remember one that this side has opened.
func (g *guard) own(id uint32) (*tracked, error) {
	s := g.streams[id]
	if s != nil {
		return s, nil
	}
	if id%2 == g.peerParity || len(g.streams) >= maxTracked {
		return nil, fmt.Errorf("%w: a frame for the stream %d, which is not open", ErrLimit, id)
	}
	s = &tracked{}
	g.streams[id] = s
	return s, nil
}

func (g *guard) ping(flags uint16) error {
	if flags&flagAnswer != 0 {
		g.heard = time.Now()
		return nil
	}
	if !g.pings.take() {
		return fmt.Errorf("%w: more than %d pings a second", ErrLimit, MaxPings)
	}
	return nil
}

func (g *guard) open(id uint32) error {
	if id%2 != g.peerParity || id <= g.lastOpened {
		return fmt.Errorf("%w: the stream id %d, which is used or not the peer's to open", ErrLimit, id)
	}
	if g.opened >= g.limits.streams {
		return fmt.Errorf("%w: more than %d streams", ErrLimit, g.limits.streams)
	}
	g.lastOpened = id
	g.opened++
	g.unaccepted++
	g.streams[id] = &tracked{byPeer: true}
	wake(&g.opening)
	return nil
}

// arrived looks at a frame that says how much data follows.
func (g *guard) arrived(id, length uint32) error {
	if length > maxFrame {
		return fmt.Errorf("%w: a frame of %d bytes", ErrLimit, length)
	}
	g.skip = length
	n := int(length)
	if n == 0 {
		return nil
	}
	s, err := g.own(id)
	if err != nil {
		return err
	}
	s.unread += n
	s.wake()
	g.unread += n
	if g.unread > g.limits.unread {
		return fmt.Errorf("%w: more than %d bytes that nobody has read yet", ErrLimit, g.limits.unread)
	}
	return nil
}

// consumed notes that n bytes of a stream were read.
func (g *guard) consumed(id uint32, n int) {
	if n == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.streams[id]; s != nil {
		s.unread -= n
		g.unread -= n
	}
}

// closedHere notes that this side has closed a stream.
func (g *guard) closedHere(id uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.streams[id]
	if s == nil {
		s = &tracked{}
		g.streams[id] = s
	}
	s.closedHere = true
	s.wake()
	g.forget(id, s)
}

// forget drops a stream that both sides have closed. mu is held.
func (g *guard) forget(id uint32, s *tracked) {
	if !s.closedHere || !s.closedThere {
		return
	}
	g.unread -= s.unread
	if s.byPeer {
		g.opened--
	}
	delete(g.streams, id)
}

// violation is why the peer lost its session, or nil.
func (g *guard) violation() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failed
}

// fail notes why the session ends, unless it is noted already.
func (g *guard) fail(why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed == nil {
		g.failed = why
	}
}

// wake calls who waits for a stream.
func (s *tracked) wake() { wake(&s.ready) }

func wake(waiting *func()) {
	if f := *waiting; f != nil {
		*waiting = nil
		go f()
	}
}

// Close closes the connection, and wakes all who wait.
func (g *guard) Close() error {
	g.release()
	if errors.Is(g.violation(), ErrSilent) {
		// To a peer that does not hear, TLS would try for 5 s to say goodbye.
		_ = bottom(g.Conn).Close()
	}
	err := g.Conn.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	wake(&g.opening)
	for _, s := range g.streams {
		s.wake()
	}
	return err //nolint:wrapcheck // yamux drops it
}

// bottom is the connection below all layers that tell.
func bottom(conn net.Conn) net.Conn {
	for range 10 {
		layer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok || layer.NetConn() == nil {
			break
		}
		conn = layer.NetConn()
	}
	return conn
}

// release ends the reads and writes that wait. yamux lets them spin from the end of a session until its connection is
// closed: with thousands of sessions that end at once, that took more of a processor than all else.
func (g *guard) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closing = true
	for _, s := range g.streams {
		if s.inner != nil {
			_ = s.inner.SetDeadline(longAgo()) // it gives no error
		}
	}
}

// longAgo is a deadline that is over.
func longAgo() time.Time { return time.Unix(1, 0) }

// over says whether the connection is closed or about to be.
func (g *guard) over() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closing
}

// readable says whether reading a stream would not wait. mu is held.
func (g *guard) readable(s *tracked) bool {
	return g.closed || s == nil || s.unread > 0 || s.closedThere || s.closedHere
}

// await calls f, in a goroutine of its own, once reading a stream does not wait.
func (g *guard) await(id uint32, f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.streams[id]; !g.readable(s) {
		s.ready = f
		return
	}
	go f()
}

// awaitStream calls f, in a goroutine of its own, once there is a stream to accept.
func (g *guard) awaitStream(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed && g.unaccepted == 0 {
		g.opening = f
		return
	}
	go f()
}

// accepted notes that a stream of the peer was accepted.
func (g *guard) accepted() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unaccepted--
}

// allow sets the limits.
func (g *guard) allow(l limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits = l
}

// silence is for how long the peer has said nothing that shows that it hears this side.
func (g *guard) silence() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Since(g.heard)
}

// taken notes a stream that is in use.
func (g *guard) taken(inner *yamux.Stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.streams[inner.StreamID()]
	if s == nil {
		s = &tracked{}
		g.streams[inner.StreamID()] = s
	}
	s.inner = inner
}

// idle are the streams with nothing to read.
func (g *guard) idle() []*yamux.Stream {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []*yamux.Stream
	for _, s := range g.streams {
		if s.inner != nil && s.unread == 0 {
			all = append(all, s.inner)
		}
	}
	return all
}
