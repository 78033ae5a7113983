package stage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"maps"
	"math"
	"runtime"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Change sets one entry of an operator's state, or removes it when Value is nil.
type Change struct {
	Step, Key string
	Value     []byte
}

// Checkpoint is what one flow wants to be durable as a whole.
type Checkpoint struct {
	// Flow is the caller's key for the flow's state.
	Flow string
	// Number is one more than the flow's last commit (FlowState.Number). The same checkpoint under the same number may
	// be committed again after an error, and is stored once.
	Number uint64
	// Cursors are those that moved, by source.
	Cursors map[string][]byte
	// Changes are the operator entries that changed, in order.
	Changes []Change
	// Earlier are payloads before Insights that are too many to be in memory; nil for none. It is gone through more than
	// once, must give the same every time, and must not change what it gave.
	Earlier iter.Seq2[[]byte, error]
	// Insights are the payloads for the outbox, in order.
	Insights [][]byte
	// Late is how many rows came too late since the flow's last commit. It is added to Stats.Late once, with the rest.
	Late uint64

	// count is how many insights there are; voids are the places among them, from 1 on, of those that were too large, and
	// largest is the size of the largest of these. sum sets them.
	count   uint64
	voids   []uint64
	largest uint64
}

// all are the payloads in order.
func (c *Checkpoint) all() iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if c.Earlier != nil {
			for p, err := range c.Earlier {
				if !yield(p, err) || err != nil {
					return
				}
			}
		}
		for _, p := range c.Insights {
			if !yield(p, nil) {
				return
			}
		}
	}
}

// sum identifies the checkpoint; size is what its payloads take in the outbox.
func (c *Checkpoint) sum() (sum uint32, size uint64, err error) {
	var length, key []byte
	part := func(b []byte) {
		length = binary.LittleEndian.AppendUint64(length[:0], uint64(len(b)))
		sum = crc32.Update(crc32.Update(sum, castagnoli(), length), castagnoli(), b)
	}
	for _, source := range slices.Sorted(maps.Keys(c.Cursors)) {
		part([]byte(source))
		part(c.Cursors[source])
	}
	for _, change := range c.Changes {
		key = appendOperatorKey(key[:0], change.Step, change.Key)
		part(key)
		if change.Value != nil {
			part(change.Value)
		}
	}
	n := uint64(0)
	c.voids, c.largest = nil, 0
	for p, err := range c.all() {
		if err != nil {
			return 0, 0, fmt.Errorf("read what is to be committed: %w", err)
		}
		n++
		if large := voidBytes(p); large > 0 {
			c.voids, c.largest = append(c.voids, n), max(c.largest, large)
		}
		size += recordBytes(p)
		part(p)
	}
	c.count = n
	return sum, size, nil
}

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
	// renumberFrom is not 0 for a renumbering of the outbox, which has a commit of its own.
	renumberFrom uint64
	done         chan error
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
				continue
			case <-s.closing:
				return
			}
		}
		var batch []*request
		batch, held = s.gather(first)
		s.process(batch)
		s.restoreSpare()
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
	unsettled := s.isUnsettled()
	admitted := batch[:0:0]
	for _, r := range batch {
		if unsettled != nil {
			r.answer(unsettled)
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
	err := s.commit(admitted)
	for _, r := range admitted {
		r.answer(err)
	}
}

// commit writes the outbox records first and then the state that makes them count. An error leaves the outcome
// unknown, and the stage unsettled.
func (s *Stage) commit(batch []*request) error {
	s.mu.RLock()
	next := s.files.meta
	s.mu.RUnlock()
	var parts []appended
	var err error
	if len(batch) == 1 && batch[0].renumberFrom != 0 {
		parts, err = s.renumber(&next, batch[0].renumberFrom)
	} else {
		parts, err = s.writeBatch(batch, &next)
	}
	if err == nil {
		err = s.writeState(batch, &next)
	}
	if err != nil {
		return s.fail(err)
	}
	s.land(batch, parts, next)
	s.healed(batch)
	return s.rollActive()
}

// writeBatch appends the payloads of all requests.
func (s *Stage) writeBatch(batch []*request, next *meta) (parts []appended, err error) {
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
		part, err := end.to.append(seq, end.bytes, s.files.produced, payloads, min(room, maxAppendBytes))
		if err != nil {
			return nil, err
		}
		payloads = payloads[part.last-seq+1:]
		seq = part.last + 1
		parts = append(parts, part)
		if err := s.at("outbox landed"); err != nil {
			return nil, err
		}
	}
	return parts, nil
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
		for _, r := range batch {
			if r.apply == nil {
				continue
			}
			if err := r.apply(tx, next); err != nil {
				return err
			}
		}
		s.noteAge(next)
		next.listed = s.files.firsts()
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
	}
	f.produced, f.droppedReports, f.markSum = next.produced, next.droppedReports, next.markSum
	f.lost = max(f.lost, next.lost)
	f.late, f.expiredAge, f.expiredBytes = next.late, next.expiredAge, next.expiredBytes
	f.settledStored = next.floor()
	f.acknowledged = max(f.acknowledged, next.acknowledged)
	f.gone = next.gone.behind(f.acknowledged)
	f.ages, f.ranMillis, s.ranStored, f.listed = next.ages, next.ranMillis, next.ranMillis, next.listed
	for _, r := range batch {
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
		select {
		case s.changed <- struct{}{}:
		default:
		}
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

// Commit makes the checkpoint durable as a whole and gives the sequence of the last outbox record behind it. It waits
// while the outbox or the disk is too full, and for the disk; ctx ends the wait.
//
// An insight of more than MaxRecordBytes keeps its place in the sequence and nothing else: it counts as lost, and
// ReadOutbox gives it as GoneUnsendable.
//
// After an error other than ErrStaleCommit the outcome is unknown. The caller either commits the same
// checkpoint again under the same number, or loads the flow again: LoadFlow tells what became of it. When it was ctx that
// ended the wait, the commit may still be under way: nothing may change what the checkpoint refers to before a later
// call for the flow has come back without ctx ending, or Close has.
func (s *Stage) Commit(ctx context.Context, c Checkpoint) (lastSeq uint64, err error) {
	c.voidLarge()
	sum, size, err := c.sum()
	if err != nil {
		return 0, err
	}
	m := mark{number: c.Number, sum: sum}
	entries := sortChanges(c.Changes)
	r := &request{flow: c.Flow, payloads: c.Insights, earlier: c.Earlier, bytes: int(min(size, math.MaxInt32))}
	r.admit = func(f *files) error {
		last := f.marks[c.Flow]
		switch {
		case m.number == last.number && m.number != 0 && m.sum == last.sum:
			r.lastSeq = last.lastSeq
			return errDone
		case m.number != last.number+1:
			return fmt.Errorf("%w: flow %s is at commit %d and this is number %d", ErrStaleCommit, c.Flow, last.number, m.number)
		}
		return nil
	}
	r.apply = func(tx *bolt.Tx, next *meta) error {
		next.late += c.Late
		before := s.files.marks[c.Flow]
		m.lastSeq, m.content = r.lastSeq, before.content
		err := c.put(tx, &s.sealed, &m, entries)
		next.markSum += m.part(c.Flow) - before.part(c.Flow)
		return err
	}
	r.landed = func(f *files) { f.marks[c.Flow] = m }
	if err := s.reserve(ctx, size); err != nil {
		return 0, err
	}
	r.release = func() { s.release(size) }
	if err := s.submit(ctx, r); err != nil {
		return 0, err
	}
	s.noteVoids(ctx, &c, r.lastSeq)
	return r.lastSeq, nil
}

// entry is a change with its key in the bucket.
type entry struct {
	key    []byte
	change *Change
}

// sortChanges gives the last change of every key, by key. bbolt keeps what a transaction adds between two stored keys in
// one sorted list, so that putting many new keys costs the square of their number unless each belongs at the end.
func sortChanges(changes []Change) []entry {
	entries := make([]entry, len(changes))
	size := 0
	for i := range changes {
		size += binary.MaxVarintLen16 + len(changes[i].Step) + len(changes[i].Key)
	}
	keys := make([]byte, 0, size)
	for i := range changes {
		start := len(keys)
		keys = appendOperatorKey(keys, changes[i].Step, changes[i].Key)
		entries[i] = entry{key: keys[start:len(keys):len(keys)], change: &changes[i]}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return bytes.Compare(a.key, b.key) })
	last := entries[:0]
	for i := range entries {
		if i+1 < len(entries) && bytes.Equal(entries[i].key, entries[i+1].key) {
			continue
		}
		last = append(last, entries[i])
	}
	return last
}

