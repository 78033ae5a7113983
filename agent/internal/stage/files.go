package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/outfeed/outfeed/internal/durable"
)

// The names in a staging directory.
const (
	lockName    = "LOCK"
	formatName  = "FORMAT"
	runningName = "RUNNING"
	stateName   = "state.db"
	// newSuffix marks a file that is still being made; a start removes it.
	newSuffix = durable.NewSuffix
	// corruptInfix, with the time behind it, marks a file that was set aside.
	corruptInfix = ".corrupt-"
)

// formatVersion is the layout that this code reads and writes. It is in a file of its own, in plain text, so that an
// older agent can refuse a newer directory without opening a database that it may not understand.
//
//	1  2026-11  the first
//	2  2026-11  with a journal
const formatVersion = 2

const formatPrefix = "outfeed-stage "

// bboltLockWait is how long to wait for bbolt's own lock on one file: only a verification can hold it.
const bboltLockWait = 2 * time.Second

func openReadWrite(path string, mmapBytes int) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout: bboltLockWait, FreelistType: bolt.FreelistMapType, InitialMmapSize: mmapBytes, NoStatistics: true,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, classify(err))
	}
	return db, nil
}

func openReadOnly(path string) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout: bboltLockWait, ReadOnly: true, PreLoadFreelist: true, FreelistType: bolt.FreelistMapType, NoStatistics: true,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, classify(err))
	}
	return db, nil
}

// classify adds ErrDamaged to an error of opening that says the file itself is wrong, and not the way to it.
func classify(err error) error {
	var path *fs.PathError
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("%w: another agent has this file open; stop that agent, or give this one another --data-dir", ErrLocked)
	case errors.As(err, &path):
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// createDatabase makes a bbolt file that is either there and whole or not there at all: it grows under another name.
func createDatabase(path string, fill func(*bolt.Tx) error) error {
	temp := path + newSuffix
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the remains of an earlier start: %w", err)
	}
	db, err := openReadWrite(temp, 0)
	if err != nil {
		return err
	}
	err = db.Update(fill)
	if closeErr := db.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return errors.Join(fmt.Errorf("create %s: %w", path, err), os.Remove(temp))
	}
	return publish(temp, path)
}

// createFile makes a small file that is either there and whole or not there at all.
func createFile(path, text string) error { return durable.Replace(path, []byte(text), 0o600) }

// publish makes the file's content durable, gives it its name, and makes the name durable.
func publish(temp, path string) error {
	f, err := os.OpenFile(temp, os.O_RDWR, 0o600) //nolint:gosec // the directory is the agent's own
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	err = f.Sync()
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("create %s: %w", path, err), os.Remove(temp))
	}
	return durable.SyncDir(filepath.Dir(path))
}

// checkFormat refuses the directory of a newer agent, marks a fresh one, and writes a mark that is missing or damaged anew
// where the state proves it.
func (s *Settings) checkFormat(ctx context.Context) error {
	path := filepath.Join(s.Dir, formatName)
	text, err := os.ReadFile(path) //nolint:gosec // the directory is the agent's own
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the format of the staging directory: %w", err)
	}
	var refusal error
	digits, ok := strings.CutPrefix(strings.TrimSpace(string(text)), formatPrefix)
	version, parseErr := strconv.Atoi(digits)
	switch {
	case err != nil:
		refusal = fmt.Errorf("%w: %s is missing beside staged insights, and nothing else says in which layout they are; if no newer outfeed-agent than this one was ever started with this directory, write the line %q into that file and start again; otherwise start the newer one",
			ErrDamaged, path, fmt.Sprint(formatPrefix, formatVersion))
	case !ok || parseErr != nil || version < 1:
		refusal = fmt.Errorf("%w: %s says %.40q; if no newer outfeed-agent than this one was ever started with the directory, write the line %q into that file, or move the directory away to begin a new one", ErrDamaged, path, text, fmt.Sprint(formatPrefix, formatVersion))
	case version > formatVersion:
		refusal = fmt.Errorf("%w: %s has format %d and this agent knows %d; start the newer agent again", ErrNewerFormat, s.Dir, version, formatVersion)
		if len(digits) > len(strconv.Itoa(formatVersion)) {
			// No flipped bit adds a digit.
			return refusal
		}
	case version == formatVersion:
		return nil
	}
	// What is older becomes this one by being opened, which an older agent must know.
	if refusal != nil {
		if err := s.formatProven(ctx, refusal); err != nil {
			return err
		}
	}
	return createFile(path, formatPrefix+strconv.Itoa(formatVersion)+"\n")
}

// directoryLock holds the directory for this process.
type directoryLock struct {
	file *os.File
	// running is the file RUNNING, locked as well, until a start takes it over; nil when there is none.
	running *os.File
}

// lockRetry is how often a lock that another process holds is tried again: a service manager may start the next agent
// while the last one still closes its files.
const lockRetry = 100 * time.Millisecond

// tryLock takes the lock or says who has it.
func tryLock(dir string) (*directoryLock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the directory is the agent's own
	if err != nil {
		return nil, fmt.Errorf("lock the staging directory: %w", err)
	}
	free, err := lockFile(f)
	if err == nil && free {
		free, err = isStillAt(f)
	}
	if err == nil && free {
		var running *os.File
		if running, free, err = lockRunning(dir); err == nil && free {
			return &directoryLock{file: f, running: running}, nil
		}
		if err == nil {
			err = errOtherAgent(dir)
		}
	} else if err == nil {
		holder, readErr := io.ReadAll(io.LimitReader(f, lockBytes))
		if readErr != nil || len(holder) == 0 {
			holder = []byte("another process")
		}
		err = fmt.Errorf("%w: %s is held by %s; stop that agent, or give this one another --data-dir", ErrLocked, dir, bytes.TrimSpace(holder))
	}
	return nil, errors.Join(err, f.Close())
}

// errOtherAgent is for a directory whose LOCK was removed, or replaced, while an agent has it.
func errOtherAgent(dir string) error {
	return fmt.Errorf("%w: another agent uses %s, although its file %s was removed or replaced; stop that agent, or give this one another --data-dir",
		ErrLocked, dir, lockName)
}

// isStillAt says whether the open file is the one that its name leads to. It is not when the directory was set aside after
// the file was opened and before it was locked.
func isStillAt(f *os.File) (bool, error) {
	mine, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("lock the staging directory: %w", err)
	}
	named, err := os.Stat(f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock the staging directory: %w", err)
	}
	return os.SameFile(mine, named), nil
}

// lockBytes is the length of the text in the lock file, filled with spaces.
const lockBytes = 200

// describe writes who holds the lock into the file, for the process that comes second.
func (l *directoryLock) describe() error {
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	text := fmt.Sprintf("%s, process %d on %.100s", filepath.Base(os.Args[0]), os.Getpid(), host)
	// It replaces what is there and never shortens it, so that it needs no new room on a full disk.
	_, err = l.file.WriteAt(append([]byte(text), bytes.Repeat([]byte{' '}, max(0, lockBytes-len(text)))...), 0)
	if err != nil {
		return fmt.Errorf("write %s: %w", l.file.Name(), err)
	}
	return nil
}

func (l *directoryLock) release() error {
	err := l.file.Close()
	if l.running != nil {
		err = errors.Join(err, l.running.Close())
	}
	if err != nil {
		return fmt.Errorf("release the staging directory: %w", err)
	}
	return nil
}

// exists says whether there is a file of that name.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", path, err)
	}
	return true, nil
}
