package socket

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func flowOf(conn syscall.Conn) (f Flow, ok bool) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Flow{}, false
	}
	err = raw.Control(func(fd uintptr) {
		info, infoErr := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if infoErr != nil {
			return
		}
		f = Flow{Acked: info.Bytes_acked, Arrived: uint64(info.Data_segs_in), RoundTrip: time.Duration(info.Rtt) * time.Microsecond}
		ok = true
	})
	return f, ok && err == nil
}

func await(conn syscall.Conn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	// What is wrong with it shows when it is read.
	_ = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN)
	})
}

// canTry says that a read that does not wait is possible.
const canTry = true

func tryRead(raw syscall.RawConn, p []byte) (n int, err error) {
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, failed = unix.Read(int(fd), p)
			if !errors.Is(failed, unix.EINTR) {
				return true
			}
		}
	})
	switch {
	case err != nil:
		return 0, err //nolint:wrapcheck // it is what a read of the connection gives
	case errors.Is(failed, unix.EAGAIN):
		return 0, ErrNothingYet
	case failed != nil:
		return 0, fmt.Errorf("read: %w", failed)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}
