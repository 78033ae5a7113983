package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

// ScratchName is the folder in a staging directory that scratch files lie in.
const ScratchName = "scratch"

// temporaryPrefix begins the name of a temporary folder; digits follow.
const temporaryPrefix = "outfeed-spill-"

// spaceCheckBytes is how much is written between two looks at how much of the disk is free.
const spaceCheckBytes = 16 << 20

// ErrNoSpace says that a scratch file cannot grow.
var ErrNoSpace = errors.New("there is no room for spilled rows")

// Scratch is a folder of files that live no longer than the process: what a flow does not hold in memory. It is safe for
// many goroutines.
type Scratch struct {
	dir string
	// temporary says that the folder is made with the first file and goes with Close.
	temporary bool
	minFree   uint64
	// hold is the temporary folder itself, locked where the system can, so that others see that it is in use.
	hold *os.File

	mu     sync.Mutex
	made   bool
	closed bool
	next   uint64
	open   map[*ScratchFile]struct{}
}

// OpenScratch empties the folder, which whoever holds the staging directory may do: what is in it belongs to a process
// that has ended. minFree is how many bytes of the disk stay free; 0 means 64 MiB.
//
// What has the folder's name and is none stays until the staging directory is opened, which sets it aside.
func OpenScratch(dir string, minFree uint64) (*Scratch, error) {
	if strangeFolder(dir) != "" {
		return newScratch(dir, minFree), nil
	}
	// The folder itself stays, because a full disk might not let it be made again.
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for the spilled rows of an earlier run: %w", err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return nil, fmt.Errorf("remove the spilled rows of an earlier run: %w", err)
		}
	}
	s := newScratch(dir, minFree)
	if err := s.make(); err != nil && !isNoSpace(err) {
		return nil, err
	}
	return s, nil // with room, the first file makes the folder
}

// TemporaryScratch is a folder of its own below the system's temporary one, which is made when the first file is.
func TemporaryScratch(minFree uint64) *Scratch {
	s := newScratch("", minFree)
	s.temporary = true
	return s
}

func newScratch(dir string, minFree uint64) *Scratch {
	if minFree == 0 {
		minFree = 64 << 20
	}
	return &Scratch{dir: dir, minFree: minFree, open: map[*ScratchFile]struct{}{}}
}

// make makes the folder. mu is held, or nobody else knows the Scratch yet.
func (s *Scratch) make() (err error) {
	if s.made {
		return nil
	}
	if s.temporary {
		removeLeftovers(os.TempDir())
		if s.dir, err = os.MkdirTemp("", temporaryPrefix); err == nil {
			s.hold = holdFolder(s.dir)
		}
	} else {
		err = os.MkdirAll(s.dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("make the folder for spilled rows: %w", err)
	}
	s.made = true
	return nil
}

// Create makes an empty file.
func (s *Scratch) Create() (*ScratchFile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if err := s.make(); err != nil {
		return nil, err
	}
	s.next++
	path := filepath.Join(s.dir, strconv.FormatUint(s.next, 10)+".spill")
	const flags = os.O_RDWR | os.O_CREATE | os.O_EXCL
	file, err := os.OpenFile(path, flags, 0o600) //nolint:gosec // the folder is the process's own
	if s.temporary && errors.Is(err, fs.ErrNotExist) {
		// A cleaner of old temporary files took the empty folder.
		if err = os.MkdirAll(s.dir, 0o700); err == nil {
			s.letGo()
			s.hold = holdFolder(s.dir)
			file, err = os.OpenFile(path, flags, 0o600) //nolint:gosec // as above
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	f := &ScratchFile{file: file, scratch: s, toCheck: spaceCheckBytes}
	if s.temporary {
		// Where the system lets an open file go without its name, nothing stays behind even when the process is killed.
		f.nameless = os.Remove(path) == nil
	}
	s.open[f] = struct{}{}
	return f, f.checkSpace()
}

// Close removes all files and the folder. It is safe twice. No file may be in use.
func (s *Scratch) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for f := range s.open {
		errs = append(errs, f.remove())
	}
	clear(s.open)
	if s.made {
		s.made = false
		s.letGo()
		errs = append(errs, os.RemoveAll(s.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the spilled rows: %w", err)
	}
	return nil
}

// letGo ends the mark of the folder.
func (s *Scratch) letGo() {
	if s.hold != nil {
		_ = s.hold.Close() // it was only read
		s.hold = nil
	}
}

// ScratchFile is one file. One goroutine uses it.
type ScratchFile struct {
	file     *os.File
	scratch  *Scratch
	nameless bool
	// toCheck is how many bytes may be written before the next look at the disk.
	toCheck int
}

// Write appends. Its error wraps ErrNoSpace.
func (f *ScratchFile) Write(p []byte) (n int, err error) {
	if f.toCheck -= len(p); f.toCheck < 0 {
		if err = f.checkSpace(); err != nil {
			return 0, err
		}
		f.toCheck = spaceCheckBytes
	}
	if n, err = f.file.Write(p); err != nil {
		err = fmt.Errorf("%w: make room on the disk of %s, or raise memory_limit: %w", ErrNoSpace, f.scratch.dir, err)
	}
	return n, err
}

func (f *ScratchFile) checkSpace() error {
	free, err := freeBytes(f.scratch.dir)
	if err == nil && free < f.scratch.minFree {
		err = fmt.Errorf("%w: the disk of %s has %d MiB left, less than the %d MiB that stay free: make room on it, or raise memory_limit",
			ErrNoSpace, f.scratch.dir, free>>20, f.scratch.minFree>>20)
	}
	return err
}

// ReadAt reads what was written.
func (f *ScratchFile) ReadAt(p []byte, off int64) (int, error) {
	return f.file.ReadAt(p, off) //nolint:wrapcheck // io.EOF must stay what it is
}

// Close removes the file. It is safe twice.
func (f *ScratchFile) Close() error {
	f.scratch.mu.Lock()
	defer f.scratch.mu.Unlock()
	if _, ok := f.scratch.open[f]; !ok {
		return nil
	}
	delete(f.scratch.open, f)
	return f.remove()
}

func (f *ScratchFile) remove() error {
	err := f.file.Close()
	if !f.nameless {
		if removeErr := os.Remove(f.file.Name()); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	return err
}
