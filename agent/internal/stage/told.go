package stage

import (
	"errors"
	"fmt"
	"log/slog"

	bolt "go.etcd.io/bbolt"
)

// What is damaged in a segment is only lost where it was not acknowledged before. A segment that was salvaged therefore says up
// to where everything was acknowledged by then: without a state.db nothing else tells it.

// toldBucket has that sequence in a segment, sealed, under toldKey; most segments have neither.
const (
	toldBucket = "told"
	toldKey    = "acknowledged"
)

// putTold notes it in a segment; 0 is nothing to note.
func putTold(tx *bolt.Tx, upTo uint64) error {
	if upTo == 0 {
		return nil
	}
	b, err := tx.CreateBucketIfNotExists([]byte(toldBucket))
	if err != nil {
		return fmt.Errorf("make the bucket %s: %w", toldBucket, err)
	}
	return putSealed(b, []byte(toldKey), number(upTo))
}

// readTold reads it. Without it more is counted as lost, and nothing is wrong.
func readTold(tx *bolt.Tx) uint64 {
	b := tx.Bucket([]byte(toldBucket))
	if b == nil {
		return 0
	}
	value, err := getSealed(b, []byte(toldKey))
	if err != nil {
		return 0
	}
	upTo, _ := parseNumber(value)
	return upTo
}

// tell notes it in a file that has been salvaged and is not a segment yet.
func tell(path string, upTo uint64) error {
	if upTo == 0 {
		return nil
	}
	db, err := openReadWrite(path, 0)
	if err != nil {
		return err
	}
	if err = errors.Join(db.Update(func(tx *bolt.Tx) error { return putTold(tx, upTo) }), db.Close()); err != nil {
		return fmt.Errorf("note what was acknowledged of a damaged file: %w", err)
	}
	return nil
}

// tellStored notes in the segments up to where everything is stored, once the control plane has said that of what was damaged in
// them. It is for the writer.
func (s *Stage) tellStored(stored uint64) error {
	s.mu.RLock()
	segments := s.files.segments
	s.mu.RUnlock()
	for _, seg := range segments {
		if seg.lostBetween(seg.told+1, stored) == 0 {
			continue
		}
		err := seg.db.Update(func(tx *bolt.Tx) error { return putTold(tx, stored) })
		if err != nil {
			// Only if state.db is damaged as well is more counted as lost.
			s.settings.Logger.Warn("it could not be noted what of a damaged file the control plane has", slog.String("file", seg.path), slog.Any("error", err))
			continue
		}
		seg.told = stored
	}
	return nil
}

// acknowledgedAtLeast is up to where the segments prove everything to be acknowledged.
func (f *files) acknowledgedAtLeast() uint64 {
	upTo := f.segments[0].first - 1
	for _, seg := range f.segments {
		upTo = max(upTo, min(seg.told, seg.last))
	}
	return upTo
}

// countOnce takes back what a state.db that is not whole had counted as lost, as far as the segments still have it behind what is
// taken for acknowledged: there it is counted again.
func (f *files) countOnce() {
	if f.restored == nil {
		return
	}
	again := uint64(0)
	for _, seg := range f.segments {
		again += seg.lostBetween(f.acknowledged+1, f.restored.CountedUpTo)
	}
	f.lost -= min(f.lost, again, f.restored.CountedLost)
}
