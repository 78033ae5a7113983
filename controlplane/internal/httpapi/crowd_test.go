package httpapi

import (
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestCrowd holds the bounds: old connections without a request make room for new ones, young ones are let be.
func TestCrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(2, 1)
		pipe := func() (net.Conn, func() bool) {
			here, there := net.Pipe()
			t.Cleanup(func() { _ = here.Close(); _ = there.Close() })
			return here, func() bool {
				_ = there.SetReadDeadline(time.Now().Add(time.Millisecond))
				_, err := there.Read(make([]byte, 1))
				timeout, ok := err.(net.Error) //nolint:errorlint // a pipe does not wrap it
				return !ok || !timeout.Timeout()
			}
		}
		first, firstClosed := pipe()
		second, secondClosed := pipe()
		third, thirdClosed := pipe()
		began := time.Now()
		for _, conn := range []net.Conn{first, second, third} {
			c.changed(conn, http.StateNew)
		}
		if waited := time.Since(began); waited != freshGrace {
			t.Errorf("the third waited %v, want %v", waited, freshGrace)
		}
		if !firstClosed() || secondClosed() || thirdClosed() {
			t.Errorf("closed are %v %v %v, want the first alone", firstClosed(), secondClosed(), thirdClosed())
		}
		// One that gets its request makes room at once.
		fourth, _ := pipe()
		entered := make(chan struct{})
		c.changed(second, http.StateActive)
		go func() { c.changed(fourth, http.StateNew); close(entered) }()
		synctest.Wait()
		select {
		case <-entered:
		default:
			t.Error("there is room, and a new connection waits")
		}
		// Of those between two requests the oldest goes.
		c.changed(third, http.StateActive)
		c.changed(second, http.StateIdle)
		c.changed(third, http.StateIdle)
		if !secondClosed() || thirdClosed() {
			t.Error("of two idle connections the older must go")
		}
		for _, conn := range []net.Conn{first, second, third, fourth} {
			c.changed(conn, http.StateClosed)
		}
		if len(c.where) != 0 || c.fresh.Len() != 0 || c.idle.Len() != 0 {
			t.Errorf("%d connections are remembered", len(c.where))
		}
	})
}
