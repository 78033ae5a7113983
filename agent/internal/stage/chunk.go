package stage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A chunk is the outbox records that one bbolt entry holds. Its key is the sequence of the first record, and its value
//
//	before u64   bytes of all records in front of it in the same segment
//	base   u64   the last sequence that counted when it was written: proof that the state had come so far
//	count  u32   records
//	sum    u32   CRC32C of the segment's id, the key and the fields before
//	then per record, as a frame of its own:
//	  length u32
//	  seq    u32   the low half of the sequence
//	  head   u32   CRC32C of the segment's id, the sequence and the length
//	  sum    u32   head continued over the payload
//	  payload
//
// with numbers in little-endian order. Many records share an entry because bbolt costs more per entry than per byte.
//
// A frame can be found and proven without anything around it: salvage looks for frames in the raw bytes of a damaged file
// and needs neither its pages nor the chunk. That is safe because a file never gets two versions of one sequence (see
// segment.closed), and because the segment's id, which is in the file's name, keeps out what another file has left on
// the disk.
const (
	chunkHeaderBytes = 24
	frameHeaderBytes = 16
	// chunkTargetBytes is where a chunk is closed. A larger record has a chunk of its own.
	chunkTargetBytes = 64 << 10
)

// MaxRecordBytes is the largest payload of one insight: far below the 8 MiB of a message, in which it must fit.
const MaxRecordBytes = 4 << 20

// segmentID is what the file of a segment is told apart by from every other one, also of other agents: 24 bits that rise
// when a segment is written anew under the same first sequence, and 40 random ones.
type segmentID uint64

// chunk is one entry that is being made.
type chunk struct {
	id    segmentID
	first uint64
	count uint32
	value []byte
}

// recordBytes is what a payload takes in the outbox.
func recordBytes(payload []byte) uint64 { return frameHeaderBytes + uint64(len(payload)) }

// newChunk begins a chunk for records of about so many bytes.
func newChunk(id segmentID, first, before, base uint64, size int) *chunk {
	value := make([]byte, chunkHeaderBytes, chunkHeaderBytes+size)
	binary.LittleEndian.PutUint64(value, before)
	binary.LittleEndian.PutUint64(value[8:], base)
	return &chunk{id: id, first: first, value: value}
}

// add appends a record; it belongs to the sequence that follows the last.
func (c *chunk) add(payload []byte) {
	c.value = appendFrame(c.value, c.id, c.first+uint64(c.count), payload)
	c.count++
}

// appendFrame appends a record's frame.
func appendFrame(dst []byte, id segmentID, seq uint64, payload []byte) []byte {
	size := uint32(len(payload)) //nolint:gosec // at most MaxRecordBytes
	head := frameSum(id, seq, size)
	dst = binary.LittleEndian.AppendUint32(dst, size)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(seq)) //nolint:gosec // its low half
	dst = binary.LittleEndian.AppendUint32(dst, head)
	dst = binary.LittleEndian.AppendUint32(dst, crc32.Update(head, castagnoli(), payload))
	return append(dst, payload...)
}

// full says whether the next record belongs into another chunk.
func (c *chunk) full() bool { return len(c.value) >= chunkTargetBytes }

// seal completes the header.
func (c *chunk) seal() {
	binary.LittleEndian.PutUint32(c.value[16:], c.count)
	binary.LittleEndian.PutUint32(c.value[20:], headerSum(c.id, c.first, c.value))
}

// bytes is what its records take.
func (c *chunk) bytes() uint64 { return uint64(len(c.value[chunkHeaderBytes:])) }

// frameSum is the checksum of a frame's head.
func frameSum(id segmentID, seq uint64, size uint32) uint32 {
	var b [20]byte
	binary.LittleEndian.PutUint64(b[:], uint64(id))
	binary.LittleEndian.PutUint64(b[8:], seq)
	binary.LittleEndian.PutUint32(b[16:], size)
	return crc32.Checksum(b[:], castagnoli())
}