// put writes the flow's part of the checkpoint.
func (c *Checkpoint) put(tx *bolt.Tx, sealed *sealer, m *mark, entries []entry) error {
	sealed.content = m.content
	flows := tx.Bucket([]byte(flowsBucket))
	flow := flows.Bucket([]byte(c.Flow))
	if flow == nil {
		var err error
		if flow, err = createFlow(flows, c.Flow); err != nil {
			return fmt.Errorf("store flow %s: %w", c.Flow, err)
		}
		sealed.content = emptyContent(c.Flow)
	}
	if err := c.putCursors(flow, sealed); err != nil {
		return err
	}
	if err := putEntries(flow, sealed, entries); err != nil {
		return err
	}
	m.content = sealed.content
	return sealed.put(flow, []byte(markKey), m.encode())
}

// createFlow makes the buckets of a flow.
func createFlow(flows *bolt.Bucket, name string) (*bolt.Bucket, error) {
	flow, err := flows.CreateBucket([]byte(name))
	if err == nil {
		_, err = flow.CreateBucket([]byte(cursorsBucket))
	}
	if err == nil {
		_, err = flow.CreateBucket([]byte(operatorsBucket))
	}
	return flow, err //nolint:wrapcheck // put says what it was doing
}

func (c *Checkpoint) putCursors(flow *bolt.Bucket, sealed *sealer) error {
	if len(c.Cursors) == 0 {
		return nil
	}
	cursors, err := flow.CreateBucketIfNotExists([]byte(cursorsBucket))
	if err != nil {
		return fmt.Errorf("store the cursors of a flow: %w", err)
	}
	for source, cursor := range c.Cursors {
		if err = sealed.putPart(cursors, cursorPart, []byte(source), cursor); err != nil {
			return err
		}
	}
	return nil
}

// denselyFilled is how full the pages of operator entries become. What a step keeps changing is replaced by something of
// about the same length, so that little would be won by leaving room between the entries.
const denselyFilled = 0.95

func putEntries(flow *bolt.Bucket, sealed *sealer, entries []entry) error {
	if len(entries) == 0 {
		return nil
	}
	operators, err := flow.CreateBucketIfNotExists([]byte(operatorsBucket))
	if err != nil {
		return fmt.Errorf("store the state of a flow: %w", err)
	}
	operators.FillPercent = denselyFilled
	for i := range entries {
		e := &entries[i]
		if e.change.Value != nil {
			err = sealed.putPart(operators, operatorPart, e.key, e.change.Value)
		} else {
			err = sealed.removePart(operators, operatorPart, e.key)
		}
		if err != nil {
			return fmt.Errorf("store the state of step %s: %w", e.change.Step, err)
		}
	}
	return nil
}
