package mux

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestAwaitFirst waits for a peer that says something, for one that leaves, and for one that has spoken too soon.
func TestAwaitFirst(t *testing.T) {
	t.Parallel()
	open := func(t *testing.T) (client, server net.Conn, waited <-chan struct{}) {
		t.Helper()
		url, transport, accepted := upgrading(t)
		client, _, err := Dial(t.Context(), url, &http.Client{Transport: transport}) //nolint:bodyclose // it is the connection
		if err != nil {
			t.Fatal(err)
		}
		server = <-accepted
		done := make(chan struct{})
		go func() {
			defer close(done)
			AwaitFirst(server)
		}()
		select {
		case <-done:
			t.Error("it did not wait")
		default:
		}
		t.Cleanup(func() { _, _ = client.Close(), server.Close() })
		return client, server, done
	}
	t.Run("it speaks", func(t *testing.T) {
		t.Parallel()
		client, server, waited := open(t)
		if _, err := io.WriteString(client, "hello"); err != nil {
			t.Fatal(err)
		}
		<-waited
		AwaitFirst(server)
		if got := make([]byte, 5); read(server, got) != "hello" {
			t.Errorf("%q was read", got)
		}
	})
	t.Run("it leaves", func(t *testing.T) {
		t.Parallel()
		client, _, waited := open(t)
		_ = client.Close()
		<-waited
	})
	t.Run("this side leaves", func(t *testing.T) {
		t.Parallel()
		_, server, waited := open(t)
		_ = server.Close()
		<-waited
	})
	t.Run("it spoke too soon", func(t *testing.T) {
		t.Parallel()
		url, transport, accepted := upgrading(t)
		config := transport.TLSClientConfig.Clone()
		config.ServerName = "example.com"
		conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), config) //nolint:noctx // it is this process
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // the test is over
		// A masked binary message of two bytes comes with the request.
		if _, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x82\x82\x00\x00\x00\x00hi"); err != nil {
			t.Fatal(err)
		}
		server := <-accepted
		AwaitFirst(server)
		if got := make([]byte, 2); read(server, got) != "hi" {
			t.Errorf("%q was read", got)
		}
		if answer, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || answer.StatusCode != http.StatusSwitchingProtocols { //nolint:bodyclose // it has none
			t.Errorf("the answer is %v, %v", answer, err)
		}
		_ = server.Close()
	})
}

func read(conn net.Conn, into []byte) string {
	n, _ := io.ReadFull(conn, into)
	return string(into[:n])
}
