package stage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	bolt "go.etcd.io/bbolt"
)

// castagnoli is a function and not a variable because packages hold no state; MakeTable returns one shared table.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// sumBytes is the length of a checksum.
const sumBytes = 4

// seal puts a CRC32C over key and value in front of the value.
func seal(key, value []byte) []byte {
	return appendSealed(make([]byte, 0, sumBytes+len(value)), key, value)
}

func appendSealed(dst, key, value []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(dst, sumOf(key, value)), value...)
}

func sumOf(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli()), castagnoli(), value)
}

// What adds to a flow's content, and to the sum of the marks.
const (
	cursorPart = iota + 1
	operatorPart
	markPart
	numberPart
	namePart
)

// emptyContent is the content of a flow without cursors and entries. The name is in it, because after damage the pages of
// one flow may stand where those of another are looked for.
func emptyContent(flow string) uint64 { return contentPart(namePart, sumOf(nil, []byte(flow))) }

// contentPart is what an entry with this checksum adds to the sum of a set of entries. The sum does not depend on their
// order, so that a change costs no more than the entry. The mixing is that of splitmix64
// (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
func contentPart(kind uint64, sum uint32) uint64 {
	x := (kind<<32 | uint64(sum)) + 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// sealedPart is contentPart of a sealed entry, or 0 for none.
func sealedPart(kind uint64, sealed []byte) uint64 {
	if len(sealed) < sumBytes {
		return 0
	}
	return contentPart(kind, binary.LittleEndian.Uint32(sealed))
}

// sealer puts sealed entries into buckets. Their values lie in memory that is used again by the next transaction, because
// bbolt wants them until the end of theirs.
type sealer struct {
	buf []byte
	// content is what the entries of a flow add up to, kept by put and remove.
	content uint64
}

// The sizes of a sealer's memory, of which the last piece is kept.
const (
	minSealer = 4 << 10
	maxSealer = 256 << 10
)

// reset begins a transaction.
func (s *sealer) reset() { s.buf = s.buf[:0] }

// putPart puts an entry that counts in content.
func (s *sealer) putPart(b *bolt.Bucket, kind uint64, key, value []byte) error {
	s.content += contentPart(kind, sumOf(key, value)) - sealedPart(kind, b.Get(key))
	return s.put(b, key, value)
}

// removePart removes an entry that counts in content.
func (s *sealer) removePart(b *bolt.Bucket, kind uint64, key []byte) error {
	s.content -= sealedPart(kind, b.Get(key))
	if err := b.Delete(key); err != nil {
		return fmt.Errorf("remove the entry %q: %w", key, err)
	}
	return nil
}

func (s *sealer) put(b *bolt.Bucket, key, value []byte) error {
	if size := sumBytes + len(value); cap(s.buf)-len(s.buf) < size {
		s.buf = make([]byte, 0, max(size, minSealer, min(2*cap(s.buf), maxSealer)))
	}
	start := len(s.buf)
	s.buf = appendSealed(s.buf, key, value)
	if err := b.Put(key, s.buf[start:len(s.buf):len(s.buf)]); err != nil {
		return fmt.Errorf("store the entry %q: %w", key, err)
	}
	return nil
}

// unseal gives the value that seal was given. It aliases its argument.
func unseal(key, sealed []byte) ([]byte, error) {
	if len(sealed) < sumBytes {
		return nil, fmt.Errorf("%w: the entry %q is cut short", ErrDamaged, key)
	}
	value := sealed[sumBytes:]
	if binary.LittleEndian.Uint32(sealed) != sumOf(key, value) {
		return nil, fmt.Errorf("%w: the checksum of the entry %q does not match", ErrDamaged, key)
	}
	return value, nil
}

// number is a number as a key: in byte order, so that keys sort by value.
func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// parseNumber reads what number wrote.
func parseNumber(b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("%w: a number has %d bytes instead of 8", ErrDamaged, len(b))
	}
	return binary.BigEndian.Uint64(b), nil
}
