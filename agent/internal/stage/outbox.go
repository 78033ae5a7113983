package stage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Record is one insight of the outbox, or a run of them that never come.
type Record struct {
	// Seq is its place in the agent's sequence, which starts at 1 and has no gap; that of the first of a run.
	Seq uint64
	// Count is how many places it takes: 1 for an insight.
	Count uint64
	// Payload is what was committed. It is nil when Gone.
	Payload []byte
	// Gone says why the places Seq to Last do not come: GoneDamaged, GoneUnsendable, GoneExpiredAge or GoneExpiredBytes. It is empty for
	// an insight.
	Gone string
}

// Last is the last place in the sequence that the record takes.
func (r *Record) Last() uint64 { return r.Seq + r.Count - 1 }

// idleSegmentBytes is how large the last segment's file may stay when everything in it is acknowledged.
const idleSegmentBytes = 8 << 20

// OutboxChanged gives a channel that receives after records were added. It holds one signal, for one reader.
func (s *Stage) OutboxChanged() <-chan struct{} { return s.changed }

// ReadOutbox gives the records behind the sequence, and behind what is acknowledged, in order: at most maxRecords, and
// no more payload than maxBytes unless the first alone is larger. Each begins where the one before it ended. Places that
// follow each other and are gone for the same reason are one record. Nothing waiting gives no records and no error. Where the
// next one is in a file that is damaged and cannot be salvaged yet, the error wraps ErrBeingRepaired.
func (s *Stage) ReadOutbox(ctx context.Context, after uint64, maxRecords, maxBytes int) ([]Record, error) {
	for {
		if err := s.untilSalvaged(ctx); err != nil && !errors.Is(err, ErrBeingRepaired) {
			return nil, err
		}
		r, err := s.readOutbox(after, maxRecords, maxBytes)
		if r != nil && r.problem != nil {
			if s.suspect(r.problem) {
				continue
			}
			if err == nil && s.isUnsettled() != nil {
				// What is damaged is found out once the disk can be written again.
				err = repairError{r.problem}
			}
		}
		if err != nil {
			return nil, err
		}
		s.noteDamaged(r.damaged)
		s.noteGiven(r.records)
		return r.records, nil
	}
}

// readOutbox reads once. The reader's problem is what turned out to be damaged, or the first record that should be there and is
// not.
func (s *Stage) readOutbox(after uint64, maxRecords, maxBytes int) (*outboxReader, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.files == nil {
		return nil, s.unavailableLocked()
	}
	end := s.pending.behind(s.files.produced)
	r := &outboxReader{next: max(after, s.files.acknowledged) + 1, end: end, maxRecords: maxRecords, maxBytes: maxBytes, known: s.files.damaged, gone: s.files.gone, harmed: &s.harmed}
	err := r.readAll(s.files.segments)
	if d, ok := errors.AsType[*damageError](err); ok {
		r.problem = d
	}
	if errors.Is(err, ErrBeingRepaired) && len(r.records) > 0 {
		return r, nil // what is in front of the damage
	}
	if err != nil {
		return r, err
	}
	r.readPending(s.pending)
	return r, nil
}

// noteDamaged remembers records that are damaged or can never be sent until they are acknowledged, for the count of what was
// lost.
func (s *Stage) noteDamaged(damaged map[uint64]string) {
	if len(damaged) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.files == nil {
		return
	}
	for seq, reason := range damaged {
		if seq > s.files.acknowledged {
			s.files.damaged[seq] = reason
		}
	}
}

// GiveUp says that the record of that sequence can never be sent: it counts as lost, as a damaged one does.
func (s *Stage) GiveUp(seq uint64) { s.noteDamaged(map[uint64]string{seq: GoneUnsendable}) }

// outboxReader collects records across segments and fills the gaps between what is there.
type outboxReader struct {
	next, end            uint64
	gone                 gone
	maxRecords, maxBytes int
	bytes                int
	records              []Record
	// damaged are those that are damaged or can never be sent.
	damaged map[uint64]string
	full    bool
	// known are such that are known; problem is the first other one.
	known   map[uint64]string
	problem *damageError
	// harmed is what nothing is read of; nil for nothing.
	harmed *harmed
}

func (r *outboxReader) readAll(segments []*segment) error {
	r.fill(min(r.gone.end(), r.end))
	for _, seg := range segments {
		if r.full || r.next > r.end {
			return nil
		}
		if seg.empty() || seg.last < r.next {
			continue
		}
		r.fill(min(seg.first-1, r.end))
		if r.full {
			return nil
		}
		if r.harmed != nil && r.harmed.holds(seg.path) {
			return repairError{fmt.Errorf("insight %d is in %s, which is damaged and not salvaged yet", r.next, filepath.Base(seg.path))}
		}
		last := min(seg.last, r.end)
		err := seg.read(r.next, func(seq uint64, payload []byte, ok bool) bool {
			if seq > last {
				return false
			}
			r.skipTo(seg, seq)
			r.add(seg, seq, payload, ok)
			return !r.full
		})
		if err != nil {
			return err
		}
		r.skipTo(seg, last+1)
	}
	r.fill(r.end)
	return nil
}

