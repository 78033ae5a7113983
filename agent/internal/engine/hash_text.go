package engine

import (
	"encoding/binary"
	"hash/maphash"
)

// text mixes a text into a hash. Keys are names most of the time, and those of up to 16 bytes are mixed as two words that
// overlap; their length says how. The hash that they are mixed into is seeded, as it is for numbers.
func (t *keyTable) text(h uint64, s []byte) uint64 {
	n := len(s)
	switch {
	case n > 16:
		return mix(h, maphash.Bytes(t.seed, s))
	case n >= 8:
		return mix(mix(h, binary.LittleEndian.Uint64(s)), binary.LittleEndian.Uint64(s[n-8:])+uint64(n))
	case n >= 4:
		return mix(h+uint64(n), uint64(binary.LittleEndian.Uint32(s))<<32|uint64(binary.LittleEndian.Uint32(s[n-4:])))
	case n > 0:
		return mix(h, uint64(s[0])|uint64(s[n/2])<<8|uint64(s[n-1])<<16|uint64(n)<<24)
	}
	return mix(h, 0)
}
