package socket

import (
	"net"
	"syscall"
	"time"
)

// Flow is what a system's kernel knows of a TCP connection. Whatever stands in between ends it: behind a proxy it is the
// connection with the proxy.
type Flow struct {
	// Acked is how many bytes of this side the kernel of the other one has acknowledged, and Arrived how many segments with
	// data came from there, be they new or sent again.
	Acked, Arrived uint64
	// RoundTrip is the time there and back, smoothed.
	RoundTrip time.Duration
}

// FlowOf gives it for the connection below all layers that have a NetConn, as TLS has; false where it is not to be had.
func FlowOf(conn net.Conn) (Flow, bool) {
	if raw, ok := Below[syscall.Conn](conn); ok {
		return flowOf(raw)
	}
	return Flow{}, false
}

// Await waits until something can be read of the connection below all layers that have a NetConn, or it is closed. It reads
// nothing. What a layer has read ahead it does not see. Where the system cannot tell, it does not wait.
func Await(conn net.Conn) {
	if raw, ok := Below[syscall.Conn](conn); ok {
		await(raw)
	}
}

// Below is the first that is a T of a connection and the layers below it, as far as they have a NetConn, as TLS has.
func Below[T any](conn net.Conn) (found T, ok bool) {
	for range 10 {
		if found, ok = any(conn).(T); ok {
			return found, true
		}
		layer, more := conn.(interface{ NetConn() net.Conn })
		if !more {
			break
		}
		conn = layer.NetConn()
	}
	return found, false
}
