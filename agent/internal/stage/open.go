package stage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"
)

// openFiles opens every file and finds what counts. It writes only to make a state.db that is missing, and to salvage what
// is damaged: what was found to be before, and what turns out to be while it is opened. What it could not salvage is kept in mind.
func (s *Stage) openFiles(ctx context.Context) (*files, error) {
	f, found := &files{damaged: map[uint64]string{}, marks: map[string]mark{}}, s.harmed.found
	err := f.openState(ctx, s, found)
	if err == nil {
		err = s.readJournal(f)
	}
	if err == nil {
		err = f.openSegments(ctx, s, found)
	}
	if err == nil {
		err = f.checkOrigin(&s.settings)
	}
	if err == nil {
		err = f.begin(&s.settings)
	}
	if err != nil {
		s.harmed.fell(f)
		for _, path := range f.passing {
			err = errors.Join(err, remove(path))
		}
		return nil, errors.Join(err, f.close())
	}
	clear(found)
	f.settledStored = f.floor()
	f.countAcknowledged()
	return f, nil
}

// openState opens state.db, if there is one, and a salvaged one in the place of a damaged one.
func (f *files) openState(ctx context.Context, s *Stage, found map[string]error) error {
	path := filepath.Join(s.settings.Dir, stateName)
	there, err := exists(path)
	if err != nil {
		return err
	}
	if !there {
		return f.missingState(ctx, s)
	}
	reason := found[path]
	if reason == nil {
		if err = f.loadState(path); !errors.Is(err, ErrDamaged) {
			return err
		}
		reason = errors.Join(err, f.close())
		found[path] = reason
	}
	f.meta, f.marks = meta{}, map[string]mark{}
	s.settings.Logger.ErrorContext(ctx, "the staged state is damaged; what is whole in it is salvaged", slog.String("file", path), slog.Any("error", reason))
	kept, err := countKept(s.settings.Dir)
	if err != nil {
		return err
	}
	d, err := s.salvageStateFile(ctx, path, reason)
	if err != nil {
		return err
	}
	delete(found, path)
	if there, err = exists(path); err == nil && there {
		err = f.loadState(path)
	} else {
		f.uncertain = true
		d.StartedAnew = []string{unknownFlow}
	}
	if err != nil {
		return err
	}
	f.countAtLeast(&kept)
	if f.uncertain {
		d.Reason += "; what was counted before it is known as far as it can still be read, so that the counters of what was lost and salvaged may be too low"
	}
	if f.restored != nil {
		d.StartedAnew, d.SetBack = f.restored.StartedAnew, f.restored.SetBack
	}
	if len(d.StartedAnew)+len(d.SetBack) > 0 {
		s.settings.Logger.ErrorContext(ctx, "flows repeat what they had read, because their state was damaged",
			slog.Any("started_anew", d.StartedAnew), slog.Any("set_back", d.SetBack))
	}
	f.setAside++
	f.repaired = true
	return d.describe(s.settings.Dir)
}

// stateGrowth is by how much bbolt lets state.db grow at a time.
const stateGrowth = 256 << 10

