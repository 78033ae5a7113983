package expr_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/protocol/expr"
)

// FuzzClock holds a Clock that has read another time before against one that has not, and both against the standard
// library where that reads the text as RFC 3339.
func FuzzClock(f *testing.F) {
	for _, text := range []string{
		"2026-01-01T06:00:00Z", "2026-01-01t06:00:00.25z", "2026-01-01 06:00:59", "2026-01-01", "2026-06-30T23:59:60Z",
		"2026-03-29 02:30:00", "1969-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+23:00", "2026-01-01T06:00:00+0200",
	} {
		f.Add("2026-01-01T06:00:01Z", text)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, before, text string) {
		c := expr.NewClock(berlin)
		c.Parse([]byte(before))
		got, ok := c.Parse([]byte(text))
		if fresh, freshOK := expr.ParseTimestamp(text, berlin); got != fresh && ok || ok != freshOK {
			t.Errorf("%q after %q: %d %t, want %d %t", text, before, got, ok, fresh, freshOK)
		}
		want, err := time.Parse(time.RFC3339Nano, strings.ToUpper(text))
		if year := want.UTC().Year(); err != nil || year < 1 || year > 9999 || len(text) < len("2006-01-02T15:04:05Z") ||
			strings.ContainsAny(text, ",") || want.Year() == 0 {
			return
		}
		if !ok || got != want.UnixMicro() {
			t.Errorf("%q: %d %t, want %d", text, got, ok, want.UnixMicro())
		}
	})
}

// TestTimesReadTheSameEverywhere holds the constants of expressions against ParseTimestamp; the readers and validate
// have tests of their own for these texts.
func TestTimesReadTheSameEverywhere(t *testing.T) {
	t.Parallel()
	for text, right := range map[string]bool{
		"2026-01-01t06:00:00z": true, "2026-01-01T06:00:00z": true, "2026-01-01t06:00:00+01:00": true, "2026-06-30T23:59:60Z": false,
	} {
		if _, ok := expr.ParseTimestamp(text, time.UTC); ok != right {
			t.Errorf("%s: read %t", text, ok)
		}
		n, err := expr.Parse(`ts > "` + text + `"`)
		if err != nil {
			t.Fatal(err)
		}
		_, err = expr.Check(n, slices.Clone(expr.Schema{{Name: "ts", Type: expr.Timestamp}}))
		if (err == nil) != right {
			t.Errorf("a constant %s: %v", text, err)
		}
	}
}
