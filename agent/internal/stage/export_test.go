package stage

import (
	"errors"
	"runtime"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// PutOrigin writes into a state.db whose it is and which format it has.
func PutOrigin(path, owner string, format uint64) error {
	db, err := openReadWrite(path, 0)
	if err != nil {
		return err
	}
	var m meta
	err = db.View(func(tx *bolt.Tx) error {
		m, err = readMeta(tx)
		return err
	})
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error {
			return errors.Join(putOrigin(tx, origin{owner: owner, format: format}), m.put(tx, &sealer{}, nil))
		})
	}
	return errors.Join(err, db.Close())
}

// SmallSegments makes the outbox begin a new segment every few bytes.
func SmallSegments(s *Settings, bytes int) { s.segmentBytes = bytes }

// JournalBytes sets the size of the journal, negative for none.
func JournalBytes(s *Settings, bytes int) { s.journalBytes = bytes }

// FoldAfter is how long something is in the journal alone.
const FoldAfter = foldAfter

// SegmentFirst is the sequence that a segment file begins with, 0 for another file.
func SegmentFirst(path string) uint64 {
	name, _ := parseSegmentName(strings.TrimSuffix(path, newSuffix))
	return name.first
}

// FailAt calls fn at the named points of every commit; what it gives fails the commit there.
func FailAt(s *Stage, fn func(point string) error) {
	if fn == nil {
		s.fault.Store(nil)
		return
	}
	s.fault.Store(&fn)
}

// AwaitBlocked returns once n commits wait for room.
func AwaitBlocked(s *Stage, n int) {
	for s.Stats().Blocked != n {
		runtime.Gosched()
	}
}

// GrowthSample is how far two looks at the growth of the outbox are apart at least.
const GrowthSample = growthSample

// SpansAgain decodes a list of sequences and encodes it.
func SpansAgain(b []byte) ([]byte, bool) {
	l, err := parseSpans(b)
	return l.encode(), err == nil && len(l) <= maxSpans
}
