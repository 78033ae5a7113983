package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	tcp "github.com/outfeed/outfeed/internal/socket"
)

// The frames of a WebSocket, RFC 6455, section 5.2: a byte with the end's mark and the kind, one with the mask's mark and the
// length or how long that is, the length, the mask's key.
const (
	kindContinued = 0
	kindText      = 1
	kindBinary    = 2
	kindClose     = 8
	kindPing      = 9
	kindPong      = 10

	markFinal    = 1 << 7
	markReserved = 7 << 4
	markMasked   = 1 << 7
	// length16 and length64 stand for a length of 2 and of 8 bytes that follows.
	length16, length64 = 126, 127
	maxControl         = 125

	maskSize = 4
	// minHeader is that of a client's frame, which is masked.
	minHeader = 2 + maskSize
	maxHeader = minHeader + 8

	// maxMessage is the longest message that is taken: each is a record of the inner TLS or less.
	maxMessage = 32 << 10
	// politeTimeout bounds what is sent in answer to the peer's WebSocket.
	politeTimeout = 5 * time.Second

	statusNormal, statusGoingAway = 1000, 1001
)

// errFrames is when a peer does not keep to the WebSocket's protocol.
var errFrames = errors.New("the peer broke the protocol of WebSockets")

// accepted is the accepting side of a WebSocket as a connection: every Write is one binary message, and what binary messages
// carry can be read. The library shakes hands and no more: its reader gives a connection up after any error, also after the one
// that says that nothing has come yet, and keeps buffers.
type accepted struct {
	// below is the connection that carries the WebSocket, and bottom the one below all layers, whose reads need not wait; nil
	// where they do.
	below  net.Conn
	bottom tcp.Impatient

	// Only Read uses these. early is what was read before the WebSocket began, header a frame's header, of which have bytes
	// are there.
	early  []byte
	header [maxHeader]byte
	have   int
	// left is how much of a frame of data is still to come, key its mask, message how much the message has had, and going that
	// it has more frames.
	left, message int64
	key           uint32
	going         bool
	// control is what has come of the frame that is no data, and as much as its capacity is to come; nil when there is none.
	control []byte
	// overhead is how many bytes may yet come that carry no message, at refilled.
	overhead int64
	refilled time.Time
	pings    bucket
	// failed is why nothing more is read.
	failed error

	// sending keeps frames apart.
	sending sync.Mutex
	// deadline is when writes end; nil for never.
	deadline atomic.Pointer[time.Time]
}

func newAccepted(below net.Conn, early []byte) *accepted {
	bottom, _ := tcp.Below[tcp.Impatient](below) // without one, reads wait
	return &accepted{
		below: below, bottom: bottom, early: early, overhead: overheadBurst, pings: newBucket(MaxPings),
	}
}

// Read reads what messages carry; io.EOF after the peer has closed the WebSocket.
func (a *accepted) Read(p []byte) (int, error) {
	if a.failed != nil || len(p) == 0 {
		return 0, a.failed
	}
	n, err := a.read(p)
	if err != nil && !errors.Is(err, tcp.ErrNothingYet) {
		a.failed = err
	}
	return n, err
}

func (a *accepted) read(p []byte) (int, error) {
	for a.left == 0 {
		if err := a.next(); err != nil {
			return 0, err
		}
	}
	n, err := a.lower(p[:min(int64(len(p)), a.left)])
	a.key = unmask(p[:n], a.key)
	a.left -= int64(n)
	a.overhead = min(overheadBurst, a.overhead+int64(n)/4)
	return n, err
}

// lower reads what the connection carries.
func (a *accepted) lower(p []byte) (int, error) {
	if n := copy(p, a.early); n > 0 {
		if a.early = a.early[n:]; len(a.early) == 0 {
			a.early = nil
		}
		return n, nil
	}
	n, err := a.below.Read(p)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the connection ended before its WebSocket: %w", err)
	}
	return n, err
}

