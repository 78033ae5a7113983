package mux

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	tcp "github.com/outfeed/outfeed/internal/socket"
)

// clientFrame is one frame as a client sends it.
func clientFrame(first byte, payload string) []byte {
	const key = 0xa1b2c3d4
	out := []byte{first}
	switch n := len(payload); {
	case n < length16:
		out = append(out, markMasked|byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, markMasked|length16), uint16(n))
	default:
		out = binary.BigEndian.AppendUint64(append(out, markMasked|length64), uint64(n))
	}
	out = binary.LittleEndian.AppendUint32(out, key)
	body := []byte(payload)
	unmask(body, key)
	return append(out, body...)
}

// script is a connection that gives what it has in pieces, with nothing in between, and keeps what is sent.
type script struct {
	net.Conn
	data []byte
	// piece is the most that is given at once; 0 for no bound. Between two pieces nothing has come yet.
	piece  int
	pause  bool
	sent   bytes.Buffer
	closed bool
}

func (s *script) Read(p []byte) (int, error) {
	if s.closed {
		return 0, net.ErrClosed
	}
	if s.pause = s.piece > 0 && !s.pause; s.pause {
		return 0, tcp.ErrNothingYet
	}
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	if s.piece > 0 {
		p = p[:min(len(p), s.piece)]
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error) { return s.sent.Write(p) }

func (s *script) Close() error {
	s.closed = true
	return nil
}

// readAll is all that an accepted WebSocket gives of what its peer has sent, and why it ended.
func readAll(s *script) (string, error) {
	a := newAccepted(s, nil)
	var got []byte
	buf := make([]byte, 1000)
	for {
		n, err := a.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil && !errors.Is(err, tcp.ErrNothingYet) {
			return string(got), err
		}
	}
}

func TestAcceptedFrames(t *testing.T) {
	t.Parallel()
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	long := strings.Repeat("long", 5000)
	closing := clientFrame(markFinal|kindClose, "\x03\xe8bye")
	for name, test := range map[string]struct {
		data []byte
		want string
		// err is part of the error, or empty for the orderly end, and sent what is answered.
		err, sent string
	}{
		"a message":         {data: join(clientFrame(markFinal|kindBinary, "hello"), closing), want: "hello", sent: "\x88\x05\x03\xe8bye"},
		"a long one":        {data: join(clientFrame(markFinal|kindBinary, long), closing), want: long, sent: "\x88\x05\x03\xe8bye"},
		"an empty one":      {data: join(clientFrame(markFinal|kindBinary, ""), clientFrame(markFinal|kindBinary, "x"), closing), want: "x", sent: "\x88\x05\x03\xe8bye"},
		"pieces and a ping": {data: join(clientFrame(kindBinary, "hel"), clientFrame(markFinal|kindPing, "?"), clientFrame(markFinal, "lo"), closing), want: "hello", sent: "\x8a\x01?\x88\x05\x03\xe8bye"},
		"a pong":            {data: join(clientFrame(markFinal|kindPong, "!"), clientFrame(markFinal|kindBinary, "x"), closing), want: "x", sent: "\x88\x05\x03\xe8bye"},
		"a bad close":       {data: clientFrame(markFinal|kindClose, "\x03\xf3no"), err: `status 1011 and "no"`, sent: "\x88\x04\x03\xf3no"},
		"an empty close":    {data: clientFrame(markFinal|kindClose, ""), err: "without a reason", sent: "\x88\x00"},
		"no close":          {data: clientFrame(markFinal|kindBinary, "x"), want: "x", err: "before its WebSocket"},
		"half a frame":      {data: clientFrame(markFinal|kindBinary, "hello")[:8], want: "he", err: "before its WebSocket"},
		"text":              {data: clientFrame(markFinal|kindText, "x"), err: "a message of text"},
		"no mask":           {data: []byte{markFinal | kindBinary, 1, 'x'}, err: "without a mask"},
		"compressed":        {data: clientFrame(markFinal|1<<6|kindBinary, "x"), err: "a reserved mark"},
		"an unknown kind":   {data: clientFrame(markFinal|3, "x"), err: "kind 3"},
		"an unknown order":  {data: clientFrame(markFinal|11, "x"), err: "kind 11"},
		"a piece of nothing": {
			data: clientFrame(markFinal, "x"), err: "does not belong here",
		},
		"a message in another": {
			data: join(clientFrame(kindBinary, "x"), clientFrame(markFinal|kindBinary, "y")), want: "x", err: "does not belong here",
		},
		"a ping in pieces": {data: clientFrame(kindPing, "x"), err: "in pieces"},
		"a long ping":      {data: clientFrame(markFinal|kindPing, long), err: "with 20000 bytes"},
		"a huge message":   {data: join([]byte{markFinal | kindBinary, markMasked | length64, 0xff, 0, 0, 0, 0, 0, 0, 0}, make([]byte, maskSize)), err: "more than 32768 bytes"},
		"a huge one in pieces": {
			data: join(clientFrame(kindBinary, long), clientFrame(markFinal, long)), want: long, err: "more than 32768 bytes",
		},
		"many pings": {data: bytes.Repeat(clientFrame(markFinal|kindPong, ""), 100), err: "pings a second"},
	} {
		for _, piece := range []int{0, 1, 7} {
			s := &script{data: test.data, piece: piece}
			got, err := readAll(s)
			switch {
			case got != test.want:
				t.Errorf("%s: got %d bytes, want %d", name, len(got), len(test.want))
			case test.err == "" && err != io.EOF, test.err != "" && !strings.Contains(err.Error(), test.err): //nolint:errorlint // TLS compares so
				t.Errorf("%s: ended with %v", name, err)
			case s.sent.String() != test.sent:
				t.Errorf("%s: answered %q", name, s.sent.String())
			}
		}
	}
}

func FuzzAccepted(f *testing.F) {
	f.Add(append(clientFrame(kindBinary, "hel"), clientFrame(markFinal, "lo")...), uint8(1))
	f.Add(append(clientFrame(markFinal|kindPing, "?"), clientFrame(markFinal|kindClose, "\x03\xe8")...), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, piece uint8) {
		whole, split := &script{data: data}, &script{data: data, piece: int(piece) + 1}
		gotWhole, errWhole := readAll(whole)
		gotSplit, errSplit := readAll(split)
		if gotWhole != gotSplit || errWhole.Error() != errSplit.Error() || whole.sent.String() != split.sent.String() {
			t.Fatalf("in one piece %q, %v, in pieces %q, %v", gotWhole, errWhole, gotSplit, errSplit)
		}
	})
}

