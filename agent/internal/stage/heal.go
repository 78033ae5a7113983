package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What is found damaged while the stage runs is verified in a child and salvaged. Until a salvage has succeeded it is not forgotten,
// and bbolt opens no such file: one that faults in this process stays locked by it for ever. Where the disk has no room for the
// salvage the files that are open stay so, and what is in front of the damage can be read.

// ErrBeingRepaired says that what was asked for cannot be known before damaged files are salvaged, or missing ones made, for
// which room may have to come first. Settled tells when to ask again.
var ErrBeingRepaired = errors.New("the staging area is being repaired")

// repairError is an error that is ErrBeingRepaired, in its own words.
type repairError struct{ error }

func (repairError) Is(target error) bool { return target == ErrBeingRepaired }

func (r repairError) Unwrap() error { return r.error }

// setUnsettled says why the files must be read again, or with nil that they were. mu is held or not yet shared.
func (s *Stage) setUnsettled(err error) {
	switch {
	case s.unsettled == nil && err != nil:
		s.settling = make(chan struct{})
	case s.unsettled != nil && err == nil:
		close(s.settling)
	}
	s.unsettled = err
}

// Settled gives a channel that is closed once nothing is in doubt that was when it was asked for.
func (s *Stage) Settled() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.unsettled == nil {
		return closedChannel()
	}
	return s.settling
}

func closedChannel() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// maxHeals is how often a running stage reads its files again because of damage. On a disk that goes on damaging them,
// what cannot be read after that is lost until the next start.
const maxHeals = 16

// suspect lets the files be read again, and salvaged where that is needed, because something in them is damaged. It says
// whether that was worth a try.
func (s *Stage) suspect(cause *damageError) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.harmed.holds(cause.path) {
		return true
	}
	if s.files == nil {
		// They were closed since, to be read again.
		return s.unsettled == nil || errors.Is(s.unsettled, ErrBeingRepaired)
	}
	if s.heals >= maxHeals {
		return false
	}
	s.heals++
	s.harmed.suspect(cause, s.files)
	s.settings.Logger.Error("a staged file is damaged; it is verified and salvaged", slog.Any("error", cause))
	if s.unsettled == nil {
		s.setUnsettled(repairError{fmt.Errorf("a staged file is damaged and is being salvaged: %w", cause)})
		s.known, s.carry = false, s.files.meta
	}
	select {
	case s.look <- struct{}{}: // should the caller ask for nothing more
	default:
	}
	return true
}

// harmed is what is damaged and not salvaged yet, by path. mu guards what a running stage has of it.
type harmed struct {
	// suspected is to be verified first; found was, or has failed in this process.
	suspected, found map[string]error
}

func newHarmed() harmed {
	return harmed{suspected: map[string]error{}, found: map[string]error{}}
}

func (h *harmed) holds(path string) bool { return h.suspected[path] != nil || h.found[path] != nil }

// suspect takes note of what an error calls damaged, and lets nobody use it: a damaged page can end the process.
func (h *harmed) suspect(err error, f *files) {
	d, ok := errors.AsType[*damageError](err)
	if !ok || h.holds(d.path) {
		return
	}
	h.suspected[d.path] = d
	for _, db := range f.databases() {
		if db.path == d.path {
			db.barred.Store(true)
		}
	}
}

// fell takes note of the files of which a transaction has panicked. They stay locked, so that not even a child can open them.
func (h *harmed) fell(f *files) {
	for _, db := range f.databases() {
		if db.fell.Load() {
			h.found[db.path] = damaged("using it has failed")
			delete(h.suspected, db.path)
		}
	}
}

// paths are those of both, in order.
func (h *harmed) paths() []string {
	all := maps.Clone(h.suspected)
	maps.Copy(all, h.found)
	return slices.Sorted(maps.Keys(all))
}

// verify finds out about what is suspected.
func (h *harmed) verify(ctx context.Context, set *Settings) error {
	for _, path := range slices.Sorted(maps.Keys(h.suspected)) {
		there, err := exists(path)
		if err == nil && there {
			err = set.verifyOne(ctx, path)
		}
		switch {
		case errors.Is(err, ErrDamaged):
			h.found[path] = err
		case err != nil:
			return err
		}
		delete(h.suspected, path)
	}
	return nil
}

// databases are those that are open.
func (f *files) databases() (list []*database) {
	if f.state != nil {
		list = append(list, f.state)
	}
	for _, seg := range f.segments {
		list = append(list, seg.db)
	}
	return list
}

// roomToHeal says why there is no room to salvage what is damaged.
func (s *Stage) roomToHeal() error {
	s.mu.RLock()
	paths := s.harmed.paths()
	s.mu.RUnlock()
	var names []string
	bytes := uint64(0)
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil { // what is missing needs nothing here
			names = append(names, filepath.Base(path))
			bytes += salvageBytes(info) + repairBytes
		}
	}
	if len(names) == 0 {
		return nil
	}
	return s.settings.roomFor("to take out what is whole of the damaged "+strings.Join(names, " and "), bytes-repairBytes)
}

// awaitRoom notes that what is damaged cannot be salvaged yet. What is open stays so.
func (s *Stage) awaitRoom(err error) error {
	first := !s.waits.repair
	err = s.awaited(err)
	s.waits.repair = true
	s.mu.Lock()
	s.setUnsettled(err)
	s.known = false
	s.mu.Unlock()
	if first {
		s.settings.Logger.Error("what is damaged in the staging area cannot be salvaged before there is room on its disk; what is in front of it is sent, flows wait, and it is tried again without a restart",
			slog.Any("error", err))
		s.trouble.said, s.trouble.full, s.trouble.tries = time.Now(), true, 1
	}
	return err
}

// reopen opens the files again after an error. What is suspected to be damaged is verified first. mu is held.
func (s *Stage) reopen() (*files, error) {
	ctx, cancel := context.WithTimeout(context.Background(), verifyTimeout+2*salvageTimeout)
	defer cancel()
	if err := s.harmed.verify(ctx, &s.settings); err != nil {
		return nil, err
	}
	f, err := s.openFiles(ctx)
	if err != nil {
		return nil, err
	}
	f.closeLast()
	if s.damaged, err = boundKept(s.settings.Dir, s.settings.Logger); err != nil {
		return nil, errors.Join(err, f.close())
	}
	// What a try before this one has set aside, and could not count, counts too.
	f.setAside = max(f.setAside, uint64(len(s.damaged)))
	s.adopt(f)
	return f, nil
}
