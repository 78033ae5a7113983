// Package socket sets up TCP sockets for slow and lossy links.
//
// It opens none. Its function may be called from anywhere; where a system lacks an option, the socket stays as it is.
package socket

import (
	"fmt"
	"syscall"
)

// Control is for net.Dialer and net.ListenConfig, the latter without multipath TCP, which does not pass options on.
//
// What little an idle session says is sent again at an even pace when it is lost. With the usual doubling a link that
// loses every fifth packet is silent for 40 s several times an hour, as if it were dead. And what is not sent yet stays
// with the sender, so that at 32 kbit/s a sign of life does not queue behind a minute of data.
func Control(network, address string, c syscall.RawConn) error {
	var failed error
	if err := c.Control(func(fd uintptr) { failed = tune(int(fd)) }); err != nil {
		return fmt.Errorf("set up the socket for %s %s: %w", network, address, err)
	}
	if failed != nil {
		return fmt.Errorf("set up the socket for %s %s: %w", network, address, failed)
	}
	return nil
}
