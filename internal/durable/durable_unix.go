//go:build unix

package durable

import (
	"errors"
	"fmt"
	"os"
)

// SyncDir makes the names in a directory durable: of files that were made, renamed or removed in it.
func SyncDir(dir string) (err error) {
	d, err := os.Open(dir) //nolint:gosec // a directory of the program's own
	if err != nil {
		return fmt.Errorf("make the names in a directory durable: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err = d.Sync(); err != nil {
		return fmt.Errorf("make the names in %s durable: %w", dir, err)
	}
	return nil
}

// rename gives a file a name that another one may have.
func rename(from, to string) error { return os.Rename(from, to) } //nolint:wrapcheck // the caller says what was being written

// name gives a file a name that must be free, and takes the one away that it had, also when it fails. A rename would
// replace what another process has made and is using.
func name(from, to string) error { return errors.Join(os.Link(from, to), os.Remove(from)) }
