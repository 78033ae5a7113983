package seal_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/protocol/seal"
)

// handshake runs both sides over a pipe and gives their errors.
func handshake(t *testing.T, client, server *tls.Config) (c, s *tls.Conn, clientErr, serverErr error) {
	t.Helper()
	left, right := net.Pipe()
	t.Cleanup(func() { _ = left.Close(); _ = right.Close() })
	for _, conn := range []net.Conn{left, right} {
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	c, s = tls.Client(left, client), tls.Server(right, server)
	done := make(chan error, 1)
	go func() {
		err := s.HandshakeContext(t.Context())
		if err == nil {
			_, err = io.WriteString(s, "x")
		}
		if err != nil {
			_ = right.Close()
		}
		done <- err
	}()
	clientErr = c.HandshakeContext(t.Context())
	if clientErr == nil {
		// In TLS 1.3 a client learns only by reading whether its certificate was accepted.
		_, clientErr = io.ReadFull(c, make([]byte, 1))
	}
	if clientErr != nil {
		_ = left.Close()
	}
	return c, s, clientErr, <-done
}

func configs(t *testing.T, agent, controlPlane ed25519.PrivateKey, pin string) (client, server *tls.Config) {
	t.Helper()
	client, err := seal.ClientConfig(agent, pin)
	if err != nil {
		t.Fatal(err)
	}
	server, err = seal.ServerConfig(controlPlane)
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

func TestInnerTLS(t *testing.T) {
	t.Parallel()
	agentPublic, agent := newKey(t)
	publicCP, controlPlane := newKey(t)
	client, server := configs(t, agent, controlPlane, seal.Fingerprint(publicCP))
	// Clocks that are decades off on either side change nothing.
	client.Time = func() time.Time { return time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC) }
	server.Time = func() time.Time { return time.Date(2101, 1, 1, 0, 0, 0, 0, time.UTC) }
	c, s, clientErr, serverErr := handshake(t, client, server)
	if clientErr != nil || serverErr != nil {
		t.Fatalf("handshake: %v, %v", clientErr, serverErr)
	}
	clientState, serverState := c.ConnectionState(), s.ConnectionState()
	if clientState.Version != tls.VersionTLS13 || clientState.DidResume {
		t.Errorf("version %x, resumed %v", clientState.Version, clientState.DidResume)
	}
	if seen, err := seal.PeerKey(serverState); err != nil || !seen.Equal(agentPublic) {
		t.Errorf("the server saw key %x, %v", seen, err)
	}
	left, err := seal.HelloMessage(&clientState, 7)
	if err != nil {
		t.Fatal(err)
	}
	right, err := seal.HelloMessage(&serverState, 7)
	if err != nil || !bytes.Equal(left, right) {
		t.Errorf("the two ends sign different things: %x, %x, %v", left, right, err)
	}
	if other, err := seal.HelloMessage(&serverState, 8); err != nil || bytes.Equal(other, right) {
		t.Errorf("the counter is not in what is signed: %v", err)
	}
	c2, _, clientErr, serverErr := handshake(t, client, server)
	if clientErr != nil || serverErr != nil {
		t.Fatalf("second handshake: %v, %v", clientErr, serverErr)
	}
	again := c2.ConnectionState()
	if replay, err := seal.HelloMessage(&again, 7); err != nil || bytes.Equal(replay, left) || again.DidResume {
		t.Errorf("a second session signs the same, or was resumed: %v", err)
	}
}

func TestInnerTLSWrongControlPlane(t *testing.T) {
	t.Parallel()
	_, agent := newKey(t)
	expected, _ := newKey(t)
	seen, impostor := newKey(t)
	client, server := configs(t, agent, impostor, seal.Fingerprint(expected))
	_, _, err, _ := handshake(t, client, server)
	var wrong *seal.FingerprintError
	if !errors.As(err, &wrong) {
		t.Fatalf("error %v, want a FingerprintError", err)
	}
	if wrong.Expected != seal.Fingerprint(expected) || wrong.Seen != seal.Fingerprint(seen) {
		t.Errorf("the error names %+v", wrong)
	}
	if !strings.Contains(err.Error(), wrong.Expected) || !strings.Contains(err.Error(), wrong.Seen) {
		t.Errorf("the text names not both fingerprints: %v", err)
	}
}

func TestInnerTLSRefusesOtherPeers(t *testing.T) {
	t.Parallel()
	_, agent := newKey(t)
	public, controlPlane := newKey(t)
	for name, change := range map[string]func(client *tls.Config){
		"no certificate": func(c *tls.Config) { c.Certificates = nil },
		"TLS 1.2":        func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"no ALPN":        func(c *tls.Config) { c.NextProtos = nil },
		"another ALPN":   func(c *tls.Config) { c.NextProtos = []string{"h2"} },
		"an ECDSA key":   func(c *tls.Config) { c.Certificates = []tls.Certificate{ecdsaCertificate(t)} },
	} {
		client, server := configs(t, agent, controlPlane, seal.Fingerprint(public))
		change(client)
		client.VerifyConnection = nil
		if _, _, _, serverErr := handshake(t, client, server); serverErr == nil {
			t.Errorf("%s: the control plane accepted it", name)
		}
	}
}

func ecdsaCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestConfigRefusesBadInput(t *testing.T) {
	t.Parallel()
	_, key := newKey(t)
	if _, err := seal.ClientConfig(key, "not a fingerprint"); err == nil {
		t.Error("a fingerprint that is none was pinned")
	}
	if _, err := seal.ClientConfig(key[:5], rfc8032Fingerprint); err == nil {
		t.Error("a short key was taken")
	}
	if _, err := seal.ServerConfig(nil); err == nil {
		t.Error("no key was taken")
	}
}
