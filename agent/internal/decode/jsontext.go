package decode

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
)

// space is the position of the first byte from p on that is not white space.
func space(s []byte, p int) int {
	for p < len(s) && (s[p] == ' ' || s[p] == '\t' || s[p] == '\r' || s[p] == '\n') {
		p++
	}
	return p
}

// anySpace is space for where there mostly is none.
func anySpace(s []byte, p int) int {
	if p < len(s) && s[p] <= ' ' {
		return space(s, p)
	}
	return p
}

func indexOrLen(s []byte, c byte) int {
	if n := bytes.IndexByte(s, c); n >= 0 {
		return n
	}
	return len(s)
}

func literal(s []byte, p int, word string) bool {
	return len(s)-p >= len(word) && string(s[p:p+len(word)]) == word
}

// stringEnd is the position of the quote that ends the string whose text starts at p, or -1.
func stringEnd(s []byte, p int) int {
	start := p
	for {
		n := bytes.IndexByte(s[p:], '"')
		if n < 0 {
			return -1
		}
		p += n
		slashes := 0
		for p-slashes > start && s[p-slashes-1] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return p
		}
		p++
	}
}

// skip passes over the value at s[p:] and gives the position behind it, or -1 when there is none. It looks only as
// closely as it must to find the end.
func skip(s []byte, p int) int {
	if p >= len(s) {
		return -1
	}
	switch s[p] {
	case '"':
		end := stringEnd(s, p+1)
		if end < 0 {
			return -1
		}
		return end + 1
	case '{', '[':
		return skipNested(s, p)
	}
	return skipScalar(s, p)
}

// skipScalar passes over a number, true, false or null.
func skipScalar(s []byte, p int) int {
	start := p
	for p < len(s) && s[p] > ' ' && s[p] != ',' && s[p] != '}' && s[p] != ']' {
		p++
	}
	switch word := s[start:p]; {
	case len(word) == 0:
		return -1
	case word[0] == '-' || word[0]-'0' <= 9:
		if _, end := scanNumber(s, start); end != p {
			return -1
		}
	case string(word) != "true" && string(word) != "false" && string(word) != "null":
		return -1
	}
	return p
}

func skipNested(s []byte, p int) int {
	depth := 0
	for p < len(s) {
		switch s[p] {
		case '"':
			end := stringEnd(s, p+1)
			if end < 0 {
				return -1
			}
			p = end
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth == 0 {
				return p + 1
			}
		}
		p++
	}
	return -1
}

// unescape resolves the escapes of a JSON string in place and gives the new length, which is never greater. It says
// false, and leaves the text in disorder, when an escape is wrong or half of a surrogate pair.
func unescape(s []byte) (int, bool) {
	w := bytes.IndexByte(s, '\\')
	if w < 0 {
		return len(s), true
	}
	for p := w; p < len(s); {
		if s[p] != '\\' {
			s[w] = s[p]
			w, p = w+1, p+1
			continue
		}
		if p+1 >= len(s) {
			return 0, false
		}
		if s[p+1] == 'u' {
			r, width := escapedRune(s[p:])
			if width == 0 {
				return 0, false
			}
			w += utf8.EncodeRune(s[w:], r)
			p += width
			continue
		}
		c := simpleEscape(s[p+1])
		if c == 0 {
			return 0, false
		}
		s[w] = c
		w, p = w+1, p+2
	}
	return w, true
}

func simpleEscape(c byte) byte {
	switch c {
	case '"', '\\', '/':
		return c
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return 0
}

// escapedRune reads \uXXXX, or two that form a surrogate pair. A width of 0 means that it is wrong.
func escapedRune(s []byte) (r rune, width int) {
	r = hex4(s)
	switch {
	case r < 0:
		return 0, 0
	case !utf16.IsSurrogate(r):
		return r, 6
	case len(s) < 12 || s[6] != '\\' || s[7] != 'u':
		return 0, 0
	}
	r = utf16.DecodeRune(r, hex4(s[6:]))
	if r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}

// hex4 is the number in \uXXXX, or -1.
func hex4(s []byte) rune {
	if len(s) < 6 {
		return -1
	}
	var r rune
	for _, c := range s[2:6] {
		switch {
		case c-'0' <= 9:
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return -1
		}
	}
	return r
}
