package terminal

import (
	"bytes"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON is the same JSON text with what Text would escape written as \u escapes. JSON itself escapes the control characters of
// ASCII alone: U+009B steers a terminal too, and U+202E turns round what follows. Bytes that are not UTF-8 become U+FFFD.
func JSON(text []byte) []byte {
	if utf8.Valid(text) && !bytes.ContainsFunc(text, hiddenInJSON) {
		return text
	}
	out := make([]byte, 0, len(text)+len(text)/8)
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			out = append(out, `\ufffd`...)
		case !hiddenInJSON(r):
			out = append(out, text[:size]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		text = text[size:]
	}
	return out
}

// hiddenInJSON is hidden but for what stands between the members of a JSON text; inside of its strings JSON escapes that.
func hiddenInJSON(r rune) bool { return r >= 0x7f && hidden(r) }