// fill adds the sequences up to the given one, which are in no segment or do not count any more.
func (r *outboxReader) fill(upTo uint64) {
	for !r.full && r.next <= upTo {
		reason, last := r.gone.at(r.next)
		r.append(Record{Seq: r.next, Count: min(last, upTo) - r.next + 1, Gone: reason})
	}
}

// skipTo adds the sequences in front of the given one, which the segment should have unless it knows that they are lost.
func (r *outboxReader) skipTo(seg *segment, seq uint64) {
	for !r.full && r.next < seq {
		if seg.isLost(r.next) {
			r.append(Record{Seq: r.next, Count: 1, Gone: GoneDamaged})
		} else {
			r.add(seg, r.next, nil, false)
		}
	}
}

func (r *outboxReader) add(seg *segment, seq uint64, payload []byte, ok bool) {
	if r.full {
		return
	}
	if !ok {
		if _, known := r.known[seq]; !known && r.problem == nil {
			r.problem = &damageError{path: seg.path, cause: fmt.Errorf("%w: record %d", ErrDamaged, seq)}
		}
		r.lose(seq, GoneDamaged)
		return
	}
	if len(r.records) > 0 && r.bytes+len(payload) > r.maxBytes {
		r.full = true
		return
	}
	if voidBytes(payload) > 0 {
		r.lose(seq, GoneUnsendable)
		return
	}
	r.bytes += len(payload)
	r.append(Record{Seq: seq, Count: 1, Payload: append(make([]byte, 0, len(payload)), payload...)})
}

// lose adds one that is in a segment and cannot be sent.
func (r *outboxReader) lose(seq uint64, reason string) {
	if r.damaged == nil {
		r.damaged = map[uint64]string{}
	}
	r.damaged[seq] = reason
	r.append(Record{Seq: seq, Count: 1, Gone: reason})
}

func (r *outboxReader) append(rec Record) {
	r.next = rec.Last() + 1
	if n := len(r.records); n > 0 && rec.Gone != "" && r.records[n-1].Gone == rec.Gone {
		r.records[n-1].Count += rec.Count
		return
	}
	r.records = append(r.records, rec)
	r.full = len(r.records) >= r.maxRecords
}

// Acknowledge says that the control plane has stored everything up to the sequence. It is durable with the next commit,
// at the latest when that lets a segment be dropped and the disk can be written; before that a crash only sends some
// records again. ErrBeyondEnd says that there are not so many.
func (s *Stage) Acknowledge(ctx context.Context, upTo uint64) error {
	return s.acknowledge(ctx, upTo, s.sentDoubts())
}

// acknowledge is Acknowledge where what is unsure of it is stored.
func (s *Stage) acknowledge(ctx context.Context, upTo uint64, unsure spans) error {
	store, err := s.moveAcknowledged(upTo, unsure)
	if err != nil || !store || s.isDegraded() != nil {
		return err
	}
	err = s.submit(ctx, &request{apart: true, admit: func(*files) error { return nil }})
	if err != nil && s.isDegraded() != nil {
		// It is noted, and stored by the first commit that succeeds. The sending must not end because of it.
		return nil //nolint:nilerr // Stats.Degraded tells it
	}
	return err
}

// moveAcknowledged notes the acknowledgement in memory and says whether it must be stored: because something can be
// dropped then, or because it counts something as lost.
func (s *Stage) moveAcknowledged(upTo uint64, unsure spans) (store bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files
	switch {
	case f == nil:
		return false, s.unavailableLocked()
	case upTo > f.produced:
		return false, fmt.Errorf("%w: %d was acknowledged and %d is the last", ErrBeyondEnd, upTo, f.produced)
	case upTo <= f.acknowledged:
		return false, nil
	}
	f.unsentFrom = 0
	lost := f.lostBetween(f.acknowledged, upTo)
	lost -= min(lost, unsure.within(f.acknowledged, upTo).count())
	f.lost += lost
	f.unsure = f.unsure.within(upTo, f.produced)
	for seq := range f.damaged {
		if seq <= upTo {
			delete(f.damaged, seq)
		}
	}
	f.acknowledged, f.gone = upTo, f.gone.behind(upTo)
	f.countAcknowledged()
	s.waitingSince = time.Time{}
	s.noteWaiting()
	s.wakeSpace()
	if lost > 0 {
		// Nobody looks at those records again, so after a crash nobody would know.
		return true, nil
	}
	if len(f.segments) == 0 || f.segments[0].last > upTo {
		return false, nil
	}
	if len(f.segments) > 1 {
		return true, nil
	}
	if upTo < f.produced && !f.pending.empty() {
		// What is still in the journal would go into the same segment.
		return false, nil
	}
	size, err := f.segments[0].fileBytes()
	if errors.Is(err, ErrDamaged) {
		return false, nil // it is replaced
	}
	return size > idleSegmentBytes, err
}

