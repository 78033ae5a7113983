package httpapi

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// silentFor is how long the kernel keeps a connection to itself whose client says nothing, in seconds. In HTTP and in TLS the
// client speaks first.
const silentFor = 5

// deferAccept has the kernel hand over a connection once its client has said something, so that those who say nothing stand
// in no queue before those who do.
func deferAccept(l net.Listener) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	// Without the option everything works, at more cost.
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, silentFor) })
}

// gone says whether the client has closed a connection on which nothing is left to be read.
func gone(conn net.Conn) bool {
	tcp, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	over := false
	err = raw.Control(func(fd uintptr) {
		n, _, peekErr := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		over = n == 0 && peekErr == nil || peekErr != nil && peekErr != unix.EAGAIN && peekErr != unix.EINTR
	})
	return over || err != nil
}
