//go:build unix

package stage

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mmapBytes is how much address space a file takes at once, so that growing it neither waits for readers nor makes bbolt copy
// what a transaction has looked at.
const mmapBytes = 64 << 20

// lockFile takes the file for this process and says whether it was free.
func lockFile(f *os.File) (free bool, err error) {
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return true, nil
}

// lockFolder opens and locks the directory itself, and says whether it was free. It gives no file where the file system cannot, as
// some of the network.
func lockFolder(dir string) (f *os.File, free bool, err error) {
	if f, err = os.Open(dir); err != nil { //nolint:gosec // it is the agent's own
		return nil, false, fmt.Errorf("lock the staging directory: %w", err)
	}
	free, unable := lockFile(f)
	if unable != nil {
		_ = f.Close()         // it was only opened
		return nil, true, nil //nolint:nilerr // LOCK and RUNNING are locked all the same
	}
	return f, free, nil
}

// move gives the directory another name while it is locked, and lets go of it.
func (l *directoryLock) move(dir, target string) error {
	return errors.Join(os.Rename(dir, target), l.release())
}

// isDiskFull says whether the error is that of a disk that has no room, or no room for another file.
func isDiskFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// isReadOnly says whether the error is that of a disk that is mounted to be read only.
func isReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

// readOnlyDisk says whether the disk of dir is mounted to be read only.
func readOnlyDisk(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && mountedReadOnly(&st)
}

// fewFiles says whether the disk of dir is about to be unable to hold another file, although it has bytes left.
func fewFiles(dir string) bool {
	var st unix.Statfs_t
	// Some file systems have no limit and say that they have no files.
	return unix.Statfs(dir, &st) == nil && st.Files > 0 && st.Ffree < minFreeFiles
}

// freeBytes is how much an unprivileged process may still write to the disk of dir.
func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("ask how much space is free at %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil //nolint:gosec // the block size is positive, and its type differs between systems
}
