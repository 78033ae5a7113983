package fleet

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func FuzzStorableJSON(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":"\u0000"}`, `{"a":"\\u0000"}`, `{"a":"\ud800"}`, `{"a":"\ud83d\ude00"}`, `{"a":"\udc00\ud800"}`, `{"a":"\uD800\u0041"}`,
		`{"a":"\\\u0000"}`, "{\"a\":\"\xff\"}", `\u`, `\ud800\u`, `\`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		before := string(in)
		out := storableJSON(in)
		if string(in) != before {
			t.Fatal("it changed its input")
		}
		if json.Valid(in) != json.Valid(out) && utf8.Valid(in) {
			t.Fatalf("%q became %q", in, out)
		}
		var v any
		if json.Unmarshal(out, &v) != nil {
			return
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(strings.ReplaceAll(string(text), `\\`, ""), `\u0000`) {
			t.Fatalf("%q became %q, which still says NUL", in, out)
		}
		if again := storableJSON(out); string(again) != string(out) {
			t.Fatalf("%q, then %q", out, again)
		}
	})
}

func FuzzParseCursor(f *testing.F) {
	in := Insight{Time: time.UnixMicro(1), Agent: "00000000-0000-7000-8000-000000000000", Seq: 7}
	f.Add(in.Cursor())
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCursor(text)
		if err != nil {
			return
		}
		again, err := parseCursor((&Insight{Time: c.Time, Agent: c.Agent, Seq: c.Seq}).Cursor())
		if err != nil || *again != *c {
			t.Fatalf("%+v became %+v, %v", c, again, err)
		}
	})
}

func TestTimesOutsideTheCalendarAreMovedInside(t *testing.T) {
	t.Parallel()
	for in, year := range map[int64]int{-1 << 63: 1, 1<<63 - 1: 9999, 0: 1970} {
		if got := timeOf(in); got.Year() != year || got.IsZero() {
			t.Errorf("%d is %v, want the year %d", in, got, year)
		}
	}
}
