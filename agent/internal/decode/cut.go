package decode

import (
	"bytes"
	"math/bits"
)

// CutLines gives the end of the last record that text[off:] has as a whole, in a format of one record a line, so that
// what is before it can be decoded apart from what is behind it. It is off when there is none. Final says that nothing
// follows text, so that the last line needs no end.
func CutLines(text []byte, off int, final bool) int {
	if final {
		return len(text)
	}
	return off + bytes.LastIndexByte(text[off:], '\n') + 1
}

// CutCSV is CutLines for CSV, whose fields in quotes may hold line ends; a record starts at off. It says false when
// only decoding can tell where a record ends: that is so when a quote stays open, when records may be too long, and
// when it takes what is behind the cut to see that a quote before it is a stray one.
func CutCSV(text []byte, off int, delim byte, final bool) (cut int, sure bool) {
	if len(text)-off > MaxRecord {
		return off, false
	}
	quote := bytes.IndexByte(text[off:], '"')
	if quote < 0 {
		return CutLines(text, off, final), true
	}
	inside, regular := insideQuotes(text, off, off+quote, delim)
	switch {
	case !regular:
		return cutByField(text, off, delim, final)
	case final:
		return len(text), !inside
	}
	for p := len(text) - 1; p >= off; p-- {
		switch {
		case text[p] == '"':
			inside = !inside
		case text[p] == '\n' && !inside:
			return p + 1, true
		}
	}
	return off, true
}

// insideQuotes says whether the end of text is within quotes. Every quote opens or closes; one that is doubled does
// both. It says false when that is not all that quotes do here, because one stands in the middle of a field or has text
// behind it. A record starts at off, and there is no quote before p.
func insideQuotes(text []byte, off, p int, delim byte) (inside, regular bool) {
	for ; p+8 <= len(text); p += 8 {
		w := load8(text, p) ^ '"'*everyByte
		// Every match is needed here, not the lowest alone, so nothing may carry from byte to byte.
		for m := ^(w&^highBits + ^uint64(highBits) | w) & highBits; m != 0; m &= m - 1 {
			at := p + bits.TrailingZeros64(m)>>3
			if inside = !inside; inside && !opens(text, off, at, delim) || !inside && !closes(text, at, delim) {
				return false, false
			}
		}
	}
	for ; p < len(text); p++ {
		if text[p] != '"' {
			continue
		}
		if inside = !inside; inside && !opens(text, off, p, delim) || !inside && !closes(text, p, delim) {
			return false, false
		}
	}
	return inside, true
}

// opens says whether the quote at text[p] is at the start of a field, or follows a quote that it doubles.
func opens(text []byte, off, p int, delim byte) bool {
	if p == off {
		return true
	}
	c := text[p-1]
	return c == delim || c == '\n' || c == '"'
}

// closes says whether the quote at text[p] is at the end of a field, or is doubled, as far as text shows.
func closes(text []byte, p int, delim byte) bool {
	if p+1 >= len(text) {
		return true
	}
	switch c := text[p+1]; c {
	case delim, '\n', '"':
		return true
	case '\r':
		return p+2 >= len(text) || text[p+2] == '\n'
	}
	return false
}

// cutByField is CutCSV for any quotes. As the decoder does, it takes a quote for a stray one, and goes on at the next
// line, when the one that would close it on a later line has text behind it.
func cutByField(text []byte, off int, delim byte, final bool) (cut int, sure bool) {
	cut = off
	astray := off - 1 // where the last one is that closes nothing; see the type
	for p := off; ; {
		q := bytes.IndexByte(text[p:], '"')
		if q < 0 {
			if n := CutLines(text, p, final); n > p || final {
				cut = n
			}
			return cut, cut > astray
		}
		q += p
		if n := bytes.LastIndexByte(text[p:q], '\n'); n >= 0 {
			cut = p + n + 1
		}
		p = q + 1
		if q > off && text[q-1] != delim && text[q-1] != '\n' {
			continue // an ordinary character
		}
		lineEnd := q + indexOrLen(text[q:], '\n')
		closed := false
		if _, p, closed = quotedPart(text[:lineEnd], q+1); closed {
			continue
		}
		if lineEnd >= astray {
			if _, p, closed = quotedPart(text, q+1); !closed {
				return cut, !final && cut > astray
			}
			if closes(text, p-1, delim) {
				continue
			}
			astray = p - 1
		}
		cut += bytes.IndexByte(text[cut:], '\n') + 1
		p = cut
	}
}
