package decode_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/protocol/expr"
)

// csvValue is a field's value, what the column of its type makes of it, and how it may be written.
type csvValue struct {
	text, want string
	// quoted says that it needs quotes, bad that the record fails.
	quoted, bad bool
}

var csvValues = map[expr.Type][]csvValue{
	expr.Int:       {{text: "5", want: "5"}, {text: "-12345", want: "-12345"}, {text: "123456789012345678", want: "123456789012345678"}, {text: "3.0", want: "3"}, {text: "+007", want: "7"}, {want: "-"}, {text: "3.5", bad: true}, {text: "x", bad: true}},
	expr.Float:     {{text: "1.5", want: "1.5"}, {text: "60.25", want: "60.25"}, {text: "12345678.9", want: "1.23456789e+07"}, {text: ".5", want: "0.5"}, {want: "-"}, {text: "NaN", bad: true}},
	expr.Bool:      {{text: "true", want: "true"}, {text: "0", want: "false"}, {want: "-"}, {text: "yes", bad: true}},
	expr.Timestamp: {{text: "1700000000123", want: "2023-11-14T22:13:20.123Z"}, {text: "2026-01-02T03:04:05Z", want: "2026-01-02T03:04:05Z"}, {want: "-"}, {text: "later", bad: true}},
	expr.JSON:      {{text: "[1]", want: "[1]"}, {text: `{"v":";"}`, want: `{"v":";"}`, quoted: true}, {text: "null", want: "-"}, {want: "-"}, {text: "{", bad: true}},
	expr.String: {
		{text: "x", want: "x"},
		{text: "abcdefg", want: "abcdefg"},
		{text: "abcdefgh", want: "abcdefgh"},
		{text: "M001", want: "M001"},
		{text: " é ", want: " é "},
		{text: "a longer text of several words", want: "a longer text of several words"},
		{text: `5" pipe`, want: `5" pipe`},
		{text: "a;b", want: "a;b", quoted: true},
		{text: `say "x"`, want: `say "x"`, quoted: true},
		{text: "two\nlines", want: "two\nlines", quoted: true},
		{text: "two\r\nlines", want: "two\r\nlines", quoted: true},
		{text: "", want: "", quoted: true},
		{want: "-"},
		{text: "\xff", bad: true},
	},
}

// csvRecord writes a random record and gives the row that it is, or false.
func csvRecord(r *rand.Rand, names []string, quotes, odd int) (record, row string, good bool) {
	fields, cells := make([]string, 0, len(names)+1), make([]string, len(everyType))
	good = true
	for _, name := range names {
		col, v := everyType.Index(name), csvValue{text: "extra"}
		if col >= 0 {
			values := csvValues[everyType[col].Type]
			if v = values[r.IntN(2)]; r.IntN(odd) == 0 {
				v = pick(r, values)
			}
			cells[col], good = v.want, good && !v.bad
		}
		switch plain := v.text; {
		case v.quoted, r.IntN(quotes) == 0 && plain != "":
			plain = `"` + strings.ReplaceAll(plain, `"`, `""`) + `"`
			fields = append(fields, plain)
		case col >= 0 && everyType[col].Type != expr.String && r.IntN(20) == 0:
			fields = append(fields, pick(r, []string{" ", "\t", ""})+plain+pick(r, []string{" ", "  ", ""}))
		default:
			fields = append(fields, plain)
		}
	}
	switch r.IntN(40) {
	case 0:
		fields, good = append(fields, ""), false
	case 1:
		fields, good = fields[:len(fields)-1], false
	}
	return strings.Join(fields, ";"), strings.Join(cells, " | "), good
}

// TestCSVRecordsInSequence holds that the quotes, white space and line ends of earlier records do not show in a later one,
// that the quick way and the careful one agree, and that pieces and batches of any size give the same.
func TestCSVRecordsInSequence(t *testing.T) {
	t.Parallel()
	r := random(t)
	names := []string{"s", "b", "extra", "i", "f", "t", "j"}
	sequences := 300
	if *long {
		sequences = 50_000
	}
	for range sequences {
		r.Shuffle(len(names), func(i, k int) { names[i], names[k] = names[k], names[i] })
		var text strings.Builder
		var want outcome
		quotes, odd := 10, 10
		for range 40 {
			if r.IntN(8) == 0 {
				quotes, odd = pick(r, []int{1, 2, 10, 1000}), pick(r, []int{1, 3, 10, 100})
			}
			record, row, good := csvRecord(r, names, quotes, odd)
			if want.read++; good {
				want.rows = append(want.rows, row)
			} else {
				want.failed++
			}
			text.WriteString(record + pick(r, []string{"\n", "\n", "\r\n", "\n\n", "\r\n\r\n"}))
		}
		all := text.String()
		if r.IntN(2) == 0 {
			all = strings.TrimRight(all, "\r\n")
			all += pick(r, []string{"", "\r"})
		}
		want.next = int64(strings.Count(all, "\n")) + 1
		if !strings.HasSuffix(all, "\n") {
			want.next++
		}
		d := func() *decode.CSV { return decode.NewCSV(everyType, names, ';', time.UTC) }
		for name, got := range map[string]outcome{
			"whole":     decodeWhole(d(), everyType, all),
			"carefully": decodeWhole(decode.Careful(d()), everyType, all),
			"in pieces": decodePieces(d(), everyType, all, func() int { return r.IntN(300) }, func() int { return 1 + r.IntN(20) }),
		} {
			if !got.same(want) {
				t.Fatalf("%s: %q:\ngives %+v\nwant  %+v", name, all, got, want)
			}
		}
	}
}
