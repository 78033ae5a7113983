// Package excerpt cuts the texts of others to the length that a message, a log or a listing has room for.
//
// What it gives is never longer than was asked for, and ends in Mark when something was left out. A text is cut between
// two characters, so that UTF-8 stays UTF-8. What has the length already stays as it is, so that cutting twice is cutting
// once. It keeps no state, and does not judge whether a text may be shown: internal/terminal does.
package excerpt

import "unicode/utf8"

// Mark ends a text that was cut.
const Mark = "…"

// quoted is how many characters of a text a message quotes: enough to find it again.
const quoted = 80

// Of is the text as a message quotes it, in at most 80 characters.
func Of[T ~string | ~[]byte](text T) string { return Runes(text, quoted) }

// Runes is the beginning of the text in at most that many characters, Mark among them. A byte that is no UTF-8 counts as
// a character. Of less than one character there is nothing.
func Runes[T ~string | ~[]byte](text T, most int) string {
	if most <= 0 {
		return ""
	}
	// A text may be as large as a file, and no more of it is looked at than may be shown, and one character.
	head := text
	if len(head)/utf8.UTFMax > most {
		head = head[:(most+1)*utf8.UTFMax]
	}
	begin := string(head)
	n, end := 0, 0
	for i := range begin {
		if n == most-1 {
			end = i
		}
		if n == most {
			return begin[:end] + Mark
		}
		n++
	}
	return begin
}

// Bytes is the beginning of the text in at most that many bytes, Mark among them; where Mark has no room it is left out.
func Bytes[T ~string | ~[]byte](text T, most int) string {
	most = max(most, 0)
	if len(text) <= most {
		return string(text)
	}
	if most < len(Mark) {
		return string(text[:boundary(text, most)])
	}
	return string(text[:boundary(text, most-len(Mark))]) + Mark
}

// boundary is the last place at or before end, which is inside of the text, where a character begins.
func boundary[T ~string | ~[]byte](text T, end int) int {
	for i := end; i >= 0 && end-i < utf8.UTFMax; i-- { // no character is longer
		if utf8.RuneStart(text[i]) {
			return i
		}
	}
	return end
}
