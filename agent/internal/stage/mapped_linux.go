package stage

import (
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// mappedHead is how much at the beginning of a file stays mapped: bbolt reads the heads there with its locks held.
const mappedHead = 64 << 10

// unmapPages lets the pages of the file that are mapped into the process go. They stay in the system's cache, from where what
// is read again comes back; but until then they do not count as the process's memory, and a system that bounds that does not
// have to take something else. Within a transaction the file stays mapped where it is, for at least its length.
func unmapPages(tx *bolt.Tx) {
	if size := tx.Size() - mappedHead; size > 0 {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, tx.DB().Info().Data+mappedHead, uintptr(size), unix.MADV_DONTNEED) // a hint
	}
}
