package mux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/yamux"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// pair gives two connected TCP ends on loopback.
func pair(t *testing.T) (left, right net.Conn) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, acceptErr := l.Accept()
		if acceptErr != nil {
			t.Error(acceptErr)
		}
		accepted <- conn
	}()
	left, err = new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	right = <-accepted
	t.Cleanup(func() { _ = left.Close(); _ = right.Close() })
	return left, right
}

// sessions gives two ends with short time-outs.
func sessions(t *testing.T, timing timing) (client, server *Session) {
	t.Helper()
	left, right := pair(t)
	client, err := start(newGuard(left, 0), yamux.Client, timing, quiet())
	if err != nil {
		t.Fatal(err)
	}
	server, err = start(newGuard(right, 1), yamux.Server, timing, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server
}

func TestEcho(t *testing.T) {
	t.Parallel()
	client, server := sessions(t, usual())
	done := make(chan error, 1)
	go func() {
		for range 20 {
			s, err := server.Accept(t.Context())
			if err != nil {
				done <- err
				return
			}
			if _, err = io.Copy(s, s); err != nil {
				done <- err
				return
			}
			if err = s.Close(); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 40_000)
	for range 20 {
		s, err := client.Open()
		if err != nil {
			t.Fatal(err)
		}
		wrote := make(chan error, 1)
		go func() {
			_, writeErr := s.Write(sent)
			wrote <- writeErr
		}()
		got := make([]byte, len(sent))
		if _, err = io.ReadFull(s, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("echo: %v", err)
		}
		if err = <-wrote; err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err = s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	// Nothing is remembered of streams that both sides have closed, once the last close has arrived.
	last, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err = last.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	s, err := server.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	server.guard.mu.Lock()
	defer server.guard.mu.Unlock()
	if n, unread := len(server.guard.streams), server.guard.unread; n != 1 || unread != 0 {
		t.Errorf("%d streams and %d unread bytes are remembered", n, unread)
	}
}

func frame(kind byte, flags uint16, id, length uint32) []byte {
	out := []byte{0, kind, 0, 0}
	binary.BigEndian.PutUint16(out[2:], flags)
	out = binary.BigEndian.AppendUint32(out, id)
	return binary.BigEndian.AppendUint32(out, length)
}

// TestHostilePeers sends raw frames that yamux alone would take in.
func TestHostilePeers(t *testing.T) {
	t.Parallel()
	var pings, streams, unread, reopened bytes.Buffer
	for n := range uint32(50) {
		pings.Write(frame(typePing, flagOpen, 0, n))
	}
	for n := range uint32(MaxStreams + 1) {
		streams.Write(frame(typeWindow, flagOpen, 2*n+1, 0))
	}
	body := make([]byte, maxFrame)
	for n := range uint32(MaxUnread/maxFrame + 1) {
		unread.Write(frame(typeData, flagOpen, 2*n+1, maxFrame))
		unread.Write(body)
	}
	reopened.Write(frame(typeWindow, flagOpen, 1, 0))
	reopened.Write(frame(typeWindow, flagFinish, 1, 0))
	reopened.Write(frame(typeWindow, flagOpen, 1, 0))
	for name, c := range map[string]struct {
		sent []byte
		says string
	}{
		"ping flood":          {pings.Bytes(), "pings a second"},
		"stream flood":        {streams.Bytes(), "256 streams"},
		"unread bytes":        {unread.Bytes(), "nobody has read"},
		"huge frame":          {frame(typeData, flagOpen, 1, 1<<30), "frame of 1073741824 bytes"},
		"reused id":           {reopened.Bytes(), "stream id 1"},
		"our own id":          {frame(typeWindow, flagOpen, 2, 0), "stream id 2"},
		"data for no stream":  {append(frame(typeData, 0, 7, 1), 'x'), "not open"},
		"close of no stream":  {frame(typeWindow, flagReset, 7, 0), "not open"},
		"unknown frame":       {frame(9, 0, 0, 0), "type 9"},
		"another protocol":    {[]byte("GET / HTTP/1.1\r\n\r\n"), "version 71"},
		"closes of our sides": {closes(maxTracked + 1), "not open"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			left, right := pair(t)
			server, err := Server(right, quiet())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = server.Close() }()
			go func() { _, _ = io.Copy(io.Discard, left) }()
			// The write fails when the session ends before all is taken, which is what is wanted.
			_, _ = left.Write(c.sent)
			<-server.Done()
			_, err = server.Open()
			if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the session ended with %v, want one that says %q", err, c.says)
			}
		})
	}
}

