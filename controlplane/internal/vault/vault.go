// Package vault keeps what must stay secret at rest: the credentials of connections, and the control plane's own keys.
//
// A secret is encrypted with AES-256-GCM under a data key of its own, and that key under the master key; both are bound
// to where the secret belongs (tenant, connection, field, version), so that a row that is moved or put back does not
// open. The package stores no credentials itself, knows no database, and prints nothing. A Vault is safe for
// concurrent use.
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

// KeySize is the size of the master key and of data keys, in bytes.
const KeySize = 32

// ErrSealed is when a secret does not open: it was altered, belongs elsewhere, or was sealed under another master key.
var ErrSealed = errors.New("a stored secret does not open: it was altered or moved, or OUTFEED_MASTER_KEY_FILE is not the key that it was stored under")

// Vault encrypts under one master key.
type Vault struct{ master cipher.AEAD }

var _ fleet.SecretKeeper = (*Vault)(nil)

// New makes a Vault of a master key of KeySize bytes.
func New(master []byte) (*Vault, error) {
	if len(master) != KeySize {
		return nil, fmt.Errorf("the master key has %d bytes; it needs %d", len(master), KeySize)
	}
	aead, err := gcm(master)
	if err != nil {
		return nil, err
	}
	return &Vault{master: aead}, nil
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("prepare AES: %w", err)
	}
	// The nonce is random and stands before the ciphertext. No key here encrypts anywhere near 2^32 messages.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("prepare AES-GCM: %w", err)
	}
	return aead, nil
}

// Seal encrypts a secret for one place.
func (v *Vault) Seal(ref fleet.SecretRef, plaintext []byte) (fleet.SealedSecret, error) {
	key := make([]byte, KeySize)
	_, _ = rand.Read(key) // it never fails: the program ends instead
	data, err := gcm(key)
	if err != nil {
		return fleet.SealedSecret{}, err
	}
	return fleet.SealedSecret{
		WrappedKey: v.master.Seal(nil, nil, key, place("key", ref)),      //nolint:gosec // the AEAD makes its own random nonce
		Ciphertext: data.Seal(nil, nil, plaintext, place("secret", ref)), //nolint:gosec // as above
	}, nil
}

// Open decrypts what Seal made for that same place; ErrSealed when it does not open.
func (v *Vault) Open(ref fleet.SecretRef, s fleet.SealedSecret) ([]byte, error) {
	key, err := v.master.Open(nil, nil, s.WrappedKey, place("key", ref))
	if err != nil || len(key) != KeySize {
		return nil, ErrSealed
	}
	data, err := gcm(key)
	if err != nil {
		return nil, err
	}
	plaintext, err := data.Open(nil, nil, s.Ciphertext, place("secret", ref))
	if err != nil {
		return nil, ErrSealed
	}
	return plaintext, nil
}

// place writes what a ciphertext is bound to, each part after its length, so that no two places read the same.
func place(what string, ref fleet.SecretRef) []byte {
	var out []byte
	for _, part := range []string{"outfeed-vault-v1", what, string(ref.Tenant), string(ref.Connection), ref.Field} {
		out = binary.BigEndian.AppendUint64(out, uint64(len(part)))
		out = append(out, part...)
	}
	return binary.BigEndian.AppendUint64(out, uint64(ref.Version)) //nolint:gosec // the bits are what is bound
}
