package httpapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outfeed/outfeed/internal/socket"
	"github.com/outfeed/outfeed/internal/source"
	"github.com/outfeed/outfeed/protocol/wire"
)

// shortFlight is less than a server's first flight of a handshake has, and more than a request for another key share.
const shortFlight = 400

// goodbyeTimeout is how long a client has for an answer that it gets before it has sent all.
const goodbyeTimeout = 500 * time.Millisecond

// patientProtocol is wire.PatientProtocol as it stands in a client's list of protocols, with its length before it.
const patientProtocol = string(rune(len(wire.PatientProtocol))) + wire.PatientProtocol

// errCrowded is why a handshake ends whose connection had to make room.
var errCrowded = errors.New("the connection was closed to make room for others")

// conn is a connection below TLS. One goroutine reads at a time.
type conn struct {
	net.Conn
	crowd *crowd

	// from is whose connection this is: until a header of the PROXY protocol says otherwise, the peer's. Only the crowd's
	// mutex protects what follows.
	from   netip.Addr
	stage  stage
	member *source.Member[netip.Addr, *conn]
	// since is when its handshake began, of one that is kept.
	since time.Time

	// closed and waiting are the turns', and turn says whether the connection has one.
	closed  bool
	waiting *source.Member[netip.Addr, *waiter]
	turn    atomic.Bool

	// streams are those of HTTP/2, nil for HTTP/1.1 and for what a proxy sends that speaks for many. It is set before the server
	// gets the connection.
	streams atomic.Pointer[streams]

	// takenOver says that a handler took the connection over.
	takenOver atomic.Bool
	// wasCut says that the connection had to make room, or that it is over.
	wasCut atomic.Bool
	// client is the address that a proxy told, nil when none did.
	client atomic.Pointer[string]
	// heard says that the first message of a handshake is whole, and nothing was computed for it.
	heard atomic.Bool
	// again says that the handshake computes once more after the next message.
	again atomic.Bool

	// Only who reads uses these. mayTell says that the first bytes may be a proxy's, atOnce that Read does not wait, tunnel
	// whether it does in a tunnel, and ahead is what was read already.
	mayTell, atOnce bool
	tunnel          socket.Try
	ahead           []byte
	// isPatient says that the client can come later as well.
	isPatient bool
}

// Read reads what the peer sent, without what a proxy told about it.
func (c *conn) Read(p []byte) (int, error) {
	if n := c.takeAhead(p); n > 0 {
		return n, nil
	}
	if c.turn.Load() {
		c.crowd.turns.give(c)
	}
	if c.atOnce {
		return 0, errNothingYet
	}
	n, err := c.tunnel.Read(c.Conn, p)
	if n > 0 && c.again.CompareAndSwap(true, false) && !c.crowd.turns.take(c) {
		return 0, errCrowded
	}
	return n, err
}

// AtOnce is socket.Impatient's: a tunnel waits where it needs little of a stack.
func (c *conn) AtOnce(on bool) bool { return c.tunnel.AtOnce(c.Conn, on) }

// takeAhead takes of what was read already, and lets go of its memory at the end.
func (c *conn) takeAhead(p []byte) int {
	n := copy(p, c.ahead)
	if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
		c.ahead = nil
	}
	return n
}

// sip waits for what comes next, and reads some of it.
func (c *conn) sip(p []byte) (int, error) {
	if n := c.takeAhead(p); n > 0 {
		return n, nil
	}
	return c.Conn.Read(p) //nolint:wrapcheck // as in Read
}

// readProxy reads the header of the PROXY protocol, where there is one.
func (c *conn) readProxy() error {
	c.mayTell = false
	have, buf := []byte(nil), make([]byte, sip)
	for {
		n, err := c.Conn.Read(buf)
		have = append(have, buf[:n]...)
		client, length, more, wrong := source.ReadProxy(have)
		if wrong != nil {
			return fmt.Errorf("the proxy %s: %w", c.RemoteAddr(), wrong)
		}
		if !more {
			c.ahead = have[length:]
			if client != "" {
				c.client.Store(&client)
				c.crowd.rename(c, source.Site(client))
			}
			return nil
		}
		if err != nil {
			return err //nolint:wrapcheck // as in Read
		}
	}
}

