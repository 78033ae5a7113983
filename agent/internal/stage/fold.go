package stage

import (
	"fmt"
	"maps"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// A fold is the part of a commit that takes what the journal alone has into state.db.

// foldFlows is how many flows one transaction of a fold takes. What it reads and writes is in memory until it ends, and with
// hundreds of flows in one that would be a large part of what an agent needs at all.
const foldFlows = 6

// foldBytes is after how many bytes of records a transaction of a fold ends.
const foldBytes = 512 << 10

// foldEarly folds flows in transactions of their own until few are left for the commit. The records are in the segments by
// then. Each flow's number says what of the journal its state has, so that what comes in front of the end of the epoch is
// not taken in twice.
func (s *Stage) foldEarly(next *meta) error {
	if !s.journal.ready() || next.journal != s.files.stored.journal || s.pending.epoch != s.files.stored.epoch {
		return nil
	}
	names := slices.Sorted(maps.Keys(s.pending.flows))
	for ; len(names) > foldFlows; names = names[foldFlows:] {
		if err := s.foldSome(names[:foldFlows]); err != nil {
			return err
		}
		next.markSum = s.files.markSum
	}
	return nil
}

// foldSome folds flows within the epoch.
func (s *Stage) foldSome(names []string) error {
	if err := s.at("fold"); err != nil {
		return err
	}
	s.mu.RLock()
	m := s.files.meta
	s.mu.RUnlock()
	m.epoch, m.journal = s.files.stored.epoch, s.files.stored.journal
	m.late -= s.pending.late - s.pending.lateOf(names)
	s.sealed.reset()
	s.trouble.suspect(s.files.state)
	var marks map[string]mark
	err := s.files.state.Update(func(tx *bolt.Tx) (err error) {
		if marks, err = s.pending.apply(tx, &s.sealed, &m, names); err != nil {
			return err
		}
		s.noteAge(&m)
		m.listed = s.files.firsts()
		return m.put(tx, &s.sealed, &s.files.stored)
	})
	if err != nil {
		return fmt.Errorf("write the staged state: %w", err)
	}
	if err := s.at("fold landed"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files
	f.stored, f.markSum = m, m.markSum
	maps.Copy(f.marks, marks)
	s.pending.drop(names)
	f.state.unmapPages()
	return nil
}

// foldState writes the state that the journal alone has.
func (s *Stage) foldState(tx *bolt.Tx, next *meta) (err error) {
	s.foldedMarks = nil
	if !s.pending.empty() {
		s.foldedMarks, err = s.pending.apply(tx, &s.sealed, next, slices.Sorted(maps.Keys(s.pending.flows)))
	}
	return err
}

// unmapPages lets go of the pages that transactions have had to look at.
func (d *database) unmapPages() {
	// A file that cannot be read is told of by the next one who uses it.
	_ = d.View(func(tx *bolt.Tx) error {
		unmapPages(tx)
		return nil
	})
}
