package httpapi

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/outfeed/outfeed/internal/source"
)

// shortFlight is less than a server's first flight of a handshake has, and more than a request for another key share.
const shortFlight = 400

// errCrowded is why a handshake ends whose connection had to make room.
var errCrowded = errors.New("the connection was closed to make room for others")

// listener takes connections into the crowd.
type listener struct {
	net.Listener
	crowd *crowd
	// secure says that TLS comes next.
	secure bool
}

// Accept never waits for anything but a connection.
func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // the server looks at it
	}
	peer := raw.RemoteAddr().String()
	one := &conn{Conn: raw, crowd: l.crowd, secure: l.secure, from: source.Site(peer), mayTell: l.crowd.proxies.Trust(peer), shy: true}
	l.crowd.move(one, early)
	l.crowd.ending.yield()
	return one, nil
}

// conn is a connection below TLS. One goroutine reads at a time.
type conn struct {
	net.Conn
	crowd *crowd

	// from is whose connection this is: until a header of the PROXY protocol says otherwise, the peer's. Only the crowd's
	// mutex protects what follows.
	from   netip.Addr
	stage  stage
	member *source.Member[netip.Addr, *conn]

	// closed and waiting are the turns', and turn says whether the connection has one.
	closed  bool
	waiting *source.Member[netip.Addr, *waiter]
	turn    atomic.Bool

	// takenOver says that a handler took the connection over.
	takenOver atomic.Bool
	// wasCut says that the connection had to make room, or that it is over.
	wasCut atomic.Bool
	// client is the address that a proxy told, nil when none did.
	client atomic.Pointer[string]
	// again says that the handshake computes once more after the next message.
	again atomic.Bool

	// Only Read uses these. mayTell says that the first bytes may be a proxy's, shy that nothing was said yet, and ahead is
	// what was read with what the proxy told.
	secure, mayTell, shy bool
	ahead                []byte
}

// Read reads what the peer sent, without what a proxy told about it.
func (c *conn) Read(p []byte) (int, error) {
	if c.mayTell {
		if err := c.readProxy(); err != nil {
			return 0, err
		}
	}
	if c.turn.Load() {
		c.crowd.turns.give(c)
	}
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
			c.ahead = nil
		}
		c.heard()
		return n, nil
	}
	n, err := c.Conn.Read(p)
	if n > 0 && c.shy {
		c.heard()
	}
	if n > 0 && c.again.CompareAndSwap(true, false) && !c.crowd.turns.take(c) {
		return 0, errCrowded
	}
	return n, err //nolint:wrapcheck // TLS and the server look at it
}

// heard notes the first byte, with which a connection without TLS begins.
func (c *conn) heard() {
	if c.shy && !c.secure {
		c.crowd.begun(c)
	}
	c.shy = false
}

// readProxy reads the header of the PROXY protocol, where there is one.
func (c *conn) readProxy() error {
	c.mayTell = false
	have, buf := []byte(nil), make([]byte, 256)
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

// Write sends.
func (c *conn) Write(p []byte) (int, error) {
	if len(p) < shortFlight && c.turn.Load() {
		c.again.Store(true)
	}
	return c.Conn.Write(p) //nolint:wrapcheck // as in Read
}

// Close closes, and ends a wait for a turn.
func (c *conn) Close() error {
	c.crowd.turns.close(c)
	return c.Conn.Close() //nolint:wrapcheck // as in Read
}

// cut closes without a word to the peer.
func (c *conn) cut() {
	if c.wasCut.CompareAndSwap(false, true) {
		c.crowd.ending.began()
	}
	_ = c.Close() // it may be closed
}

// ended is when the server is done with the connection.
func (c *conn) ended() {
	if c.wasCut.Swap(true) {
		c.crowd.ending.done()
	}
}

// handshake is for tls.Config.GetConfigForClient: it is asked when a client has said its first message whole, before
// anything is computed.
func handshake(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	one, ok := hello.Conn.(*conn)
	if !ok {
		return nil, nil //nolint:nilnil // that means the configuration as it is
	}
	if !one.crowd.turns.take(one) {
		return nil, errCrowded
	}
	one.crowd.begun(one)
	return nil, nil //nolint:nilnil // as above
}

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
