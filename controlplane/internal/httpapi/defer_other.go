//go:build !linux

package httpapi

import "net"

// deferAccept does nothing: the option is Linux's.
func deferAccept(net.Listener) {}

// gone is not known.
func gone(net.Conn) bool { return false }
