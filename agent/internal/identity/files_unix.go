//go:build unix

package identity

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkPrivate refuses a file that another user owns or may read.
func checkPrivate(path string, info fs.FileInfo) error {
	if err := checkOwner(path, info); err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s may be read or changed by others (mode %04o), so its keys may be known to them; "+
			"if you trust them, mend it with: chmod 600 %s; otherwise revoke this agent and enrol again", path, mode, shellWord(path))
	}
	return nil
}

// checkDir refuses a directory that another user owns or may write into: who may, can put other keys there.
func checkDir(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("read the agent's identity: %w", err)
	}
	if err = checkOwner(path, info); err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("others may write into %s (mode %04o), and so put other keys there; mend it with: chmod go-w %s", path, mode, shellWord(path))
	}
	return nil
}

func checkOwner(path string, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to the user with id %d, and this program runs as %d; mend it with: chown -R %d %s",
			path, stat.Uid, os.Geteuid(), os.Geteuid(), shellWord(path))
	}
	return nil
}
