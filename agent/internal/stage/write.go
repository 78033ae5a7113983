package stage

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// request is one thing for the writer to do. Requests that wait at the same time become one commit.
type request struct {
	// flow is not empty for what may not share a commit with another request of the same flow.
	flow     string
	payloads [][]byte
	// earlier are payloads before those that are read while they are written; nil for none.
	earlier iter.Seq2[[]byte, error]
	bytes   int
	// admit looks at what is stored; it may refuse, or say with errDone that nothing is left to write.
	admit func(*files) error
	// apply adds to the transaction of the state; lastSeq is set by then.
	apply func(*bolt.Tx, *meta) error
	// landed notes in memory what apply wrote.
	landed  func(*files)
	lastSeq uint64
	// state is what the journal takes of a checkpoint, with the rest below; nil for what goes in place. before is the sum of the
	// flow's mark in front of it. buf has the state's memory.
	state  []byte
	buf    *commitBuffer
	mark   mark
	before uint32
	late   uint64
	// voids are the places among its insights, from 1 on, of those that were too large, and count is how many there are.
	voids []uint64
	count uint64
	// apart says that it is about no flow and no insight, so that it may come behind commits that were asked for with it.
	apart bool
	// folded says that admit needs everything in the segments.
	folded bool
	// renumberFrom is not 0 for a renumbering of the outbox, which has a commit of its own.
	renumberFrom uint64
	// then comes right after its commit, in front of any other; nil for nothing.
	then func() error
	done chan error
	// release gives back what was reserved for the request, once it is answered or will never be taken; nil for nothing.
	release func()
}

// answer ends the request.
func (r *request) answer(err error) {
	if r.release != nil {
		r.release()
	}
	r.done <- err
}

// errDone says that a request needs nothing to be written.
var errDone = errors.New("done already")

// maxMerged is how many requests one commit takes.
const maxMerged = 256

