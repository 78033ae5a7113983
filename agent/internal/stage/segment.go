package stage

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	bolt "go.etcd.io/bbolt"
)

const (
	segmentPrefix = "outbox-"
	segmentSuffix = ".db"
	// maxSegmentBytes bounds a segment's file. bbolt files never shrink, so a segment is dropped as a whole.
	maxSegmentBytes = 64 << 20
	// segmentGrowth is which part of that bbolt lets a file grow at a time.
	segmentGrowth = 16
	// maxAppendBytes bounds the records of one transaction.
	maxAppendBytes = 8 << 20
)

// recordsBucket holds the chunks of a segment.
const recordsBucket = "records"

// lostBucket has what a salvage could not find: the sequence that a gap begins with, and how many are missing, sealed.
const lostBucket = "lost"

// segment is one file of the outbox: the records first to last. Those in lost are missing, and are known to be. The
// writer appends; a reader needs the stage's mu, under which first, last and bytes change.
type segment struct {
	segmentName
	// last is first-1 when the segment is empty.
	last uint64
	// bytes is what the records take.
	bytes uint64
	// base is what the last chunk proves to have counted before it was written, also one that does not count itself.
	base uint64
	lost []span
	db   *database
	// closed says that nothing may be appended any more, because a process or a commit ended in the middle of writing: its
	// records may lie in pages that the file has given up, and must stay the only ones of their sequences in this file.
	closed bool
}

// span is the sequences first to last.
type span struct{ first, last uint64 }

// segmentName is what the name of a segment's file says.
type segmentName struct {
	path  string
	first uint64
	id    segmentID
}

// The bits of a segmentID that rise are above those that are random.
const (
	randomBits = 40
	maxVersion = 1<<(64-randomBits) - 1
)

// nameSegment makes a name that no other segment ever had. Of two files that begin with the same sequence the one with
// the higher version replaces the other.
func nameSegment(dir string, first, version uint64) segmentName {
	var random [8]byte
	_, _ = rand.Read(random[:]) // crypto/rand.Read never fails
	id := segmentID(version<<randomBits | binary.LittleEndian.Uint64(random[:])>>(64-randomBits))
	path := filepath.Join(dir, fmt.Sprintf("%s%020d-%016x%s", segmentPrefix, first, uint64(id), segmentSuffix))
	return segmentName{path: path, first: first, id: id}
}

// successor is the name for a file that replaces this one.
func (n segmentName) successor() segmentName {
	return nameSegment(filepath.Dir(n.path), n.first, min(uint64(n.id)>>randomBits+1, maxVersion))
}

// parseSegmentName reads the name of a segment's file.
func parseSegmentName(path string) (segmentName, bool) {
	n := segmentName{path: path}
	middle, ok := strings.CutPrefix(filepath.Base(path), segmentPrefix)
	if ok {
		middle, ok = strings.CutSuffix(middle, segmentSuffix)
	}
	first, id, both := strings.Cut(middle, "-")
	if !ok || !both || len(first) != 20 || len(id) != 16 {
		return n, false
	}
	number, err := strconv.ParseUint(first, 10, 64)
	if err != nil || number == 0 {
		return n, false
	}
	n.first = number
	number, err = strconv.ParseUint(id, 16, 64)
	n.id = segmentID(number)
	return n, err == nil
}

// listSegments gives the segment files of a directory, in order.
func listSegments(dir string) ([]segmentName, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the staging directory: %w", err)
	}
	var names []segmentName
	for _, e := range entries {
		if name, ok := parseSegmentName(filepath.Join(dir, e.Name())); ok {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b segmentName) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.id, b.id))
	})
	return names, nil
}

// removeReplaced removes the files that newer ones of the same first sequence replace: a process ended between making the
// one and removing the other.
func removeReplaced(names []segmentName) ([]segmentName, error) {
	kept := names[:0:0]
	for i, name := range names {
		if i+1 < len(names) && names[i+1].first == name.first {
			if err := remove(name.path); err != nil {
				return nil, err
			}
			continue
		}
		kept = append(kept, name)
	}
	return kept, nil
}

