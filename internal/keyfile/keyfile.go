// Package keyfile reads files that hold keys, and refuses one that others may have read, changed or chosen: because of its
// mode, its owner, or because it is a symbolic link or no file at all. Each refusal ends with the command that mends it.
//
// It knows nothing of what is in the files and writes none. On Windows modes and owners mean nothing; there the access
// list that a directory hands down to its files decides, and links are refused all the same. All functions may be
// called at once.
package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxSize bounds what is read of a file, in bytes.
const maxSize = 1 << 20

// plainRunes are those that mean nothing to a shell.
const plainRunes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./:@%+=,"

// Advice is what a person is told beside the command that mends a file.
type Advice struct {
	// What is read, as in "read the agent's identity".
	What string
	// Distrust is what to do instead of mending the mode, when others may have used it: "revoke this agent and enrol again".
	Distrust string
	// Lost is how to go on when there is no file to mend: "restore it from a backup".
	Lost string
}

// Read gives the content of a file in one of the program's own directories. A file that is not there is fs.ErrNotExist.
func (a Advice) Read(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, a.unread(path, err)
	}
	if err := a.checkKind(path, info); err != nil {
		return nil, err
	}
	return a.read(path, info, checkPrivate)
}

// ReadNamed is Read for a file that the operator has named. It may be a symbolic link, as mounted secrets and renewed
// certificates are; the rules are for the file that it leads to. And it may be root's, for a group of this process to
// read, as secrets are that others provide.
func (a Advice) ReadNamed(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, a.unread(path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file; %s", path, a.Lost)
	}
	return a.read(path, info, checkProvided)
}

// read opens what was looked at and holds it against a rule.
func (a Advice) read(path string, seen fs.FileInfo, check func(Advice, string, fs.FileInfo) error) (_ []byte, err error) {
	// Who may not read it learns that from the owner, which says what to do about it.
	if err = check(a, path, seen); err != nil {
		return nil, err
	}
	f, err := os.Open(path) //nolint:gosec // the caller's file
	if err != nil {
		return nil, a.unread(path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", a.What, err)
	}
	if !os.SameFile(seen, info) {
		return nil, fmt.Errorf("%s was exchanged while it was read; look who may write into its directory, then start again", path)
	}
	if err = check(a, path, info); err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxSize))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", a.What, err)
	}
	return raw, nil
}

// unread says what was not possible, and what to do where the program may not.
func (a Advice) unread(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("read %s: %w; %s", a.What, err, readable(path))
	}
	return fmt.Errorf("read %s: %w", a.What, err)
}

// checkKind refuses a symbolic link, and what is no file at all: whoever can make one chooses what is read and changed.
func (a Advice) checkKind(path string, info fs.FileInfo) error {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a symbolic link, which is not followed for keys; put the file itself there: cp --remove-destination \"$(readlink -f %s)\" %s && chmod 600 %s",
			path, Word(path), Word(path), Word(path))
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file; %s", path, a.Lost)
	}
	return nil
}

// Check is Read without the content.
func (a Advice) Check(path string) error {
	_, err := a.Read(path)
	return err
}

// CheckDir refuses a directory of the program's own that another user owns or may write into: who may, can put other keys
// there. Others may be allowed to enter it.
func (a Advice) CheckDir(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return a.unread(path, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no directory; %s", path, a.Lost)
	}
	return checkDir(path, info)
}

// Word writes a path so that a shell takes it as one word.
func Word(path string) string {
	if !strings.ContainsFunc(path, func(r rune) bool { return !strings.ContainsRune(plainRunes, r) }) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
