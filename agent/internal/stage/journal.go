package stage

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
)

// The journal is a file of a fixed size that is written from the beginning again and again. What state.db has taken in ends
// an epoch, and the next one begins at the front. The first block is its head:
//
//	magic   16 bytes
//	version u32
//	id      u64  random; a journal that is made anew has another one
//	size    u64  of the file
//	sum     u32  CRC32C of the fields before
//
// It stands at the end of the last block once more, for when the front is damaged. Frames follow, each of which begins a block:
//
//	size   u32   of the frame, without what fills up its last block
//	table  u32   bytes of the table
//	count  u32   requests in the table
//	sum    u32   CRC32C of the seed, the fields but this one, and the table
//	number u64   1 for the first frame of an epoch
//	epoch  u64
//	base   u64   the last sequence in front of the frame
//	table, per request:
//	  flow (uvarint length, text), number u64, sum u32 (of mark), before u32 (the sum of the mark that it follows),
//	  late uvarint, records uvarint, recordBytes uvarint, stateBytes uvarint, stateSum u32 (CRC32C of the state)
//	then, per request, its state (see encodeState) and its records, as the frames of a chunk with the seed for a segment's id
//
// with numbers in little-endian order. The seed is made of the file's id and the epoch, so that nothing of an earlier epoch or
// of another file ever passes.
const (
	journalName      = "JOURNAL"
	journalMagic     = "outfeed journal\n"
	journalVersion   = 1
	journalHeadBytes = 16 + 4 + 8 + 8 + 4
	// journalBlock is what a disk writes as a whole at best: no write touches a block that holds something acknowledged.
	journalBlock = 4096
	// journalBytes is the size of the file, and so about the most that waits in memory to be taken in by state.db.
	journalBytes = 8 << 20
	// maxJournaled bounds what one request may put into the journal; a larger one is written in place.
	maxJournaled = 256 << 10
	// maxFrameBytes is where a frame takes no further request.
	maxFrameBytes   = 256 << 10
	frameFixedBytes = 40
	// requestFixedBytes is at most what a request takes in the table besides its flow's name.
	requestFixedBytes = 8 + 3*4 + 5*binary.MaxVarintLen64
)

// journal is the open file. Only the writer uses it.
type journal struct {
	file *os.File
	path string
	id   uint64
	size int64
	// epoch is 0 until state.db has the id. number is that of the last frame of the epoch, and at is where the next begins.
	epoch, number uint64
	at            int64
	// broken says that a write has failed: it takes nothing more and is removed once state.db does without it.
	broken bool
	buf    []byte
}

// journalSeed is what the checksums of an epoch begin with.
func journalSeed(id, epoch uint64) segmentID {
	x := id + epoch*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return segmentID(x ^ x>>31)
}

// createJournal makes the file with all of its blocks written, so that a frame needs no room and a sync nothing but the data.
func createJournal(dir string, size int64) (*journal, error) {
	var random [8]byte
	_, _ = rand.Read(random[:]) // crypto/rand.Read never fails
	j := &journal{path: filepath.Join(dir, journalName), id: binary.LittleEndian.Uint64(random[:]) | 1, size: size}
	temp := j.path + newSuffix
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // the directory is the agent's own
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", j.path, err)
	}
	// Block by block, because Linux counts a write for as much as the memory holds in one piece, which is what came in one write.
	block := append(encodeJournalHead(j.id, size), make([]byte, journalBlock-journalHeadBytes)...)
	for at := int64(0); at < size && err == nil; at += journalBlock {
		_, err = f.WriteAt(block[:min(journalBlock, size-at)], at)
		clear(block)
	}
	if err == nil {
		// No frame reaches the end of the last block.
		_, err = f.WriteAt(encodeJournalHead(j.id, size), size-journalHeadBytes)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", j.path, err), os.Remove(temp))
	}
	if err := publish(temp, j.path); err != nil {
		return nil, err
	}
	return j, j.open()
}