// TestUnmask holds the fast way against one byte after another, from every place in the key.
func TestUnmask(t *testing.T) {
	t.Parallel()
	want := make([]byte, 1000)
	for i := range want {
		want[i] = []byte{0x04, 0x03, 0x02, 0x01}[i%4]
	}
	for size := 1; size < 100; size++ {
		got, key := make([]byte, 1000), uint32(0x01020304)
		for rest := got; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			key = unmask(rest[:min(size, len(rest))], key)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("in pieces of %d bytes it is wrong", size)
		}
	}
}

// impatient is a listener as the control plane's, which counts the reads that wait.
type impatient struct {
	net.Listener
	waiting atomic.Int64
}

func (l *impatient) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &impatientConn{Conn: raw, l: l}, nil
}

type impatientConn struct {
	net.Conn
	l   *impatient
	try tcp.Try
}

func (c *impatientConn) AtOnce(on bool) bool { return c.try.AtOnce(c.Conn, on) }
func (c *impatientConn) NetConn() net.Conn   { return c.Conn }
func (c *impatientConn) Read(p []byte) (int, error) {
	c.l.waiting.Add(1)
	defer c.l.waiting.Add(-1)
	return c.try.Read(c.Conn, p)
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// layers gives both ends of a session with all layers between them, as the product has them.
func layers(t *testing.T) (client, server *Session, l *impatient) {
	t.Helper()
	inner, serving := &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, MinVersion: tls.VersionTLS13}, make(chan *Session, 1)
	plane := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := Upgrade(w, r)
		if err != nil {
			return
		}
		secure := tls.Server(conn, inner)
		if err = secure.HandshakeContext(context.WithoutCancel(r.Context())); err != nil {
			t.Error(err)
		}
		s, err := Server(secure, quiet())
		if err != nil {
			t.Error(err)
		}
		serving <- s
	}))
	l = &impatient{Listener: plane.Listener}
	plane.Listener = l
	plane.StartTLS()
	t.Cleanup(plane.Close)
	transport := &http.Transport{TLSClientConfig: plane.Client().Transport.(*http.Transport).TLSClientConfig} //nolint:forcetypeassert,errcheck // httptest says so
	t.Cleanup(transport.CloseIdleConnections)
	conn, _, err := Dial(t.Context(), plane.URL, &http.Client{Transport: transport}) //nolint:bodyclose // it is the connection
	if err != nil {
		t.Fatal(err)
	}
	secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}) //nolint:gosec // both ends are the test's
	if err = secure.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if client, err = Client(secure, quiet()); err != nil {
		t.Fatal(err)
	}
	server = <-serving
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server, l
}

