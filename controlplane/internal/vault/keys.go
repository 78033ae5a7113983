package vault

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/durable"
	"github.com/outfeed/outfeed/internal/keyfile"
	"github.com/outfeed/outfeed/protocol/seal"
)

// KeyName names one of the control plane's keys. Its file in the data directory is NAME.key.
type KeyName string

// The keys. What each is for is in Keys.
const (
	MasterKey   KeyName = "master"
	IdentityKey KeyName = "identity"
	BundleKey   KeyName = "bundle"
)

// KeyNames are all of them, the master key first, which the others are stored under.
func KeyNames() []KeyName { return []KeyName{MasterKey, IdentityKey, BundleKey} }

// keyMode is that of the files.
const keyMode = 0o600

// Keys are the control plane's own.
type Keys struct {
	// Vault encrypts under the master key.
	Vault *Vault
	// Identity proves the control plane in the tunnel; agents pin its fingerprint.
	Identity ed25519.PrivateKey
	// Bundle signs what agents run; they pin it too.
	Bundle ed25519.PrivateKey

	master []byte
}

// Fingerprints are public names of the keys, 64 hex digits each: the SHA-256 of the public halves, and of the master key
// a keyed hash, from which it cannot be told.
func (k *Keys) Fingerprints() map[KeyName]string {
	mac := hmac.New(sha256.New, k.master)
	mac.Write([]byte("outfeed master key fingerprint v1"))
	return map[KeyName]string{
		MasterKey:   hex.EncodeToString(mac.Sum(nil)),
		IdentityKey: fingerprint(k.Identity),
		BundleKey:   fingerprint(k.Bundle),
	}
}

func fingerprint(key ed25519.PrivateKey) string {
	return seal.Fingerprint(ed25519.PublicKey(key[ed25519.SeedSize:]))
}

// MissingKey is a key whose file is not there.
type MissingKey struct {
	Name KeyName
	// Path is where its file should be.
	Path string
}

// MissingError is for keys that are not there and must not be made anew without being asked for.
type MissingError struct {
	// Keys are all of those, in the order of KeyNames.
	Keys []MissingKey
}

// Error says what is missing.
func (e *MissingError) Error() string {
	var paths []string
	for _, k := range e.Keys {
		paths = append(paths, k.Path)
	}
	return "missing: " + strings.Join(paths, ", ")
}

// Files says where the keys are.
type Files struct {
	// Dir is the data directory.
	Dir string
	// Master is the file of the master key when the operator has named one, which is then never made; else empty.
	Master string
}

// Path is the file of a key.
func (f Files) Path(name KeyName) string {
	if name == MasterKey && f.Master != "" {
		return f.Master
	}
	return filepath.Join(f.Dir, string(name)+".key")
}

