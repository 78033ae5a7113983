package seal

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	// ALPN is the application protocol of the inner TLS session.
	ALPN = "outfeed/1"

	helloLabel    = "outfeed-hello-v1"
	rotateLabel   = "outfeed-rotate-v1"
	exporterLabel = "EXPORTER-outfeed-hello-v1"
	exporterSize  = 32
)

// FingerprintError is when the peer's key is not the pinned one.
type FingerprintError struct {
	// Expected is the pinned fingerprint, Seen that of the key which the peer proved to hold.
	Expected, Seen string
}

func (e *FingerprintError) Error() string {
	return fmt.Sprintf("the control plane is not the pinned one: expected the key with fingerprint %s, but it has %s; "+
		"check the URL, and if the control plane was set up anew, enrol this agent again with a new token", e.Expected, e.Seen)
}

// Certificate wraps an Ed25519 key in a self-signed certificate, as TLS demands one. Only the key means anything: the
// names are empty and the dates are not looked at.
func Certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	public, err := publicOf(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "outfeed"},
		// RFC 5280, 4.1.2.5: this end means "no well-defined expiration date".
		NotBefore: time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:  time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make the certificate of the inner TLS session: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// ClientConfig is the agent's side of the inner TLS session: it shows its own key and accepts only a control plane
// with the pinned fingerprint, else the handshake fails with a *FingerprintError. Certificate dates and names are not
// looked at, so a wrong clock cannot lock an agent out.
func ClientConfig(key ed25519.PrivateKey, controlPlaneFingerprint string) (*tls.Config, error) {
	if _, err := parseFingerprint(controlPlaneFingerprint); err != nil {
		return nil, err
	}
	config, err := baseConfig(key)
	if err != nil {
		return nil, err
	}
	config.ServerName = "outfeed"
	// The peer is authenticated by its key alone, in VerifyConnection; TLS has by then proved that it holds the key.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error {
		peer, err := PeerKey(state)
		if err != nil {
			return err
		}
		if seen := Fingerprint(peer); seen != controlPlaneFingerprint {
			return &FingerprintError{Expected: controlPlaneFingerprint, Seen: seen}
		}
		return nil
	}
	return config, nil
}

// ServerConfig is the control plane's side: it demands that the peer prove an Ed25519 key, and accepts any. Who the
// key belongs to is decided afterwards, from PeerKey.
func ServerConfig(key ed25519.PrivateKey) (*tls.Config, error) {
	config, err := baseConfig(key)
	if err != nil {
		return nil, err
	}
	config.ClientAuth = tls.RequireAnyClientCert
	config.VerifyConnection = func(state tls.ConnectionState) error {
		_, err := PeerKey(state)
		return err
	}
	return config, nil
}

func baseConfig(key ed25519.PrivateKey) (*tls.Config, error) {
	certificate, err := Certificate(key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS13,
		MaxVersion:   tls.VersionTLS13,
		NextProtos:   []string{ALPN},
		// A resumed session would skip the proof of the keys.
		SessionTicketsDisabled: true,
		ClientSessionCache:     nil,
	}, nil
}

// PeerKey is the Ed25519 key that the peer of an inner TLS session has proved to hold.
func PeerKey(state tls.ConnectionState) (ed25519.PublicKey, error) {
	if state.NegotiatedProtocol != ALPN {
		return nil, fmt.Errorf("the peer speaks %q inside the tunnel, not %q", state.NegotiatedProtocol, ALPN)
	}
	if len(state.PeerCertificates) != 1 {
		return nil, fmt.Errorf("the peer showed %d certificates instead of one", len(state.PeerCertificates))
	}
	key, ok := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok || len(key) != ed25519.PublicKeySize {
		return nil, errors.New("the peer's key is not an Ed25519 key")
	}
	return key, nil
}

// HelloMessage is what an agent signs in wire.Hello: a label, a value that only the two ends of this very TLS session
// can compute, and the counter (big-endian). So a recorded Hello is worth nothing in another session.
func HelloMessage(state *tls.ConnectionState, counter uint64) ([]byte, error) {
	out, err := bound(helloLabel, state)
	if err != nil {
		return nil, err
	}
	return binary.BigEndian.AppendUint64(out, counter), nil
}

// RotateMessage is what the next Ed25519 key signs in wire.Rotate: a label, a value of this very TLS session, the agent's
// id with its length (four bytes, big-endian), and both next public keys, 32 bytes each.
func RotateMessage(state *tls.ConnectionState, agent string, ed25519Key ed25519.PublicKey, x25519Key []byte) ([]byte, error) {
	if len(ed25519Key) != ed25519.PublicKeySize || len(x25519Key) != ed25519.PublicKeySize {
		return nil, errors.New("the next keys have a wrong size")
	}
	out, err := bound(rotateLabel, state)
	if err != nil {
		return nil, err
	}
	out = binary.BigEndian.AppendUint32(out, uint32(len(agent))) //nolint:gosec // an id is far below 4 GiB
	out = append(out, agent...)
	out = append(out, ed25519Key...)
	return append(out, x25519Key...), nil
}

// bound begins a message that is worth something in this TLS session only.
func bound(label string, state *tls.ConnectionState) ([]byte, error) {
	exported, err := state.ExportKeyingMaterial(exporterLabel, nil, exporterSize)
	if err != nil {
		return nil, fmt.Errorf("export a value from the inner TLS session: %w", err)
	}
	return append([]byte(label), exported...), nil
}
