package mux

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	tcp "github.com/outfeed/outfeed/internal/socket"
)

// TestLinkIsFound looks through the layers of TLS and of a WebSocket as they are in a session, on both sides.
func TestLinkIsFound(t *testing.T) {
	t.Parallel()
	url, transport, accepted := upgrading(t)
	client, _, err := Dial(t.Context(), url, &http.Client{Transport: transport}) //nolint:bodyclose // it is the connection
	if err != nil {
		t.Fatal(err)
	}
	server := <-accepted
	for side, conn := range map[string]net.Conn{
		"client": tls.Client(client, &tls.Config{InsecureSkipVerify: true}), //nolint:gosec // it sends nothing
		"server": tls.Server(server, &tls.Config{MinVersion: tls.VersionTLS13}),
	} {
		if f, ok := tcp.FlowOf(conn); !ok || f.Acked == 0 || f.Arrived == 0 || f.RoundTrip > time.Second {
			t.Errorf("%s: %+v, %v", side, f, ok)
		}
	}
	if _, ok := tcp.FlowOf(&lossy{Conn: client}); ok {
		t.Error("something that shows no connection below has one")
	}
	if err := errors.Join(client.Close(), server.Close()); err != nil {
		t.Error(err)
	}
	if _, ok := tcp.FlowOf(client); ok {
		t.Error("a closed connection has a flow")
	}
}
