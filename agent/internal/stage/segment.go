package stage

import (
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
	// segmentGrowBytes is by how much bbolt lets the file of a large segment grow at a time.
	segmentGrowBytes = 4 << 20
	// maxAppendBytes bounds the records of one transaction.
	maxAppendBytes = 8 << 20
)

// recordsBucket holds the chunks of a segment.
const recordsBucket = "records"

// segment is one file of the outbox: the records first to last, without a gap. The writer appends; a reader needs the
// stage's mu, under which first, last and bytes change.
type segment struct {
	path string
	// last is first-1 when the segment is empty.
	first, last uint64
	// bytes is what the records take.
	bytes uint64
	db    *bolt.DB
	// leftover says that chunks behind last do not count; the next append removes them.
	leftover bool
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s%020d%s", segmentPrefix, first, segmentSuffix))
}

// listSegments gives the sequences that the segment files of a directory begin with, in order.
func listSegments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list the staging directory: %w", err)
	}
	var firsts []uint64
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), segmentPrefix)
		if !ok {
			continue
		}
		if digits, ok = strings.CutSuffix(digits, segmentSuffix); !ok {
			continue
		}
		first, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || first == 0 || e.Name() != filepath.Base(segmentPath(dir, first)) {
			continue
		}
		firsts = append(firsts, first)
	}
	slices.Sort(firsts)
	return firsts, nil
}

func createSegment(dir string, first uint64) (*segment, error) {
	path := segmentPath(dir, first)
	err := createDatabase(path, func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket([]byte(recordsBucket))
		return err //nolint:wrapcheck // createDatabase says what it was doing
	})
	if err != nil {
		return nil, err
	}
	return openSegment(path, first, first-1)
}

// openSegment opens a segment, of which only the records up to produced count.
func openSegment(path string, first, produced uint64) (*segment, error) {
	db, err := openReadWrite(path, segmentMmapBytes)
	if err != nil {
		return nil, err
	}
	db.AllocSize = segmentGrowBytes
	s := &segment{path: path, first: first, last: first - 1, db: db}
	if err := db.View(func(tx *bolt.Tx) error { return s.locate(tx, produced) }); err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), db.Close())
	}
	return s, nil
}

// locate finds the last record that counts.
func (s *segment) locate(tx *bolt.Tx, produced uint64) error {
	b := tx.Bucket([]byte(recordsBucket))
	if b == nil {
		return fmt.Errorf("%w: it has no records bucket", ErrDamaged)
	}
	c := b.Cursor()
	key, value := c.Last()
	if key != nil && produced < ^uint64(0) {
		if next, _ := c.Seek(number(produced + 1)); next != nil {
			s.leftover = true
			key, value = c.Prev()
		} else {
			key, value = c.Last()
		}
	}
	if key == nil {
		return nil
	}
	h, err := parseChunk(key, value)
	if err != nil {
		return err
	}
	if h.first < s.first || h.last() > produced {
		return fmt.Errorf("%w: the records %d to %d do not belong here", ErrDamaged, h.first, h.last())
	}
	s.last, s.bytes = h.last(), h.before+uint64(len(value[chunkHeaderBytes:]))
	return nil
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

// room is how many bytes of records still fit, seen before a transaction. It allows for pages that are not full.
func (s *segment) room() (int, error) {
	size, err := s.fileBytes()
	if err != nil {
		return 0, err
	}
	left := maxSegmentBytes - segmentGrowBytes - size
	return int(max(0, left-left/8)), nil
}

// appended is what an append did, to be noted once the state has landed.
type appended struct {
	to          *segment
	last, bytes uint64
}

// append adds as many of the payloads as fit into the limit, at least one, with the sequences from first on, in one
// transaction. before is the bytes of the records in front of them. The outcome of an error is unknown.
func (s *segment) append(first, before uint64, payloads [][]byte, limit int) (appended, error) {
	end := appended{to: s, last: first - 1, bytes: before}
	err := s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(recordsBucket))
		b.FillPercent = 1 // sequences only rise, so no page is ever split in the middle
		if err := s.removeLeftover(b, first); err != nil {
			return err
		}
		var c *chunk
		taken := uint64(0)
		put := func() error {
			c.seal()
			end.bytes += c.bytes()
			end.last = c.first + uint64(c.count) - 1
			return b.Put(number(c.first), c.value)
		}
		for i, p := range payloads {
			if c != nil && c.full() {
				if err := put(); err != nil {
					return err
				}
				c = nil
			}
			if taken += recordBytes(p); i > 0 && taken > uint64(limit) { //nolint:gosec // a limit is not negative
				break
			}
			if c == nil {
				c = newChunk(first+uint64(i), end.bytes, nil)
			}
			c.add(p)
		}
		if c == nil {
			return nil
		}
		return put()
	})
	if err != nil {
		return appended{}, fmt.Errorf("write %s: %w", s.path, err)
	}
	return end, nil
}

// removeLeftover deletes what an earlier commit wrote behind the end and never counted.
func (s *segment) removeLeftover(b *bolt.Bucket, from uint64) error {
	if !s.leftover {
		return nil
	}
	var keys [][]byte
	c := b.Cursor()
	for k, _ := c.Seek(number(from)); k != nil; k, _ = c.Next() {
		keys = append(keys, slices.Clone(k))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return fmt.Errorf("remove what did not count: %w", err)
		}
	}
	return nil
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
			h, err := parseChunk(key, value)
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
		h, err := parseChunk(key, value)
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
		return fmt.Errorf("close %s: %w", s.path, err)
	}
	if err := os.Remove(s.path); err != nil {
		return fmt.Errorf("drop an acknowledged outbox segment: %w", err)
	}
	return nil
}
