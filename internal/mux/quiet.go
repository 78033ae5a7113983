package mux

import (
	"crypto/tls"
	"errors"
	"net"

	tcp "github.com/outfeed/outfeed/internal/socket"
)

// muchAtOnce is how much comes at once where much is coming: more than the messages of an idle session have.
const muchAtOnce = 1 << 10

// quietBelow is the WebSocket below a connection, if it was accepted and reading it need not wait. A TLS handshake has to wait:
// there is none for a connection whose handshake is still to come.
func quietBelow(conn net.Conn) *accepted {
	if secure, ok := conn.(*tls.Conn); ok && !secure.ConnectionState().HandshakeComplete {
		return nil
	}
	for range 10 {
		if a, ok := conn.(*accepted); ok {
			if a.bottom != nil && a.bottom.AtOnce(true) {
				a.bottom.AtOnce(false)
				return a
			}
			return nil
		}
		layer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = layer.NetConn()
	}
	return nil
}

// read reads from the connection. Two sessions of TLS and what is between them take 8 KiB of a stack, which a goroutine that
// waits below them holds for as long as its peer is idle. So yamux's goroutine waits here, and another one, which is gone
// afterwards, reads what has come. While much is coming, it reads itself.
func (g *guard) read(p []byte) (n int, err error) {
	if g.quiet == nil {
		return g.Conn.Read(p) //nolint:wrapcheck // yamux compares it with io.EOF
	}
	g.quiet.bottom.AtOnce(!g.flows)
	if g.flows {
		n, err = g.Conn.Read(p)
	} else {
		n, err = g.readAside(p)
	}
	g.flows = n >= muchAtOnce
	return n, err //nolint:wrapcheck // as above
}

func (g *guard) readAside(p []byte) (n int, err error) {
	for {
		aside(func() { n, err = g.Conn.Read(p) })
		if !errors.Is(err, tcp.ErrNothingYet) {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
		tcp.Await(g.quiet.bottom)
	}
}

// aside calls f in a goroutine of its own and waits for it, so that the stack that f needs is gone afterwards.
func aside(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}
