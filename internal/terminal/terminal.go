// Package terminal makes texts of others fit to be shown to people: a record, a file's name or a server's error could
// hold sequences that steer the terminal which shows them. It also writes sizes and durations for people.
//
// It keeps no state, and writes nowhere but where it is told.
package terminal

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text is the text with its control and invisible formatting characters and the bytes that are not UTF-8 written as
// escapes such as \x1b and \u202e. Line ends stay.
func Text(text string) string { return escape(text, '\n') }

// Line is Text with the line ends escaped too, as \n.
func Line(text string) string { return escape(text, utf8.RuneError) }

// hidden says whether a character is not visible, or steers the terminal.
func hidden(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

// escape writes as escapes what is not visible, but for the character keep.
func escape(text string, keep rune) string {
	hides := func(r rune) bool { return r != keep && hidden(r) }
	if utf8.ValidString(text) && !strings.ContainsFunc(text, hides) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case !hides(r):
			b.WriteString(text[i : i+size])
		case r == '\n' || r == '\r' || r == '\t':
			b.WriteString(map[rune]string{'\n': `\n`, '\r': `\r`, '\t': `\t`}[r])
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += size
	}
	return b.String()
}
