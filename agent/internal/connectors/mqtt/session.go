package mqtt

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/decode"
)

const (
	// dialTimeout bounds reaching the broker and its first answers, writeTimeout one write.
	dialTimeout  = 10 * time.Second
	writeTimeout = 10 * time.Second
	// maxPacket is the largest packet: the longest record and the rest of a publication.
	maxPacket = decode.MaxRecord + 128<<10
	// queueMessages and queueBytes bound what waits to be taken. Then the broker has to wait.
	queueMessages = 4096
	queueBytes    = 16 << 20
)

var (
	errTakenOver = errors.New("another client connected with the same client_id and took the session over")
	errHungUp    = errors.New("the broker closed the connection")
	errSilent    = errors.New("the broker does not answer any more")
)

// session is one connection to the broker.
type session struct {
	settings *settings
	dialect  dialect
	conn     net.Conn
	reader   *bufio.Reader
	alive    time.Duration
	// resumed says that the broker kept the session from before.
	resumed bool
	done    sync.WaitGroup

	write sync.Mutex // over the connection's writes

	mu sync.Mutex // over what follows
	// queue is what arrived, bytes its size, heard when the last packet came, and full that the reader waits for room.
	queue []message
	bytes int
	heard time.Time
	full  bool
	err   error
	ended bool

	// ready has a token when there is something to take, room when there is room again. stop ends the goroutines.
	ready, room, stop chan struct{}
}

// dial connects, and subscribes unless the broker has the subscription. known is changed to what the broker still knows.
func dial(ctx context.Context, s *settings, known *position) (*session, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, errSilent)
	defer cancel()
	start := sameSession
	if known.topic == "" {
		start = newSession
	}
	if start == newSession && s.version == version311 {
		// A clean session of 3.1.1 also ends with its connection: one clears away what there was, the next one stays.
		c, err := greet(ctx, s, func(c *session) error { return c.connect(newSession) })
		if err != nil {
			return nil, err
		}
		_ = c.send(c.dialect.disconnect) // the next connection replaces it anyway
		_ = c.conn.Close()               // there is nothing to lose
		start = sameSession
	}
	c, err := greet(ctx, s, func(c *session) error { return c.handshake(start, known) })
	if err != nil {
		return nil, err
	}
	for _, part := range []func(){c.receive, c.keepAlive} {
		c.done.Go(func() {
			if err := connector.Guard(part); err != nil {
				c.fail(err)
			}
		})
	}
	return c, nil
}

// greet opens a connection and has the first talk on it, which ends with ctx.
func greet(ctx context.Context, s *settings, talk func(*session) error) (*session, error) {
	conn, err := open(ctx, s)
	if err != nil {
		return nil, err
	}
	c := &session{
		settings: s, dialect: newDialect(s.version), conn: conn, reader: bufio.NewReaderSize(conn, 64<<10), alive: s.keepAlive,
		heard: time.Now(), ready: make(chan struct{}, 1), room: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	release := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // the read then fails
	err = talk(c)
	if !release() && err != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = conn.Close() // it failed already
		return nil, at(s, err)
	}
	return c, nil
}

// at says which broker an error is about.
func at(s *settings, err error) error {
	if errors.Is(err, io.EOF) {
		err = errHungUp
	}
	wrapped := fmt.Errorf("MQTT broker at %s: %w", s.address, err)
	if p := (*connector.PermanentError)(nil); errors.As(err, &p) {
		return &connector.PermanentError{Err: wrapped}
	}
	return wrapped
}

