package excerpt_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/outfeed/outfeed/internal/excerpt"
)

func TestRunes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   string
		most int
		want string
	}{
		{"", 0, ""},
		{"", 5, ""},
		{"Halle", 5, "Halle"},
		{"Halle 7", 5, "Hall…"},
		{"Öfen", 4, "Öfen"},
		{"Öfen 7", 2, "Ö…"},
		{"日本語", 3, "日本語"},
		{"日本語", 2, "日…"},
		{"🏭🏭🏭", 3, "🏭🏭🏭"},
		{"🏭🏭🏭", 2, "🏭…"},
		{strings.Repeat("🏭", 1000), 3, "🏭🏭…"},
		{strings.Repeat("x", 1000), 3, "xx…"},
		{"xy", 1, "…"},
		{"x", 1, "x"},
		{"x", 0, ""},
		{"x", -1, ""},
		{"a\xff\xfeb", 4, "a\xff\xfeb"},
		{"a\xff\xfeb", 3, "a\xff…"},
		{"ab…", 3, "ab…"},
	} {
		if got := excerpt.Runes(c.in, c.most); got != c.want {
			t.Errorf("Runes(%q, %d) is %q, want %q", c.in, c.most, got, c.want)
		}
		if got := excerpt.Runes([]byte(c.in), c.most); got != c.want {
			t.Errorf("Runes of the bytes %q, %d is %q, want %q", c.in, c.most, got, c.want)
		}
	}
}

func TestBytes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   string
		most int
		want string
	}{
		{"", 0, ""},
		{"Halle", 5, "Halle"},
		{"Halle 7", 6, "Hal…"},
		{"ÄÄÄ", 6, "ÄÄÄ"},
		{"ÄÄÄÄ", 6, "Ä…"},
		{"ÄÄÄÄ", 7, "ÄÄ…"},
		{"🏭🏭", 7, "🏭…"},
		{"🏭🏭", 6, "…"},
		{"Halle", 3, "…"},
		{"Halle", 2, "Ha"},
		{"ÄÄ", 1, ""},
		{"Halle", 0, ""},
		{"Halle", -1, ""},
		{"\x80\x80\x80\x80\x80\x80\x80\x80", 7, "\x80\x80\x80\x80…"},
	} {
		if got := excerpt.Bytes(c.in, c.most); got != c.want {
			t.Errorf("Bytes(%q, %d) is %q, want %q", c.in, c.most, got, c.want)
		}
		if got := excerpt.Bytes([]byte(c.in), c.most); got != c.want {
			t.Errorf("Bytes of the bytes %q, %d is %q, want %q", c.in, c.most, got, c.want)
		}
	}
}

func TestOf(t *testing.T) {
	t.Parallel()
	whole := strings.Repeat("ö", 80)
	if got := excerpt.Of(whole); got != whole {
		t.Errorf("80 characters become %q", got)
	}
	if got := excerpt.Of(whole + "x"); got != whole[:2*79]+excerpt.Mark {
		t.Errorf("81 characters become %q", got)
	}
}

// Whatever comes, the bound holds, UTF-8 stays UTF-8, what fits stays whole, and what was cut says so and stays as it is.
func FuzzExcerpt(f *testing.F) {
	f.Add("Halle 7", 5)
	f.Add("ÄÄÄÄ", 6)
	f.Add("🏭🏭🏭", 2)
	f.Add("a\xff\x80\x80\x80\x80b", 4)
	f.Add("ab…", 3)
	f.Add("0", -63)
	f.Fuzz(func(t *testing.T, text string, most int) {
		for what, cut := range map[string]struct {
			of     func(string, int) string
			length func(string) int
			mark   int
		}{
			"Runes": {excerpt.Runes[string], utf8.RuneCountInString, 1},
			"Bytes": {excerpt.Bytes[string], func(s string) int { return len(s) }, len(excerpt.Mark)},
		} {
			got := cut.of(text, most)
			begin, marked := strings.CutSuffix(got, excerpt.Mark)
			switch {
			case cut.length(got) > max(most, 0):
				t.Errorf("%s(%q, %d) is longer: %q", what, text, most, got)
			case utf8.ValidString(text) && !utf8.ValidString(got):
				t.Errorf("%s(%q, %d) is no UTF-8: %q", what, text, most, got)
			case cut.length(text) <= most && got != text:
				t.Errorf("%s(%q, %d) is cut without need: %q", what, text, most, got)
			case got != text && most >= cut.mark && !marked:
				t.Errorf("%s(%q, %d) does not say that it was cut: %q", what, text, most, got)
			case got != text && !strings.HasPrefix(text, begin):
				t.Errorf("%s(%q, %d) is not the beginning: %q", what, text, most, got)
			case cut.of(got, most) != got:
				t.Errorf("%s(%q, %d) changes when it is cut again: %q", what, text, most, got)
			}
		}
	})
}
