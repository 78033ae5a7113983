package seal

import (
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/binary"
	"errors"
	"fmt"
)

// SecretContext is what a sealed credential is bound to: opened under any other context it fails, so a ciphertext
// cannot be moved to another tenant, agent, connection or option.
type SecretContext struct {
	// Tenant, Agent and Connection are ids (UUIDs as text); Field is the name of the connection's option.
	Tenant, Agent, Connection, Field string
}

// info is the context as HPKE's info: a label, then each part with its length, so that no two contexts read the same.
func (c SecretContext) info() []byte {
	out := []byte("outfeed-secret-v1")
	for _, part := range []string{c.Tenant, c.Agent, c.Connection, c.Field} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(part))) //nolint:gosec // ids and names are far below 4 GiB
		out = append(out, part...)
	}
	return out
}

func (c SecretContext) complete() error {
	if c.Tenant == "" || c.Agent == "" || c.Connection == "" || c.Field == "" {
		return errors.New("a secret must be bound to a tenant, an agent, a connection and a field; one of them is empty")
	}
	return nil
}

// SealTo encrypts a credential for the holder of an X25519 key (32 bytes) with HPKE in base mode:
// DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305. The result is the encapsulated key and the ciphertext.
func SealTo(recipientPublicKey []byte, context SecretContext, plaintext []byte) ([]byte, error) { //nolint:revive // seal.To would not say that it encrypts
	if err := context.complete(); err != nil {
		return nil, err
	}
	key, err := hpke.DHKEM(ecdh.X25519()).NewPublicKey(recipientPublicKey)
	if err != nil {
		return nil, fmt.Errorf("the recipient's X25519 public key is not valid: %w", err)
	}
	sealed, err := hpke.Seal(key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), context.info(), plaintext)
	if err != nil {
		return nil, fmt.Errorf("seal the secret %q: %w", context.Field, err)
	}
	return sealed, nil
}

// OpenSealed decrypts what SealTo made for this key under the same context.
func OpenSealed(privateKey *ecdh.PrivateKey, context SecretContext, sealed []byte) ([]byte, error) {
	if err := context.complete(); err != nil {
		return nil, err
	}
	if privateKey == nil {
		return nil, errors.New("there is no key to open the sealed secret with")
	}
	key, err := hpke.NewDHKEMPrivateKey(privateKey)
	if err != nil {
		return nil, fmt.Errorf("the X25519 private key is not valid: %w", err)
	}
	plaintext, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), context.info(), sealed)
	if err != nil {
		return nil, fmt.Errorf("the secret %q was not sealed for this agent and connection, or was altered; enter it again in the control plane: %w", context.Field, err)
	}
	return plaintext, nil
}
