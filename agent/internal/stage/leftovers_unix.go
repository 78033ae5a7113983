//go:build unix

package stage

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// holdFolder marks a temporary folder as in use for as long as the file is open; nil where it cannot be marked.
func holdFolder(dir string) *os.File {
	f, err := os.Open(dir) //nolint:gosec // the folder was just made
	if err != nil {
		return nil
	}
	if free, err := lockFile(f); err != nil || !free {
		_ = f.Close() // it was only read
		return nil
	}
	return f
}

// removeLeftovers removes the temporary folders that killed processes of this user left empty. It is housekeeping: what
// cannot be looked at or removed stays.
func removeLeftovers(temp string) {
	entries, err := os.ReadDir(temp)
	if err != nil {
		return
	}
	for _, e := range entries {
		digits, ours := strings.CutPrefix(e.Name(), temporaryPrefix)
		if !ours || digits == "" || strings.Trim(digits, "0123456789") != "" || !e.IsDir() {
			continue
		}
		if info, err := e.Info(); err == nil && isOwn(info) {
			removeUnused(filepath.Join(temp, e.Name()))
		}
	}
}

// isOwn says whether a folder is as this program makes it for this user.
func isOwn(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode() == fs.ModeDir|0o700 && int(st.Uid) == os.Geteuid()
}

// removeUnused removes a folder that nobody holds and that is empty.
func removeUnused(dir string) {
	if f := holdFolder(dir); f != nil {
		_ = os.Remove(dir) // of a folder that is not empty this removes nothing
		_ = f.Close()
	}
}
