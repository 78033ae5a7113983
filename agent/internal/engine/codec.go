package engine

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"

	"github.com/outfeed/outfeed/agent/internal/column"
)

// The encoding of operator state. Every value is a version, the payload and a CRC-32C over key and payload.

const stateVersion = 1

var errCorruptState = errors.New("the saved state is damaged")

func putWord(dst []byte, v uint64) []byte   { return binary.BigEndian.AppendUint64(dst, v) }
func putInt(dst []byte, v int64) []byte     { return putWord(dst, uint64Of(v)) }
func putFloat(dst []byte, v float64) []byte { return putWord(dst, math.Float64bits(v)) }

func putBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func putText(dst, v []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(v))), v...)
}

// putCell appends row i of a column; cell reads it back.
func putCell(dst []byte, c *column.Column, i int) []byte {
	if c.Null(i) {
		return append(dst, 0)
	}
	dst = append(dst, 1)
	switch storageOf(c.Type) {
	case storeBool:
		return putBool(dst, c.Bools[i])
	case storeInt:
		return putInt(dst, c.Ints[i])
	case storeFloat:
		return putFloat(dst, c.Floats[i])
	case storeText:
		return putText(dst, c.Bytes(i))
	case storeNone:
	}
	return dst
}

// reader takes values off a slice; after the first failure it gives zeros and err is set.
type reader struct {
	s   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.s) {
		r.err = errCorruptState
		return nil
	}
	part := r.s[:n]
	r.s = r.s[n:]
	return part
}

func (r *reader) word() uint64 {
	part := r.take(8)
	if part == nil {
		return 0
	}
	return binary.BigEndian.Uint64(part)
}

func (r *reader) int() int64 {
	return int64(r.word()) //nolint:gosec // the same bits
}

func (r *reader) float() float64 { return math.Float64frombits(r.word()) }

func (r *reader) bool() bool {
	part := r.take(1)
	if part != nil && part[0] > 1 {
		r.err = errCorruptState
	}
	return part != nil && part[0] == 1
}

func (r *reader) uvarint() uint64 {
	n, size := binary.Uvarint(r.s)
	if r.take(max(size, 0)); size <= 0 {
		r.err = errCorruptState
		return 0
	}
	return n
}

func (r *reader) varint() int64 {
	n, size := binary.Varint(r.s)
	if r.take(max(size, 0)); size <= 0 {
		r.err = errCorruptState
		return 0
	}
	return n
}

func (r *reader) text() []byte {
	n := r.uvarint()
	if n > uint64(len(r.s)) {
		r.err = errCorruptState
		return nil
	}
	return r.take(int(n)) //nolint:gosec // not longer than r.s
}

// cell appends one value to a column.
func (r *reader) cell(c *column.Column) {
	if !r.bool() {
		if r.err == nil {
			c.AppendNull()
		}
		return
	}
	switch storageOf(c.Type) {
	case storeBool:
		c.AppendBool(r.bool())
	case storeInt:
		c.AppendInt(r.int())
	case storeFloat:
		c.AppendFloat(r.float())
	case storeText:
		c.AppendStr(r.text())
	case storeNone:
		r.err = errCorruptState
	}
}

// seal ends a state value, which starts with its version.
func seal(value, key []byte) []byte {
	return binary.BigEndian.AppendUint32(value, checksum(key, value))
}

// sealMeta is seal for the entry under metaKey, of which nearly every checkpoint has one.
func sealMeta(value []byte) []byte {
	return binary.BigEndian.AppendUint32(value, metaSum(value))
}

func metaSum(payload []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, table, []byte(metaKey)), table, payload)
}

func checksum(key, payload []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, table, key), table, payload)
}

// unseal checks a state value and gives its payload.
func unseal(key string, value []byte) ([]byte, error) {
	if len(value) < 5 || value[0] != stateVersion {
		return nil, errCorruptState
	}
	body, sum := value[:len(value)-4], value[len(value)-4:]
	if checksum([]byte(key), body) != binary.BigEndian.Uint32(sum) {
		return nil, errCorruptState
	}
	return body[1:], nil
}