// submit hands a request to the writer and waits for its outcome. ctx ends the wait; a request that the writer has
// taken by then goes on, so that its outcome is unknown and what it refers to must stay as it is.
func (s *Stage) submit(ctx context.Context, r *request) error {
	if r.done == nil {
		r.done = make(chan error, 1)
	}
	var err error
	select {
	case s.requests <- r:
		select {
		case err = <-r.done:
			return err
		case <-ctx.Done():
			return fmt.Errorf("the staging area is still being written: %w", context.Cause(ctx))
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-s.closing:
		err = ErrClosed
	}
	if r.release != nil {
		r.release()
	}
	return err
}

// write is the writer. It ends when Close is called and nothing is half done.
func (s *Stage) write() {
	var old <-chan time.Time
	if s.settings.MaxAge > 0 {
		tick := time.NewTicker(s.settings.ageStep())
		defer tick.Stop()
		old = tick.C
	}
	var held *request
	for {
		first := held
		if first == nil {
			select {
			case first = <-s.requests:
			case <-s.trouble.timer.C:
				_ = s.mend() // it has noted why not, and tries again
				continue
			case <-old:
				s.expireByAge()
				continue
			case <-s.look:
				s.lookAtDisk()
				if s.isUnsettled() != nil {
					_ = s.mend() // it has noted why not, and tries again
				}
				continue
			case <-s.folding.C:
				s.foldPending()
				continue
			case <-s.closing:
				return
			}
		}
		var batch []*request
		batch, held = s.gather(first)
		s.process(batch)
		s.tellHealed()
		s.restoreSpare()
		s.restoreJournal()
	}
}

// gather takes what waits now, up to one request per flow. Flows that commit at the same moment get a turn to ask while
// they keep coming, because one commit for all costs the disk a fraction of two. held belongs into the next commit.
func (s *Stage) gather(first *request) (batch []*request, held *request) {
	batch = []*request{first}
	if first.renumberFrom != 0 {
		return batch, nil
	}
	flows, bytes, before := map[string]bool{first.flow: true}, first.bytes, 0
	for len(batch) < maxMerged && bytes < maxAppendBytes {
		select {
		case r := <-s.requests:
			if r.renumberFrom != 0 || r.flow != "" && flows[r.flow] {
				return batch, r
			}
			batch, bytes = append(batch, r), bytes+r.bytes
			flows[r.flow] = true
		default:
			if len(batch) == before {
				return batch, nil
			}
			before = len(batch)
			runtime.Gosched()
		}
	}
	return batch, nil
}

// process commits a batch and answers every request of it.
func (s *Stage) process(batch []*request) {
	trouble := s.mend()
	if trouble == nil && !s.pending.empty() && slices.ContainsFunc(batch, func(r *request) bool { return r.folded }) {
		trouble = s.commit(nil)
	}
	unknown := s.isUnknown()
	admitted := batch[:0:0]
	for _, r := range batch {
		if unknown != nil {
			r.answer(unknown)
			continue
		}
		switch err := r.admit(s.files); {
		case errors.Is(err, errDone):
			r.answer(nil)
		case err != nil:
			r.answer(err)
		case trouble != nil:
			r.answer(trouble)
		default:
			admitted = append(admitted, r)
		}
	}
	if len(admitted) == 0 {
		return
	}
	if s.takesJournal(admitted) {
		s.journalAll(admitted)
		return
	}
	s.commitInPlace(s.journalFirst(admitted))
}

// commitInPlace commits requests that the journal does not take, and answers them.
func (s *Stage) commitInPlace(admitted []*request) {
	err := s.isUnsettled()
	if err == nil {
		err = s.commit(admitted)
	}
	for _, r := range admitted {
		if err == nil && r.then != nil {
			err = r.then()
		}
		r.answer(err)
	}
}

// journalFirst stores what the journal takes of a batch and gives the rest, so that one report does not make one transaction
// of the commits of all flows.
func (s *Stage) journalFirst(batch []*request) (rest []*request) {
	if !s.journal.ready() || s.isUnsettled() != nil || slices.ContainsFunc(batch, func(r *request) bool { return r.state == nil && !r.apart }) {
		return batch
	}
	var first []*request
	for _, r := range batch {
		if r.apart {
			rest = append(rest, r)
		} else {
			first = append(first, r)
		}
	}
	s.journalAll(first)
	return rest
}

// commit writes the outbox records first and then the state that makes them count, and with both what the journal alone
// had. An error leaves the outcome unknown, and the stage unsettled.
func (s *Stage) commit(batch []*request) error {
	if s.isDegraded() != nil {
		s.dropPending()
	}
	s.mu.RLock()
	next := s.files.meta
	s.mu.RUnlock()
	next.epoch++
	if next.journal = 0; s.journal != nil && !s.journal.broken {
		next.journal = s.journal.id
	}
	var parts []appended
	var err error
	if len(batch) == 1 && batch[0].renumberFrom != 0 {
		parts, err = s.renumber(&next, batch[0].renumberFrom)
	} else {
		parts, err = s.writeBatch(batch, &next)
	}
	if err == nil {
		err = s.foldEarly(&next)
	}
	if err == nil {
		err = s.writeState(batch, &next)
	}
	if err != nil {
		return s.fail(batch, err)
	}
	s.land(batch, parts, next)
	switch {
	case next.journal != 0:
		s.journal.begin(next.epoch)
	case s.journal != nil:
		s.discardJournal()
	}
	s.healed(batch)
	s.files.state.unmapPages()
	return s.rollActive()
}

// writeBatch appends the payloads of all requests.
func (s *Stage) writeBatch(batch []*request, next *meta) (parts []appended, err error) {
	next.produced = s.pending.behind(next.produced)
	if parts, err = s.writePending(next); err != nil {
		return nil, err
	}
	var payloads [][]byte
	flush := func() error {
		if parts, err = s.writeOutbox(next.produced+1, parts, payloads); err != nil {
			return err
		}
		next.produced += uint64(len(payloads))
		payloads = payloads[:0]
		return nil
	}
	for _, r := range batch {
		if r.earlier != nil {
			bytes := 0
			for p, readErr := range r.earlier {
				if readErr != nil {
					return nil, fmt.Errorf("%w: %w", errNotRead, readErr)
				}
				payloads = append(payloads, p)
				if bytes += len(p); bytes >= maxAppendBytes/4 {
					if err := flush(); err != nil {
						return nil, err
					}
					bytes = 0
				}
			}
		}
		payloads = append(payloads, r.payloads...)
		r.lastSeq = next.produced + uint64(len(payloads))
	}
	return parts, flush()
}

// writeOutbox appends the payloads with the sequences from seq on. parts is what this commit has appended before.
func (s *Stage) writeOutbox(seq uint64, parts []appended, payloads [][]byte) ([]appended, error) {
	for len(payloads) > 0 {
		if err := s.at("outbox"); err != nil {
			return nil, err
		}
		end, room, err := s.active(seq, parts, recordBytes(payloads[0]))
		if err != nil {
			return nil, err
		}
		s.trouble.suspect(end.to.db)
		// It proves what state.db has, which is less than what the journal has. A renumbering proves no more than that what is in
		// front of it has counted.
		part, err := end.to.append(seq, end.bytes, min(s.files.stored.produced, seq-1), payloads, min(room, maxAppendBytes))
		if err != nil {
			return nil, err
		}
		payloads = payloads[part.last-seq+1:]
		seq = part.last + 1
		parts = append(parts, part)
		end.to.db.unmapPages()
		if err := s.at("outbox landed"); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// dropPending forgets the records in pending that are acknowledged. Usually they go into a segment with the others, because that
// costs less than a new one behind a gap; on a full disk there may be room for neither.
func (s *Stage) dropPending() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending.trim(s.files.acknowledged)
	s.files.countAcknowledged()
}

// writePending appends the records that the journal alone has.
func (s *Stage) writePending(next *meta) (parts []appended, err error) {
	var payloads [][]byte
	bytes := 0
	flush := func() error {
		if parts, err = s.writeOutbox(next.produced+1, parts, payloads); err != nil {
			return err
		}
		next.produced += uint64(len(payloads))
		payloads, bytes = payloads[:0], 0
		return nil
	}
	for _, run := range s.pending.runs {
		if run.data == nil {
			if err = flush(); err == nil {
				parts, err = s.writeGap(parts, span{first: run.first, last: run.last})
			}
			next.produced = run.last
		}
		run.each(run.first, func(_ uint64, payload []byte) bool {
			payloads = append(payloads, payload)
			return true
		})
		if bytes += len(run.data); err == nil && bytes >= foldBytes {
			err = flush()
		}
		if err != nil {
			return nil, err
		}
	}
	return parts, flush()
}

// writeGap notes that records are lost.
func (s *Stage) writeGap(parts []appended, lost span) ([]appended, error) {
	end, _, err := s.active(lost.first, parts, 0)
	if err != nil {
		return nil, err
	}
	s.trouble.suspect(end.to.db)
	if err := end.to.db.Update(func(tx *bolt.Tx) error { return putLost(tx, []span{lost}) }); err != nil {
		return nil, fmt.Errorf("write %s: %w", end.to.path, err)
	}
	return append(parts, appended{to: end.to, last: lost.last, bytes: end.bytes, lost: &lost}), nil
}

// markBefore is the mark that a flow has in the transaction under way.
func (s *Stage) markBefore(flow string) mark {
	if m, ok := s.foldedMarks[flow]; ok {
		return m
	}
	return s.files.marks[flow]
}

// active is the segment that the record with this sequence goes to, and the room in it.
func (s *Stage) active(seq uint64, parts []appended, size uint64) (end appended, room int, err error) {
	if err := s.renewLast(); err != nil {
		return appended{}, 0, err
	}
	if n := len(s.files.segments); n > 0 {
		seg := s.files.segments[n-1]
		end = appended{to: seg, last: seg.last, bytes: seg.bytes}
		if p := len(parts); p > 0 && parts[p-1].to == seg {
			end = parts[p-1]
		}
		if end.last+1 == seq && !seg.closed {
			room, err = seg.room(s.settings.segmentBytes)
			if err != nil || uint64(room) >= size || end.last < seg.first { //nolint:gosec // room is not negative
				return end, room, err
			}
		}
	}
	seg, err := createSegment(s.settings.Dir, seq)
	if err != nil {
		return appended{}, 0, err
	}
	s.mu.Lock()
	s.files.segments = append(s.files.segments, seg)
	s.mu.Unlock()
	room, err = seg.room(s.settings.segmentBytes)
	return appended{to: seg, last: seq - 1}, room, err
}

// writeState makes the batch count.
func (s *Stage) writeState(batch []*request, next *meta) error {
	if err := s.at("state"); err != nil {
		return err
	}
	s.sealed.reset()
	s.trouble.suspect(s.files.state)
	err := s.files.state.Update(func(tx *bolt.Tx) error {
		if err := s.foldState(tx, next); err != nil {
			return err
		}
		for i, r := range batch {
			if i%foldFlows == 0 {
				unmapPages(tx)
			}
			if r.apply == nil {
				continue
			}
			if err := r.apply(tx, next); err != nil {
				return err
			}
		}
		s.noteAge(next)
		next.listed, next.voids = s.files.firsts(), s.voidsWith(batch, next.acknowledged)
		return next.put(tx, &s.sealed, &s.files.stored)
	})
	if err != nil {
		return fmt.Errorf("write the staged state: %w", err)
	}
	return s.at("state landed")
}

// land notes a commit that succeeded.
func (s *Stage) land(batch []*request, parts []appended, next meta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files
	f.stored = next
	for _, p := range parts {
		p.to.last, p.to.bytes = p.last, p.bytes
		if p.lost != nil {
			p.to.lost = append(slices.Clip(p.to.lost), *p.lost)
		}
	}
	f.journal, f.epoch = next.journal, next.epoch
	maps.Copy(f.marks, s.foldedMarks)
	s.pending = s.pending.next(next.epoch)
	f.pending = s.pending
	s.folding.Stop()
	f.produced, f.droppedReports, f.markSum = next.produced, next.droppedReports, next.markSum
	f.late, f.expiredAge, f.expiredBytes = next.late, next.expiredAge, next.expiredBytes
	f.settledStored = next.floor()
	f.acknowledged = max(f.acknowledged, next.acknowledged)
	f.gone = next.gone.behind(f.acknowledged)
	f.ages, f.ranMillis, s.ranStored, f.listed = next.ages, next.ranMillis, next.ranMillis, next.listed
	f.voids = next.voids
	for _, r := range batch {
		if f.noteVoids(r.voidSeqs()); r.renumberFrom != 0 {
			f.unsure, f.lost, f.apart = nil, next.lost, next.apart
		}
		if r.landed != nil {
			r.landed(f)
		}
	}
	s.dropAcknowledged()
	f.countAcknowledged()
	s.noteWaiting()
	// Nobody may ask for Stats while the control plane is away, and that is when the rate matters.
	s.growth.observe(time.Now(), f.waitingBytes())
	if len(parts) > 0 {
		s.signalChanged()
	}
}

// signalChanged says that there are records to be read.
func (s *Stage) signalChanged() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// at is a named point at which tests let a commit fail.
func (s *Stage) at(point string) error {
	fault := s.fault.Load()
	if fault == nil {
		return nil
	}
	return (*fault)(point)
}