// next reads a frame's header, and answers a frame that is no data. It goes on where it was when nothing had come yet.
func (a *accepted) next() error {
	if a.control == nil {
		if err := a.readHeader(); err != nil {
			return err
		}
		a.have = 0
		if err := a.begin(); err != nil {
			return a.giveUp(err)
		}
		if a.control == nil {
			return nil
		}
	}
	for len(a.control) < cap(a.control) {
		n, err := a.lower(a.control[len(a.control):cap(a.control)])
		a.control = a.control[:len(a.control)+n]
		if limit := a.spend(n); limit != nil {
			return limit
		}
		if err != nil && n == 0 {
			return err
		}
	}
	unmask(a.control, a.key)
	err := a.answer(a.header[0]&0xf, a.control)
	a.control = nil
	return err
}

// readHeader reads until a header is whole.
func (a *accepted) readHeader() error {
	need := minHeader
	for {
		if a.have >= minHeader {
			switch a.header[1] &^ markMasked {
			case length16:
				need = minHeader + 2
			case length64:
				need = maxHeader
			}
		}
		switch {
		case a.have > 1 && a.header[1]&markMasked == 0:
			return a.giveUp(fmt.Errorf("%w: a frame without a mask", errFrames))
		case a.have == need:
			return nil
		}
		n, err := a.lower(a.header[a.have:need])
		a.have += n
		if limit := a.spend(n); limit != nil {
			return limit
		}
		if err != nil && n == 0 {
			return err
		}
	}
}

// begin begins the frame whose header was read.
func (a *accepted) begin() error {
	kind, final := a.header[0]&0xf, a.header[0]&markFinal != 0
	if a.header[0]&markReserved != 0 {
		return fmt.Errorf("%w: a frame with a reserved mark", errFrames)
	}
	length, mask := uint64(a.header[1]&^markMasked), a.header[2:]
	switch length {
	case length16:
		length, mask = uint64(binary.BigEndian.Uint16(mask)), mask[2:]
	case length64:
		length, mask = binary.BigEndian.Uint64(mask), mask[8:]
	}
	a.key = binary.LittleEndian.Uint32(mask)
	switch {
	case kind == kindClose || kind == kindPing || kind == kindPong:
		if !final || length > maxControl {
			return fmt.Errorf("%w: a frame of kind %d in pieces, or with %d bytes", errFrames, kind, length)
		}
		a.control = make([]byte, 0, length)
		return nil
	case kind == kindText:
		return fmt.Errorf("%w: a message of text", ErrLimit)
	case kind > kindBinary || (kind == kindContinued) != a.going:
		return fmt.Errorf("%w: a frame of kind %d, which does not belong here", errFrames, kind)
	case kind == kindBinary:
		a.message = 0
	}
	if length > uint64(maxMessage-a.message) { //nolint:gosec // message is at most maxMessage
		return fmt.Errorf("%w: a message of more than %d bytes", ErrLimit, maxMessage)
	}
	a.left, a.going = int64(length), !final //nolint:gosec // at most maxMessage
	a.message += a.left
	return nil
}

// spend counts n bytes that carry no message.
func (a *accepted) spend(n int) error {
	now := time.Now()
	if !a.refilled.IsZero() {
		a.overhead = min(overheadBurst, a.overhead+int64(now.Sub(a.refilled).Seconds()*overheadPerSecond))
	}
	a.refilled = now
	if a.overhead -= int64(n); a.overhead < 0 {
		return a.giveUp(fmt.Errorf("%w: too many bytes of a WebSocket that carry no message", ErrLimit))
	}
	return nil
}

// giveUp closes, without waiting for the peer, and says why.
func (a *accepted) giveUp(why error) error { return errors.Join(why, a.below.Close()) }

