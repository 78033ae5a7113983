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
// kernel has it. After a power cut it may be an older one, or none; it never names a frame that is not on the disk. It stands
// at the same places of LOCK once more, for when RUNNING is damaged, removed or replaced.
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

// newer says whether a mark is of a later frame.
func (m landedMark) newer(other landedMark) bool {
	return m.epoch > other.epoch || m.epoch == other.epoch && m.number > other.number
}

// parseLandedMarks gives the marks that a file has.
func parseLandedMarks(file []byte) (marks []landedMark) {
	for at := runningSlot; at+landedMarkSize <= len(file); at += runningSlot {
		b := file[at : at+landedMarkSize]
		if string(b[:4]) != runningMagic || crc32.Checksum(b[8:], castagnoli()) != binary.LittleEndian.Uint32(b[4:]) {
			continue
		}
		r := stateReader{rest: b[8:]}
		marks = append(marks, landedMark{id: r.fixed(8), epoch: r.fixed(8), number: r.fixed(8), end: r.fixed(8), last: r.fixed(8)})
	}
	return marks
}

// readLandedMarks reads the marks of processes before. A file that is not there, or cannot be read, has none.
func readLandedMarks(dir string) (marks []landedMark) {
	for _, name := range []string{runningName, lockName} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		if data, err := readRaw(path, runningBytes); err == nil {
			marks = append(marks, parseLandedMarks(data)...)
		}
	}
	return marks
}

// newestMark gives the newest mark of a journal, or of any for the id 0; one with the number 0 when there is none.
func newestMark(marks []landedMark, id uint64) (newest landedMark) {
	for _, m := range marks {
		if (id == 0 || m.id == id) && m.newer(newest) {
			newest = m
		}
	}
	return newest
}

// runningFile is the open file, which is locked: whoever removes LOCK does not let a second agent in. Only the writer uses it.
type runningFile struct {
	file *os.File
	// lock is the file LOCK, which is the directoryLock's.
	lock *os.File
	// failed says that the last write has failed.
	failed bool
}

// createRunning makes the file with all that it will ever take, so that a mark needs no room.
func createRunning(dir string) error {
	return createFile(filepath.Join(dir, runningName), runningText+string(make([]byte, runningBytes-len(runningText))))
}

// lockRunning opens and locks the file where there is one, and says whether it was free; without one it gives no file.
func lockRunning(dir string) (f *os.File, free bool, err error) {
	path := filepath.Join(dir, runningName)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return nil, true, nil //nolint:nilerr // what it is instead is looked at later
	}
	if f, err = os.OpenFile(path, os.O_RDWR, 0); err != nil { //nolint:gosec // the directory is the agent's own
		return nil, false, fmt.Errorf("open the mark of an unclean stop: %w", err)
	}
	if free, err = lockFile(f); err != nil || !free {
		return nil, false, errors.Join(err, f.Close())
	}
	return f, true, nil
}

// open takes over the file from the lock of the directory, or opens it when that was there before it.
func (r *runningFile) open(l *directoryLock, dir string) (err error) {
	r.lock, r.file, l.running = l.file, l.running, nil
	if r.file != nil {
		return nil
	}
	free := false
	if r.file, free, err = lockRunning(dir); err == nil && !free {
		err = errOtherAgent(dir)
	}
	if err == nil && r.file == nil {
		err = fmt.Errorf("open the mark of an unclean stop: %s is gone again", filepath.Join(dir, runningName))
	}
	return err
}

// note writes a mark. One of its two places is enough.
func (r *runningFile) note(m landedMark) error {
	b, at := m.encode(), int64(runningSlot*(1+m.number%2))
	_, err := r.file.WriteAt(b, at)
	if _, again := r.lock.WriteAt(b, at); err != nil && again != nil {
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

// foundUnclean says whether the journal or a mark proves that the last stop was not clean although RUNNING is missing: a clean
// stop ends the epoch. m is the state's numbers.
func (c *journalContent) foundUnclean(dir string, m meta) bool {
	if m.journal == 0 {
		return false
	}
	if mark := newestMark(c.marks, m.journal); mark.number > 0 && mark.epoch >= m.epoch {
		return true
	}
	look := &journalContent{id: m.journal}
	data, _, err := readJournalFile(filepath.Join(dir, journalName))
	if err != nil {
		return false // nor does a journal that is not there say anything
	}
	look.data = data
	look.scan(m.epoch)
	return len(look.frames) > 0
}

// peekMeta reads the numbers of a state.db without bbolt, which a damaged one could end the process with.
func peekMeta(path string) (m meta, err error) {
	p, heads, err := openPages(path)
	if err != nil {
		return m, err
	}
	err = damaged("it has no valid head")
	if len(heads) > 0 {
		v := p.version(heads[0].root, heads[0].txid)
		if m, err = v.meta, nil; !v.whole {
			err = damaged("its numbers cannot be read")
		}
	}
	return m, errors.Join(err, p.close())
}