// open reaches the broker.
func open(ctx context.Context, s *settings) (net.Conn, error) {
	if !s.tls {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.address)
		if err != nil {
			return nil, fmt.Errorf("the MQTT broker at %s cannot be reached: %w", s.address, err)
		}
		return conn, nil
	}
	config := &tls.Config{ServerName: s.host, MinVersion: tls.VersionTLS12}
	if s.caFile != "" {
		text, err := os.ReadFile(s.caFile)
		if err != nil {
			return nil, fmt.Errorf("option ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, permanent("option ca_file: %s holds no certificate in PEM", s.caFile)
		}
	}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", s.address)
	if err != nil {
		return nil, connector.NotEnd(fmt.Errorf("the MQTT broker at %s cannot be reached with TLS: %w", s.address, err))
	}
	return conn, nil
}

// connect begins or goes on with a session.
func (c *session) connect(start sessionStart) error {
	if err := c.dialect.connect(c.conn, c.settings, start); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	answer, err := c.await(func(e event) bool { return e.connected != nil })
	if err != nil {
		return err
	}
	if answer.connected.keepAlive > 0 {
		c.alive = answer.connected.keepAlive
	}
	c.resumed = answer.connected.sessionPresent
	return nil
}

// handshake connects and subscribes.
func (c *session) handshake(start sessionStart, known *position) error {
	if err := c.connect(start); err != nil {
		return err
	}
	if !c.resumed {
		known.arrivals = nil // the packet ids begin anew
	}
	changed := known.topic != c.settings.topic || known.qos != c.settings.qos
	if c.resumed && known.topic != "" && known.topic != c.settings.topic {
		if err := c.dialect.unsubscribe(c.conn, known.topic); err != nil {
			return fmt.Errorf("unsubscribe: %w", err)
		}
	}
	known.topic, known.qos = c.settings.topic, c.settings.qos
	if c.resumed && !changed {
		return nil
	}
	if err := c.dialect.subscribe(c.conn, c.settings); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	answer, err := c.await(func(e event) bool { return e.subscribed != nil })
	if err != nil {
		known.topic = "" // not subscribed: the next connection begins anew
		return err
	}
	if err := checkGrant(c.settings, *answer.subscribed); err != nil {
		known.topic = ""
		return err
	}
	return nil
}

// await reads until the answer that is wanted. Messages that come before it are queued.
func (c *session) await(wanted func(event) bool) (event, error) {
	for {
		e, err := c.next()
		switch {
		case err != nil:
			return event{}, err
		case e.closed != nil:
			return event{}, e.closed
		case wanted(e):
			return e, nil
		case e.message != nil:
			c.put(*e.message)
		}
	}
}

// next reads a packet. A publication that is too long is passed over and comes without its payload.
func (c *session) next() (event, error) {
	size, header, err := c.peekSize()
	if err != nil {
		return event{}, err
	}
	if size > maxPacket {
		return c.passOver(size, header)
	}
	e, err := c.dialect.read(c.reader)
	if err != nil {
		return event{}, fmt.Errorf("read: %w", err)
	}
	if e.message != nil && e.message.qos > 1 {
		return event{}, errUnexpected
	}
	return e, nil
}

// peekSize reads the length of the next packet without taking it: its remaining length and that of its fixed header.
func (c *session) peekSize() (size, header int, err error) {
	for n := 2; n <= 5; n++ {
		head, err := c.reader.Peek(n)
		if err != nil {
			return 0, 0, fmt.Errorf("read: %w", err)
		}
		last := head[n-1]
		size |= int(last&0x7f) << (7 * (n - 2))
		if last&0x80 == 0 {
			return size, n, nil
		}
	}
	return 0, 0, errUnexpected
}

