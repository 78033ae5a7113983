package stage

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// Salvage takes what is whole out of a damaged file of a staging directory and writes it to the new file target, which
// must carry the name of the file that it is to become, with the suffix ".new". Of a segment only the records up to end
// count. It reads the file as bytes and believes none that does not prove itself, so that it neither fails on what is in
// it nor takes longer than reading it; a child process with a time limit should run it all the same.
func Salvage(path, target string, end uint64) error {
	to, ok := parseSegmentName(strings.TrimSuffix(target, newSuffix))
	var err error
	if ok {
		err = salvageSegment(path, target, to.id, end)
	} else {
		err = salvageState(path, target)
	}
	if err != nil {
		return fmt.Errorf("salvage %s: %w", path, err)
	}
	return nil
}

// salvageSegment looks for the records in the bytes of the file, wherever they are.
func salvageSegment(path, target string, id segmentID, end uint64) error {
	from, ok := parseSegmentName(path)
	if !ok {
		return fmt.Errorf("%s is not the name of an outbox segment", path)
	}
	data, err := readRaw(path, maxFileBytes)
	if err != nil {
		return err
	}
	frames := findFrames(from, data, end)
	db, err := openReadWrite(target, 0)
	if err != nil {
		return err
	}
	w := &chunkWriter{id: id, base: from.first - 1}
	err = w.writeSalvaged(db, missing(frames, from.first, end), data, frames)
	return errors.Join(err, db.Close())
}

// findFrames finds every whole record of the segment, in the order of their sequences.
func findFrames(name segmentName, data []byte, end uint64) []frame {
	// There cannot be more than fit into the file.
	most := uint64(len(data))/frameHeaderBytes + 1
	high := name.first + most
	if high < name.first || high > end {
		high = end
	}
	var frames []frame
	for at := 0; high >= name.first; {
		f, ok := findFrame(name.id, data[at:], name.first, high)
		if !ok {
			break
		}
		f.start, f.end = f.start+at, f.end+at
		frames = append(frames, f)
		at = f.end
	}
	// The file has more than one copy of some: bbolt writes a page anew when it adds to it.
	slices.SortFunc(frames, func(a, b frame) int { return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.start, b.start)) })
	return slices.CompactFunc(frames, func(a, b frame) bool { return a.seq == b.seq })
}

// missing gives the sequences between first and end of which there is no record.
func missing(frames []frame, first, end uint64) (lost []span) {
	next := first
	for _, f := range frames {
		if f.seq > next {
			lost = append(lost, span{first: next, last: f.seq - 1})
		}
		next = f.seq + 1
	}
	if end < ^uint64(0) && next <= end {
		lost = append(lost, span{first: next, last: end})
	}
	return lost
}

// writeSalvaged writes the records, and what is missing between them, in transactions of a bounded size.
func (w *chunkWriter) writeSalvaged(db *bolt.DB, lost []span, data []byte, frames []frame) error {
	err := db.Update(func(tx *bolt.Tx) error {
		for _, bucket := range []string{recordsBucket, lostBucket} {
			if _, err := tx.CreateBucket([]byte(bucket)); err != nil {
				return err //nolint:wrapcheck // wrapped below
			}
		}
		return putLost(tx, lost)
	})
	for err == nil && len(frames) > 0 {
		err = db.Update(func(tx *bolt.Tx) error {
			w.bucket = tx.Bucket([]byte(recordsBucket))
			for taken := 0; taken < maxAppendBytes && len(frames) > 0; frames = frames[1:] {
				f := frames[0]
				taken += f.end - f.start
				if err := w.add(f.seq, data[f.start:f.end]); err != nil {
					return err
				}
			}
			return w.flush()
		})
	}
	if err != nil {
		return fmt.Errorf("write what was salvaged: %w", err)
	}
	return nil
}

// rawBlockBytes is how much is given up where the disk cannot read.
const rawBlockBytes = 4 << 10

// maxFileBytes is how much of a segment or of a journal is read as bytes, and how long one entry of a database may be. No agent
// writes files of twice the length of a segment: what is behind it was put there by something else.
const maxFileBytes = 2 * maxSegmentBytes

// readRaw reads the whole file, at most so many bytes of it. What the disk cannot read is zero.
func readRaw(path string, most int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // a file of the agent's own directory
	if err != nil {
		return nil, fmt.Errorf("read a damaged file: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read a damaged file: %w", err)
	}
	data := make([]byte, min(info.Size(), most))
	if _, err = io.ReadFull(f, data); err == nil {
		return data, nil
	}
	for at := 0; at < len(data); at += rawBlockBytes {
		block := data[at:min(at+rawBlockBytes, len(data))]
		if n, err := f.ReadAt(block, int64(at)); err != nil {
			clear(block[n:])
		}
	}
	return data, nil
}