// Check holds the mode, the owner and the kind of the data directory and of the files that are there against what keys
// need. The error has everything that is wrong, each with the command that mends it.
func (f Files) Check() error {
	errs := []error{advice(IdentityKey).CheckDir(f.Dir)}
	for _, name := range KeyNames() {
		if _, err := f.read(name); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Load reads the keys. The error is a MissingError when some are not there.
func (f Files) Load() (*Keys, error) { return f.load(nil) }

// LoadOrCreate reads the keys and makes those that are missing: for a first start alone, because agents and credentials
// that belong to the keys from before are lost to new ones.
//
// A crash in the middle leaves either no key or a whole one, and of several processes that start at once all get the
// same keys. A master key that is missing while others are there is an error, because a new one could not open them.
func (f Files) LoadOrCreate() (*Keys, error) {
	// Looked at before the master key: another process may be making both right now, the master key first.
	may := KeyNames()
	if _, err := os.Lstat(f.Path(IdentityKey)); !errors.Is(err, fs.ErrNotExist) {
		may = []KeyName{IdentityKey, BundleKey}
	}
	return f.load(may)
}

// Replace makes new keys in the place of those named, which may be missing. With the master key all are replaced, because
// the others are stored under it; a master key that the operator has named is not made but read. The files from before
// are kept beside the new ones, with the time in their names. Nothing happens when a key that stays is not whole.
func (f Files) Replace(names []KeyName, now time.Time) (*Keys, error) {
	if slices.Contains(names, MasterKey) {
		names = KeyNames()
		if f.Master != "" {
			names = []KeyName{IdentityKey, BundleKey}
			if _, err := f.readMaster(); err != nil {
				return nil, err
			}
		}
	} else if err := f.usable(names); err != nil {
		return nil, err
	}
	for _, name := range names {
		path := f.Path(name)
		if err := os.Rename(path, path+".replaced-"+now.UTC().Format("20060102T150405Z")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("set the old key aside: %w", err)
		}
	}
	if err := durable.SyncDir(f.Dir); err != nil {
		return nil, err
	}
	return f.load(names)
}

// usable refuses when a key that is not among these cannot be used.
func (f Files) usable(but []KeyName) error {
	master, err := f.readMaster()
	if err != nil {
		return err
	}
	v, err := New(master)
	if err != nil {
		return err
	}
	for _, name := range []KeyName{IdentityKey, BundleKey} {
		if slices.Contains(but, name) {
			continue
		}
		if _, err := f.signingKey(v, name); err != nil {
			return err
		}
	}
	return nil
}

// load reads the keys and makes those that are missing and may be made.
func (f Files) load(may []KeyName) (*Keys, error) {
	if err := f.make(MasterKey, may, func() ([]byte, error) {
		key := make([]byte, KeySize)
		_, _ = rand.Read(key) // it never fails: the program ends instead
		return []byte(base64.StdEncoding.EncodeToString(key) + "\n"), nil
	}); err != nil {
		return nil, err
	}
	k := &Keys{}
	var err error
	if k.master, err = f.readMaster(); err != nil {
		return nil, err
	}
	if k.Vault, err = New(k.master); err != nil {
		return nil, err
	}
	for _, s := range []struct {
		name KeyName
		into *ed25519.PrivateKey
	}{{IdentityKey, &k.Identity}, {BundleKey, &k.Bundle}} {
		if err := f.make(s.name, may, func() ([]byte, error) { return k.Vault.newSigningKey(s.name) }); err != nil {
			return nil, err
		}
		if *s.into, err = f.signingKey(k.Vault, s.name); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// missing is the error for the keys that are not there and may not be made.
func (f Files) missing(may []KeyName) error {
	e := &MissingError{}
	for _, name := range KeyNames() {
		named := name == MasterKey && f.Master != ""
		if _, err := os.Lstat(f.Path(name)); errors.Is(err, fs.ErrNotExist) && (named || !slices.Contains(may, name)) {
			e.Keys = append(e.Keys, MissingKey{Name: name, Path: f.Path(name)})
		}
	}
	return e
}

// make makes a key that is missing, if it may.
func (f Files) make(name KeyName, may []KeyName, content func() ([]byte, error)) error {
	path := f.Path(name)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil // what is wrong with it shows when it is read
	}
	if !slices.Contains(may, name) || (name == MasterKey && f.Master != "") {
		return f.missing(may)
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	text, err := content()
	if err != nil {
		return err
	}
	// What another process has made at the same time is as good, and in use.
	if err := durable.Create(path, text, keyMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the %s key: %w", name, err)
	}
	return nil
}

// advice is for a person who reads that the file of a key is refused.
func advice(name KeyName) keyfile.Advice {
	return keyfile.Advice{
		What: "the control plane's " + string(name) + " key", Lost: "restore it from a backup",
		Distrust: "make a new one, which has a price that this tells: outfeed-controlplane keys replace " + string(name),
	}
}

// read gives what a key's file holds.
func (f Files) read(name KeyName) ([]byte, error) {
	if name == MasterKey && f.Master != "" {
		return advice(name).ReadNamed(f.Master)
	}
	return advice(name).Read(f.Path(name))
}

func (f Files) readMaster() ([]byte, error) {
	text, err := f.read(MasterKey)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, f.missing(nil)
	}
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || len(key) != KeySize {
		return nil, fmt.Errorf("%s does not hold a master key, which is %d bytes in base64: restore it from a backup (or make the first one with: head -c 32 /dev/urandom | base64 >FILE)", f.Path(MasterKey), KeySize)
	}
	return key, nil
}

// keyFile is the form of a stored signing key: its seed, sealed.
type keyFile struct {
	WrappedKey []byte `json:"wrapped_key"`
	Ciphertext []byte `json:"ciphertext"`
}

// place is what the file of a signing key is sealed for.
func (n KeyName) place() fleet.SecretRef { return fleet.SecretRef{Field: string(n), Version: 1} }

func (v *Vault) newSigningKey(name KeyName) ([]byte, error) {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // it never fails: the program ends instead
	s, err := v.Seal(name.place(), seed)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(keyFile(s))
	if err != nil {
		return nil, fmt.Errorf("write the %s key: %w", name, err)
	}
	return append(text, '\n'), nil
}

// signingKey reads a key that the vault has sealed.
func (f Files) signingKey(v *Vault, name KeyName) (ed25519.PrivateKey, error) {
	path := f.Path(name)
	text, err := f.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, f.missing(nil)
	}
	if err != nil {
		return nil, err
	}
	var file keyFile
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("%s is damaged: restore it from a backup: %w", path, err)
	}
	seed, err := v.Open(name.place(), fleet.SealedSecret(file))
	if err != nil {
		return nil, fmt.Errorf("%s cannot be opened with the master key %s, so one of the two is another installation's or altered: restore both from the same backup: %w", path, f.Path(MasterKey), err)
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s is damaged: restore it from a backup", path)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