// lostBetween counts the sequences behind after, up to and with upTo, that no segment has or that are damaged in it, and
// that no rule has dropped.
func (f *files) lostBetween(after, upTo uint64) uint64 {
	lost := upTo - after - f.gone.between(after, upTo)
	after = max(after, min(f.gone.end(), upTo))
	for _, seg := range f.segments {
		if low, high := max(seg.first, after+1), min(seg.last, upTo); low <= high && !seg.empty() {
			lost -= high - low + 1 - seg.lostBetween(low, high)
		}
	}
	lost -= f.pending.held(after+1, upTo)
	for seq := range f.damaged {
		if seq > after && seq <= upTo {
			lost++
		}
	}
	return lost
}

// countAcknowledged computes acknowledgedBytes.
func (f *files) countAcknowledged() {
	sum := uint64(0)
	for _, seg := range f.segments {
		n, err := seg.bytesUpTo(f.floor())
		if err != nil {
			// Damaged: the count is put right when the segment is dropped.
			continue
		}
		sum += n
	}
	f.acknowledgedBytes = sum + f.pending.bytesUpTo(f.floor())
}

// waitingBytes is what the records take that are not acknowledged.
func (f *files) waitingBytes() uint64 {
	sum := f.pending.waiting()
	for _, seg := range f.segments {
		sum += seg.bytes
	}
	return sum - min(sum, f.acknowledgedBytes)
}

// dropAcknowledged removes the segments that are acknowledged as a whole, except for the last one: its name keeps the
// sequence. mu is held or not yet shared.
func (s *Stage) dropAcknowledged() {
	f := s.files
	for len(f.segments) > 1 && f.segments[0].last <= f.settledStored {
		if err := f.segments[0].drop(); err != nil {
			s.settings.Logger.Warn("a segment could not be dropped; the next start removes it", slog.Any("error", err))
		}
		f.segments = f.segments[1:]
	}
}

// rollActive replaces a large last segment in which nothing waits by an empty one.
func (s *Stage) rollActive() error {
	f := s.files
	if len(f.segments) != 1 || f.segments[0].last > f.settledStored || f.segments[0].empty() {
		return nil
	}
	size, err := f.segments[0].fileBytes()
	if err != nil || size <= idleSegmentBytes {
		return err
	}
	seg, err := createSegment(s.settings.Dir, f.produced+1)
	if err != nil {
		// Nothing is lost by keeping the file, for example because the disk is full.
		s.settings.Logger.Warn("an empty segment could not be made", slog.Any("error", err))
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f.segments = append(f.segments, seg)
	s.dropAcknowledged()
	f.countAcknowledged()
	return nil
}

// acknowledgedMoved says whether there is an acknowledgement that is not on the disk.
func (s *Stage) acknowledgedMoved() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.files != nil && s.files.floor() != s.files.settledStored
}

// noteWaiting keeps waitingSince. mu is held or not yet shared.
func (s *Stage) noteWaiting() {
	switch waiting := s.files.produced > s.files.acknowledged; {
	case !waiting:
		s.waitingSince = time.Time{}
	case s.waitingSince.IsZero():
		s.waitingSince = time.Now()
	}
}

// Reconcile compares what the control plane has stored with what is here, when a session begins, and gives the sequence
// behind which to send.
//
// Where the control plane has less than it once acknowledged, its database went back: those insights are no longer here
// either, and are counted in Stats.LostRemotely once. Where it has more than it can have from here, this directory went
// back (see wentBack), also when what was staged since then has the numbers of what it has: that is told in
// Stats.Damaged, what was here at the start counts as stored, and the rest gets new sequences behind the control plane's.
//
// lost is how many of those up to stored it knows to be lost here, by receipts, nil where it does not say. That counts, whatever
// has happened to the files: see settleLost.
func (s *Stage) Reconcile(ctx context.Context, stored uint64, lost *uint64) (after uint64, err error) {
	unsure := s.doubts()
	after, err = s.reconcile(ctx, stored, unsure)
	if err != nil {
		return 0, err
	}
	s.settleDoubts(stored, unsure)
	if lost != nil {
		s.settleLost(stored, *lost)
	}
	return after, s.agree(ctx)
}