func (j *journal) open() (err error) {
	if j.file, err = os.OpenFile(j.path, os.O_RDWR, 0); err != nil {
		return fmt.Errorf("open the journal: %w", err)
	}
	return nil
}

func encodeJournalHead(id uint64, size int64) []byte {
	b := append(make([]byte, 0, journalHeadBytes), journalMagic...)
	b = binary.LittleEndian.AppendUint32(b, journalVersion)
	b = binary.LittleEndian.AppendUint64(b, id)
	b = binary.LittleEndian.AppendUint64(b, uint64(size)) //nolint:gosec // it is not negative
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
}

// parseJournalHead gives the file's id and size.
func parseJournalHead(b []byte) (id uint64, size int64, err error) {
	if len(b) < journalHeadBytes || string(b[:16]) != journalMagic || crc32.Checksum(b[:36], castagnoli()) != binary.LittleEndian.Uint32(b[36:]) {
		return 0, 0, damaged("the head of the journal")
	}
	if v := binary.LittleEndian.Uint32(b[16:]); v > journalVersion {
		return 0, 0, fmt.Errorf("%w: its journal has version %d and this agent knows %d; start the newer agent again", ErrNewerFormat, v, journalVersion)
	}
	return binary.LittleEndian.Uint64(b[20:]), int64(binary.LittleEndian.Uint64(b[28:])), nil //nolint:gosec // the checksum is right
}

// begin starts an epoch.
func (j *journal) begin(epoch uint64) { j.epoch, j.number, j.at = epoch, 0, journalBlock }

// ready says whether it takes frames.
func (j *journal) ready() bool { return j != nil && j.epoch != 0 && !j.broken }

// close closes the file.
func (j *journal) close() error {
	if j == nil || j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	if err != nil {
		return fmt.Errorf("close the journal: %w", err)
	}
	return nil
}

// fits says whether the rest of the file has room for a frame of so many bytes.
func (j *journal) fits(size int) bool { return j.at+int64(size)+journalBlock <= j.size }

// append writes the requests as one frame, behind the sequence base, and syncs it. After an error nobody knows whether the
// frame is there, and nothing more may be written.
func (j *journal) append(batch []*request, base uint64) error {
	frame := j.encode(batch, base)
	j.broken = true
	_, err := j.file.WriteAt(frame, j.at)
	if err == nil {
		err = syncData(j.file)
	}
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	j.broken = false
	j.number++
	j.at += int64(len(frame))
	return nil
}

// encode gives the frame. It is valid until the next.
func (j *journal) encode(batch []*request, base uint64) []byte {
	seed := journalSeed(j.id, j.epoch)
	b := append(j.buf[:0], make([]byte, frameFixedBytes)...)
	for _, r := range batch {
		b = r.appendTable(b)
	}
	table, seq := len(b)-frameFixedBytes, base
	for _, r := range batch {
		b = append(b, r.state...)
		for _, p := range r.payloads {
			seq++
			b = appendFrame(b, seed, seq, p)
		}
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))         //nolint:gosec // about maxFrameBytes
	binary.LittleEndian.PutUint32(b[4:], uint32(table))      //nolint:gosec // less
	binary.LittleEndian.PutUint32(b[8:], uint32(len(batch))) //nolint:gosec // at most maxMerged
	binary.LittleEndian.PutUint64(b[16:], j.number+1)
	binary.LittleEndian.PutUint64(b[24:], j.epoch)
	binary.LittleEndian.PutUint64(b[32:], base)
	binary.LittleEndian.PutUint32(b[12:], headOfFrameSum(seed, b[:frameFixedBytes+table]))
	if rest := len(b) % journalBlock; rest > 0 {
		b = append(b, make([]byte, journalBlock-rest)...)
	}
	j.buf = b
	return b
}

