package engine

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// text mixes a text into a hash. Keys are names most of the time. One of up to 7 bytes is a word with its length, so that
// different ones never have the same; longer ones of up to 16 bytes are one word or two that overlap. There the length
// turns the hash that they are mixed into, which is seeded: adding it to a word would make words of different lengths
// the same, whatever the seed.
func (t *keyTable) text(h uint64, s []byte) uint64 {
	n := len(s)
	switch {
	case n > 16:
		return mix(h, maphash.Bytes(t.seed, s))
	case n > 8:
		return mix(mix(bits.RotateLeft64(h, n), binary.LittleEndian.Uint64(s)), binary.LittleEndian.Uint64(s[n-8:]))
	case n == 8:
		return mix(bits.RotateLeft64(h, 8), binary.LittleEndian.Uint64(s))
	}
	return mix(h, shortWord(s))
}

// shortWord is a text of up to 7 bytes and its length. Where the parts that it is read in overlap, they agree.
func shortWord(s []byte) uint64 {
	n := len(s)
	word := uint64(n) << 56
	switch {
	case n >= 4:
		return word | uint64(binary.LittleEndian.Uint32(s)) | uint64(binary.LittleEndian.Uint32(s[n-4:]))<<(8*(n-4))
	case n > 0:
		return word | uint64(s[0]) | uint64(s[n/2])<<(8*(n/2)) | uint64(s[n-1])<<(8*(n-1))
	}
	return word
}
