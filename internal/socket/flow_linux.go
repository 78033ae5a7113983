package socket

import (
	"errors"
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