// headOfFrameSum is the checksum of a frame's head, which is the fixed part and the table.
func headOfFrameSum(seed segmentID, head []byte) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(seed))
	sum := crc32.Update(crc32.Checksum(b[:], castagnoli()), castagnoli(), head[:12])
	return crc32.Update(sum, castagnoli(), head[16:])
}

// appendTable appends the request's line of the table.
func (r *request) appendTable(b []byte) []byte {
	bytes := uint64(0)
	for _, p := range r.payloads {
		bytes += recordBytes(p)
	}
	b = append(binary.AppendUvarint(b, uint64(len(r.flow))), r.flow...)
	b = binary.LittleEndian.AppendUint64(b, r.mark.number)
	b = binary.LittleEndian.AppendUint32(b, r.mark.sum)
	b = binary.LittleEndian.AppendUint32(b, r.before)
	for _, n := range []uint64{r.late, uint64(len(r.payloads)), bytes, uint64(len(r.state))} {
		b = binary.AppendUvarint(b, n)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(r.state, castagnoli()))
}

// frameBytes is about what the request takes in a frame, and never less.
func (r *request) frameBytes() int {
	return requestFixedBytes + len(r.flow) + len(r.state) + r.bytes
}

// encodeState is the cursors and the changed entries of a checkpoint:
//
//	cursors uvarint, then per cursor: source, cursor (each with its length as uvarint in front)
//	entries uvarint, then per entry: key (with its length), 1 + length of the value as uvarint, or 0 for one that is removed, value
func encodeState(dst []byte, c *Checkpoint, entries []entry) []byte {
	size := 2 * binary.MaxVarintLen64
	for source, cursor := range c.Cursors {
		size += 2*binary.MaxVarintLen32 + len(source) + len(cursor)
	}
	for i := range entries {
		size += 2*binary.MaxVarintLen32 + len(entries[i].key) + len(entries[i].change.Value)
	}
	b := binary.AppendUvarint(slices.Grow(dst, size), uint64(len(c.Cursors)))
	for source, cursor := range c.Cursors {
		b = append(binary.AppendUvarint(b, uint64(len(source))), source...)
		b = append(binary.AppendUvarint(b, uint64(len(cursor))), cursor...)
	}
	b = binary.AppendUvarint(b, uint64(len(entries)))
	for i := range entries {
		e := &entries[i]
		b = append(binary.AppendUvarint(b, uint64(len(e.key))), e.key...)
		if e.change.Value == nil {
			b = append(b, 0)
			continue
		}
		b = append(binary.AppendUvarint(b, uint64(len(e.change.Value))+1), e.change.Value...)
	}
	return b
}

// eachInState reads what encodeState has written. The slices alias b; the value of an entry that is removed is nil.
func eachInState(b []byte, cursor func(source, value []byte), entry func(key, value []byte)) error {
	r := stateReader{rest: b}
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		source := r.bytes(r.uvarint())
		if value := r.bytes(r.uvarint()); !r.bad {
			cursor(source, value)
		}
	}
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		key, size := r.bytes(r.uvarint()), r.uvarint()
		var value []byte
		if size > 0 {
			value = r.bytes(size - 1)
		}
		if !r.bad {
			entry(key, value)
		}
	}
	if r.bad || len(r.rest) > 0 {
		return damaged("the state of a flow in the journal")
	}
	return nil
}

// stateReader reads numbers and texts; bad says that there were fewer.
type stateReader struct {
	rest []byte
	bad  bool
}

func (r *stateReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// bytes gives the next n bytes, which are never nil unless there are fewer.
func (r *stateReader) bytes(n uint64) []byte {
	if r.bad || n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	if b == nil {
		b = []byte{}
	}
	return b
}

// fixed gives the next n bytes as a number of 4 or 8 bytes.
func (r *stateReader) fixed(n uint64) (v uint64) {
	for i, c := range r.bytes(n) {
		v |= uint64(c) << (8 * i)
	}
	return v
}
