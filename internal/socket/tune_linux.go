package socket

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// unsent is how many bytes may wait in the kernel before they are sent for the first time: 4 s at 32 kbit/s.
const unsent = 16 << 10

func tune(fd int) error {
	for _, o := range []struct{ option, value int }{
		{unix.TCP_THIN_LINEAR_TIMEOUTS, 1},
		{unix.TCP_NOTSENT_LOWAT, unsent},
	} {
		err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, o.option, o.value)
		if err != nil && !errors.Is(err, unix.ENOPROTOOPT) && !errors.Is(err, unix.ENOSYS) {
			return fmt.Errorf("set the TCP option %d: %w", o.option, err)
		}
	}
	return nil
}