func createSegment(dir string, first uint64) (*segment, error) {
	return createNamed(nameSegment(dir, first, 0), func(*bolt.Tx) error { return nil })
}

// createNamed makes a segment and fills it.
func createNamed(name segmentName, fill func(*bolt.Tx) error) (*segment, error) {
	err := createDatabase(name.path, func(tx *bolt.Tx) error {
		for _, bucket := range []string{recordsBucket, lostBucket} {
			if _, err := tx.CreateBucket([]byte(bucket)); err != nil {
				return err //nolint:wrapcheck // createDatabase says what it was doing
			}
		}
		return fill(tx)
	})
	if err != nil {
		return nil, err
	}
	return openSegment(name, ^uint64(0))
}

// openSegment opens a segment, of which only the records up to end count.
func openSegment(name segmentName, end uint64) (*segment, error) {
	s := &segment{segmentName: name, last: name.first - 1}
	var err error
	if s.db, err = openDatabase(name.path, mmapBytes); err != nil {
		return nil, err
	}
	err = s.db.View(func(tx *bolt.Tx) error { return s.locate(tx, end) })
	if err == nil {
		return s, nil
	}
	return nil, errors.Join(fmt.Errorf("read %s: %w", name.path, err), s.db.Close())
}

// locate finds the last record that counts.
func (s *segment) locate(tx *bolt.Tx, end uint64) (err error) {
	b := tx.Bucket([]byte(recordsBucket))
	if b == nil {
		return fmt.Errorf("%w: it has no records bucket", ErrDamaged)
	}
	if s.lost, err = readLost(tx, end); err != nil {
		return err
	}
	if n := len(s.lost); n > 0 {
		s.last = s.lost[n-1].last
	}
	c := b.Cursor()
	key, value := c.Last()
	if h, err := parseChunk(s.id, key, value); err == nil {
		s.base = h.base
	}
	if key != nil && end < ^uint64(0) {
		if next, _ := c.Seek(number(end + 1)); next != nil {
			key, value = c.Prev()
		} else {
			key, value = c.Last()
		}
	}
	if key == nil {
		return nil
	}
	h, err := parseChunk(s.id, key, value)
	if err != nil {
		return err
	}
	if h.first < s.first || h.last() > end {
		return fmt.Errorf("%w: the records %d to %d do not belong here", ErrDamaged, h.first, h.last())
	}
	s.last, s.bytes = max(s.last, h.last()), h.before+uint64(len(value[chunkHeaderBytes:]))
	return nil
}

// readLost reads what is missing, up to end.
func readLost(tx *bolt.Tx, end uint64) ([]span, error) {
	var lost []span
	err := eachSealed(tx.Bucket([]byte(lostBucket)), func(key, value []byte) error {
		first, err := parseNumber(key)
		if err != nil {
			return err
		}
		count, err := parseNumber(value)
		if err != nil {
			return err
		}
		if count == 0 || first+count-1 < first {
			return fmt.Errorf("%w: a gap of %d records", ErrDamaged, count)
		}
		if first <= end {
			lost = append(lost, span{first: first, last: min(first+count-1, end)})
		}
		return nil
	})
	return lost, err
}

// empty says that no record in it counts.
func (s *segment) empty() bool { return s.last < s.first }

// fileBytes is how large the file has become.
func (s *segment) fileBytes() (size int64, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		size = tx.Size()
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", s.path, err)
	}
	return size, nil
}

// room is how many bytes of records still fit into a file of limit bytes, seen before a transaction. It allows for pages that are not full.
func (s *segment) room(limit int) (int, error) {
	size, err := s.fileBytes()
	if err != nil {
		return 0, err
	}
	s.db.AllocSize = limit / segmentGrowth
	left := int64(limit) - int64(s.db.AllocSize) - size
	return int(max(0, left-left/8)), nil
}

