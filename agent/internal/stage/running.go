package stage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/outfeed/outfeed/internal/durable"
)

// The file RUNNING says by being there that the last stop was not clean. Behind its text it has a mark of what was
// acknowledged out of the journal, in two places that are written by turns:
//
//	magic  4 bytes
//	sum    u32  CRC32C of what follows
//	id     u64  of the journal
//	epoch  u64
//	number u64  of the frame
//	end    u64  where in the file it ends
//	last   u64  the last sequence behind it
//
// The mark is written once the frame's sync has succeeded and is not synced itself. A kill leaves it as it is, because the
// kernel has it. After a power cut it may be an older one, or none; it never names a frame that is not on the disk.
const (
	runningText  = "removed by a clean stop\n"
	runningBytes = 3 * runningSlot
	// runningSlot is how far the places are apart: what a disk writes as a whole at least.
	runningSlot    = 512
	runningMagic   = "mark"
	landedMarkSize = 4 + 4 + 5*8
)

// landedMark says up to where commits in the journal were acknowledged. One with the number 0 says nothing.
type landedMark struct {
	id, epoch, number, end, last uint64
}

func (m landedMark) encode() []byte {
	b := append(make([]byte, 0, landedMarkSize), runningMagic...)
	b = append(b, 0, 0, 0, 0)
	for _, v := range []uint64{m.id, m.epoch, m.number, m.end, m.last} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli()))
	return b
}

// parseLandedMark gives the newest mark that the file has; one with the number 0 when it has none.
func parseLandedMark(file []byte) (newest landedMark) {
	for at := runningSlot; at+landedMarkSize <= len(file); at += runningSlot {
		b := file[at : at+landedMarkSize]
		if string(b[:4]) != runningMagic || crc32.Checksum(b[8:], castagnoli()) != binary.LittleEndian.Uint32(b[4:]) {
			continue
		}
		r := stateReader{rest: b[8:]}
		m := landedMark{id: r.fixed(8), epoch: r.fixed(8), number: r.fixed(8), end: r.fixed(8), last: r.fixed(8)}
		if m.epoch > newest.epoch || m.epoch == newest.epoch && m.number > newest.number {
			newest = m
		}
	}
	return newest
}

// readLandedMark reads the mark of the process before. A file that is not there, or cannot be read, has none.
func readLandedMark(dir string) landedMark {
	data, err := readRaw(filepath.Join(dir, runningName))
	if err != nil {
		return landedMark{}
	}
	return parseLandedMark(data[:min(len(data), runningBytes)])
}

// runningFile is the open file. Only the writer uses it.
type runningFile struct {
	file *os.File
	// failed says that the last write has failed.
	failed bool
}

// createRunning makes the file with all that it will ever take, so that a mark needs no room.
func createRunning(dir string) error {
	return createFile(filepath.Join(dir, runningName), runningText+string(make([]byte, runningBytes-len(runningText))))
}

// open opens the file, which is there.
func (r *runningFile) open(dir string) (err error) {
	if r.file, err = os.OpenFile(filepath.Join(dir, runningName), os.O_RDWR, 0); err != nil { //nolint:gosec // the directory is the agent's own
		return fmt.Errorf("open the mark of an unclean stop: %w", err)
	}
	return nil
}

// note writes a mark.
func (r *runningFile) note(m landedMark) error {
	at := int64(runningSlot * (1 + m.number%2))
	if _, err := r.file.WriteAt(m.encode(), at); err != nil {
		return fmt.Errorf("note what the journal has: %w", err)
	}
	return nil
}

// close closes the file and leaves it there.
func (r *runningFile) close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file = nil
	if err != nil {
		return fmt.Errorf("close the mark of an unclean stop: %w", err)
	}
	return nil
}

// removeRunning notes a clean stop.
func removeRunning(dir string) error {
	if err := os.Remove(filepath.Join(dir, runningName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("note a clean stop: %w", err)
	}
	return durable.SyncDir(dir)
}

// foundUnclean says whether the journal proves that the last stop was not clean although the mark of that is missing: a clean
// stop ends the epoch. A state that cannot be read says nothing; it is looked after when it is opened.
func foundUnclean(dir string) bool {
	f := &files{marks: map[string]mark{}}
	data, err := readRaw(filepath.Join(dir, journalName))
	if err != nil {
		return false
	}
	state := filepath.Join(dir, stateName)
	if there, err := exists(state); err != nil || !there {
		return false
	}
	err = f.loadState(state)
	if err = errors.Join(err, f.close()); err != nil || f.journal == 0 {
		return false
	}
	c := &journalContent{id: f.journal, data: data}
	c.scan(f.epoch)
	return len(c.frames) > 0
}
