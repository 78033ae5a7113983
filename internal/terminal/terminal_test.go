package terminal_test

import (
	"testing"

	"github.com/outfeed/outfeed/internal/terminal"
)

func TestEscapes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, text, line string }{
		{"", "", ""},
		{"Öl 5 °C 日本 \ufffd", "Öl 5 °C 日本 \ufffd", "Öl 5 °C 日本 \ufffd"},
		{"a\x1b[31mb", `a\x1b[31mb`, `a\x1b[31mb`},
		{"a\nb", "a\nb", `a\nb`},
		{"a\r\tb\x00\x7f", `a\r\tb\x00\x7f`, `a\r\tb\x00\x7f`},
		{"\u009b31m", `\u009b31m`, `\u009b31m`},
		{"\xff\xc3", `\xff\xc3`, `\xff\xc3`},
		{"a\u202eb\u2028c\U000e0001", `a\u202eb\u2028c\U000e0001`, `a\u202eb\u2028c\U000e0001`},
	} {
		if got := terminal.Text(c.in); got != c.text {
			t.Errorf("Text(%q) is %q, want %q", c.in, got, c.text)
		}
		if got := terminal.Line(c.in); got != c.line {
			t.Errorf("Line(%q) is %q, want %q", c.in, got, c.line)
		}
	}
}
