package stage

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// wentBackReason is what the account says of a directory that went back.
const wentBackReason = "this directory is older than what the control plane has of it; flows may repeat what they had read. " +
	"What was staged since the start and never sent got new numbers, and nothing of it is lost. " +
	"Find out what put an older copy of the directory in its place, or damaged it"

// reach is the last sequence that the control plane can have under the number that it has here: what was there when the
// stage was opened, and what was given out since then to a session that had agreed. mu is held.
func (s *Stage) reach() uint64 {
	return min(max(s.reached, s.files.acknowledged), s.files.produced)
}

// beginReach finds out how far the control plane can have come when the stage is opened. What an earlier process has staged
// without a session that agreed was never sent. mu is not yet shared.
func (s *Stage) beginReach() {
	f := s.files
	s.reached = f.produced
	if f.unsentFrom > 0 {
		s.reached = min(f.unsentFrom-1, f.produced)
	}
	f.unsentFrom = s.reached + 1
}

// agree notes that from now on what is read can be sent, on the disk before it is: the first time, and where what is lost has
// changed.
func (s *Stage) agree(ctx context.Context) error {
	s.mu.Lock()
	store := !s.agreed
	s.agreed = true
	if f := s.files; f != nil {
		f.unsentFrom = 0
		store = store || f.lost != f.stored.lost || f.apart != f.stored.apart || !slices.Equal(f.unsure, f.stored.unsure)
	}
	s.mu.Unlock()
	if store = store && s.isDegraded() == nil; !store {
		return nil
	}
	err := s.submit(ctx, &request{admit: func(*files) error { return nil }})
	if err != nil && s.isDegraded() != nil {
		// On a full disk the sending is what makes room. At worst a crash lets some be sent twice.
		return nil //nolint:nilerr // Stats.Degraded tells it
	}
	return err
}

// noteGiven remembers what a session was given to send. What is read before a session has agreed is only looked at.
func (s *Stage) noteGiven(records []Record) {
	if len(records) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agreed {
		s.reached = max(s.reached, records[len(records)-1].Last())
		s.sent = max(s.sent, records[len(records)-1].Last())
	}
}

// wentBack takes what the control plane can have for stored, and gives everything behind it numbers behind the control
// plane's: under the old ones it would be taken for a repetition and be lost in silence.
func (s *Stage) wentBack(ctx context.Context, stored uint64) (after uint64, err error) {
	before := uint64(0)
	r := &request{renumberFrom: stored, folded: true}
	r.admit = func(f *files) error {
		s.mu.RLock()
		defer s.mu.RUnlock()
		reach := s.reach()
		if stored <= reach {
			return errDone
		}
		s.settings.Logger.ErrorContext(ctx, "the control plane has more insights of this agent than its staging directory, which is older: flows may repeat what they had read; what was never sent gets new numbers",
			slog.Uint64("stored", stored), slog.Uint64("produced", f.produced), slog.Uint64("here_at_most", reach), slog.Uint64("never_sent", f.produced-reach))
		if before = f.produced; before > stored {
			// The new numbers are old ones of something else until nothing has those any more.
			r.renumberFrom = stored + (f.produced - reach) + 1
		}
		return nil
	}
	r.apply = func(_ *bolt.Tx, next *meta) error {
		next.setAside++
		return nil
	}
	r.landed = s.noteWentBack
	r.then = func() error { return s.lower(stored, before) }
	if err := s.submit(ctx, r); err != nil {
		return 0, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.files == nil {
		return 0, s.unavailableLocked()
	}
	return s.files.acknowledged, nil
}

// noteWentBack tells it as a damaged file. mu is held.
func (s *Stage) noteWentBack(f *files) {
	f.setAside++
	// These are numbers that something else has now.
	clear(f.damaged)
	d := &DamagedFile{Missing: true, Reason: wentBackReason}
	d.name(filepath.Join(s.settings.Dir, "outbox"))
	err := d.describe(s.settings.Dir)
	if err == nil {
		var kept []DamagedFile
		if kept, err = boundKept(s.settings.Dir, s.settings.Logger); err == nil {
			s.damaged = kept
		}
	}
	if err != nil {
		s.settings.Logger.Warn("it could not be noted that the staging directory is older than what the control plane has", slog.Any("error", err))
	}
}

// lower moves what was numbered anew, far behind every old number, to where it belongs: right behind what is stored. It is
// for the writer, in front of any other commit. Where it cannot be done, the places between stay empty and are told as such.
func (s *Stage) lower(stored, before uint64) error {
	f := s.files
	waiting := f.produced - f.acknowledged
	if f.acknowledged == stored || stored+waiting < before {
		return nil
	}
	names, err := listSegments(s.settings.Dir)
	if err != nil {
		return err
	}
	if len(names) == 0 || names[0].first <= f.acknowledged {
		// An old file could not be removed, and would be taken for the new one.
		return nil
	}
	s.setLowering(true)
	err = s.commit([]*request{{renumberFrom: stored, landed: func(f *files) { s.noteLowered(f, stored) }}})
	if err == nil {
		s.setLowering(false)
	}
	return err
}

// setLowering says whether it is unknown to which numbers what waits was moved.
func (s *Stage) setLowering(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lowering = on
}

// noteLowered takes the acknowledgement back to where it belongs, and drops the segments with the numbers in between. mu is
// held.
func (s *Stage) noteLowered(f *files, stored uint64) {
	f.acknowledged = stored
	f.gone = nil
	kept := f.segments[:0:0]
	for _, seg := range f.segments {
		if seg.first <= f.produced {
			kept = append(kept, seg)
			continue
		}
		if err := seg.drop(); err != nil {
			s.settings.Logger.Warn("a segment could not be dropped; the next start removes it", slog.Any("error", err))
		}
	}
	f.segments = kept
}