func closes(n uint32) []byte {
	var out []byte
	for i := range n {
		out = append(out, frame(typeWindow, flagReset, 2*i+2, 0)...)
	}
	return out
}

// TestFloodsOfLittle sends more frames that carry nothing than anyone has reason to.
func TestFloodsOfLittle(t *testing.T) {
	t.Parallel()
	for name, one := range map[string][]byte{
		"empty frames":   frame(typeData, 0, 1, 0),
		"window updates": frame(typeWindow, 0, 1, 1),
		"ping answers":   frame(typePing, flagAnswer, 0, 1),
		"good-byes":      frame(typeGoAway, 0, 0, 0),
	} {
		g := newGuard(nil, 1)
		err := g.inspect(bytes.Repeat(one, 100*MaxFrames))
		if !errors.Is(err, ErrLimit) || !strings.Contains(err.Error(), "little or nothing") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLimitsLetAnOrdinaryPeerThrough fills what is allowed to the brim.
func TestLimitsLetAnOrdinaryPeerThrough(t *testing.T) {
	t.Parallel()
	g := newGuard(nil, 1)
	var in bytes.Buffer
	for n := range uint32(MaxStreams) {
		in.Write(frame(typeWindow, flagOpen, 2*n+1, 0))
	}
	for n := range uint32(MaxPings) {
		in.Write(frame(typePing, flagOpen, 0, n))
	}
	for n := range uint32(MaxUnread / maxFrame) {
		in.Write(frame(typeData, 0, 2*n+1, maxFrame))
		in.Write(make([]byte, maxFrame))
	}
	// However the bytes are cut.
	data := in.Bytes()
	for step := 1; len(data) > 0; step = step%4099 + 1 {
		n := min(step, len(data))
		if err := g.inspect(data[:n]); err != nil {
			t.Fatal(err)
		}
		data = data[n:]
	}
	if g.unread != MaxUnread {
		t.Errorf("%d bytes are counted as unread, want %d", g.unread, MaxUnread)
	}
	for n := range uint32(MaxUnread / maxFrame) {
		g.consumed(2*n+1, maxFrame)
	}
	if g.unread != 0 {
		t.Errorf("%d bytes are counted as unread after reading", g.unread)
	}
}

// TestUnreadPeerEndsTheSession writes to a peer that never reads.
func TestUnreadPeerEndsTheSession(t *testing.T) {
	t.Parallel()
	client, server := sessions(t, timing{keepAlive: time.Hour, silence: time.Hour, write: 200 * time.Millisecond})
	s, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err = server.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = s.Write(make([]byte, 4*streamWindow))
	if !errors.Is(err, ErrWriteTimeout) {
		t.Errorf("the write ended with %v, want ErrWriteTimeout", err)
	}
	<-client.Done()
	<-server.Done()
}

// TestSilentPeerEndsTheSession has a peer that takes everything and answers nothing.
func TestSilentPeerEndsTheSession(t *testing.T) {
	t.Parallel()
	left, right := pair(t)
	go func() { _, _ = io.Copy(io.Discard, right) }()
	client, err := start(newGuard(left, 0), yamux.Client, timing{keepAlive: 50 * time.Millisecond, silence: 200 * time.Millisecond, write: 100 * time.Millisecond}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	<-client.Done()
	if _, err = client.Accept(t.Context()); !errors.Is(err, ErrSilent) {
		t.Errorf("the session ended with %v", err)
	}
	if err = client.Close(); err != nil {
		t.Error(err)
	}
}

// TestCloseUnblocks closes under a reader, a writer and an accepter.
func TestCloseUnblocks(t *testing.T) {
	t.Parallel()
	client, server := sessions(t, usual())
	s, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err = server.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{}, 3)
	go func() { _, _ = io.Copy(io.Discard, s); ended <- struct{}{} }()
	go func() { _, _ = s.Write(make([]byte, 4*streamWindow)); ended <- struct{}{} }()
	go func() { _, _ = client.Accept(t.Context()); ended <- struct{}{} }()
	if err = client.Close(); err != nil {
		t.Error(err)
	}
	for range 3 {
		<-ended
	}
}

// sticky is a connection that takes its time to close.
type sticky struct {
	net.Conn
	let chan struct{}
}

func (s sticky) Close() error {
	<-s.let
	return s.Conn.Close()
}

// TestReadsEndBeforeTheConnectionIsClosed closes a session whose connection takes its time: nobody spins until then.
func TestReadsEndBeforeTheConnectionIsClosed(t *testing.T) {
	t.Parallel()
	left, right := pair(t)
	slow := sticky{left, make(chan struct{})}
	client, err := start(newGuard(slow, 0), yamux.Client, usual(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	server, err := start(newGuard(right, 1), yamux.Server, usual(), quiet())
	if err != nil {
		t.Fatal(err)
	}
	s, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err = server.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	read, wrote := make(chan error, 1), make(chan error, 1)
	go func() { _, err := s.Read(make([]byte, 1)); read <- err }()
	go func() { _, err := s.Write(make([]byte, 4*streamWindow)); wrote <- err }()
	go func() { _ = client.Close() }()
	<-client.Done()
	if err := <-read; !errors.Is(err, io.EOF) {
		t.Errorf("the read ended with %v, want EOF", err)
	}
	if err := <-wrote; err == nil || errors.Is(err, ErrWriteTimeout) {
		t.Errorf("the write ended with %v", err)
	}
	close(slow.let)
	<-client.inner.CloseChan()
	if err := errors.Join(client.Close(), server.Close()); err != nil {
		t.Error(err)
	}
}

func TestKeepAliveNoticesWithin45Seconds(t *testing.T) {
	t.Parallel()
	for range 1000 {
		u := usual()
		if u.keepAlive < 10*time.Second || u.keepAlive > 15*time.Second || u.silence > 45*time.Second {
			t.Fatalf("a keep-alive every %s and a silence of %s", u.keepAlive, u.silence)
		}
	}
}

// TestSilence has a link that goes dead after a while: both sides end their session, and not while it lives.
func TestSilence(t *testing.T) {
	t.Parallel()
	left, right := pair(t)
	here, there := &lossy{Conn: left}, &lossy{Conn: right}
	short := timing{keepAlive: 150 * time.Millisecond, silence: 3 * time.Second, write: time.Minute}
	client, err := start(newGuard(here, 0), yamux.Client, short, quiet())
	if err != nil {
		t.Fatal(err)
	}
	server, err := start(newGuard(there, 1), yamux.Server, short, quiet())
	if err != nil {
		t.Fatal(err)
	}
	heard := func(s *Session) time.Time {
		s.guard.mu.Lock()
		defer s.guard.mu.Unlock()
		return s.guard.heard
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for _, s := range []*Session{client, server} {
		for range 5 {
			for last := heard(s); heard(s).Equal(last); <-tick.C {
				continue
			}
		}
	}
	here.dead.Store(true)
	there.dead.Store(true)
	silent := 0
	for _, s := range []*Session{client, server} {
		<-s.Done()
		if _, err = s.Open(); errors.Is(err, ErrSilent) {
			silent++
		}
		if err = s.Close(); err != nil {
			t.Error(err)
		}
	}
	// The first that closes its end of this connection is noticed by the other.
	if silent == 0 {
		t.Error("neither side says that its peer was silent")
	}
}

// lossy is a connection that can lose all that is written.
type lossy struct {
	net.Conn
	dead atomic.Bool
}

func (l *lossy) Write(p []byte) (int, error) {
	if l.dead.Load() {
		return len(p), nil
	}
	return l.Conn.Write(p)
}

// TestStrangers have narrow limits until they are trusted.
func TestStrangers(t *testing.T) {
	t.Parallel()
	left, right := pair(t)
	server, err := ServerForStranger(right, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	client, err := Client(left, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	open := func(n int) {
		for range n {
			if _, err := client.Open(); err != nil {
				t.Fatal(err)
			}
			if _, err := server.Accept(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	open(MaxStrangerStreams)
	server.Trust()
	open(MaxTrustedStreams - MaxStrangerStreams)
	stranger := newGuard(nil, 1)
	stranger.limits = limits{streams: MaxStrangerStreams, unread: MaxStrangerUnread}
	for n := range uint32(MaxStrangerStreams) {
		if err := stranger.inspect(frame(typeWindow, flagOpen, 2*n+1, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := stranger.inspect(frame(typeWindow, flagOpen, 99, 0)); !errors.Is(err, ErrLimit) {
		t.Errorf("one stream too many: %v", err)
	}
}

// TestAwait is called back once for data, and once for the end.
func TestAwait(t *testing.T) {
	t.Parallel()
	client, server := sessions(t, usual())
	opening, readable := make(chan struct{}), make(chan bool)
	server.AwaitStream(func() { close(opening) })
	select {
	case <-opening:
		t.Fatal("there is no stream yet")
	default:
	}
	up, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	<-opening
	down, err := server.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wait := func() { down.Await(func() { readable <- down.Readable() }) }
	wait()
	if down.Readable() {
		t.Error("there is nothing to read yet")
	}
	for range 3 {
		if _, err = up.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if !<-readable {
			t.Error("called back with nothing to read")
		}
		if n, err := down.Read(make([]byte, 9)); n != 1 || err != nil {
			t.Error(n, err)
		}
		wait()
	}
	if err = up.Close(); err != nil {
		t.Fatal(err)
	}
	if !<-readable {
		t.Error("the end of the stream was not told")
	}
	if _, err = down.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read %v", err)
	}
	another, err := server.Open()
	if err != nil {
		t.Fatal(err)
	}
	opening = make(chan struct{})
	server.AwaitStream(func() { close(opening) })
	another.Await(func() { readable <- another.Readable() })
	if err = server.Close(); err != nil {
		t.Error(err)
	}
	<-opening
	if !<-readable {
		t.Error("the end of the session was not told")
	}
}

// TestIdleStreamsLetGoOfTheirBuffers has a stream that was used and then rests.
func TestIdleStreamsLetGoOfTheirBuffers(t *testing.T) {
	t.Parallel()
	client, server := sessions(t, usual())
	if _, err := client.Open(); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(server.guard.idle()); n != 1 {
		t.Errorf("%d streams rest", n)
	}
}

func FuzzGuard(f *testing.F) {
	f.Add(frame(typeData, flagOpen, 1, 3))
	f.Add(append(frame(typeWindow, flagOpen|flagFinish, 1, 0), frame(typePing, flagOpen, 0, 1)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		whole, split := newGuard(nil, 1), newGuard(nil, 1)
		errWhole := whole.inspect(data)
		var errSplit error
		for i := range data {
			if errSplit = split.inspect(data[i : i+1]); errSplit != nil {
				break
			}
		}
		if (errWhole == nil) != (errSplit == nil) {
			t.Fatalf("in one piece %v, in single bytes %v", errWhole, errSplit)
		}
		if whole.unread < 0 || whole.opened < 0 || len(whole.streams) > maxTracked+MaxStreams {
			t.Fatalf("unread %d, opened %d, tracked %d", whole.unread, whole.opened, len(whole.streams))
		}
	})
}
