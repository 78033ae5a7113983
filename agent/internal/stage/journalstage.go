package stage

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// foldAfter is how long something may be in the journal alone. What is in it is as safe as in state.db; but a start is
// shorter, and less is sent again after a crash, when it does not grow old there.
const foldAfter = 15 * time.Second

func newPending(epoch uint64) *pending {
	return &pending{epoch: epoch, flows: map[string]*pendingFlow{}}
}

// newStoppedTimer gives a timer that does not run yet.
func newStoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// journalSize is the size of a journal, negative for a stage without.
func (s *Settings) journalSize() int64 {
	if s.journalBytes != 0 {
		return int64(s.journalBytes)
	}
	return journalBytes
}

// readJournal reads the journal for a start, once the state is open and before the segments are: its frames prove what of
// those has counted. Later on what the journal alone has is in memory.
func (s *Stage) readJournal(f *files) error {
	if s.found != nil {
		return s.found.read(filepath.Join(s.settings.Dir, journalName), f)
	}
	f.proven = s.pending.base
	if f.uncertain && s.journal != nil {
		// A state that is made anew must lead to it.
		f.journal, f.epoch = s.journal.id, s.pending.epoch
	}
	return nil
}

// read reads the file, if there is one and something can be in it.
func (c *journalContent) read(path string, f *files) error {
	there, err := exists(path)
	if err != nil {
		return err
	}
	if c.absent = !there; c.absent {
		c.id, c.mark = f.journal, newestMark(c.marks, f.journal)
		if f.journal != 0 && c.unclean {
			c.problem = damaged("the journal is missing")
		}
		return nil
	}
	if c.data, c.length, err = readJournalFile(path); err != nil {
		return err
	}
	if err := c.identify(f); err != nil || c.stale {
		return err
	}
	// After a clean stop it finds none.
	c.scan(f.epoch)
	if f.journal == 0 {
		// A state that is made anew must lead to it.
		f.journal, f.epoch = c.id, c.epoch
	}
	if len(c.frames) > 0 && c.frames[0].number == 1 && c.epoch > f.epoch {
		f.proven = c.frames[0].base
	}
	return nil
}

// identify finds out by the head whether it is the journal that belongs to the state.
func (c *journalContent) identify(f *files) error {
	id, size, err := parseJournalHead(c.data)
	if errors.Is(err, ErrDamaged) {
		if again, of, copyErr := parseJournalHead(c.data[max(0, len(c.data)-journalHeadBytes):]); copyErr == nil {
			c.problem, id, size, err = err, again, of, nil
		}
	}
	switch {
	case errors.Is(err, ErrNewerFormat):
		return err
	case f.journal == 0 && !f.uncertain:
		// The state does not know it: whoever made it came no further, or had given it up.
		c.stale, c.data = true, nil
		return nil
	case err != nil:
		c.problem, id = err, cmp.Or(f.journal, newestMark(c.marks, 0).id)
	case f.journal != 0 && id != f.journal:
		c.problem, id = damaged("the journal is not the one that belongs to state.db"), f.journal
	case c.length != size:
		c.problem = damaged("the journal has %d bytes and should have %d", c.length, size)
	}
	c.id, c.size, c.mark = id, size, newestMark(c.marks, id)
	return nil
}

// recoverJournal takes in what the journal of an earlier process has. mended says that state.db must take note of it.
func (s *Stage) recoverJournal(ctx context.Context, f *files) (mended bool, err error) {
	c, path := s.found, filepath.Join(s.settings.Dir, journalName)
	s.found = nil
	f.pending = newPending(max(f.epoch, c.epoch))
	if c.claims(f.epoch) {
		f.pending.epoch = max(f.pending.epoch, c.mark.epoch)
	}
	r, err := f.replay(c)
	if err != nil {
		return false, err
	}
	f.epoch = f.pending.epoch
	switch {
	case c.stale:
		return false, remove(path)
	case r.problem != nil:
		return true, s.setJournalAside(ctx, f, c, &r)
	case c.absent:
		return f.journal != 0, nil
	}
	s.journal = &journal{path: path, id: c.id, size: c.size}
	if err := s.journal.open(); err != nil {
		return false, err
	}
	s.journal.begin(f.epoch)
	// A frame of the epoch that is there is never written over.
	return c.unclean || len(c.frames) > 0 || !f.pending.empty(), nil
}