// appended is what an append did, to be noted once the state has landed.
type appended struct {
	to          *segment
	last, bytes uint64
	// lost is what it notes as missing instead of appending; nil for nothing.
	lost *span
}

// chunkWriter puts records into a segment, in order.
type chunkWriter struct {
	bucket *bolt.Bucket
	id     segmentID
	// base is for the heads of the chunks; bytes is what the records so far take, and last the sequence of the last one.
	base, bytes, last uint64
	// left is about how many bytes of records are still to come, 0 when nobody knows.
	left  int
	chunk *chunk
}

// add puts one more. A sequence that does not follow the last leaves a gap.
func (w *chunkWriter) add(seq uint64, payload []byte) error {
	if w.chunk != nil && (w.chunk.full() || seq != w.last+1) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if w.chunk == nil {
		w.chunk = newChunk(w.id, seq, w.bytes, w.base, w.room(payload))
	}
	w.chunk.add(payload)
	w.last = seq
	return nil
}

// room is how much a chunk that begins with the payload will hold: it is closed by the record that fills it.
func (w *chunkWriter) room(payload []byte) int {
	size := len(payload) + frameHeaderBytes
	return max(size, min(w.left, chunkTargetBytes+size))
}

// flush stores what add has collected.
func (w *chunkWriter) flush() error {
	if w.chunk == nil {
		return nil
	}
	w.chunk.seal()
	w.bytes += w.chunk.bytes()
	w.left -= len(w.chunk.value)
	w.bucket.FillPercent = 1 // sequences only rise, so no page is ever split in the middle
	err := w.bucket.Put(number(w.chunk.first), w.chunk.value)
	w.chunk = nil
	if err != nil {
		return fmt.Errorf("store outbox records: %w", err)
	}
	return nil
}

// append adds as many of the payloads as fit into the limit, at least one, with the sequences from first on, in one
// transaction. before is the bytes of the records in front of them, base the last sequence that counts. The outcome of an
// error is unknown.
func (s *segment) append(first, before, base uint64, payloads [][]byte, limit int) (appended, error) {
	w := &chunkWriter{id: s.id, base: base, bytes: before, last: first - 1, left: chunkHeaderBytes}
	for _, p := range payloads {
		if w.left += int(recordBytes(p)); w.left > limit { //nolint:gosec // at most MaxRecordBytes
			break
		}
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		w.bucket = tx.Bucket([]byte(recordsBucket))
		taken := uint64(0)
		for i, p := range payloads {
			if taken += recordBytes(p); i > 0 && taken > uint64(limit) { //nolint:gosec // a limit is not negative
				break
			}
			if err := w.add(first+uint64(i), p); err != nil {
				return err
			}
		}
		return w.flush()
	})
	if err != nil {
		return appended{}, fmt.Errorf("write %s: %w", s.path, err)
	}
	return appended{to: s, last: w.last, bytes: w.bytes}, nil
}

// smallSegmentBytes is up to where a closed segment is written anew to go on in it. A larger one stays as it is, and a
// further one begins: so crashes never leave many small files behind, nor cost much.
const smallSegmentBytes = 1 << 20

// renew writes what counts of a closed segment into a new file, which takes its place. The caller drops the old one.
func (s *segment) renew() (*segment, error) {
	name := s.successor()
	return createNamed(name, func(tx *bolt.Tx) error {
		w := &chunkWriter{bucket: tx.Bucket([]byte(recordsBucket)), id: name.id, base: s.last}
		var err error
		readErr := s.read(s.first, func(seq uint64, payload []byte, ok bool) bool {
			switch {
			case seq > s.last:
				return false
			case !ok:
				err = &damageError{path: s.path, cause: fmt.Errorf("%w: record %d", ErrDamaged, seq)}
			default:
				// bbolt wants the value until the end of the transaction, and add copies the payload into it.
				err = w.add(seq, payload)
			}
			return err == nil
		})
		if err = errors.Join(err, readErr); err != nil {
			return err
		}
		return errors.Join(w.flush(), putLost(tx, s.lost))
	})
}

