//go:build unix

package file

import (
	"io/fs"
	"syscall"
)

// identify gives what tells a file from others, also after a rename.
func identify(info fs.FileInfo, path string) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Ino != 0 {
		return st.Ino
	}
	return hashOf([]byte(path))
}
