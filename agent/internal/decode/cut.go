package decode

import "bytes"

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
// only decoding can tell where a record ends: that is so when a quote stays open and when records may be too long.
func CutCSV(text []byte, off int, delim byte, final bool) (cut int, sure bool) {
	if len(text)-off > MaxRecord {
		return off, false
	}
	cut = off
	for p := off; ; {
		q := bytes.IndexByte(text[p:], '"')
		if q < 0 {
			if n := CutLines(text, p, final); n > p {
				cut = n
			}
			return cut, true
		}
		q += p
		if n := bytes.LastIndexByte(text[p:q], '\n'); n >= 0 {
			cut = p + n + 1
		}
		p = q + 1
		if q > off && text[q-1] != delim && text[q-1] != '\n' {
			continue // a quote within a field is an ordinary character
		}
		closed := false
		if _, p, closed = quotedPart(text, p); !closed {
			return cut, !final
		}
	}
}
