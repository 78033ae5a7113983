package decode

import (
	"encoding/binary"
	"math/bits"
)

// The functions here look at eight bytes at a time in one 64-bit word, the first byte lowest. A comparison sets the
// high bit of every byte that matches; borrows and carries run upwards only, so the lowest match is always a true one.

const (
	// everyByte times a byte repeats it eight times.
	everyByte = 0x0101010101010101
	highBits  = 0x8080808080808080
	// asciiZeros is eight characters 0.
	asciiZeros = '0' * everyByte
	// aboveNine carries a digit's value above nine into the high bit.
	aboveNine = 0x76 * everyByte
	// pointAsDigit is the decimal point after asciiZeros were taken away.
	pointAsDigit = '.' ^ '0'
)

// load8 is the eight bytes at s[p:], which must be there.
func load8(s []byte, p int) uint64 { return binary.LittleEndian.Uint64(s[p : p+8]) }

// zeroBytes marks the bytes that are zero.
func zeroBytes(w uint64) uint64 { return (w - everyByte) &^ w & highBits }

// stringStop is the position of the first byte from s[p:] on that ends a JSON string or needs a closer look: a quote,
// a backslash, a control character or a part of a character that is not ASCII. It is len(s) when there is none.
func stringStop(s []byte, p int) int {
	for ; p+8 <= len(s); p += 8 {
		w := load8(s, p)
		stop := zeroBytes(w^'"'*everyByte) | zeroBytes(w^'\\'*everyByte) | (w-' '*everyByte)&^w&highBits | w&highBits
		if stop != 0 {
			return p + bits.TrailingZeros64(stop)>>3
		}
	}
	for p < len(s) && s[p] != '"' && s[p] != '\\' && s[p] >= ' ' && s[p] < 0x80 {
		p++
	}
	return p
}

// fieldStop is the position of the first delimiter or line feed from s[p:] on, or len(s). delims is the delimiter eight
// times. seen has a high bit set when a byte before it, or near it, may not be ASCII.
func fieldStop(s []byte, p int, delims uint64) (stop int, seen uint64) {
	for ; p+8 <= len(s); p += 8 {
		w := load8(s, p)
		seen |= w
		if m := zeroBytes(w^delims) | zeroBytes(w^'\n'*everyByte); m != 0 {
			return p + bits.TrailingZeros64(m)>>3, seen & highBits
		}
	}
	for p < len(s) && s[p] != byte(delims&0xff) && s[p] != '\n' {
		seen |= uint64(s[p])
		p++
	}
	return p, seen & highBits
}

// quoteStop is fieldStop for the first quote or line feed.
func quoteStop(s []byte, p int) (stop int, seen uint64) { return fieldStop(s, p, '"'*everyByte) }

// nonDigits marks the bytes of a word, from which asciiZeros were taken away, that are no digits.
func nonDigits(w uint64) uint64 { return ((w + aboveNine) | w) & highBits }

// eightDigits is the number that eight digits are, each a byte from 0 to 9. Neighbours are joined to pairs, to fours
// and to the whole.
func eightDigits(w uint64) uint64 {
	w = (w*10 + w>>8) & 0x00ff00ff00ff00ff
	w = (w*100 + w>>16) & 0x0000ffff0000ffff
	return (w*10000 + w>>32) & 0xffffffff
}

// quickInt reads an integer of at most fifteen digits at s[p:]. The end is 0 when it is something else, or too near the
// end of s; otherwise there is a byte at it, which the caller must look at.
func quickInt(s []byte, p int) (v int64, end int) {
	if p+17 > len(s) {
		return 0, 0
	}
	negative := s[p] == '-'
	if negative {
		p++
	}
	w := load8(s, p) ^ asciiZeros
	stop := nonDigits(w)
	n := uint(bits.TrailingZeros64(stop)) >> 3
	if n == 0 || n > 1 && w&0xff == 0 {
		return 0, 0
	}
	m := eightDigits(w << ((64 - 8*n) & 63))
	p += int(n)
	if n == 8 {
		w = load8(s, p) ^ asciiZeros
		n = uint(bits.TrailingZeros64(nonDigits(w))) >> 3
		if n == 8 {
			return 0, 0
		}
		if n > 0 {
			m = m*intPowers[n&7] + eightDigits(w<<((64-8*n)&63))
			p += int(n)
		}
	}
	if negative {
		return -int64(m), p //nolint:gosec // fifteen digits
	}
	return int64(m), p //nolint:gosec // fifteen digits
}

// intPowers are the powers of ten below eight digits.
var intPowers = [8]uint64{1, 10, 100, 1000, 10000, 100000, 1000000, 10000000}

// quickFloat reads a decimal of at most seven digits and a point at s[p:], exactly as strconv does: both the digits and
// the power of ten are exact doubles, so that one division rounds correctly. The end is as with quickInt.
func quickFloat(s []byte, p int) (f float64, end int) {
	if p+10 > len(s) {
		return 0, 0
	}
	negative := s[p] == '-'
	if negative {
		p++
	}
	w := load8(s, p) ^ asciiZeros
	stop := nonDigits(w)
	n := uint(bits.TrailingZeros64(stop)) >> 3
	if n-1 > 5 || n > 1 && w&0xff == 0 {
		return 0, 0
	}
	if w>>(8*n&63)&0xff == pointAsDigit {
		// The fraction ends at the next byte that is no digit. Taking the point out joins it to what is before.
		end := uint(bits.TrailingZeros64(stop&(stop-1))) >> 3
		fraction := end - n - 1
		if fraction == 0 {
			return 0, 0
		}
		whole := uint64(1)<<(8*n&63) - 1
		joined := w&whole | w>>8&^whole
		f = float64(eightDigits(joined<<((72-8*end)&63))) / exactPowers[fraction&7]
		n = end
	} else {
		f = float64(eightDigits(w << ((64 - 8*n) & 63)))
	}
	if negative {
		f = -f
	}
	return f, p + int(n)
}
