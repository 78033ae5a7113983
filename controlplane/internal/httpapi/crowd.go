package httpapi

import (
	queue "container/list"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// maxFresh is how many connections may be without a first request, maxIdle how many between two requests. A connection
	// that says nothing costs about 25 KB.
	maxFresh = 800
	maxIdle  = 1000
	// freshGrace is how long a fresh connection has before it must make room for others.
	freshGrace = 3 * time.Second
)

// crowd bounds the connections that a server holds without working for them. Where there are too many, the oldest goes:
// who is served at all is served long before. Requests under way and tunnels do not count.
type crowd struct {
	freshLimit, idleLimit int

	mu    sync.Mutex
	where map[net.Conn]place
	// fresh and idle hold members, the oldest first.
	fresh, idle queue.List
	// room is closed when a fresh connection goes.
	room chan struct{}
}

type member struct {
	conn  net.Conn
	since time.Time
}

type place struct {
	in      *queue.List
	element *queue.Element
}

func newCrowd(freshLimit, idleLimit int) *crowd {
	return &crowd{freshLimit: freshLimit, idleLimit: idleLimit, where: map[net.Conn]place{}, room: make(chan struct{})}
}

// changed is for http.Server.ConnState. For a new connection, which is told before the next is accepted, it may wait.
func (c *crowd) changed(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		c.enter(conn)
	case http.StateIdle:
		c.rest(conn)
	case http.StateActive, http.StateHijacked, http.StateClosed:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.remove(conn)
	}
}

// enter waits until there is room for a new connection, and makes some where others have had their time.
func (c *crowd) enter(conn net.Conn) {
	for {
		wait, room, old := c.tryEnter(conn)
		if old != nil {
			_ = old.Close() // whatever comes of it, it is not waited for any more
		}
		if wait <= 0 {
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-room:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// tryEnter gives how long to wait, for room at the most; or 0 when the connection is in, perhaps in place of an old one.
func (c *crowd) tryEnter(conn net.Conn) (wait time.Duration, room <-chan struct{}, old net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.fresh.Len() >= c.freshLimit {
		oldest, ok := c.fresh.Front().Value.(member)
		if left := freshGrace - now.Sub(oldest.since); ok && left > 0 {
			return left, c.room, nil
		}
		c.remove(oldest.conn)
		old = oldest.conn
	}
	c.add(&c.fresh, conn, now)
	return 0, nil, old
}

// rest takes in a connection between two requests.
func (c *crowd) rest(conn net.Conn) {
	c.mu.Lock()
	c.remove(conn)
	c.add(&c.idle, conn, time.Now())
	var old net.Conn
	if oldest, ok := c.idle.Front().Value.(member); ok && c.idle.Len() > c.idleLimit {
		old = oldest.conn
		c.remove(old)
	}
	c.mu.Unlock()
	if old != nil {
		_ = old.Close() // as in enter
	}
}

// add is called with mu held.
func (c *crowd) add(to *queue.List, conn net.Conn, now time.Time) {
	c.where[conn] = place{in: to, element: to.PushBack(member{conn: conn, since: now})}
}

// remove is called with mu held.
func (c *crowd) remove(conn net.Conn) {
	at, ok := c.where[conn]
	if !ok {
		return
	}
	at.in.Remove(at.element)
	delete(c.where, conn)
	if at.in == &c.fresh {
		close(c.room)
		c.room = make(chan struct{})
	}
}
