package identity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/outfeed/outfeed/internal/durable"
)

// Draft is an identity that the control plane does not know yet. Its keys are on disk, so that a full or read-only disk
// shows before a token is used up, but under a name that Load does not look at. End it with Complete or Discard.
type Draft struct {
	dataDir string
	keys    keyring
}

// Create makes the keys of a new agent in the data directory, which is made if it is missing. What an enrolment that
// was cut off left behind is replaced. The error is ErrEnrolled when there is an identity already.
func Create(dataDir string) (*Draft, error) {
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	dir := filepath.Join(dataDir, dirName)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s exists: %w; to make it another agent, stop it and remove that directory; insights that still wait are then kept aside and never sent", dir, ErrEnrolled)
	}
	if err := checkDir(dataDir); err != nil {
		return nil, err
	}
	keys, err := newKeyring()
	if err != nil {
		return nil, err
	}
	d := &Draft{dataDir: dataDir, keys: keys}
	if err := d.writeKeys(); err != nil {
		return nil, errors.Join(fmt.Errorf("keep the new agent's keys in %s: %w", dataDir, err), d.Discard())
	}
	return d, nil
}

// Key is the new agent's Ed25519 key.
func (d *Draft) Key() ed25519.PrivateKey { return d.keys.sign }

// ReceiveKey is the public half of the key that credentials are sealed to: 32 bytes of X25519.
func (d *Draft) ReceiveKey() []byte { return d.keys.receive.PublicKey().Bytes() }

// Complete makes the draft this machine's identity, in one step: after a crash there is all of it or none.
func (d *Draft) Complete(p Profile) (*Identity, error) {
	profile, err := encodeProfile(p)
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(d.pending(), profileName), profile); err != nil {
		return nil, err
	}
	if err := durable.SyncDir(d.pending()); err != nil {
		return nil, err
	}
	dir := filepath.Join(d.dataDir, dirName)
	if err := os.Rename(d.pending(), dir); err != nil {
		return nil, fmt.Errorf("put the new identity in place: %w", err)
	}
	if err := durable.SyncDir(d.dataDir); err != nil {
		return nil, err
	}
	return Load(d.dataDir)
}

// Discard removes the draft's keys.
func (d *Draft) Discard() error {
	if err := os.RemoveAll(d.pending()); err != nil {
		return fmt.Errorf("remove the keys of the enrolment that failed: %w", err)
	}
	return nil
}

func (d *Draft) pending() string { return filepath.Join(d.dataDir, pendingName) }

func (d *Draft) writeKeys() error {
	if err := d.Discard(); err != nil {
		return err
	}
	if err := os.Mkdir(d.pending(), 0o700); err != nil {
		return fmt.Errorf("make a directory for the keys: %w", err)
	}
	encoded, err := encodeKeyring(d.keys)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{keysName: encoded, memoryName: newMemory()} {
		if err := writeFile(filepath.Join(d.pending(), name), content); err != nil {
			return err
		}
	}
	return durable.SyncDir(d.pending())
}
