package socket_test

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outfeed/outfeed/internal/socket"
)

// TestBothSidesAreTuned looks at the options of a connection that was dialled, and of the one that was accepted.
func TestBothSidesAreTuned(t *testing.T) {
	t.Parallel()
	config := net.ListenConfig{Control: socket.Control}
	config.SetMultipathTCP(false)
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the test is over
	dialled, err := (&net.Dialer{Control: socket.Control}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialled.Close() //nolint:errcheck // as above
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close() //nolint:errcheck // as above
	for name, conn := range map[string]net.Conn{"dialled": dialled, "accepted": accepted} {
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			t.Fatalf("%s is a %T", name, conn)
		}
		raw, err := tcp.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			for option, want := range map[int]int{unix.TCP_THIN_LINEAR_TIMEOUTS: 1, unix.TCP_NOTSENT_LOWAT: 2048, unix.TCP_USER_TIMEOUT: 180_000, unix.TCP_RTO_MAX_MS: 5000} {
				// A kernel that lacks the option lacks it on both sides.
				if got, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, option); !errors.Is(err, unix.ENOPROTOOPT) && (err != nil || got != want) {
					t.Errorf("%s: the option %d is %d, %v, want %d", name, option, got, err, want)
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
}
