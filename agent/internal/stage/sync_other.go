//go:build !linux

package stage

import (
	"fmt"
	"os"
)

// syncData makes what was written to the file durable.
func syncData(f *os.File) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", f.Name(), err)
	}
	return nil
}