// TestIdleSessionsWaitAboveTheirLayers says little and looks that nobody waits below TLS, and then sends much.
func TestIdleSessionsWaitAboveTheirLayers(t *testing.T) {
	t.Parallel()
	client, server, l := layers(t)
	if quiet := server.guard.quiet != nil; quiet != (runtime.GOOS == "linux") {
		t.Fatalf("waits above: %v", quiet)
	}
	up, err := client.Open()
	if err != nil {
		t.Fatal(err)
	}
	down, err := server.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	echoed := make(chan error, 1)
	go func() {
		_, copyErr := io.Copy(down, down)
		echoed <- copyErr
	}()
	for _, size := range []int{1, 100, 5000, 20_000, 1, 1} {
		echo(t, up, size)
	}
	if err = client.Alive(); err != nil {
		t.Error(err)
	}
	limit, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for server.guard.quiet != nil && l.waiting.Load() != 0 {
		select {
		case <-tick.C:
		case <-limit.Done():
			t.Fatal("a read waits below TLS")
		}
	}
	for _, size := range []int{3, 300_000, 2_000_000, 1, 70_000} {
		echo(t, up, size)
	}
	if err = up.Close(); err != nil {
		t.Error(err)
	}
	if err = <-echoed; err != nil {
		t.Error(err)
	}
	if err = server.Close(); err != nil {
		t.Error(err)
	}
	<-client.Done()
}

// echo sends so many bytes and waits until they are back.
func echo(t *testing.T, up *Stream, size int) {
	t.Helper()
	sent, got := make([]byte, size), make([]byte, size)
	_, _ = rand.Read(sent) // it never fails
	wrote := make(chan error, 1)
	go func() {
		_, err := up.Write(sent)
		wrote <- err
	}()
	if _, err := io.ReadFull(up, got); err != nil || !bytes.Equal(sent, got) {
		t.Fatalf("%d bytes did not come back as they were: %v", size, err)
	}
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
}

// TestPace is lively from many reads on, and no more after a pause.
func TestPace(t *testing.T) {
	t.Parallel()
	p, at := pace{}, time.Unix(1000, 0)
	reads := func(n int, every time.Duration) (lively bool) {
		for range n {
			at = at.Add(every)
			lively = p.lively(at)
		}
		return lively
	}
	for _, step := range []struct {
		reads int
		every time.Duration
		want  bool
	}{
		{1, 0, false},
		{livelyReads - 2, time.Millisecond, false},
		{1, time.Millisecond, true},
		{1000, 10 * time.Millisecond, true},
		{1, 5 * time.Second, false},
		{100, 100 * time.Millisecond, false},
		{1000, 5 * time.Millisecond, true},
		{30, 100 * time.Millisecond, false},
		{5, 12 * time.Second, false},
	} {
		if got := reads(step.reads, step.every); got != step.want {
			t.Errorf("after %d reads, one each %s, lively is %v", step.reads, step.every, got)
		}
	}
}

// TestQuietSessionNoticesTheEnd has a peer whose connection breaks while the session waits.
func TestQuietSessionNoticesTheEnd(t *testing.T) {
	t.Parallel()
	client, server, _ := layers(t)
	if err := bottom(client.guard.Conn).Close(); err != nil {
		t.Error(err)
	}
	<-server.Done()
	if err := server.Alive(); err == nil {
		t.Error("it is still alive")
	}
}
