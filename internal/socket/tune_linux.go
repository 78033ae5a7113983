package socket

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// unsent is how many bytes may wait in the kernel before they are sent for the first time: half a second at 32
	// kbit/s. Over loopback, a connection carries 1.7 GB/s with it, as it does without.
	unsent = 2 << 10
	// longestRetry is how long TCP waits at the most before it sends again, in ms: a peer is given up after 40 s of silence.
	longestRetry = 5000
	// givenUp is after how long without an acknowledgement the kernel ends a connection, in ms. Left to itself it takes the
	// time of 15 retries for that, which is a minute where each comes within 5 s, and counts from the first packet that was
	// lost, though all that were lost since have arrived when they were sent again. The tunnel notices a dead peer before.
	givenUp = 180_000
)

func tune(fd int) error {
	for _, o := range []struct{ option, value int }{
		{unix.TCP_THIN_LINEAR_TIMEOUTS, 1},
		{unix.TCP_NOTSENT_LOWAT, unsent},
		{unix.TCP_USER_TIMEOUT, givenUp},
		// Since Linux 6.15.
		{unix.TCP_RTO_MAX_MS, longestRetry},
	} {
		err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, o.option, o.value)
		if err != nil && !errors.Is(err, unix.ENOPROTOOPT) && !errors.Is(err, unix.ENOSYS) {
			return fmt.Errorf("set the TCP option %d: %w", o.option, err)
		}
	}
	return nil
}