func (s *Stage) reconcile(ctx context.Context, stored uint64, unsure spans) (after uint64, err error) {
	s.mu.RLock()
	lowering := s.lowering
	s.mu.RUnlock()
	if lowering {
		if err := s.settled(ctx); err != nil {
			return 0, err
		}
	}
	s.mu.RLock()
	if s.files == nil {
		s.mu.RUnlock()
		return 0, s.unavailable()
	}
	acknowledged, reach := s.files.acknowledged, s.reach()
	s.mu.RUnlock()
	switch {
	case stored > reach:
		return s.wentBack(ctx, stored)
	case stored < acknowledged:
		s.noteRemoteLoss(stored)
		return acknowledged, nil
	}
	s.mu.Lock()
	if s.files != nil {
		s.files.remoteStored = 0
	}
	s.mu.Unlock()
	return stored, s.acknowledge(ctx, stored, unsure)
}

// noteRemoteLoss counts what the control plane has lost, once for each time that it went back.
func (s *Stage) noteRemoteLoss(stored uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files
	if f == nil || f.remoteStored == stored+1 {
		return
	}
	f.remoteStored = stored + 1
	f.lostRemotely += f.acknowledged - stored
	s.settings.Logger.Error("the control plane no longer has insights that it had acknowledged",
		slog.Uint64("stored", stored), slog.Uint64("acknowledged", f.acknowledged))
}

// renumberPage is how many records are moved at a time.
const renumberPage = 10_000

// renumber writes what the control plane cannot have once more, behind the given sequence.
func (s *Stage) renumber(next *meta, base uint64) ([]appended, error) {
	var parts []appended
	s.mu.RLock()
	from, seq := s.reach(), base+1
	// What is unsure and can be stored is taken for stored, as the rest is.
	lost := s.files.lostBetween(next.acknowledged, from)
	next.lost += lost - min(lost, next.unsure.within(next.acknowledged, from).count())
	s.mu.RUnlock()
	old := s.files.segments
	for from < next.produced {
		r := &outboxReader{next: from + 1, end: next.produced, gone: next.gone, maxRecords: renumberPage, maxBytes: maxAppendBytes}
		if err := r.readAll(old); err != nil {
			return nil, err
		}
		var payloads [][]byte
		for _, rec := range r.records {
			switch rec.Gone {
			case "":
				payloads = append(payloads, rec.Payload)
			case GoneDamaged, GoneUnsendable:
				// They get no number.
				next.lost += rec.Count
				next.apart += rec.Count
			}
		}
		var err error
		if parts, err = s.writeOutbox(seq, parts, payloads); err != nil {
			return nil, err
		}
		seq += uint64(len(payloads))
		from = r.next - 1
	}
	next.acknowledged, next.produced, next.gone, next.ages = base, seq-1, nil, nil
	next.unsure = nil
	return parts, nil
}

// settled lets the writer find out what a failed commit left behind, if there was one.
func (s *Stage) settled(ctx context.Context) error {
	if s.isUnsettled() == nil {
		return nil
	}
	return s.submit(ctx, &request{admit: func(*files) error { return errDone }})
}

// untilSalvaged lets the writer salvage what is damaged, if anything is.
func (s *Stage) untilSalvaged(ctx context.Context) error {
	if !errors.Is(s.isUnsettled(), ErrBeingRepaired) {
		return nil
	}
	return s.settled(ctx)
}

// unavailable says why there are no files.
func (s *Stage) unavailable() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.unavailableLocked()
}

func (s *Stage) unavailableLocked() error {
	if s.unsettled != nil {
		return s.unsettled
	}
	return ErrClosed
}

// view reads the state. After a failed commit that may be what it wrote or what was there before. Where that shows it to be
// damaged it is salvaged and read again; until then the error wraps ErrBeingRepaired.
func (s *Stage) view(ctx context.Context, fn func(*bolt.Tx) error) error {
	for {
		if err := s.untilSalvaged(ctx); err != nil && !errors.Is(err, ErrBeingRepaired) {
			return err
		}
		err := s.viewOnce(fn)
		if !errors.Is(err, ErrDamaged) || errors.Is(err, ErrBeingRepaired) {
			return err
		}
		if !s.suspect(&damageError{path: filepath.Join(s.settings.Dir, stateName), cause: err}) {
			return err
		}
	}
}

func (s *Stage) viewOnce(fn func(*bolt.Tx) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.files == nil {
		return s.unavailableLocked()
	}
	if s.harmed.holds(s.files.state.path) {
		return repairError{fmt.Errorf("%s is damaged and not salvaged yet", s.files.state.path)}
	}
	if err := s.files.state.View(fn); err != nil {
		return fmt.Errorf("read the staged state: %w", err)
	}
	return nil
}