// setJournalAside keeps a damaged journal for a person and lets a new one take its place once state.db has what was in it.
func (s *Stage) setJournalAside(ctx context.Context, f *files, c *journalContent, r *replayed) error {
	path := filepath.Join(s.settings.Dir, journalName)
	if err := s.settings.roomFor("to set the damaged journal aside", 0); err != nil {
		return err
	}
	// What was in the part that is gone cannot be told.
	r.unknown = r.unknown || c.unclean && (len(c.frames) == 0 || int64(len(c.data)) < c.size)
	if c.absent {
		// There is nothing to keep, and yet somebody should see it.
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			return err //nolint:wrapcheck // it names the file
		}
	}
	d, err := keep(path, DamagedFile{Reason: r.problem.Error(), Salvaged: r.salvaged, Lost: r.lost, SetBack: r.flows()})
	if err != nil {
		return err
	}
	f.setAside++
	f.salvaged += r.salvaged
	s.journal = &journal{path: path, broken: true}
	s.settings.Logger.ErrorContext(ctx, "the journal of the staging area is damaged; what is whole in it is used", slog.String("file", d.File), slog.Any("error", r.problem),
		slog.Uint64("records_salvaged", r.salvaged), slog.Uint64("records_lost", r.lost), slog.Any("set_back", r.flows()))
	return nil
}

// keepJournal makes a journal when there is none and the disk has room for it. Without one each commit is written in place.
func (s *Stage) keepJournal() {
	size := s.settings.journalSize()
	if s.journal != nil || size < 0 || s.isUnsettled() != nil || s.isDegraded() != nil {
		return
	}
	s.journalLooked = time.Now()
	free, err := s.disk.free(s.settings)
	if err == nil && free >= s.settings.MinFreeBytes+uint64(size) {
		if s.journal, err = createJournal(s.settings.Dir, size); err == nil {
			_ = s.commit(nil) // it has noted why not, and is tried again
		}
	}
	if err != nil {
		s.journal = nil
		s.settings.Logger.Debug("no journal can be made", slog.Any("error", err))
	}
}

// restoreJournal is for the writer, after what it does.
func (s *Stage) restoreJournal() {
	if s.journal == nil && time.Since(s.journalLooked) >= spareEvery {
		s.keepJournal()
	}
}

// takesJournal says whether the journal takes the whole batch.
func (s *Stage) takesJournal(batch []*request) bool {
	return s.journal.ready() && !slices.ContainsFunc(batch, func(r *request) bool { return r.state == nil })
}

// journalAll stores the requests in the journal and answers each.
func (s *Stage) journalAll(batch []*request) {
	for len(batch) > 0 {
		n, size := 0, frameFixedBytes
		for n < len(batch) && (n == 0 || size+batch[n].frameBytes() <= maxFrameBytes) {
			size += batch[n].frameBytes()
			n++
		}
		var err error
		if !s.journal.fits(size) || s.pending.entries > maxPendingEntries {
			err = s.commit(nil)
		}
		switch {
		case err != nil:
		case s.journal.ready() && s.journal.fits(size):
			err = s.journalSome(batch[:n])
		default:
			err = s.commit(batch[:n])
		}
		for _, r := range batch[:n] {
			r.answer(err)
		}
		batch = batch[n:]
		if err != nil {
			for _, r := range batch {
				r.answer(err)
			}
			return
		}
	}
}

// journalSome stores the requests as one frame.
func (s *Stage) journalSome(batch []*request) error {
	base := s.files.produced
	err := s.at("journal")
	if err == nil {
		err = s.journal.append(batch, base)
	}
	if err == nil {
		s.noteLanded(batch, base)
		err = s.at("journal landed")
	}
	if err != nil {
		s.journal.broken = true
		return s.fail(batch, err)
	}
	s.trouble.tries = 0
	s.landJournaled(batch)
	return nil
}

// noteLanded marks the frame that has just landed, before anybody is told of it, so that it is missed should it be damaged.
// Without the mark it is as safe, so that nothing fails for want of it.
func (s *Stage) noteLanded(batch []*request, base uint64) {
	j, last := s.journal, base
	for _, r := range batch {
		last += uint64(len(r.payloads))
	}
	err := s.running.note(landedMark{id: j.id, epoch: j.epoch, number: j.number, end: uint64(j.at), last: last}) //nolint:gosec // it is not negative
	if err != nil && !s.running.failed {
		s.settings.Logger.Warn("damage to the newest commits would not be noticed", slog.Any("error", err))
	}
	s.running.failed = err != nil
}

