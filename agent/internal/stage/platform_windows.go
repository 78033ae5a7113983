package stage

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// mmapBytes is 0 because Windows would make the file that large at once.
const mmapBytes = 0

// lockOffset lies far behind the text of the lock file, so that another process can still read who holds it.
const lockOffset = 1 << 30

// lockFile takes the file for this process and says whether it was free.
func lockFile(f *os.File) (free bool, err error) {
	at := &windows.Overlapped{Offset: lockOffset}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return true, nil
}

// lockFolder locks nothing: Windows lets nobody remove LOCK while it is open.
func lockFolder(string) (f *os.File, free bool, err error) { return nil, true, nil }

// move lets go of the directory and gives it another name. Windows renames no directory with an open file in it; for the
// same reason this fails when another process took the directory in between.
func (l *directoryLock) move(dir, target string) error {
	if err := l.release(); err != nil {
		return err
	}
	return os.Rename(dir, target) //nolint:wrapcheck // the caller says what it was doing
}

// isDiskFull says whether the error is that of a full disk.
func isDiskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

// isReadOnly says whether the error is that of a disk that is protected against writing.
func isReadOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }

// readOnlyDisk says no: the first write tells.
func readOnlyDisk(string) bool { return false }

// fewFiles says no: NTFS makes room for another file from the bytes that are free.
func fewFiles(string) bool { return false }

// freeBytes is how much this process may still write to the disk of dir.
func freeBytes(dir string) (uint64, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, fmt.Errorf("ask how much space is free at %s: %w", dir, err)
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, nil, nil); err != nil {
		return 0, fmt.Errorf("ask how much space is free at %s: %w", dir, err)
	}
	return free, nil
}
