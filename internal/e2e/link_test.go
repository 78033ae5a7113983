package e2e

import (
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// link is a wire that a test can cut and mend.
type link struct {
	address string
	to      string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}

	// hearing is held while something is passed to the agent's side.
	hearing sync.RWMutex
	deaf    bool
	// spy sees what the agent's side says before it is passed on; nil for nobody.
	spy func(from net.Conn, p []byte)
}

// newLink forwards connections to an address, or to a Unix socket, until the test ends.
func newLink(t *testing.T, to string) *link {
	t.Helper()
	return newSpiedLink(t, to, nil)
}

// newSpiedLink is a link on which somebody sees what the side of the agent says.
func newSpiedLink(t *testing.T, to string, spy func(from net.Conn, p []byte)) *link {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{address: listener.Addr().String(), to: to, conns: map[net.Conn]struct{}{}, spy: spy}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { l.forward(c) })
		}
	})
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		l.setCut(true)
		wg.Wait()
	})
	return l
}

// setCut cuts the wire, and everything on it, or mends it.
func (l *link) setCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	if !cut {
		return
	}
	for c := range l.conns {
		c.Close() //nolint:errcheck // the point is to break it
	}
}

// setDeaf drops what the control plane's side says from now on, or passes it on again. What is on the wire the other way
// passes. A connection from which something was dropped is good for nothing but to be cut.
func (l *link) setDeaf(deaf bool) {
	l.hearing.Lock()
	defer l.hearing.Unlock()
	l.deaf = deaf
}

// listener is the agent's side of a connection.
type listener struct {
	link *link
	to   net.Conn
}

func (w listener) Write(p []byte) (int, error) {
	w.link.hearing.RLock()
	defer w.link.hearing.RUnlock()
	if w.link.deaf {
		return len(p), nil
	}
	return w.to.Write(p)
}

// speaker is the control plane's side of a connection.
type speaker struct {
	link     *link
	from, to net.Conn
}

func (w speaker) Write(p []byte) (int, error) {
	w.link.spy(w.from, p)
	return w.to.Write(p)
}

// add keeps a connection for cutting, unless the wire is cut already.
func (l *link) add(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (l *link) remove(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	c.Close() //nolint:errcheck // it may be closed already
}

func (l *link) forward(in net.Conn) {
	defer l.remove(in)
	if !l.add(in) {
		return
	}
	network := "tcp"
	if filepath.IsAbs(l.to) {
		network = "unix"
	}
	out, err := net.Dial(network, l.to) //nolint:noctx // this machine answers at once
	if err != nil {
		return
	}
	defer l.remove(out)
	if !l.add(out) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer in.Close()              //nolint:errcheck // the other direction ends too
		io.Copy(listener{l, in}, out) //nolint:errcheck // a wire that breaks is no error here
	})
	var to io.Writer = out
	if l.spy != nil {
		to = speaker{l, in, out}
	}
	io.Copy(to, in) //nolint:errcheck // a wire that breaks is no error here
	out.Close()     //nolint:errcheck // the other direction ends too
	wg.Wait()
}