// putLost notes what is missing.
func putLost(tx *bolt.Tx, lost []span) error {
	b := tx.Bucket([]byte(lostBucket))
	for _, gap := range lost {
		if err := putSealed(b, number(gap.first), number(gap.last-gap.first+1)); err != nil {
			return err
		}
	}
	return nil
}

// loseUpTo notes that the records behind its last one, up to a sequence, are missing.
func (s *segment) loseUpTo(seq uint64) error {
	if seq <= s.last {
		return nil
	}
	gap := span{first: s.last + 1, last: seq}
	if err := s.db.Update(func(tx *bolt.Tx) error { return putLost(tx, []span{gap}) }); err != nil {
		return fmt.Errorf("write %s: %w", s.path, err)
	}
	s.lost, s.last = append(s.lost, gap), seq
	return nil
}

// isLost says whether the record is known to be missing.
func (s *segment) isLost(seq uint64) bool {
	i, found := slices.BinarySearchFunc(s.lost, seq, func(gap span, seq uint64) int { return cmp.Compare(gap.first, seq) })
	return found || i > 0 && seq <= s.lost[i-1].last
}

// lostBetween counts the records with the sequences low to high that are known to be missing.
func (s *segment) lostBetween(low, high uint64) (n uint64) {
	for _, gap := range s.lost {
		if from, to := max(low, gap.first), min(high, gap.last); from <= to {
			n += to - from + 1
		}
	}
	return n
}

// read calls fn for the records from seq on until it gives false. The payload is valid only during the call.
func (s *segment) read(seq uint64, fn func(seq uint64, payload []byte, ok bool) bool) error {
	err := s.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte(recordsBucket)).Cursor()
		more, next := true, seq
		visit := func(at uint64, payload []byte, ok bool) bool {
			if at < next {
				return true
			}
			more = fn(at, payload, ok)
			next = at + 1
			return more
		}
		for key, value := seekChunk(c, seq); key != nil && more; key, value = c.Next() {
			h, err := parseChunk(s.id, key, value)
			if err != nil {
				// What the chunk held is told by the one behind it; the caller sees the gap.
				continue
			}
			eachRecord(h, value, visit)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", s.path, err)
	}
	return nil
}

// seekChunk finds the chunk that holds the record, or the first one behind it.
func seekChunk(c *bolt.Cursor, seq uint64) (key, value []byte) {
	key, value = c.Seek(number(seq))
	if first, err := parseNumber(key); err == nil && first == seq {
		return key, value
	}
	if key == nil {
		return c.Last()
	}
	if before, v := c.Prev(); before != nil {
		return before, v
	}
	return c.First()
}

// bytesUpTo is what the records up to the sequence take.
func (s *segment) bytesUpTo(seq uint64) (uint64, error) {
	switch {
	case seq < s.first || s.empty():
		return 0, nil
	case seq >= s.last:
		return s.bytes, nil
	}
	var sum uint64
	err := s.db.View(func(tx *bolt.Tx) error {
		key, value := seekChunk(tx.Bucket([]byte(recordsBucket)).Cursor(), seq)
		h, err := parseChunk(s.id, key, value)
		if err != nil {
			return err
		}
		sum = h.before
		eachRecord(h, value, func(at uint64, payload []byte, _ bool) bool {
			if at <= seq {
				sum += recordBytes(payload)
			}
			return at < seq
		})
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", s.path, err)
	}
	return sum, nil
}

// drop closes the segment and removes its file.
func (s *segment) drop() error {
	if err := s.db.Close(); err != nil {
		return err
	}
	if err := os.Remove(s.path); err != nil {
		return fmt.Errorf("drop an acknowledged outbox segment: %w", err)
	}
	return nil
}