func headerSum(id segmentID, first uint64, value []byte) uint32 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(id))
	binary.LittleEndian.PutUint64(b[8:], first)
	return crc32.Update(crc32.Checksum(b[:], castagnoli()), castagnoli(), value[:20])
}

// chunkHeader is what the head of a chunk says.
type chunkHeader struct {
	id                  segmentID
	first, before, base uint64
	count               uint32
}

// last is the sequence of the chunk's last record.
func (h chunkHeader) last() uint64 { return h.first + uint64(h.count) - 1 }

func parseChunk(id segmentID, key, value []byte) (chunkHeader, error) {
	first, err := parseNumber(key)
	if err != nil {
		return chunkHeader{}, err
	}
	if len(value) < chunkHeaderBytes || binary.LittleEndian.Uint32(value[20:]) != headerSum(id, first, value) {
		return chunkHeader{}, fmt.Errorf("%w: the head of the outbox records from %d on", ErrDamaged, first)
	}
	h := chunkHeader{
		id: id, first: first, before: binary.LittleEndian.Uint64(value),
		base: binary.LittleEndian.Uint64(value[8:]), count: binary.LittleEndian.Uint32(value[16:]),
	}
	if h.count == 0 || first == 0 || uint64(h.count) > uint64(len(value))/frameHeaderBytes {
		return chunkHeader{}, fmt.Errorf("%w: the count of the outbox records from %d on", ErrDamaged, first)
	}
	return h, nil
}

// eachRecord calls fn for the chunk's records in order until it gives false. A damaged record has ok false and no
// payload. The payload aliases value.
func eachRecord(h chunkHeader, value []byte, fn func(seq uint64, payload []byte, ok bool) bool) {
	rest, next, last := value[chunkHeaderBytes:], h.first, h.last()
	for next <= last {
		f, ok := findFrame(h.id, rest, next, last)
		if !ok {
			break
		}
		for ; next < f.seq; next++ {
			if !fn(next, nil, false) {
				return
			}
		}
		if !fn(f.seq, rest[f.start:f.end], true) {
			return
		}
		next, rest = f.seq+1, rest[f.end:]
	}
	for ; next <= last; next++ {
		if !fn(next, nil, false) {
			return
		}
	}
}

// frame is a record that was found: its payload is from start to end.
type frame struct {
	seq        uint64
	start, end int
}

// findFrame finds the first whole record of the segment with a sequence from low to high, which are less than 2^32 apart.
// It looks at every offset, because the length of a record in front of it may be damaged. Random bytes almost never pass
// for a head, so that it takes no more than a few passes over b, whatever is in it.
func findFrame(id segmentID, b []byte, low, high uint64) (frame, bool) {
	for at := 0; at+frameHeaderBytes <= len(b); at++ {
		if f, ok := frameAt(id, b[at:], low, high); ok {
			f.start, f.end = f.start+at, f.end+at
			return f, true
		}
	}
	return frame{}, false
}

// frameAt is the frame that b begins with.
func frameAt(id segmentID, b []byte, low, high uint64) (frame, bool) {
	if len(b) < frameHeaderBytes {
		return frame{}, false
	}
	size := binary.LittleEndian.Uint32(b)
	if size > MaxRecordBytes || int(size) > len(b)-frameHeaderBytes {
		return frame{}, false
	}
	seq := low + uint64(binary.LittleEndian.Uint32(b[4:])-uint32(low)) //nolint:gosec // the low half
	if seq > high {
		return frame{}, false
	}
	sum := frameSum(id, seq, size)
	if sum != binary.LittleEndian.Uint32(b[8:]) {
		return frame{}, false
	}
	f := frame{seq: seq, start: frameHeaderBytes, end: frameHeaderBytes + int(size)}
	return f, crc32.Update(sum, castagnoli(), b[f.start:f.end]) == binary.LittleEndian.Uint32(b[12:])
}
