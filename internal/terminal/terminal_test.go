package terminal_test

import (
	"bytes"
	"encoding/json"
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

// What is written is harmless, and says the same.
func TestJSON(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"{\n  \"a\": \"Öl 5 °C 日本\\u001b\"\n}\n", "{\n  \"a\": \"Öl 5 °C 日本\\u001b\"\n}\n"},
		{"\"\u009b31m\u007f\"", `"\u009b31m\u007f"`},
		{"[\"a\u202eb\u2028\",\"\U000e0001\"]", `["a\u202eb\u2028","\udb40\udc01"]`},
		{"\"a\xff\"", `"a\ufffd"`},
	} {
		if got := string(terminal.JSON([]byte(c.in))); got != c.want {
			t.Errorf("JSON(%q) is %q, want %q", c.in, got, c.want)
		}
	}
}

func FuzzJSON(f *testing.F) {
	f.Add([]byte("{\"a\": [\"\u009b\", 1, null]}"))
	f.Add([]byte("\"\xff\U000e0001\""))
	f.Fuzz(func(t *testing.T, text []byte) {
		var before, after any
		if json.Unmarshal(text, &before) != nil {
			return
		}
		safe := terminal.JSON(text)
		if err := json.Unmarshal(safe, &after); err != nil {
			t.Fatalf("%q becomes %q: %v", text, safe, err)
		}
		x, _ := json.Marshal(before)
		y, _ := json.Marshal(after)
		if !bytes.Equal(x, y) {
			t.Errorf("%q becomes %q", x, y)
		}
		for _, r := range string(safe) {
			if r >= 0x7f && terminal.Text(string(r)) != string(r) {
				t.Errorf("%q still holds %q", safe, r)
			}
		}
	})
}
