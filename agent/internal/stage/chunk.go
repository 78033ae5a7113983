package stage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A chunk is the outbox records that one bbolt entry holds. Its key is the sequence of the first record, and its value
//
//	before u64   bytes of all records in front of it in the same segment
//	count  u32   records
//	sum    u32   CRC32C of the key and the two fields before
//	then per record: length u32, sum u32 (CRC32C of the sequence and the payload), payload
//
// with numbers in little-endian order. Many records share an entry because bbolt costs more per entry than per byte;
// each keeps its own checksum, so that damage to one takes nothing else with it.
const (
	chunkHeaderBytes = 16
	frameHeaderBytes = 8
	// chunkTargetBytes is where a chunk is closed. A larger record has a chunk of its own.
	chunkTargetBytes = 64 << 10
)

// MaxRecordBytes is the largest payload of one insight: far below the 8 MiB of a message, in which it must fit.
const MaxRecordBytes = 4 << 20

// chunk is one entry that is being made.
type chunk struct {
	first uint64
	count uint32
	value []byte
}

// recordBytes is what a payload takes in the outbox.
func recordBytes(payload []byte) uint64 { return frameHeaderBytes + uint64(len(payload)) }

func newChunk(first, before uint64, buf []byte) *chunk {
	value := append(buf[:0], make([]byte, chunkHeaderBytes)...)
	binary.LittleEndian.PutUint64(value, before)
	return &chunk{first: first, value: value}
}

// add appends a record; it belongs to the sequence that follows the last.
func (c *chunk) add(payload []byte) {
	sum := recordSum(c.first+uint64(c.count), payload)
	c.value = binary.LittleEndian.AppendUint32(c.value, uint32(len(payload))) //nolint:gosec // at most MaxRecordBytes
	c.value = binary.LittleEndian.AppendUint32(c.value, sum)
	c.value = append(c.value, payload...)
	c.count++
}

// full says whether the next record belongs into another chunk.
func (c *chunk) full() bool { return len(c.value) >= chunkTargetBytes }

// seal completes the header.
func (c *chunk) seal() {
	binary.LittleEndian.PutUint32(c.value[8:], c.count)
	binary.LittleEndian.PutUint32(c.value[12:], headerSum(c.first, c.value))
}

// bytes is what its records take.
func (c *chunk) bytes() uint64 { return uint64(len(c.value[chunkHeaderBytes:])) }

func recordSum(seq uint64, payload []byte) uint32 {
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], seq)
	return crc32.Update(crc32.Checksum(key[:], castagnoli()), castagnoli(), payload)
}

func headerSum(first uint64, value []byte) uint32 {
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], first)
	return crc32.Update(crc32.Checksum(key[:], castagnoli()), castagnoli(), value[:12])
}

// chunkHeader is what the head of a chunk says.
type chunkHeader struct {
	first, before uint64
	count         uint32
}

// last is the sequence of the chunk's last record.
func (h chunkHeader) last() uint64 { return h.first + uint64(h.count) - 1 }

func parseChunk(key, value []byte) (chunkHeader, error) {
	first, err := parseNumber(key)
	if err != nil {
		return chunkHeader{}, err
	}
	if len(value) < chunkHeaderBytes || binary.LittleEndian.Uint32(value[12:]) != headerSum(first, value) {
		return chunkHeader{}, fmt.Errorf("%w: the head of the outbox records from %d on", ErrDamaged, first)
	}
	h := chunkHeader{first: first, before: binary.LittleEndian.Uint64(value), count: binary.LittleEndian.Uint32(value[8:])}
	if h.count == 0 || first == 0 || uint64(h.count) > uint64(len(value))/frameHeaderBytes {
		return chunkHeader{}, fmt.Errorf("%w: the count of the outbox records from %d on", ErrDamaged, first)
	}
	return h, nil
}

// eachRecord calls fn for the chunk's records in order until it gives false. A damaged record has ok false and no
// payload. The payload aliases value. Once the length of a record is damaged the rest cannot be found, and counts as damaged.
func eachRecord(h chunkHeader, value []byte, fn func(seq uint64, payload []byte, ok bool) bool) {
	rest := value[chunkHeaderBytes:]
	for i := range uint64(h.count) {
		seq := h.first + i
		payload, ok := []byte(nil), false
		if len(rest) >= frameHeaderBytes {
			size := binary.LittleEndian.Uint32(rest)
			sum := binary.LittleEndian.Uint32(rest[4:])
			if uint64(size) <= uint64(len(rest[frameHeaderBytes:])) {
				payload = rest[frameHeaderBytes : frameHeaderBytes+int(size)]
				rest = rest[frameHeaderBytes+int(size):]
				ok = recordSum(seq, payload) == sum
			} else {
				rest = nil
			}
		}
		if !ok {
			payload = nil
		}
		if !fn(seq, payload, ok) {
			return
		}
	}
}
