package mux

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// sockets gives both ends of a WebSocket over TLS, the dialling one as it comes from the library.
func sockets(t *testing.T) (client *websocket.Conn, server net.Conn) {
	t.Helper()
	url, transport, accepted := upgrading(t)
	ws, answer, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: transport}}) //nolint:bodyclose // it is the connection
	if err != nil {
		t.Fatalf("%v: %v", err, answer)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	return ws, <-accepted
}

// upgrading serves WebSockets.
func upgrading(t *testing.T) (url string, transport *http.Transport, accepted <-chan net.Conn) {
	t.Helper()
	conns := make(chan net.Conn, 1)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := Upgrade(w, r)
		if err != nil {
			return
		}
		conns <- conn
	}))
	t.Cleanup(server.Close)
	transport = &http.Transport{TLSClientConfig: server.Client().Transport.(*http.Transport).TLSClientConfig} //nolint:forcetypeassert,errcheck // httptest says so
	t.Cleanup(transport.CloseIdleConnections)
	return server.URL, transport, conns
}

func TestDialAndUpgrade(t *testing.T) {
	t.Parallel()
	url, transport, accepted := upgrading(t)
	client, _, err := Dial(t.Context(), url, &http.Client{Transport: transport}) //nolint:bodyclose // it is the connection
	if err != nil {
		t.Fatal(err)
	}
	server := <-accepted
	if server.RemoteAddr() == nil || client.RemoteAddr().String() == "" || client.LocalAddr().Network() == "" {
		t.Error("an address is missing")
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	done := make(chan error, 1)
	go func() {
		for rest := sent; len(rest) > 0; {
			n, writeErr := client.Write(rest[:min(len(rest), 16_320)])
			if writeErr != nil {
				done <- writeErr
				return
			}
			rest = rest[n:]
		}
		done <- nil
	}()
	got := make([]byte, len(sent))
	if _, err = io.ReadFull(server, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("what arrived is not what was sent: %v", err)
	}
	if err = <-done; err != nil {
		t.Fatal(err)
	}
	if err = server.Close(); err != nil {
		t.Error(err)
	}
	if n, err := client.Read(got); err == nil {
		t.Errorf("%d bytes after the end", n)
	}
	_ = client.Close()
}

func TestDialSaysWhatTheServerAnswers(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		http.Error(w, "busy", http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	_, answer, err := Dial(t.Context(), server.URL, server.Client()) //nolint:bodyclose // it needs no closing
	if err == nil || answer == nil || answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") != "7" {
		t.Errorf("%v, %v", answer, err)
	}
}

// TestSocketLimits has peers that keep to RFC 6455 and do harm all the same.
func TestSocketLimits(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(ctx context.Context, ws *websocket.Conn) error{
		"text": func(ctx context.Context, ws *websocket.Conn) error {
			return ws.Write(ctx, websocket.MessageText, []byte("hello"))
		},
		"empty messages": func(ctx context.Context, ws *websocket.Conn) error {
			return ws.Write(ctx, websocket.MessageBinary, nil)
		},
		"tiny fragments": func(ctx context.Context, ws *websocket.Conn) error {
			w, err := ws.Writer(ctx, websocket.MessageBinary)
			for err == nil {
				_, err = w.Write([]byte("x"))
			}
			return err
		},
		"pings": func(ctx context.Context, ws *websocket.Conn) error {
			// The answers have to be read.
			return ws.Ping(ws.CloseRead(ctx))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ws, server := sockets(t)
			ended := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, server)
				ended <- errors.Join(err, server.Close())
			}()
			for do(t.Context(), ws) == nil {
				continue
			}
			if err := <-ended; err == nil {
				t.Error("it ended without an error")
			}
		})
	}
}

// TestWritesAreJoined counts the records of TLS that one frame of yamux makes: its header does not go alone.
func TestWritesAreJoined(t *testing.T) {
	t.Parallel()
	c := &counting{}
	g := newGuard(c, 1)
	header := frame(typeData, 0, 2, 100)
	for _, p := range [][]byte{header, make([]byte, 100), frame(typeWindow, 0, 2, 5), frame(typeData, 0, 2, headerSize), make([]byte, headerSize)} {
		if n, err := g.Write(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	if want := []int{112, headerSize, 2 * headerSize}; !slicesEqual(c.sizes, want) {
		t.Errorf("the writes were of %d bytes, want %d", c.sizes, want)
	}
	c.sizes = nil
	if _, err := g.Write(frame(typeData, 0, 2, writeStep)); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Write(make([]byte, writeStep)); err != nil {
		t.Fatal(err)
	}
	if want := []int{recordSize, recordSize, recordSize, recordSize}; !slicesEqual(c.sizes, want) {
		t.Errorf("the writes were of %d bytes, want %d", c.sizes, want)
	}
}

func slicesEqual(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

type counting struct {
	net.Conn
	sizes []int
}

func (c *counting) Write(p []byte) (int, error) {
	c.sizes = append(c.sizes, len(p))
	return len(p), nil
}

// TestBoundedWrite writes to a peer that takes nothing: a deadline ends it, as when TLS says good-bye.
func TestBoundedWrite(t *testing.T) {
	t.Parallel()
	_, server := sockets(t)
	if err := server.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for {
		if _, err := server.Write(block); err != nil {
			break
		}
	}
	_ = server.Close()
}

// TestCloseOfTLSInside closes an inner TLS session whose peer is gone without a word.
func TestCloseOfTLSInside(t *testing.T) {
	t.Parallel()
	url, transport, accepted := upgrading(t)
	client, _, err := Dial(t.Context(), url, &http.Client{Transport: transport}) //nolint:bodyclose // it is the connection
	if err != nil {
		t.Fatal(err)
	}
	server := tls.Server(<-accepted, &tls.Config{MinVersion: tls.VersionTLS13})
	handshake := make(chan error, 1)
	go func() { handshake <- server.HandshakeContext(t.Context()) }()
	if err = client.Close(); err != nil {
		t.Error(err)
	}
	if err = <-handshake; err == nil || strings.Contains(err.Error(), "certificate") {
		t.Errorf("the handshake ended with %v", err)
	}
	_ = server.Close()
}
