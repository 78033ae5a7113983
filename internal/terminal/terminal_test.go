package terminal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
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
		{"{\"machine\":\"M1\u007f\"}", `{"machine":"M1\u007f"}`},
		{"{\"machine\":\"M\u007f12345678\"}", `{"machine":"M\u007f12345678"}`},
		{"{\"machine\":\"M1\",\"values\":[1,2,3]}~", "{\"machine\":\"M1\",\"values\":[1,2,3]}~"},
	} {
		if got := string(terminal.JSON([]byte(c.in))); got != c.want {
			t.Errorf("JSON(%q) is %q, want %q", c.in, got, c.want)
		}
	}
}

// Each place of each byte is looked at, whatever stands beside it.
func TestJSONLooksAtEachByte(t *testing.T) {
	t.Parallel()
	for size := range 20 {
		for at := range size {
			for _, c := range []byte{0x7e, 0x7f, 0x80, 0xff} {
				text := bytes.Repeat([]byte{'x'}, size)
				text[at] = c
				if safe := terminal.JSON(text); bytes.Equal(safe, text) != (c < 0x7f) {
					t.Errorf("%q becomes %q", text, safe)
				}
			}
		}
	}
}

func TestWriteJSON(t *testing.T) {
	t.Parallel()
	v := map[string]string{"why": "<\x1b[31m\u009b31m Öl>"}
	for indent, want := range map[string]string{
		"":   "{\"why\":\"<\\u001b[31m\\u009b31m Öl>\"}\n",
		"  ": "{\n  \"why\": \"<\\u001b[31m\\u009b31m Öl>\"\n}\n",
	} {
		var got bytes.Buffer
		if err := terminal.WriteJSON(&got, v, indent); err != nil || got.String() != want {
			t.Errorf("it is %q, %v, want %q", got.String(), err, want)
		}
	}
	if err := terminal.WriteJSON(io.Discard, func() {}, ""); err == nil {
		t.Error("a function became JSON")
	}
	_, closed := io.Pipe()
	if err := errors.Join(closed.Close(), terminal.WriteJSON(closed, v, "")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing to what is closed gives %v", err)
	}
}

func BenchmarkJSON(b *testing.B) {
	for name, text := range map[string]string{
		"plain":   `{"insight":"press_health","time":"2026-01-31T06:00:00Z","key":{"machine":"M1"},"values":{"temp":71.5,"n":12,"state":"running"}}`,
		"umlauts": `{"insight":"press_health","time":"2026-01-31T06:00:00Z","key":{"machine":"Öfen"},"values":{"temp":71.5,"n":12,"state":"läuft"}}`,
		"hostile": "{\"insight\":\"press_health\",\"key\":{\"machine\":\"\u009b31m\"},\"values\":{\"temp\":71.5}}",
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				terminal.JSON([]byte(text))
			}
		})
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
