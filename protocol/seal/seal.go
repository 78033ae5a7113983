// Package seal holds the cryptography that agent and control plane agree on: signed bundles (DSSE), credentials sealed
// to one agent (HPKE), the mutually pinned TLS inside the tunnel, and the text of enrolment tokens.
//
// It stores nothing, opens no connection and knows no message of the wire. Every function is safe for concurrent use.
package seal

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Fingerprint names an Ed25519 public key: the SHA-256 of its 32 bytes, in hex (64 characters).
func Fingerprint(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:])
}

// parseFingerprint reads what Fingerprint wrote.
func parseFingerprint(text string) ([sha256.Size]byte, error) {
	var out [sha256.Size]byte
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != sha256.Size {
		return out, fmt.Errorf("%q is not a key fingerprint: it must be 64 hexadecimal characters", text)
	}
	copy(out[:], raw)
	return out, nil
}
