package socket

import (
	"net"
	"syscall"
)

// ErrNothingYet is what a read that does not wait gives while nothing has come. It is a time-out, after which TLS can go on.
var ErrNothingYet error = nothingYetError{}

type nothingYetError struct{}

// Error says so.
func (nothingYetError) Error() string { return "nothing has come yet" }

// Timeout is what it is.
func (nothingYetError) Timeout() bool { return true }

// Temporary is what TLS asks before it gives a connection up.
func (nothingYetError) Temporary() bool { return true }

// Impatient is a connection whose reads can be told not to wait. Then whoever reads can wait with Await instead, high up on a
// small stack, and need not keep a goroutine that waits below all layers, with the large stack that they take.
type Impatient interface {
	net.Conn
	// AtOnce says whether reads after it wait, or give ErrNothingYet while nothing has come. It is false where the system
	// cannot do that; then they wait. Only who reads may call it.
	AtOnce(on bool) bool
}

// Try reads from the connections that can be told not to wait. It is for one goroutine at a time. The zero value waits.
type Try struct{ raw syscall.RawConn }

// AtOnce is Impatient's, for reads of conn.
func (t *Try) AtOnce(conn net.Conn, on bool) bool {
	if !on {
		t.raw = nil
		return true
	}
	if t.raw != nil {
		return true
	}
	if system, ok := conn.(syscall.Conn); ok && canTry {
		t.raw, _ = system.SyscallConn() // without one, it waits
	}
	return t.raw != nil
}

// Read reads from conn.
func (t *Try) Read(conn net.Conn, p []byte) (int, error) {
	if t.raw == nil || len(p) == 0 {
		return conn.Read(p) //nolint:wrapcheck // TLS compares it with io.EOF
	}
	return tryRead(t.raw, p)
}
