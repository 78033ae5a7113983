package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/bits"
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
	case errors.As(err, &path), isNoSpace(err):
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
// where the state proves it. It gives 1 when something that is no file was in its place and was set aside.
func (s *Settings) checkFormat(ctx context.Context) (strange uint64, err error) {
	refusal := s.readFormat()
	switch {
	case refusal == nil:
		return 0, nil
	case errors.Is(refusal, errOlderFormat):
		// What is older becomes this one by being opened, which an older agent must know.
		refusal = nil
	case errors.Is(refusal, ErrDamaged), errors.Is(refusal, errMaybeNewer):
		refusal = s.formatProven(ctx, refusal)
	default:
		return 0, refusal
	}
	if errors.Is(refusal, ErrNewerFormat) {
		return 0, refusal
	}
	if strange, err = s.setAsideIfStrange(ctx, formatName); err == nil {
		err = refusal
	}
	if err != nil {
		return strange, err
	}
	return strange, createFile(filepath.Join(s.Dir, formatName), formatPrefix+strconv.Itoa(formatVersion)+"\n")
}

// errOlderFormat is for a directory that an older agent has left.
var errOlderFormat = errors.New("the staging directory has an older layout")

// readFormat gives nothing where FORMAT names this layout, errOlderFormat where it names an older one, and otherwise why the
// directory is refused unless its state proves that it has this layout.
func (s *Settings) readFormat() error {
	path := filepath.Join(s.Dir, formatName)
	text, err := readText(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	own := strconv.Itoa(formatVersion)
	digits, ok := strings.CutPrefix(strings.TrimSpace(string(text)), formatPrefix)
	version, parseErr := strconv.Atoi(digits)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s is missing beside staged insights, and nothing else says in which layout they are; if no newer outfeed-agent than this one was ever started with this directory, write the line %q into that file and start again; otherwise start the newer one",
			ErrDamaged, path, formatPrefix+own)
	case !ok || parseErr != nil || version < 1:
		return fmt.Errorf("%w: %s says %.40q; if no newer outfeed-agent than this one was ever started with the directory, write the line %q into that file, or move the directory away to begin a new one", ErrDamaged, path, text, formatPrefix+own)
	case version > formatVersion:
		return fmt.Errorf("%w: %s has format %d and this agent knows %d; start the newer agent again", newerFormat(digits, own), s.Dir, version, formatVersion)
	case version < formatVersion:
		return errOlderFormat
	}
	return nil
}

// errMaybeNewer is ErrNewerFormat where a flipped bit could have made the number.
var errMaybeNewer = fmt.Errorf("%w, or its FORMAT is damaged", ErrNewerFormat)

// newerFormat says how certain it is that a newer agent has written those digits: one flipped bit of this agent's can be damage.
func newerFormat(digits, own string) error {
	if len(digits) != len(own) {
		return ErrNewerFormat
	}
	flipped := 0
	for i := range len(own) {
		flipped += bits.OnesCount8(digits[i] ^ own[i])
	}
	if flipped == 1 {
		return errMaybeNewer
	}
	return ErrNewerFormat
}

// directoryLock holds the directory for this process.
type directoryLock struct {
	// folder is the directory itself, nil where the system cannot lock one, and file is LOCK.
	folder, file *os.File
	// running is the file RUNNING, locked as well, until a start takes it over; nil when there is none.
	running *os.File
	// strange is how much was set aside that was no file in the place of one, before the stage is there to count it.
	strange uint64
}

// lockRetry is how often a lock that another process holds is tried again: a service manager may start the next agent
// while the last one still closes its files.
const lockRetry = 100 * time.Millisecond

// tryLock takes the lock or says who has it. The folder itself is locked too, where the system can: nobody removes that.
func (s *Settings) tryLock(ctx context.Context) (*directoryLock, error) {
	l := &directoryLock{}
	free, err := l.takeFolder(s.Dir)
	switch {
	case err != nil:
	case free:
		err = l.takeFiles(ctx, s)
	default:
		err = whoHas(s.Dir)
	}
	if err != nil {
		return nil, errors.Join(err, l.release())
	}
	return l, nil
}

// takeFolder locks the folder and says whether it was free.
func (l *directoryLock) takeFolder(dir string) (free bool, err error) {
	if l.folder, free, err = lockFolder(dir); err == nil && free && l.folder != nil {
		return isStillAt(l.folder)
	}
	return free, err
}

// takeFiles locks LOCK, and RUNNING where there is one.
func (l *directoryLock) takeFiles(ctx context.Context, s *Settings) (err error) {
	if l.strange, err = s.setAsideStrangeLock(ctx); err != nil {
		return err
	}
	l.file, err = os.OpenFile(filepath.Join(s.Dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock the staging directory: %w", err)
	}
	free, err := lockFile(l.file)
	if err == nil && free {
		free, err = isStillAt(l.file)
	}
	if err != nil {
		return err
	}
	if !free {
		return heldBy(l.file, s.Dir)
	}
	if l.running, free, err = lockRunning(s.Dir); err == nil && !free {
		err = errOtherAgent(s.Dir)
	}
	return err
}

// heldBy says who has locked LOCK.
func heldBy(lock *os.File, dir string) error {
	holder, err := io.ReadAll(io.LimitReader(lock, lockBytes))
	if err != nil || len(holder) == 0 {
		holder = []byte("another process")
	}
	return fmt.Errorf("%w: %s is held by %s; stop that agent, or give this one another --data-dir", ErrLocked, dir, bytes.TrimSpace(holder))
}

// whoHas says who has a folder that is locked.
func whoHas(dir string) error {
	path := filepath.Join(dir, lockName)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return errOtherAgent(dir)
	}
	f, err := os.Open(path) //nolint:gosec // the directory is the agent's own
	if err != nil {
		return errOtherAgent(dir)
	}
	defer f.Close() //nolint:errcheck // it was only read
	if free, err := lockFile(f); err != nil || free {
		return errOtherAgent(dir)
	}
	return heldBy(f, dir)
}

// setAsideStrangeLock sets aside what has the name of LOCK and is no file, which cannot be locked, unless RUNNING shows that an
// agent is there. No agent has locked such a thing, so that none loses what it uses.
func (s *Settings) setAsideStrangeLock(ctx context.Context) (n uint64, err error) {
	path := filepath.Join(s.Dir, lockName)
	if strangeness(path) == "" {
		return 0, nil
	}
	running, free, err := lockRunning(s.Dir)
	if err != nil {
		return 0, err
	}
	if !free {
		return 0, errOtherAgent(s.Dir)
	}
	if running != nil {
		defer running.Close() //nolint:errcheck // nothing was written
	}
	return s.setAsideIfStrange(ctx, lockName)
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

// release lets go of the directory. It may be nil.
func (l *directoryLock) release() error {
	if l == nil {
		return nil
	}
	var err error
	for _, f := range []*os.File{l.file, l.running, l.folder} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
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
