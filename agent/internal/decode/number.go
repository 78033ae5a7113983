package decode

import (
	"bytes"
	"math"
	"math/bits"
	"strconv"
)

// number is a decimal number as scanned: mantissa times ten to the exponent.
type number struct {
	mantissa uint64
	exponent int
	negative bool
	// exact is false when the mantissa has more digits than fit.
	exact bool
	// whole is true when there was neither a fraction nor an exponent.
	whole bool
}

// maxDigits is how many decimal digits always fit a uint64.
const maxDigits = 19

// scanNumber scans the number at s[p:] by JSON's grammar and gives the position behind it, or -1.
func scanNumber(s []byte, p int) (n number, end int) {
	if p < len(s) && s[p] == '-' {
		n.negative = true
		p++
	}
	start := p
	m, p := scanDigits(0, s, p)
	digits := p - start
	if digits == 0 || (digits > 1 && s[start] == '0') {
		return n, -1
	}
	n.whole = true
	if p < len(s) && s[p] == '.' {
		n.whole = false
		p++
		first := p
		if m, p = scanDigits(m, s, p); p == first {
			return n, -1
		}
		n.exponent = first - p
		digits += p - first
	}
	n.mantissa, n.exact = m, digits <= maxDigits
	if p < len(s) && s[p]|0x20 == 'e' {
		n.whole = false
		return scanExponent(n, s, p+1)
	}
	return n, p
}

// scanDigits reads digits on from m, which runs over when there are too many, and gives the position behind them.
func scanDigits(m uint64, s []byte, p int) (uint64, int) {
	for p+8 <= len(s) {
		w := load8(s, p) ^ asciiZeros
		if nonDigits(w) != 0 {
			break
		}
		m = m*100_000_000 + eightDigits(w)
		p += 8
	}
	for p < len(s) && s[p]-'0' <= 9 {
		m = m*10 + uint64(s[p]-'0')
		p++
	}
	return m, p
}

func scanExponent(n number, s []byte, p int) (number, int) {
	negative := false
	if p < len(s) && (s[p] == '+' || s[p] == '-') {
		negative = s[p] == '-'
		p++
	}
	first, e := p, 0
	for p < len(s) && s[p]-'0' <= 9 {
		if e < 1<<30 { // beyond what the digits of a record could make up for
			e = e*10 + int(s[p]-'0')
		}
		p++
	}
	if p == first {
		return n, -1
	}
	if negative {
		e = -e
	}
	n.exponent += e
	return n, p
}

// exactPowers are the powers of ten that a double holds exactly.
var exactPowers = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// float is the double nearest to n. A mantissa and a power of ten that are both exact give a correctly rounded result
// with one operation (Clinger, How to Read Floating Point Numbers Accurately, 1990); the rest is left to strconv.
func (n number) float(text []byte) (float64, problem) {
	if n.exact && n.mantissa <= 1<<53 && n.exponent >= -22 && n.exponent <= 22 {
		f := float64(n.mantissa)
		if n.exponent < 0 {
			f /= exactPowers[-n.exponent]
		} else {
			f *= exactPowers[n.exponent]
		}
		if n.negative {
			f = -f
		}
		return f, ok
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return 0, outOfRange
	}
	return f, ok
}

// int is n as an exact integer: 3.0, 3e2 and 10e-1 are whole, 3.5 is not.
func (n number) int(text []byte) (int64, problem) {
	if n.whole && n.exact {
		return signed(n.mantissa, n.negative)
	}
	if !n.exact {
		n = n.shortest(text)
	}
	for n.exponent < 0 && n.mantissa != 0 {
		if n.mantissa%10 != 0 {
			return 0, notWhole
		}
		n.mantissa /= 10
		n.exponent++
	}
	if !n.exact {
		return 0, outOfRange
	}
	for ; n.exponent > 0 && n.mantissa != 0; n.exponent-- {
		high, low := bits.Mul64(n.mantissa, 10)
		if high != 0 {
			return 0, outOfRange
		}
		n.mantissa = low
	}
	return signed(n.mantissa, n.negative)
}

// shortest is n, whose text has too many digits, without the zeros at both ends. Where what remains is still too long for
// a mantissa it stays inexact, with a mantissa that is no multiple of ten.
func (n number) shortest(text []byte) number {
	if e := bytes.IndexAny(text, "eE"); e >= 0 {
		text = text[:e]
	}
	digits := bytes.Trim(bytes.Replace(text, []byte{'.'}, nil, 1), "-0")
	for i := len(text) - 1; i >= 0 && (text[i] == '0' || text[i] == '.'); i-- {
		if text[i] == '0' {
			n.exponent++
		}
	}
	n.mantissa, n.exact = 1, len(digits) <= maxDigits
	if n.exact {
		n.mantissa, _ = scanDigits(0, digits, 0)
	}
	return n
}

func signed(m uint64, negative bool) (int64, problem) {
	if negative {
		if m > 1<<63 {
			return 0, outOfRange
		}
		return -int64(m), ok //nolint:gosec // 1<<63 negates to itself
	}
	if m > math.MaxInt64 {
		return 0, outOfRange
	}
	return int64(m), ok
}
