package vault

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/durable"
)

// The files in the data directory.
const (
	masterFile   = "master.key"
	identityFile = "identity.key"
	bundleFile   = "bundle.key"
)

// Keys are the control plane's own.
type Keys struct {
	// Vault encrypts under the master key.
	Vault *Vault
	// Identity proves the control plane in the tunnel; agents pin its fingerprint.
	Identity ed25519.PrivateKey
	// Bundle signs what agents run.
	Bundle ed25519.PrivateKey
}

// LoadOrCreateKeys reads the keys of a data directory and makes those that are missing. The master key is read from
// masterKeyFile, which is never made, or where that is empty from the directory. The other keys are stored under it.
//
// A crash in the middle leaves either no key or a whole one, and of several processes that start at once all get the
// same keys. A master key that is missing while others are there is an error, because a new one could not open them.
func LoadOrCreateKeys(dir, masterKeyFile string) (*Keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	master, err := masterKey(dir, masterKeyFile)
	if err != nil {
		return nil, err
	}
	k := &Keys{}
	if k.Vault, err = New(master); err != nil {
		return nil, err
	}
	if k.Identity, err = k.Vault.signingKey(filepath.Join(dir, identityFile), "identity"); err != nil {
		return nil, err
	}
	k.Bundle, err = k.Vault.signingKey(filepath.Join(dir, bundleFile), "bundle")
	return k, err
}

// masterKey reads the master key, or makes it in a directory that has no keys yet.
func masterKey(dir, file string) ([]byte, error) {
	if file != "" {
		text, err := os.ReadFile(file) //nolint:gosec // the operator names the file
		if err != nil {
			return nil, fmt.Errorf("read OUTFEED_MASTER_KEY_FILE (make one with `head -c 32 /dev/urandom | base64 >FILE`): %w", err)
		}
		return decodeKey(file, text)
	}
	path := filepath.Join(dir, masterFile)
	// Looked at before the master key: another process may be making both right now, the master key first.
	_, err := os.Stat(filepath.Join(dir, identityFile))
	fresh := errors.Is(err, fs.ErrNotExist)
	text, err := os.ReadFile(path) //nolint:gosec // a fixed name in the data directory
	if errors.Is(err, fs.ErrNotExist) {
		if !fresh {
			return nil, fmt.Errorf("%s is missing, and without it the keys in %s cannot be read: restore it from a backup, or set OUTFEED_MASTER_KEY_FILE", path, dir)
		}
		key := make([]byte, KeySize)
		_, _ = rand.Read(key) // it never fails: the program ends instead
		text, err = create(path, []byte(base64.StdEncoding.EncodeToString(key)+"\n"))
	}
	if err != nil {
		return nil, fmt.Errorf("read the master key: %w", err)
	}
	return decodeKey(path, text)
}

func decodeKey(path string, text []byte) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || len(key) != KeySize {
		return nil, fmt.Errorf("%s does not hold a master key, which is %d bytes in base64 (make one with `head -c 32 /dev/urandom | base64 >FILE`)", path, KeySize)
	}
	return key, nil
}

// keyFile is the form of a stored signing key: its seed, sealed.
type keyFile struct {
	WrappedKey []byte `json:"wrapped_key"`
	Ciphertext []byte `json:"ciphertext"`
}

// signingKey reads a signing key, or makes it.
func (v *Vault) signingKey(path, name string) (ed25519.PrivateKey, error) {
	ref := fleet.SecretRef{Field: name, Version: 1}
	text, err := os.ReadFile(path) //nolint:gosec // a fixed name in the data directory
	if errors.Is(err, fs.ErrNotExist) {
		seed := make([]byte, ed25519.SeedSize)
		_, _ = rand.Read(seed) // it never fails: the program ends instead
		var s fleet.SealedSecret
		if s, err = v.Seal(ref, seed); err != nil {
			return nil, err
		}
		if text, err = json.Marshal(keyFile(s)); err != nil {
			return nil, fmt.Errorf("write the %s key: %w", name, err)
		}
		text, err = create(path, append(text, '\n'))
	}
	if err != nil {
		return nil, fmt.Errorf("read the %s key: %w", name, err)
	}
	var f keyFile
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("%s is damaged: restore it from a backup: %w", path, err)
	}
	seed, err := v.Open(ref, fleet.SealedSecret(f))
	if err != nil {
		return nil, fmt.Errorf("%s cannot be opened with this master key: %w", path, err)
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s is damaged: restore it from a backup", path)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// create makes a file that is either whole or not there, and gives what it holds: another process's text, when that
// one was first.
func create(path string, text []byte) (_ []byte, err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	// A link and not a rename, which would replace what another process has made and is using.
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("put %s in place: %w", path, err)
	}
	if err := durable.SyncDir(dir); err != nil {
		return nil, err
	}
	text, err = os.ReadFile(path) //nolint:gosec // it was put there just now
	if err != nil {
		return nil, fmt.Errorf("read %s back: %w", path, err)
	}
	return text, nil
}