// answer answers a frame that is no data.
func (a *accepted) answer(kind byte, payload []byte) error {
	if kind == kindClose {
		err := closeStatus(payload)
		_ = a.reply(kindClose, payload) // whoever has closed may be gone
		_ = a.below.Close()             // as above
		return err
	}
	// Whoever is in between may ask for signs of life, within bounds.
	if !a.pings.take() {
		return a.giveUp(fmt.Errorf("%w: more than %d pings a second of a WebSocket", ErrLimit, MaxPings))
	}
	if kind == kindPing {
		return a.reply(kindPong, payload)
	}
	return nil
}

// closeStatus makes of an orderly close what it means for a connection, io.EOF, and of others an error.
func closeStatus(payload []byte) error {
	if len(payload) < 2 {
		return fmt.Errorf("%w: the peer closed it without a reason", net.ErrClosed)
	}
	switch status := binary.BigEndian.Uint16(payload); status {
	case statusNormal, statusGoingAway:
		return io.EOF
	default:
		return fmt.Errorf("%w: the peer closed it with the status %d and %q", net.ErrClosed, status, payload[2:])
	}
}

// reply sends a frame that is no data.
func (a *accepted) reply(kind byte, payload []byte) error {
	late := time.AfterFunc(politeTimeout, func() { _ = a.below.Close() })
	defer late.Stop()
	return a.send(kind, payload)
}

// Write sends one message.
func (a *accepted) Write(p []byte) (int, error) {
	if at := a.deadline.Load(); at != nil {
		late := time.AfterFunc(time.Until(*at), func() { _ = a.below.Close() })
		defer late.Stop()
	}
	if err := a.send(kindBinary, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// send sends one frame, in one piece.
func (a *accepted) send(kind byte, payload []byte) error {
	buf := buffer()
	defer buffers.Put(buf)
	*buf = append(*buf, markFinal|kind)
	switch n := len(payload); {
	case n < length16:
		*buf = append(*buf, byte(n))
	case n < 1<<16:
		*buf = binary.BigEndian.AppendUint16(append(*buf, length16), uint16(n))
	default:
		*buf = binary.BigEndian.AppendUint64(append(*buf, length64), uint64(n))
	}
	*buf = append(*buf, payload...)
	a.sending.Lock()
	defer a.sending.Unlock()
	_, err := a.below.Write(*buf)
	return err //nolint:wrapcheck // TLS looks at it
}

// unmask takes the mask off, in place, and gives the key for what follows.
func unmask(p []byte, key uint32) uint32 {
	wide := uint64(key)<<32 | uint64(key)
	for len(p) >= 32 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^wide)
		binary.LittleEndian.PutUint64(p[8:], binary.LittleEndian.Uint64(p[8:])^wide)
		binary.LittleEndian.PutUint64(p[16:], binary.LittleEndian.Uint64(p[16:])^wide)
		binary.LittleEndian.PutUint64(p[24:], binary.LittleEndian.Uint64(p[24:])^wide)
		p = p[32:]
	}
	for i := range p {
		p[i] ^= byte(key) //nolint:gosec // its lowest byte
		key = key>>8 | key<<24
	}
	return key
}

// Close closes at once, without waiting for the peer.
func (a *accepted) Close() error { return a.below.Close() } //nolint:wrapcheck // TLS looks at it

// NetConn is the connection that carries the WebSocket; nothing may be read from it or written to it.
func (a *accepted) NetConn() net.Conn { return a.below }

// LocalAddr is this side's address.
func (a *accepted) LocalAddr() net.Addr { return a.below.LocalAddr() }

// RemoteAddr is the peer's address.
func (a *accepted) RemoteAddr() net.Addr { return a.below.RemoteAddr() }

// SetWriteDeadline bounds the writes after it; a write that is bounded and does not end closes the connection.
func (a *accepted) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		a.deadline.Store(nil)
		return nil
	}
	a.deadline.Store(&t)
	return nil
}

// SetReadDeadline is not needed and not there.
func (*accepted) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// SetDeadline is not there either.
func (*accepted) SetDeadline(time.Time) error { return os.ErrNoDeadline }
