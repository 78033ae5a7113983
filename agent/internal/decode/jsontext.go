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

func literal(s []byte, p int, word string) bool {
	return len(s)-p >= len(word) && string(s[p:p+len(word)]) == word
}

// stringEnd is the position of the quote that ends the string whose text starts at s[p:], and whether it has escapes.
// It holds the text to RFC 8259: control characters are escaped, escapes are known ones, and all is UTF-8.
func stringEnd(s []byte, p int) (end int, escaped bool, bad problem) {
	for {
		p = stringStop(s, p)
		switch {
		case p >= len(s):
			return p, escaped, badValue
		case s[p] == '"':
			return p, escaped, ok
		case s[p] == '\\':
			escaped = true
			n := escapeLen(s[p:])
			if n == 0 {
				return p, escaped, badEscape
			}
			p += n
		case s[p] < ' ':
			return p, escaped, badControl
		default:
			for p < len(s) && s[p] >= utf8.RuneSelf {
				r, n := utf8.DecodeRune(s[p:])
				if r == utf8.RuneError && n == 1 {
					return p, escaped, badUTF8
				}
				p += n
			}
		}
	}
}

// escapeLen is the length of the escape at the start of s, or 0 when it is none.
func escapeLen(s []byte) int {
	switch {
	case len(s) < 2:
	case simpleEscape(s[1]) != 0:
		return 2
	case s[1] == 'u' && hex4(s) >= 0:
		return 6
	}
	return 0
}

// skip passes over the value at s[p:], which must be JSON, and gives the position behind it.
func skip(s []byte, p int) (int, problem) {
	if p >= len(s) {
		return p, badSyntax
	}
	switch s[p] {
	case '"':
		end, _, bad := stringEnd(s, p+1)
		return end + 1, bad
	case '{', '[':
		return skipNested(s, p)
	}
	return skipScalar(s, p)
}

// skipScalar passes over a number, true, false or null.
func skipScalar(s []byte, p int) (int, problem) {
	var end int
	switch s[p] {
	case 't':
		end = literalEnd(s, p, "true")
	case 'f':
		end = literalEnd(s, p, "false")
	case 'n':
		end = literalEnd(s, p, "null")
	default:
		_, end = scanNumber(s, p)
	}
	if end < 0 {
		return p, badValue
	}
	return end, ok
}

func literalEnd(s []byte, p int, word string) int {
	if !literal(s, p, word) {
		return -1
	}
	return p + len(word)
}

// MaxDepth is how deep the objects and lists of a record may be nested, the record itself counted.
const MaxDepth = 1024

// nesting is the position in a nested value: which of the open levels are objects.
type nesting struct {
	objects [MaxDepth / 64]uint64
	depth   int
}

// skipNested passes over an object or a list.
func skipNested(s []byte, p int) (int, problem) {
	var n nesting
	for {
		var bad problem
		opened := false
		if s[p] == '{' || s[p] == '[' {
			if n.depth++; n.depth >= MaxDepth { // the record is a level too
				return p, tooDeep
			}
			if p, opened, bad = n.open(s, p); bad != ok {
				return p, bad
			}
		} else if p, bad = skip(s, p); bad != ok {
			return p, bad
		}
		if !opened {
			if p, bad = n.next(s, p); bad != ok || n.depth == 0 {
				return p, bad
			}
		}
		if p >= len(s) {
			return p, badSyntax
		}
	}
}

// open enters the level that starts at s[p:]. It says true with the position of its first value, and false when the
// level has ended already.
func (n *nesting) open(s []byte, p int) (int, bool, problem) {
	bit := uint64(1) << (n.depth & 63)
	n.objects[n.depth>>6] &^= bit
	closing := byte(']')
	if s[p] == '{' {
		n.objects[n.depth>>6] |= bit
		closing = '}'
	}
	p = anySpace(s, p+1)
	switch {
	case p < len(s) && s[p] == closing:
		n.depth--
		return p + 1, false, ok
	case closing == '}':
		p, bad := skipName(s, p)
		return p, true, bad
	}
	return p, true, ok
}

// next goes on behind a value to the one that follows it, through the ends of levels. At a depth of 0 there is none.
func (n *nesting) next(s []byte, p int) (int, problem) {
	for n.depth > 0 {
		p = anySpace(s, p)
		if p >= len(s) {
			return p, badSyntax
		}
		object := n.objects[n.depth>>6]>>(n.depth&63)&1 == 1
		switch c := s[p]; {
		case c == ',' && object:
			return skipName(s, anySpace(s, p+1))
		case c == ',':
			return anySpace(s, p+1), ok
		case c == '}' && object, c == ']' && !object:
			n.depth--
			p++
		default:
			return p, badSyntax
		}
	}
	return p, ok
}

// skipName passes over the name and the colon at s[p:].
func skipName(s []byte, p int) (int, problem) {
	if p >= len(s) || s[p] != '"' {
		return p, badKey
	}
	end, _, bad := stringEnd(s, p+1)
	if bad != ok {
		return p, bad
	}
	p = anySpace(s, end+1)
	if p >= len(s) || s[p] != ':' {
		return p, badKey
	}
	return anySpace(s, p+1), ok
}

// AppendText appends the text of a JSON string to dst; raw is what stands between its quotes. It says false, and gives dst
// as it was, when an escape is wrong or half of a surrogate pair, which is no character.
func AppendText(dst, raw []byte) ([]byte, bool) {
	start := len(dst)
	all := append(dst, raw...)
	n, good := unescape(all[start:])
	if !good {
		return dst, false
	}
	return all[:start+n], true
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