// readHello reads the first record of a handshake ahead, so that nothing larger than it is held until there is a turn. What
// is no handshake, or too long, TLS reads itself.
func (c *conn) readHello() error {
	have := c.ahead
	for {
		need := recordHead
		if len(have) >= recordHead {
			need += int(binary.BigEndian.Uint16(have[recordHead-2:]))
		}
		if len(have) >= min(need, maxHello) || len(have) > 0 && have[0] != recordHandshake {
			c.ahead = have
			c.heard.Store(have[0] == recordHandshake)
			c.isPatient = bytes.Contains(have, []byte(patientProtocol))
			return nil
		}
		if cap(have) < min(need, maxHello) {
			have = append(make([]byte, 0, min(need, maxHello)), have...)
		}
		n, err := c.Conn.Read(have[len(have):cap(have)])
		if have = have[:len(have)+n]; n == 0 && err != nil {
			return err //nolint:wrapcheck // as in Read
		}
	}
}

// Write sends.
func (c *conn) Write(p []byte) (int, error) {
	if len(p) < shortFlight && c.turn.Load() {
		c.again.Store(true)
	}
	n, err := c.Conn.Write(p)
	if err != nil && c.crowd.secure {
		// Part of a record may be gone, so nothing can follow it. TLS would wait 5 s to say goodbye.
		_ = c.Conn.Close()
	}
	return n, err //nolint:wrapcheck // as in Read
}

// Close closes, and ends a wait for a turn.
func (c *conn) Close() error {
	c.crowd.turns.close(c)
	if state := c.streams.Load(); state != nil {
		state.close()
	}
	return c.Conn.Close() //nolint:wrapcheck // as in Read
}

// CloseWrite is called by the server when it has answered a request whose body it does not read to its end. The client gets
// time to take the answer: what it still sends is not read, so that it waits and looks, and the connection is not closed yet,
// which would throw the answer away. The server would sleep for that, and hold its memory, even when the connection had to make
// room: CloseWrite waits itself, and ends the server's work for the connection.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // it may be closed
	}
	tcp, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return fmt.Errorf("wait until a client has taken its answer: %w", err)
	}
	_ = c.SetReadDeadline(time.Now().Add(goodbyeTimeout)) // what is closed fails at once
	_ = raw.Read(func(uintptr) bool { return false })     // until then, or until the connection is closed
	panic(http.ErrAbortHandler)
}

// NetConn is the connection itself, for who asks the kernel about it; nothing may be read from it.
func (c *conn) NetConn() net.Conn { return c.Conn }

// busyAlert is a record of TLS with the alert internal_error, which tells an agent to come back later than after a connection
// that was closed by who knows whom. Nothing has to be computed for it.
const busyAlert = "\x15\x03\x03\x00\x02\x02\x50"

// cut closes, without a word to the peer where that needs computing.
func (c *conn) cut() {
	if c.wasCut.CompareAndSwap(false, true) {
		c.crowd.ending.began()
	}
	c.excuse()
	_ = c.Close() // it may be closed
}

// excuse tells a client that waits for its handshake that there is no time.
func (c *conn) excuse() {
	if c.heard.Load() {
		_, _ = io.WriteString(c.Conn, busyAlert) // there is room for it, as nothing was sent yet
	}
}

// result is how a handshake ended.
func (c *conn) result(err error) string {
	switch {
	case err == nil:
		return handshakeFinished
	case c.wasCut.Load():
		return handshakeCut
	default:
		return handshakeFailed
	}
}

// ended is when nobody works for the connection any more.
func (c *conn) ended() {
	if c.wasCut.Swap(true) {
		c.crowd.ending.done()
	}
}