// loadState opens a state.db and reads what concerns all flows.
func (f *files) loadState(path string) error {
	db, err := openDatabase(path, mmapBytes)
	if err != nil {
		return err
	}
	f.state, db.AllocSize = db, stateGrowth
	err = db.View(func(tx *bolt.Tx) error {
		if f.meta, err = readMeta(tx); err != nil {
			return err
		}
		f.stored = f.meta
		if f.origin, err = readOrigin(tx); err != nil {
			return err
		}
		if f.marks, err = readMarks(tx, f.markSum); err != nil {
			return err
		}
		text, err := getSealed(tx.Bucket([]byte(metaBucket)), []byte(salvageKey))
		if errors.Is(err, errAbsent) {
			return nil
		}
		if err != nil {
			return err
		}
		f.restored = &salvagedState{}
		if err := json.Unmarshal(text, f.restored); err != nil {
			return damaged("what a salvage says of it: %v", err)
		}
		f.uncertain = !f.restored.Certain
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// opening is a segment that is about to be opened.
type opening struct {
	segmentName
	// end is the last sequence that may count in it, or the highest number when nothing says.
	end uint64
	// damaged is what happened to the file that this one takes the place of; nil for nothing. gone says that nothing could
	// take its place.
	damaged *DamagedFile
	gone    bool
}

// openSegments opens the outbox. Without a state everything in it counts, because nothing says otherwise.
func (f *files) openSegments(ctx context.Context, s *Stage, found map[string]error) error {
	list, err := f.listOpenings(ctx, s, found)
	if err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(verifiedAtOnce)
	for i := range list {
		if reason := found[list[i].path]; reason != nil {
			group.Go(func() error { return s.salvageSegmentFile(groupCtx, &list[i], reason) })
		}
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("salvage the outbox: %w", err)
	}
	for i := range list {
		if err := f.openOne(ctx, s, &list[i], found); err != nil {
			return err
		}
	}
	if f.uncertain && len(f.segments) > 0 {
		last := f.segments[len(f.segments)-1]
		f.produced = max(f.produced, last.last)
		f.acknowledged = max(f.acknowledged, f.segments[0].first-1)
		f.foundLost(last.last+1, f.produced)
		if err := last.loseUpTo(f.produced); err != nil {
			return err
		}
	}
	f.produced = max(f.produced, f.acknowledged)
	for i := range list {
		if err := f.account(s, &list[i]); err != nil {
			return err
		}
	}
	return nil
}

// listOpenings lists the segments and what may count in each of them.
func (f *files) listOpenings(ctx context.Context, s *Stage, found map[string]error) ([]opening, error) {
	names, err := listSegments(s.settings.Dir)
	if err == nil {
		names, err = removeReplaced(names)
	}
	if err != nil {
		return nil, err
	}
	end := ^uint64(0)
	if !f.uncertain {
		if base := max(lastBase(names, found, s.found.aheadUpTo(f.epoch)), f.proven); base > f.produced {
			s.settings.Logger.ErrorContext(ctx, "state.db is older than the outbox: flows repeat what they had read since",
				slog.Uint64("state", f.produced), slog.Uint64("outbox", base))
			f.produced = base
			if err := f.tellOlderState(s); err != nil {
				return nil, err
			}
		}
		end = f.produced
	}
	if names, err = f.replaceMissing(ctx, s, names); err != nil {
		return nil, err
	}
	var list []opening
	for i, name := range names {
		// Behind the end is what did not land.
		if end < ^uint64(0) && name.first > end+1 || f.needless(names[i:], found) {
			if err := remove(name.path); err != nil {
				return nil, err
			}
			continue
		}
		o := opening{segmentName: name, end: end}
		if i+1 < len(names) {
			o.end = min(end, names[i+1].first-1)
		}
		list = append(list, o)
	}
	return list, nil
}

// needless says whether everything in front of the second segment is acknowledged. The first can then have records of a commit
// that failed, of which the next one found some acknowledged and began behind them: it must not be taken for damaged.
func (f *files) needless(names []segmentName, found map[string]error) bool {
	return !f.uncertain && len(names) > 1 && names[1].first-1 <= f.floor() && found[names[0].path] == nil
}

// lastBase is the last sequence that the outbox proves to have counted. What it has up to the sequence acknowledged has
// counted too. What is damaged is added to found.
func lastBase(names []segmentName, found map[string]error, acknowledged uint64) uint64 {
	for _, name := range slices.Backward(names) {
		if found[name.path] != nil {
			continue
		}
		seg, err := openSegment(name, ^uint64(0))
		if errors.Is(err, ErrDamaged) {
			// bbolt may have it locked for ever now.
			found[name.path] = err
		}
		if err != nil {
			continue
		}
		base, _ := max(seg.base, min(seg.last, acknowledged)), seg.db.Close()
		if base > 0 {
			return base
		}
	}
	return 0
}

// openOne opens a segment, and salvages it when that shows it to be damaged, or not to have what it should.
func (f *files) openOne(ctx context.Context, s *Stage, o *opening, found map[string]error) error {
	if o.gone {
		return nil
	}
	seg, err := openSegment(o.segmentName, o.end)
	if err == nil && o.end < ^uint64(0) && seg.last < o.end && o.end > f.acknowledged {
		err = errors.Join(damaged("the records %d to %d are missing in it", seg.last+1, o.end), seg.db.Close())
	}
	if err == nil && o.end == ^uint64(0) {
		err = seg.holdsAll(s.found.upTo(f.epoch))
	}
	if errors.Is(err, ErrDamaged) {
		found[o.path] = err
		if err = s.salvageSegmentFile(ctx, o, err); err != nil || o.gone {
			return err
		}
		seg, err = openSegment(o.segmentName, o.end)
	}
	if err != nil {
		return err
	}
	f.segments = append(f.segments, seg)
	return nil
}

// holdsAll looks for records up to a sequence in the bytes of a segment that its tree does not lead to, because nothing else
// says where the segment should end: with the newest head gone, it is whole as it was a commit before. It closes a segment
// that has such. Where a head is gone all that it has is taken for acknowledged: what was not comes twice at worst.
func (s *segment) holdsAll(upTo uint64) error {
	_, first := s.db.heads.head(0)
	_, second := s.db.heads.head(s.db.heads.pageSize)
	if !first || !second {
		upTo = ^uint64(0)
	}
	if s.last >= upTo {
		return nil
	}
	data, err := readRaw(s.path, maxFileBytes)
	if err == nil {
		if frames := findFrames(s.segmentName, data, upTo); len(frames) > 0 && frames[len(frames)-1].seq > s.last {
			err = damaged("the records %d to %d are in it and nothing leads to them", s.last+1, frames[len(frames)-1].seq)
		}
	}
	if err != nil {
		return errors.Join(err, s.db.Close())
	}
	return nil
}

// account counts what a damaged segment has cost.
func (f *files) account(s *Stage, o *opening) error {
	if o.damaged == nil {
		return nil
	}
	f.setAside++
	f.repaired = true
	for _, seg := range f.segments {
		low, high := max(seg.first, f.acknowledged+1), min(seg.last, f.produced)
		if seg.first != o.first || low > high {
			continue
		}
		for _, gap := range spans(seg.lost).within(low-1, high) {
			f.foundLost(gap.first, gap.last)
		}
		o.damaged.Lost = seg.lostBetween(low, high)
		o.damaged.Salvaged = high - low + 1 - o.damaged.Lost
		f.salvaged += o.damaged.Salvaged
	}
	if o.gone && o.end < ^uint64(0) && o.end > f.acknowledged {
		f.foundLost(o.first, o.end)
		o.damaged.Lost = o.end - max(o.first-1, f.acknowledged)
	}
	s.settings.Logger.Error("a damaged part of the outbox was set aside", slog.String("file", o.damaged.File),
		slog.Uint64("records_salvaged", o.damaged.Salvaged), slog.Uint64("records_lost", o.damaged.Lost))
	return o.damaged.describe(s.settings.Dir)
}

// begin makes a state.db that continues behind the outbox, where there is none, and stores what salvages have changed and
// whose directory this is.
func (f *files) begin(set *Settings) error {
	path := filepath.Join(set.Dir, stateName)
	f.listed = f.firsts()
	f.unsure = f.unsure.all(f.fresh)
	own := set.origin()
	own.owner = cmp.Or(own.owner, f.origin.owner)
	if f.state == nil {
		f.markSum = 0
		if err := createState(path, f.meta, own); err != nil {
			return err
		}
		return f.loadState(path)
	}
	if !f.repaired && f.restored == nil && f.origin == own {
		f.listed = f.stored.listed
		return nil
	}
	err := f.state.Update(func(tx *bolt.Tx) error {
		if err := tx.Bucket([]byte(metaBucket)).Delete([]byte(salvageKey)); err != nil {
			return fmt.Errorf("take note of a salvage: %w", err)
		}
		if err := putOrigin(tx, own); err != nil {
			return err
		}
		return f.put(tx, &sealer{}, nil)
	})
	if err != nil {
		return fmt.Errorf("store what a salvage has changed: %w", err)
	}
	f.stored, f.restored, f.origin = f.meta, nil, own
	return nil
}

// closeLast makes sure that nothing is appended to a segment that may hold half of a commit.
func (f *files) closeLast() {
	if n := len(f.segments); n > 0 {
		f.segments[n-1].closed = true
	}
}

func (f *files) lastClosed() bool {
	n := len(f.segments)
	return n > 0 && f.segments[n-1].closed
}

// renewLast writes a small closed segment anew, so that it can be appended to. The writer calls it.
func (s *Stage) renewLast() error {
	n := len(s.files.segments)
	if n == 0 || !s.files.lastClosed() || s.files.segments[n-1].bytes > smallSegmentBytes {
		return nil
	}
	old := s.files.segments[n-1]
	fresh, err := old.renew()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.files.segments[n-1] = fresh
	s.mu.Unlock()
	if err := old.drop(); err != nil {
		s.settings.Logger.Warn("a segment that was replaced could not be dropped; the next start removes it", slog.Any("error", err))
	}
	return nil
}

// salvageOne runs one salvage within its time.
func (s *Settings) salvageOne(ctx context.Context, path, target string, end uint64) error {
	if err := remove(target); err != nil {
		return err
	}
	if err := s.roomToSalvage(path); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, salvageTimeout)
	defer cancel()
	if err := s.Salvage(limited, path, target, end); err != nil {
		return errors.Join(err, remove(target))
	}
	return nil
}

// salvageStateFile puts a salvaged state.db in the place of the damaged one, or none when even the salvage fails on it.
func (s *Stage) salvageStateFile(ctx context.Context, path string, reason error) (*DamagedFile, error) {
	err := s.settings.salvageOne(ctx, path, path+newSuffix, ^uint64(0))
	if err != nil && !errors.Is(err, ErrDamaged) {
		return nil, err
	}
	if err != nil {
		s.settings.Logger.ErrorContext(ctx, "nothing could be salvaged", slog.String("file", path), slog.Any("error", err))
		return quarantine(path, DamagedFile{Reason: reason.Error()})
	}
	// Until the new one has its name the old one keeps it too.
	d, err := keep(path, DamagedFile{Reason: reason.Error()})
	if err != nil {
		return nil, err
	}
	return d, publish(path+newSuffix, path)
}

// salvageSegmentFile puts a salvaged segment in the place of a damaged one. When even the salvage fails on it, all of its
// records are lost.
func (s *Stage) salvageSegmentFile(ctx context.Context, o *opening, reason error) error {
	s.settings.Logger.ErrorContext(ctx, "a part of the outbox is damaged; what is whole in it is salvaged", slog.String("file", o.path), slog.Any("error", reason))
	to := o.successor()
	err := s.settings.salvageOne(ctx, o.path, to.path+newSuffix, o.end)
	switch {
	case err == nil:
		err = publish(to.path+newSuffix, to.path)
	case errors.Is(err, ErrDamaged):
		s.settings.Logger.ErrorContext(ctx, "nothing could be salvaged", slog.String("file", o.path), slog.Any("error", err))
		if o.gone = o.end == ^uint64(0) || o.end < o.first; o.gone {
			err = nil
			break
		}
		var empty *segment
		empty, err = createNamed(to, func(tx *bolt.Tx) error { return putLost(tx, []span{{first: o.first, last: o.end}}) })
		if err == nil {
			err = empty.db.Close()
		}
	}
	if err != nil {
		return err
	}
	o.damaged, err = quarantine(o.path, DamagedFile{Reason: reason.Error()})
	o.segmentName = to
	return err
}
