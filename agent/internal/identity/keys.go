package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/outfeed/outfeed/internal/durable"
	"github.com/outfeed/outfeed/internal/keyfile"
)

// keyring is a pair of private keys: who the agent is, and to whom credentials are sealed. Both are in one file, so that
// one rename changes both.
type keyring struct {
	sign    ed25519.PrivateKey
	receive *ecdh.PrivateKey
	// former is the receive key before a rotation; nil when there was none. What the control plane sealed to it lies in the
	// staging until a newer bundle comes, and flows must start from that without the control plane.
	former *ecdh.PrivateKey
}

// NextKeys is the public half of the keys that an agent rotates to.
type NextKeys struct {
	// Key is the next Ed25519 key, which signs the rotation. ReceiveKey is the public half of the next X25519 key, 32 bytes.
	Key        ed25519.PrivateKey
	ReceiveKey []byte
}

func newKeyring() (keyring, error) {
	_, signing, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return keyring{}, fmt.Errorf("make the agent's Ed25519 key: %w", err)
	}
	receiving, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return keyring{}, fmt.Errorf("make the agent's X25519 key: %w", err)
	}
	return keyring{sign: signing, receive: receiving}, nil
}

func (k keyring) nextKeys() NextKeys {
	return NextKeys{Key: k.sign, ReceiveKey: k.receive.PublicKey().Bytes()}
}

// PrepareKeys gives the keys to rotate to, which are on disk before they are returned. Called again it gives the same
// ones until SwapKeys has made them the agent's.
func (id *Identity) PrepareKeys() (NextKeys, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.next != nil {
		return id.next.nextKeys(), nil
	}
	next, err := newKeyring()
	if err != nil {
		return NextKeys{}, err
	}
	next.former = id.keys.receive
	encoded, err := encodeKeyring(next)
	if err != nil {
		return NextKeys{}, err
	}
	if err = durable.Replace(filepath.Join(id.dir, nextName), encoded, fileMode); err != nil {
		return NextKeys{}, fmt.Errorf("keep the agent's next keys: %w", err)
	}
	id.next = &next
	return next.nextKeys(), nil
}

// PreparedKeys gives the keys of a rotation that has begun, and whether one has.
func (id *Identity) PreparedKeys() (NextKeys, bool) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.next == nil {
		return NextKeys{}, false
	}
	return id.next.nextKeys(), true
}

// SwapKeys makes the prepared keys the agent's, in one step: after a crash it has the old pair or the new one. The
// control plane must have said that it takes the agent by the next Ed25519 key, which is named to be sure.
func (id *Identity) SwapKeys(next ed25519.PublicKey) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.next == nil || !bytes.Equal(id.next.sign[ed25519.SeedSize:], next) {
		return errors.New("the control plane speaks of keys that this agent has not made; the rotation begins anew at the next connect")
	}
	if err := os.Rename(filepath.Join(id.dir, nextName), filepath.Join(id.dir, keysName)); err != nil {
		return fmt.Errorf("put the agent's next keys in place: %w", err)
	}
	id.keys, id.next, id.settled = *id.next, nil, false
	return id.settle()
}

// settle makes sure that a start will find the keys in use, also when the rename was of a process that was killed before
// it could: once the control plane has seen the new key, the old one is worth nothing. mu is held.
func (id *Identity) settle() error {
	if id.settled {
		return nil
	}
	if err := durable.SyncDir(id.dir); err != nil {
		return err
	}
	id.settled = true
	return nil
}

// readKeys reads the present keys and those of a rotation that has begun.
func (id *Identity) readKeys() error {
	present, err := readKeyring(filepath.Join(id.dir, keysName))
	if err != nil {
		return err
	}
	id.keys = present
	path := filepath.Join(id.dir, nextName)
	next, err := readKeyring(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("the keys of a rotation that was cut off: %w; without them it begins anew: rm %s", err, keyfile.Word(path))
	}
	id.next = &next
	return nil
}

func encodeKeyring(k keyring) ([]byte, error) {
	keys := []any{k.sign, k.receive}
	if k.former != nil {
		keys = append(keys, k.former)
	}
	var out []byte
	for _, key := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("encode a private key: %w", err)
		}
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})...)
	}
	return out, nil
}

func readKeyring(path string) (keyring, error) {
	raw, err := readPrivate(path)
	if err != nil {
		return keyring{}, err
	}
	k, err := decodeKeyring(raw)
	if err != nil {
		return keyring{}, fmt.Errorf("%s is damaged: %w; restore it from a backup, or enrol again", path, err)
	}
	return k, nil
}

func decodeKeyring(raw []byte) (keyring, error) {
	var keys []any
	for len(bytes.TrimSpace(raw)) > 0 {
		block, rest := pem.Decode(raw)
		if block == nil || block.Type != pemType {
			return keyring{}, fmt.Errorf("it does not hold PEM blocks %q", pemType)
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return keyring{}, fmt.Errorf("a key cannot be read: %w", err)
		}
		keys, raw = append(keys, key), rest
	}
	if len(keys) < 2 || len(keys) > 3 {
		return keyring{}, fmt.Errorf("it holds %d keys", len(keys))
	}
	var k keyring
	var ok bool
	if k.sign, ok = keys[0].(ed25519.PrivateKey); !ok {
		return keyring{}, errors.New("its first key is no Ed25519 key")
	}
	receive := make([]*ecdh.PrivateKey, len(keys)-1)
	for i, key := range keys[1:] {
		if receive[i], ok = key.(*ecdh.PrivateKey); !ok || receive[i].Curve() != ecdh.X25519() {
			return keyring{}, errors.New("its second key is no X25519 key")
		}
	}
	k.receive = receive[0]
	if len(receive) > 1 {
		k.former = receive[1]
	}
	return k, nil
}

// receivers are the keys that a credential may be sealed to, the likeliest first. mu is held.
func (id *Identity) receivers() []*ecdh.PrivateKey {
	keys := []*ecdh.PrivateKey{id.keys.receive, id.keys.former}
	if id.next != nil {
		keys = append(keys, id.next.receive)
	}
	return slices.DeleteFunc(keys, func(k *ecdh.PrivateKey) bool { return k == nil })
}