// passOver reads the topic and the packet id of a publication that is too long, and discards the rest.
func (c *session) passOver(size, header int) (event, error) {
	const publish = 3
	start, err := c.reader.Peek(header + 2)
	if err != nil {
		return event{}, fmt.Errorf("read: %w", err)
	}
	flags, topicLen := start[0], int(binary.BigEndian.Uint16(start[header:]))
	if flags>>4 != publish {
		return event{}, errUnexpected
	}
	m := message{qos: flags >> 1 & 3, dup: flags&8 != 0, retain: flags&1 != 0, tooLong: true}
	if _, err := c.reader.Discard(header + 2); err != nil {
		return event{}, fmt.Errorf("read: %w", err)
	}
	rest := make([]byte, topicLen+2)
	if m.qos == 0 {
		rest = rest[:topicLen]
	}
	if _, err := io.ReadFull(c.reader, rest); err != nil {
		return event{}, fmt.Errorf("read: %w", err)
	}
	m.topic = string(rest[:topicLen])
	if m.qos > 0 {
		m.id = binary.BigEndian.Uint16(rest[topicLen:])
	}
	if _, err := c.reader.Discard(size - 2 - len(rest)); err != nil {
		return event{}, fmt.Errorf("read: %w", err)
	}
	return event{message: &m}, nil
}

// receive reads until the connection ends.
func (c *session) receive() {
	for {
		e, err := c.next()
		if err == nil {
			err = e.closed
		}
		if err != nil {
			c.fail(err)
			return
		}
		c.mu.Lock()
		c.heard = time.Now()
		c.mu.Unlock()
		if e.message != nil && !c.waitPut(*e.message) {
			return
		}
	}
}

// waitPut queues a message, and waits for room first.
func (c *session) waitPut(m message) bool {
	for {
		c.mu.Lock()
		c.full = len(c.queue) >= queueMessages || (c.bytes >= queueBytes)
		full := c.full
		c.mu.Unlock()
		if !full {
			c.put(m)
			return true
		}
		select {
		case <-c.room:
		case <-c.stop:
			return false
		}
	}
}

func (c *session) put(m message) {
	c.mu.Lock()
	c.queue = append(c.queue, m)
	c.bytes += len(m.payload)
	c.mu.Unlock()
	signal(c.ready)
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// fail ends the connection with its reason.
func (c *session) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
	}
	c.mu.Unlock()
	_ = c.conn.Close() // it failed already
	signal(c.ready)
}

// keepAlive pings, and ends a connection whose broker is silent. While the queue is full its silence is our doing.
func (c *session) keepAlive() {
	ticker := time.NewTicker(c.alive / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-c.stop:
			return
		}
		c.mu.Lock()
		silent := !c.full && time.Since(c.heard) > c.alive+c.alive/2
		failed := c.err != nil
		c.mu.Unlock()
		if failed {
			return
		}
		if silent {
			c.fail(errSilent)
			return
		}
		if err := c.send(c.dialect.ping); err != nil {
			c.fail(err)
			return
		}
	}
}

// send writes packets in one piece.
func (c *session) send(packets func(io.Writer) error) error {
	c.write.Lock()
	defer c.write.Unlock()
	w := bufio.NewWriter(c.conn)
	if err := packets(w); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// take moves the queue's first messages into to: as many as there are, up to limit messages and about limitBytes. It gives the
// session's error once the queue is empty.
func (c *session) take(to []message, limit, limitBytes int) ([]message, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, size := 0, 0
	for n < len(c.queue) && n < limit && size < limitBytes {
		size += len(c.queue[n].payload)
		n++
	}
	to = append(to, c.queue[:n]...)
	rest := copy(c.queue, c.queue[n:])
	clear(c.queue[rest:])
	c.queue = c.queue[:rest]
	c.bytes -= size
	c.full = false
	signal(c.room)
	if rest > 0 {
		signal(c.ready)
	}
	if n == 0 && c.err != nil {
		return to, c.err
	}
	return to, nil
}

// close ends the connection and waits for its goroutines.
func (c *session) close() {
	c.mu.Lock()
	again, failed := c.ended, c.err != nil
	c.ended = true
	c.mu.Unlock()
	if !again {
		if !failed {
			_ = c.send(c.dialect.disconnect) // the broker notices the end of the connection as well
		}
		close(c.stop)
		c.fail(connector.ErrClosed)
	}
	c.done.Wait()
}
