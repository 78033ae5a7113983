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
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err = d.Sync(); err != nil {
		return fmt.Errorf("make the names in %s durable: %w", dir, err)
	}
	return nil
}
