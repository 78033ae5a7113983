package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// roomCheck is how often a full disk is looked at again.
const roomCheck = time.Second

// minFreeFiles is how many more files the disk must be able to hold for a commit, or for a repair.
const minFreeFiles = 8

// errOutboxFull says that Settings.MaxBytes are waiting.
var errOutboxFull = errors.New("the outbox is full")

// expiredBytes is how many insights the rule DropOldest has dropped.
func (s *Stage) expiredBytes() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.files == nil {
		return 0
	}
	return s.files.expiredBytes
}

// reserve waits until the outbox and the disk have room for so many bytes of records.
func (s *Stage) reserve(ctx context.Context, size uint64) error {
	for waited := false; ; waited = true {
		space, err := s.tryReserve(size, waited)
		if err == nil {
			return nil
		}
		if errors.Is(err, errOutboxFull) && s.settings.WhenFull == DropOldest {
			before := s.expiredBytes()
			if s.dropOldest(ctx, size) == nil && s.expiredBytes() > before {
				continue
			}
		}
		timer := time.NewTimer(roomCheck)
		select {
		case <-space:
		case <-timer.C:
		case <-ctx.Done():
		case <-s.closing:
		}
		timer.Stop()
		if ctx.Err() != nil {
			s.stopWaiting()
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		select {
		case <-s.closing:
			s.stopWaiting()
			return ErrClosed
		default:
		}
	}
}

// diskSpace remembers how much of the disk is free.
type diskSpace struct {
	mu     sync.Mutex
	bytes  uint64
	looked time.Time
	// last is bytes for those who must not wait for the disk, 0 while nothing can be written; none before the first look.
	last atomic.Pointer[uint64]
}

const (
	// diskCheck is how often the disk is looked at while it has amplyFree bytes more than it must: far more than is
	// written in that time.
	diskCheck = 200 * time.Millisecond
	amplyFree = 1 << 30
)

// olderThan says whether the last look is.
func (d *diskSpace) olderThan(age time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Since(d.looked) >= age
}

// free is how much of the disk is free.
func (d *diskSpace) free(set Settings) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bytes > set.MinFreeBytes && d.bytes-set.MinFreeBytes >= amplyFree && time.Since(d.looked) < diskCheck {
		return d.bytes, nil
	}
	bytes, err := freeBytes(set.Dir)
	if err == nil && fewFiles(set.Dir) {
		err = fmt.Errorf("the disk of %s has room for no more files: make room on it by removing some", set.Dir)
	}
	d.bytes, d.looked = bytes, time.Now()
	told := bytes
	if err != nil {
		// It is looked at again, and until then nothing more may be written.
		d.bytes, told = 0, 0
	}
	d.last.Store(&told)
	return bytes, err
}

// idleDiskCheck is how far apart two looks at the disk are at least that Stats asks for, so that what it says of the room
// holds while nobody commits.
const idleDiskCheck = 5 * time.Second

// lookAtDisk is for the writer while it has nothing to do.
func (s *Stage) lookAtDisk() {
	if !s.disk.olderThan(idleDiskCheck) {
		return
	}
	if !s.waits.on && !s.waits.repair && s.spare.due() {
		s.keepSpare()
		return
	}
	if _, err := s.disk.free(s.settings); err != nil {
		s.settings.Logger.Debug("the disk has no room", slog.Any("error", err))
	}
	s.tellHealed()
}

// IsNoSpace says whether an error is that of a disk that has no room, or no room for another file.
func IsNoSpace(err error) bool { return isNoSpace(err) }

// CheckRoom says why the disk of a data directory, which need not be there yet, has too little room to begin with.
func CheckRoom(dir string, minFree uint64) error {
	for at := filepath.Clean(dir); ; at = filepath.Dir(at) {
		there, err := exists(at)
		if err != nil {
			return err
		}
		if !there && at != filepath.Dir(at) {
			continue
		}
		if readOnlyDisk(at) {
			return fmt.Errorf("the disk of %s is mounted read-only; mount it to be written, or name another folder with --data-dir", dir)
		}
		free, err := freeBytes(at)
		switch {
		case err == nil && fewFiles(at):
			err = fmt.Errorf("the disk of %s has room for no more files; make room on it by removing some, or name another with --data-dir", dir)
		case err == nil && free < minFree:
			err = fmt.Errorf("the disk of %s has %d MiB left and %d MiB must stay free; make room on it, or name another with --data-dir", dir, free>>20, minFree>>20)
		}
		return err
	}
}

// Advise adds to the error of a disk that takes nothing what to do about it. Any other error stays as it is, also nil.
func Advise(dir string, err error) error {
	switch {
	case isReadOnly(err):
		return fmt.Errorf("%w; the disk of %s is read-only: mount it to be written, or name another folder with --data-dir", err, dir)
	case isNoSpace(err):
		return fmt.Errorf("%w; the disk of %s is full, or has room for no more files: make room on it, or name another with --data-dir", err, dir)
	}
	return err
}

// roomToBegin refuses a first start on a disk that is too full for what comes after it. A directory with a state may be
// opened on any disk, so that what waits in it can leave.
func roomToBegin(set Settings) error {
	there, err := exists(filepath.Join(set.Dir, formatName))
	if err != nil || there {
		return err
	}
	if data, _, err := traces(set.Dir); err == nil && data {
		return nil // it is no first start, but FORMAT is missing
	}
	if err := CheckRoom(set.Dir, set.MinFreeBytes); err != nil {
		return fmt.Errorf("begin the staging directory: %w", err)
	}
	return nil
}

// stopWaiting takes a commit off the count of those that wait for room.
func (s *Stage) stopWaiting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked--
}

// tryReserve gives the reason why there is no room now, and what to wait for.
func (s *Stage) tryReserve(size uint64, waited bool) (<-chan struct{}, error) { //revive:disable-line:flag-parameter
	free, err := s.disk.free(s.settings)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble.degraded != nil {
		err = s.trouble.degraded
	}
	// What the journal alone has needs room in the other files.
	if err == nil && free < s.settings.MinFreeBytes+s.pending.waiting() {
		err = fmt.Errorf("the disk of %s has %d MiB left, less than the %d MiB that stay free: make room on it", s.settings.Dir, free>>20, s.settings.MinFreeBytes>>20)
	}
	held := s.reserved
	if s.files != nil {
		held += s.files.waitingBytes()
	}
	if err == nil && size > 0 && held > 0 && held+size > s.settings.MaxBytes {
		err = fmt.Errorf("%w (%d MiB wait to be sent): the flow waits until the control plane has taken some", errOutboxFull, held>>20)
	}
	switch {
	case err == nil && waited:
		s.blocked--
	case err != nil && !waited:
		s.blocked++
	}
	if err == nil {
		s.reserved += size
	} else {
		s.blockedBy = err
	}
	return s.space, err
}

// room is how many more bytes may wait when so many do. mu is held; it does not wait for the disk.
func (s *Stage) room(waiting uint64) uint64 {
	held := s.reserved + waiting
	room := s.settings.MaxBytes - min(held, s.settings.MaxBytes)
	if free := s.disk.last.Load(); free != nil {
		room = min(room, *free-min(*free, s.settings.MinFreeBytes+s.pending.waiting()))
	}
	return room
}

// release gives back what reserve took; by now the records are counted as waiting, or they are not there.
func (s *Stage) release(size uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= size
	s.wakeSpace()
}

// wakeSpace lets the commits that wait for room look again. mu is held.
func (s *Stage) wakeSpace() {
	if s.blocked > 0 {
		close(s.space)
		s.space = make(chan struct{})
	}
}
