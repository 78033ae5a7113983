//go:build unix

package keyfile

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// Rights of a mode: what others have, and the owner of a folder needs.
const (
	othersAny   fs.FileMode = 0o077
	othersWrite fs.FileMode = 0o022
	groupRead   fs.FileMode = 0o040
	ownerAll    fs.FileMode = 0o700
)

// checkPrivate refuses a file that another user owns or may read or change.
func checkPrivate(a Advice, path string, info fs.FileInfo) error {
	if err := checkOwner(path, info); err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&othersAny != 0 {
		return fmt.Errorf("%s may be read or changed by others (mode %04o), so what is in it may be known to them; "+
			"if you trust them, mend it with: chmod 600 %s; otherwise %s", path, mode, Word(path), a.Distrust)
	}
	return nil
}

// checkProvided is checkPrivate, but lets a group of this process read root's file: to a process that is not root it
// cannot be given in another way, short of being everybody's.
func checkProvided(a Advice, path string, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if ok && stat.Uid == 0 && os.Geteuid() != 0 && info.Mode().Perm()&(othersAny&^groupRead) == 0 && inGroup(int(stat.Gid)) {
		return nil
	}
	return checkPrivate(a, path, info)
}

// inGroup says whether this process is of a group.
func inGroup(id int) bool {
	groups, err := os.Getgroups()
	return err == nil && (slices.Contains(groups, id) || os.Getegid() == id)
}

func checkDir(path string, info fs.FileInfo) error {
	if err := checkOwner(path, info); err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&othersWrite != 0 {
		right := "go-w"
		if mode&ownerAll != ownerAll {
			right = "u+rwx,go-w"
		}
		return fmt.Errorf("others may write into %s (mode %04o), and so exchange what is in it; mend it with: chmod %s %s", path, mode, right, Word(path))
	}
	return nil
}

// checkOwner takes what is this user's or root's, who can do everything anyway.
func checkOwner(path string, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid == 0 || int(stat.Uid) == os.Geteuid() {
		return nil
	}
	mend := fmt.Sprintf("chown %d %s", os.Geteuid(), Word(path))
	if info.IsDir() {
		// All that is that user's, and nothing else: a private PostgreSQL below has an owner of its own.
		// The directory may be a link, which find follows only when told so.
		mend = fmt.Sprintf("find -H %s -user %d -exec chown %d {} +", Word(path), stat.Uid, os.Geteuid())
	}
	return fmt.Errorf("%s belongs to the user with id %d, who can read and change it, and this program runs as the one with id %d; mend it with: %s",
		path, stat.Uid, os.Geteuid(), mend)
}

// readable is how to let this program read a file that it may not: the first thing on the way to it that keeps it out says how.
func readable(path string) string {
	barrier := barrierTo(path)
	info, err := os.Stat(barrier)
	if err != nil {
		return fmt.Sprintf("this program runs as the user with id %d; let that one read %s", os.Geteuid(), path)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	owned := ok && int(stat.Uid) == os.Geteuid()
	switch {
	case owned && info.IsDir():
		return fmt.Sprintf("its owner, as whom this program runs, may not enter %s (mode %04o); mend it with: chmod 700 %s", barrier, info.Mode().Perm(), Word(barrier))
	case owned:
		return fmt.Sprintf("its owner, as whom this program runs, may not read it (mode %04o); mend it with: chmod 600 %s", info.Mode().Perm(), Word(barrier))
	case info.IsDir():
		return fmt.Sprintf("this program runs as the user with id %d, who may not enter %s (mode %04o); mend it with: chmod a+x %s", os.Geteuid(), barrier, info.Mode().Perm(), Word(barrier))
	}
	return fmt.Sprintf("this program runs as the user with id %d; mend it with: chown %d %s", os.Geteuid(), os.Geteuid(), Word(barrier))
}

// barrierTo gives the topmost folder of a path that this process may not enter, or the path itself.
func barrierTo(path string) string {
	parent := filepath.Dir(path)
	if parent == path {
		return path
	}
	if above := barrierTo(parent); above != parent {
		return above
	}
	if unix.Faccessat(unix.AT_FDCWD, parent, unix.X_OK, unix.AT_EACCESS) != nil {
		return parent
	}
	return path
}
