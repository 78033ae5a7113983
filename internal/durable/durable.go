// Package durable writes small files, and makes what was done to a directory last, over the death of the process and a
// power cut.
//
// It is the one place that knows how: a file's content goes to another name in the same directory and to the disk, then
// gets its name in one step, and the name goes to the disk. It must not decide what is in a file or who may read it; the
// mode is the caller's. It keeps no state. Calls for different files may run at once, and Create for the same one.
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// NewSuffix is in the names of files that are not whole yet: at the end of those of Replace, and before more in those of
// Create. Whoever owns a directory may remove them when no process writes there.
const NewSuffix = ".new"

// Replace makes a file have this content, and this mode less the process's umask. After a crash at any moment it has the old content or the new one,
// whole, and once Replace has returned it has the new one. When it fails, nothing but the file itself is left, and that
// has the new content only if the error came from making its name durable. One caller at a time for each path.
func Replace(path string, content []byte, mode fs.FileMode) error {
	temp := path + NewSuffix
	// What a process left that was killed here is not written through: it may be a link to somewhere else.
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := begin(temp, content, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := rename(temp, path); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(temp))
	}
	return SyncDir(filepath.Dir(path))
}

// Create makes a file that is not there yet. After a crash at any moment there is all of it or none, and once Create has
// returned it stays. The error is fs.ErrExist when something has that name already, which is left as it is; of several
// that create the same file at once one succeeds, and the file of that one is durable when the others are told.
func Create(path string, content []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	temp := path + NewSuffix + "-" + rand.Text()
	if err := begin(temp, content, mode); err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	if err := name(temp, path); err != nil {
		err = fmt.Errorf("make %s: %w", path, err)
		if errors.Is(err, fs.ErrExist) {
			err = errors.Join(err, SyncDir(dir))
		}
		return err
	}
	return SyncDir(dir)
}

// Write makes a file in a directory that counts for nothing yet, and writes its content to the disk. What has the name is
// overwritten in place, so a crash can leave a part; the names in the directory are durable after SyncDir.
func Write(path string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode) //nolint:gosec // as in Replace
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := fill(f, content); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// begin makes a file that has no name of its own yet; one that it cannot fill is removed.
func begin(temp string, content []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode) //nolint:gosec // the caller's path, in a directory of the program's own
	if err != nil {
		return err //nolint:wrapcheck // the callers say what was being written
	}
	if err := fill(f, content); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

// fill writes a new file to the disk and closes it.
func fill(f *os.File, content []byte) error {
	_, err := f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
