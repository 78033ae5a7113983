package identity

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/outfeed/outfeed/internal/durable"
)

// maxFile bounds what is read of a file of the identity, in bytes.
const maxFile = 1 << 20

// plainRunes are those that mean nothing to a shell.
const plainRunes = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./:@%+=,"

// readPrivate reads a file that nobody else may read, and refuses it when somebody could.
func readPrivate(path string) (_ []byte, err error) {
	if err = checkNoLink(path); err != nil {
		return nil, err
	}
	f, err := os.Open(path) //nolint:gosec // the path is made of the configured data directory and a fixed name
	if err != nil {
		return nil, fmt.Errorf("read the agent's identity: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the agent's identity: %w", err)
	}
	if err = checkPrivate(path, info); err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("read the agent's identity: %w", err)
	}
	return raw, nil
}

// checkNoLink refuses a symbolic link, and what is no file at all: whoever can make one chooses what is read and changed.
func checkNoLink(path string) error {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return fmt.Errorf("read the agent's identity: %w", err)
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a symbolic link, which is not followed for keys; put the file itself there: cp --remove-destination \"$(readlink -f %s)\" %s && chmod 600 %s",
			path, shellWord(path), shellWord(path), shellWord(path))
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no file; restore it from a backup, or remove %s and enrol again", path, filepath.Dir(path))
	}
	return nil
}

// shellWord writes a path so that a shell takes it as one word.
func shellWord(path string) string {
	if !strings.ContainsFunc(path, func(r rune) bool { return !strings.ContainsRune(plainRunes, r) }) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// writeFile writes a new file and its content to the disk.
func writeFile(path string, content []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // as in readPrivate
	if err != nil {
		return fmt.Errorf("write the agent's identity: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err = f.Write(content); err != nil {
		return fmt.Errorf("write the agent's identity: %w", err)
	}
	if err = f.Sync(); err != nil {
		return fmt.Errorf("write %s to the disk: %w", path, err)
	}
	return nil
}

// replaceFile changes a file's content so that after a crash it has the old or the new one, whole.
func replaceFile(path string, content []byte) error {
	next := path + ".new"
	if err := writeFile(next, content); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	if err := os.Rename(next, path); err != nil {
		return errors.Join(fmt.Errorf("write the agent's identity: %w", err), os.Remove(next))
	}
	return durable.SyncDir(filepath.Dir(path))
}