// landJournaled notes a frame that is on the disk.
func (s *Stage) landJournaled(batch []*request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, p := s.files, s.pending
	if p.empty() {
		s.folding.Reset(foldAfter)
	}
	added := false
	for _, r := range batch {
		if n := uint64(len(r.payloads)); n > 0 {
			p.addRun(runOf(f.produced+1, r.payloads, r.bytes))
			f.produced += n
			added = true
		}
		r.lastSeq = f.produced
		r.mark.lastSeq = f.produced
		f.noteVoids(r.voidSeqs())
		before := f.marks[r.flow]
		// It cannot fail on what was just made.
		_ = p.add(r.flow, before, r.mark, r.late, r.state)
		r.mark.content = before.content
		f.marks[r.flow] = r.mark
		f.late += r.late
	}
	s.noteAge(&f.meta)
	s.noteWaiting()
	s.growth.observe(time.Now(), f.waitingBytes())
	if added {
		s.signalChanged()
	}
}

// runOf copies payloads.
func runOf(first uint64, payloads [][]byte, bytes int) pendingRun {
	data := make([]byte, 0, bytes)
	for _, p := range payloads {
		// Nobody looks for frames in memory, so that they need neither a sequence nor checksums.
		data = binary.LittleEndian.AppendUint32(data, uint32(len(p))) //nolint:gosec // at most MaxRecordBytes
		data = append(append(data, make([]byte, frameHeaderBytes-4)...), p...)
	}
	return pendingRun{first: first, last: first + uint64(len(payloads)) - 1, data: data}
}

// foldPending lets state.db take in what the journal has, when that has become old.
func (s *Stage) foldPending() {
	if s.isUnsettled() == nil && s.isDegraded() == nil && !s.pending.empty() {
		_ = s.commit(nil) // it has noted why not, and is tried again
	}
}

// adopt puts what the journal alone has on top of files that were read again. mu is held.
func (s *Stage) adopt(f *files) {
	p := s.pending
	landed := f.epoch > p.epoch
	f.pending, f.epoch = p, max(f.epoch, p.epoch)
	if landed || p.empty() {
		s.pending = newPending(f.epoch)
		f.pending = s.pending
		if !landed {
			f.pending.base, f.pending.last = p.base, p.last
		}
		s.keepNumbers(f)
		return
	}
	var setBack []string
	for name, flow := range p.flows {
		if m := f.marks[name]; m.number == flow.now.number && m.sum == flow.now.sum {
			// It was taken in before the commit failed.
			p.drop([]string{name})
			continue
		} else if m != flow.before {
			setBack = append(setBack, name)
			delete(p.flows, name)
			continue
		}
		f.marks[name] = flow.now
	}
	p.trim(f.produced)
	s.keepNumbers(f)
	f.late += p.late
	if len(setBack) > 0 {
		s.noteSetBack(setBack)
	}
}

// keepNumbers lets the numbers go on where they were. What was acknowledged may be neither in the journal's memory nor in the
// files, and yet none of its numbers may be used again: the control plane would take what gets it for stored. What is missing
// behind that is lost. mu is held.
func (s *Stage) keepNumbers(f *files) {
	p := f.pending
	if !s.lowering {
		f.produced = max(f.produced, s.carry.acknowledged)
	}
	if len(p.runs) > 0 {
		if gap := (pendingRun{first: f.produced + 1, last: p.runs[0].first - 1}); gap.first <= gap.last {
			p.runs = slices.Insert(p.runs, 0, gap)
		}
	}
	f.produced = max(f.produced, p.last)
}

// noteSetBack tells that flows cannot go on from what the journal has, because the state below it was damaged. mu is held.
func (s *Stage) noteSetBack(flows []string) {
	slices.Sort(flows)
	s.settings.Logger.Error("flows repeat what they had read, because their state was damaged", slog.Any("set_back", flows))
	s.damaged = slices.Clone(s.damaged)
	for i := range s.damaged {
		d := &s.damaged[i]
		if !strings.HasPrefix(d.File, stateName+corruptInfix) {
			continue
		}
		for _, name := range flows {
			if !slices.Contains(d.SetBack, name) && !slices.Contains(d.StartedAnew, name) {
				d.SetBack = append(slices.Clip(d.SetBack), name)
			}
		}
		if err := d.describe(s.settings.Dir); err != nil {
			s.settings.Logger.Warn("what happened to a damaged file could not be noted beside it", slog.Any("error", err))
		}
		return
	}
}

// discardJournal removes a journal that state.db does without. The writer calls it.
func (s *Stage) discardJournal() {
	err := s.journal.close()
	if removeErr := os.Remove(s.journal.path); !errors.Is(removeErr, fs.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	if err != nil {
		s.settings.Logger.Warn("a journal that was given up could not be removed; the next start does", slog.Any("error", err))
	}
	s.journal, s.journalLooked = nil, time.Now()
}
