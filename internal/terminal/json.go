package terminal

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// WriteJSON writes a value as JSON and a line end, in one call of Write. Each member is on a line of its own that begins with
// indent for each level, or all are on one line where indent is empty. It holds nothing that JSON would escape.
func WriteJSON(w io.Writer, v any, indent string) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	if _, err := w.Write(JSON(text.Bytes())); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// JSON is the same JSON text with what Text would escape written as \u escapes. JSON itself escapes the control characters of
// ASCII alone: U+009B steers a terminal too, and U+202E turns round what follows. Bytes that are not UTF-8 become U+FFFD.
// Text without any of it, which nearly all is, is given back itself.
func JSON(text []byte) []byte {
	at := visible(text)
	if at == len(text) {
		return text
	}
	out := append(make([]byte, 0, len(text)+len(text)/8+12), text[:at]...)
	for text = text[at:]; len(text) > 0; text = text[at:] {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == utf8.RuneError && size == 1:
			out = append(out, `\ufffd`...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		at = size + visible(text[size:])
		out = append(out, text[size:at]...)
	}
	return out
}

// visible is how many bytes at the front of a JSON text can stay: up to what is no UTF-8 or hidden. The control characters
// below 0x7f can: they stand between the members alone, because inside of strings JSON escapes them.
func visible(text []byte) int {
	at := plain(text)
	for at < len(text) {
		r, size := utf8.DecodeRune(text[at:])
		if r == utf8.RuneError && size == 1 || hidden(r) {
			return at
		}
		at += size
		at += plain(text[at:])
	}
	return at
}

// plain is how many bytes at the front are below 0x7f. It looks at eight at once, as every insight of a run passes here.
func plain(text []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	at := 0
	for ; len(text)-at >= 8; at += 8 {
		if v := binary.LittleEndian.Uint64(text[at:]); (v|(v+ones))&highs != 0 {
			break
		}
	}
	for at < len(text) && text[at] < 0x7f {
		at++
	}
	return at
}
