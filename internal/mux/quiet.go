package mux

import (
	"crypto/tls"
	"errors"
	"net"
	"time"

	tcp "github.com/outfeed/outfeed/internal/socket"
)

// livelyReads is from how many reads in paceTime on a session is lively. One that is idle says some things every 10 to 15 s.
const (
	livelyReads = 50
	paceTime    = time.Second
)

// pace tells a session on which much comes from one that is idle. It is for one goroutine at a time.
type pace struct {
	since time.Time
	reads int
	much  bool
}

// lively counts a read, and says whether the session is lively. After a pause it is not.
func (p *pace) lively(now time.Time) bool {
	if took := now.Sub(p.since); took >= paceTime {
		p.much = p.reads >= livelyReads && took < 2*paceTime
		p.since, p.reads = now, 0
	}
	p.reads++
	return p.much || p.reads >= livelyReads
}

// quietBelow is the WebSocket below a connection, if it was accepted and reading it need not wait. A TLS handshake has to wait:
// there is none for a connection whose handshake is still to come.
func quietBelow(conn net.Conn) *accepted {
	if secure, ok := conn.(*tls.Conn); ok && !secure.ConnectionState().HandshakeComplete {
		return nil
	}
	a, ok := tcp.Below[*accepted](conn)
	if !ok || a.bottom == nil || !a.bottom.AtOnce(true) {
		return nil
	}
	a.bottom.AtOnce(false)
	return a
}

// readAside reads from a connection whose peer is likely to be idle. Two sessions of TLS and what is between them take 8 KiB of a
// stack, which a goroutine that waits below them would hold all the time. So yamux's goroutine waits here, and another one,
// which is gone afterwards, reads what has come. That takes more time, so while the session is lively it reads itself; then it
// waits below once, until the first sign of life after that.
func (g *guard) readAside(p []byte) (n int, err error) {
	g.quiet.bottom.AtOnce(true)
	for {
		Aside(func() { n, err = g.read(p) })
		if n > 0 || !errors.Is(err, tcp.ErrNothingYet) {
			break
		}
		tcp.Await(g.quiet.bottom)
	}
	g.quiet.bottom.AtOnce(!g.lively.Load())
	if errors.Is(err, tcp.ErrNothingYet) {
		err = nil
	}
	return n, err
}

// Aside calls f in a goroutine of its own and waits for it, so that the stack that f needs is gone afterwards.
func Aside(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}
