package stage

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"iter"
	"maps"
	"math"
	"slices"
	"sync"

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
	buf, _ := s.states.Get().(*commitBuffer) // nil when there is none
	if buf == nil {
		buf = &commitBuffer{}
	}
	entries := buf.sortChanges(c.Changes)
	r := &request{flow: c.Flow, payloads: c.Insights, earlier: c.Earlier, bytes: int(min(size, math.MaxInt32)), voids: c.voids, count: c.count}
	r.buf = buf
	s.journaled(r, &c, m, entries)
	r.admit = func(f *files) error {
		last := f.marks[c.Flow]
		r.before = last.sum
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
		before := s.markBefore(c.Flow)
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
	buf.release(&s.states) // what is kept of it was copied
	s.noteVoids(ctx, &c, r.lastSeq)
	return r.lastSeq, nil
}

// journaled lets a checkpoint that is small enough go through the journal.
func (s *Stage) journaled(r *request, c *Checkpoint, m mark, entries []entry) {
	if c.Earlier != nil || r.bytes > maxJournaled {
		return
	}
	size := r.bytes
	for source, cursor := range c.Cursors {
		size += len(source) + len(cursor)
	}
	for i := range entries {
		size += len(entries[i].key) + len(entries[i].change.Value)
	}
	if size <= maxJournaled {
		if r.buf == nil {
			r.buf = &commitBuffer{}
		}
		r.buf.state = encodeState(r.buf.state[:0], c, entries)
		r.state, r.mark, r.late = r.buf.state, m, c.Late
	}
}

// commitBuffer is memory that a commit needs until it has landed.
type commitBuffer struct {
	state, keys []byte
	entries     []entry
}

// keptEntries is up to how many changes a commitBuffer is used again.
const keptEntries = 256

// release lets another commit use the memory.
func (b *commitBuffer) release(to *sync.Pool) {
	if cap(b.entries) <= keptEntries {
		clear(b.entries)
		to.Put(b)
	}
}

// entry is a change with its key in the bucket.
type entry struct {
	key    []byte
	change *Change
}

// sortChanges gives the last change of every key, by key. bbolt keeps what a transaction adds between two stored keys in
// one sorted list, so that putting many new keys costs the square of their number unless each belongs at the end.
func (b *commitBuffer) sortChanges(changes []Change) []entry {
	b.entries = slices.Grow(b.entries[:0], len(changes))[:len(changes)]
	entries := b.entries
	size := 0
	for i := range changes {
		size += binary.MaxVarintLen16 + len(changes[i].Step) + len(changes[i].Key)
	}
	keys := slices.Grow(b.keys[:0], size)
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
	b.keys = keys
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
