package decode_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/protocol/expr"
)

// The cases here follow RFC 8259 section by section. Every value stands in several places, read and unread, because a
// record that is not JSON fails whatever is read of it.

// goodValues are JSON values.
var goodValues = []string{
	// Section 3: literals.
	`true`, `false`, `null`,
	// Section 6: numbers.
	`0`, `-0`, `1`, `-1`, `9`, `10`, `123`, `-123`, `1234567`, `12345678`, `123456789`, `1234567890123456`, `12345678901234567890`,
	`9223372036854775807`, `-9223372036854775808`, `9223372036854775808`, `123456789012345678901234567890`,
	`0.0`, `-0.0`, `0.5`, `-0.5`, `1.0`, `1.25`, `12.5`, `123.456`, `1234.5678`, `12345.67`, `0.1234567`, `0.12345678901234567890`,
	`123456.7`, `1234567.8`, `12345678.9`, `1.000000000000000000000000000001`,
	`0e0`, `0E0`, `1e1`, `1E1`, `1e+1`, `1e-1`, `1E+1`, `1E-1`, `1e01`, `1e00`, `1.5e3`, `-1.5E-3`, `0e+1`, `1e308`, `1e309`, `1e-400`, `-1e999`, `1e999999999999`,
	// Section 7: strings and escapes.
	`""`, `" "`, `"a"`, `"abcdefg"`, `"abcdefgh"`, `"abcdefghi"`, `"a long text of more than sixteen bytes, and of more than thirty-two"`,
	`"\""`, `"\\"`, `"\/"`, `"/"`, `"\b\f\n\r\t"`, `"\u0000"`, `"\u0041"`, `"\u00e9"`, `"\u20AC"`, `"\u20ac"`, `"\uD83D\uDE00"`, `"\ud83d\ude00"`, `"\uFFFF"`, `"\uABCD\uabcd"`,
	`"\\u0041"`, `"\\\\"`, `"\\\""`, `"\"\""`, `"a\\"`, `"'"`, `"{}"`, `"[]"`, `","`, `":"`, `"}"`, `"]"`, `"#"`, `"//"`, `"null"`, `"0"`, `"\u0022"`, `"\u005C"`, `"\u002c"`,
	"\"\x7f\"", "\"a\x7fb\"", `"abcdefg\n"`, `"abcdefgh\n"`, `"\n1234567"`, `"\n12345678"`, `"\ud83d\ude00\ud83d\ude00"`,
	// Section 8: characters.
	`"é"`, `"ü"`, `"€"`, `"😀"`, `"日本語"`, "\"\u0080\"", "\"\u07ff\"", "\"\u0800\"", "\"\uffff\"", "\"\U00010000\"", "\"\U0010ffff\"", "\"\u2028\u2029\"", "\"\ufeff\"", "\"\ufffd\"", `"abcdefé"`, `"abcdefgé"`, `"é\né"`,
	// Half of a surrogate pair is within the grammar, and no character: it fails only where the text is read.
	`"\ud83d"`, `"\ude00"`, `"\ud83d\ud83d"`, `"\ude00\ud83d"`, `"\ud83dx"`, `"\ud83d\n"`, `"\ud83d\u0041"`, `"a\udfffb"`,
	// Section 4: objects.
	`{}`, `{ }`, "{\t}", `{"":0}`, `{"a":1}`, `{"a":1,"b":2}`, `{ "a" : 1 , "b" : 2 }`, "{\r\t\"a\":1}", `{"a":{"b":{"c":{}}}}`, `{"a":1,"a":2}`, `{"\u0061":1,"a":2}`, `{"\ud83d":1}`, `{"é":1}`, `{"a":[]}`, `{"a":"}"}`, `{"a\"":1}`, `{"\\":1}`, `{"a":null}`,
	// Section 5: arrays.
	`[]`, `[ ]`, "[\t]", `[0]`, `[1,2]`, `[ 1 , 2 ]`, `[[]]`, `[[],[]]`, `[[[[[[[[]]]]]]]]`, `[null,true,false,1,"a",{},[]]`, `["]"]`, `["\""]`, `["\\"]`, `[{}]`, `[{"a":[{}]}]`, `[1e5,-1]`, "[1\t]", `[1 ]`, `[""]`,
}

// badValues are not, and nothing that could follow makes them so.
var badValues = []string{
	``, ` `, `,`, `:`, `}`, `]`,
	`True`, `TRUE`, `tru`, `truee`, `t`, `fals`, `f`, `nul`, `nulll`, `n`, `None`, `undefined`, `NaN`, `nan`, `Infinity`, `-Infinity`, `inf`, `-`, `+`, `.`,
	`+1`, `-+1`, `--1`, `+0`, `01`, `-01`, `00`, `0123`, `-00`, `012345678`, `1.`, `-1.`, `.5`, `-.5`, `0.`, `1..2`, `1.2.3`, `1.e1`, `.e1`,
	`1e`, `1e+`, `1e-`, `1E`, `1e1.5`, `1e1e1`, `e1`, `-e1`, `1ee1`, `1e++1`, `0x10`, `0X1`, `0b1`, `0o7`, `1_000`, `1,000.5,`, `1a`, `1 2`, `12 34`, `1.5x`, `0a`, `-a`, `1'`, "1\x00", "１", `1L`, `1f`, `1.0f`, `$1`, `1%`, `- 1`, `1234567x`, `12345678x`, `1234.567x`,
	`"`, `"a`, `a"`, `a`, `'a'`, `"a'`, `"a" "b"`, `"a"b`, `"\"`, `"\\\"`, "`a`", `""a"`, `"\`, `"abcdefg`, `"abcdefgh`,
	`"\a"`, `"\v"`, `"\0"`, `"\x41"`, `"\'"`, `"\ "`, `"\U0041"`, `"\N"`, `"\u"`, `"\u0"`, `"\u00"`, `"\u004"`, `"\u004g"`, `"\u00 1"`, `"\u-041"`, `"\uD83D\uDE0"`, `"\ud83d\u"`, `"\ud83d\"`, "\"\\\x00\"", "\"\\é\"", `"1234567\x"`,
	"\"\x00\"", "\"\x01\"", "\"\x1f\"", "\"\t\"", "\"\r\"", "\"\b\"", "\"a\tb\"", "\"abcdefg\t\"", "\"abcdefgh\t\"", "\"\x1b[0m\"",
	"\"\x80\"", "\"\xbf\"", "\"\xc0\x80\"", "\"\xc1\xbf\"", "\"\xc3\"", "\"\xc3(\"", "\"\xe2\x82\"", "\"\xe2(\xa1\"", "\"\xe0\x80\x80\"", "\"\xed\xa0\x80\"", "\"\xed\xbf\xbf\"", "\"\xf0\x9f\x98\"", "\"\xf0\x80\x80\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xf5\x80\x80\x80\"", "\"\xfe\"", "\"\xff\"", "\"abcdefg\xff\"", "\"abcdefgh\xff\"", "\"é\xff\"",
	`{`, `{]`, `{"a"}`, `{"a":}`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,}`, `{,"a":1}`, `{"a":1,,"b":2}`, `{"a" 1}`, `{"a"::1}`, `{"a":1:2}`, `{"a":1 "b":2}`, `{a:1}`, `{'a':1}`, `{1:1}`, `{null:1}`, `{"a":1]`, `{"a":1}}`, `{:1}`, `{"a,b}`, `{"a":b}`, `{[]:1}`, "{\"\t\":1}", "{\"\xff\":1}", `{"\x":1}`, `{"a":1;"b":2}`, `{"a"=1}`, `{/*c*/}`, `{}{}`, "{\"a\":\x0b1}",
	`[`, `[1`, `[1,`, `[1,]`, `[,]`, `[,1]`, `[1,,2]`, `[1 2]`, `[1}`, `[1]]`, `[[1]`, `["a"`, `["a",`, `[a]`, `[1:2]`, `[1;2]`, `[-]`, `[01]`, `[1.]`, `[nul]`, `[""a]`, `[}`, `[{]`, `[{]}`, `[//]`, `[][]`, "[\x0c]", "[\xa0]", "[\"\n\"]", `(1)`, `<1>`, `[*]`, `#`, `/**/1`, "\xef\xbb\xbf1", "\x00", "\x7f", "\xff",
}

// goodRecords and badRecords are whole records.
var goodRecords = []string{
	`{}`, `{ }`, ` {} `, "\t{}\t", "{}\r", " { \"s\" : \"x\" } \r", `{"":1}`, `{"s":"x"}`, `{"s":"x","s":"y"}`, `{"x":1,"x":2,"x":[]}`, `{"s":null,"s":"x"}`, `{"s":"x","s":null}`,
	`{"\u0073":"x"}`, `{"\u0073\u0000":"x"}`, `{"\ud800":1}`, `{"é":1}`, "{\"\x7f\":1}", `{"{":"}"}`, `{"a\\":1,"b\"":2}`, `{"a b":1}`, `{"S":1}`, `{"s ":1}`, `{" s":1}`, `{"x":1 }`, `{"x":[] ,"y":{} }`, `{"x":1,"y":2,"z":3,"s":"last"}`,
}

var badRecords = []string{
	`[]`, `[{}]`, `1`, `"s"`, `null`, `true`, `x`, `{`, `}`, `{{}}`, `{}}`, `{},`, `{}{}`, `{} {}`, `{}x`, `{}1`, `{}"`, `{} null`, `{"s"}`, `{"s":}`, `{"s":"x"`, `{"s":"x",`, `{"s":"x",}`, `{"s":"x"]`, `{"s":"x"}}`, `{"s":"x"},`,
	`{,}`, `{,"s":"x"}`, `{"s":"x",,"i":1}`, `{"s" "x"}`, `{"s"::"x"}`, `{"s":"x" "i":1}`, `{"s":"x";"i":1}`, `{s:"x"}`, `{'s':'x'}`, `{"s:1}`, `{"s\":1}`, `{"s":"x\"}`, `{null:1}`, `{1:1}`, `{"a":1,"s"}`, `{"a":1 "s":2}`,
	"\xef\xbb\xbf{}", "{}\xef\xbb\xbf", "\xfe\xff\x00{\x00}", "{\x00}", "{}\x00", "\x00{}", "{\xa0}", "\x0b{}", "{\x0c}", `{"\q":1}`, `{"\u12":1}`, "{\"\xff\":1}", "{\"a\tb\":1}", `/**/{}`, `{}//`, `#{}`, `{"a":1}#`, `\u007b}`, `{"a":1,"b":2`, `{"a":{"b":1}`, `{"a":[1}`,
}

// decodeOne decodes one line and says whether it became a row.
func decodeOne(schema expr.Schema, text string) (row string, failure string) {
	rows, failures, _ := decodeAll(decode.NewJSON(schema, time.UTC), schema, text, len(text)+1)
	switch {
	case len(rows) == 1 && len(failures) == 0:
		return rows[0], ""
	case len(rows) == 0 && len(failures) == 1:
		return "", failures[0]
	}
	return "", fmt.Sprintf("%d rows and %d failures", len(rows), len(failures))
}

// places are records that hold a value: unread, read, nested, alone, between others, and with space around it.
var places = []string{`{"x":%s}`, `{"j":%s}`, `{"i":1,"x":%s,"s":"y"}`, `{"x":[%s]}`, `{"j":{"a":%s}}`, `{ "x" : %s , "i" : 1 }`}

func TestGoodValues(t *testing.T) {
	t.Parallel()
	for _, value := range goodValues {
		if !json.Valid([]byte(value)) {
			t.Errorf("%q is no JSON at all", value)
		}
		for _, place := range places {
			text := fmt.Sprintf(place, value)
			row, failure := decodeOne(everyType, text)
			if failure != "" {
				t.Errorf("%q: %s", text, failure)
			}
			if place == `{"j":%s}` && value != "null" && !strings.HasSuffix(row, "| "+value) {
				t.Errorf("%q: %s", text, row)
			}
		}
	}
}

func TestBadValues(t *testing.T) {
	t.Parallel()
	for _, value := range badValues {
		if json.Valid([]byte(value)) && utf8.ValidString(value) {
			t.Errorf("%q is JSON", value)
		}
		for _, place := range places {
			text := fmt.Sprintf(place, value)
			if json.Valid([]byte(text)) && utf8.ValidString(text) {
				continue // nothing in a list
			}
			if strings.Contains(value, "\n") {
				continue // two lines
			}
			if row, failure := decodeOne(everyType, text); failure == "" {
				t.Errorf("%q became %s", text, row)
			}
		}
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	for _, text := range goodRecords {
		if _, failure := decodeOne(everyType, text); failure != "" {
			t.Errorf("%q: %s", text, failure)
		}
		// Once known, the same is read in another way.
		if rows, failures, _ := decodeAll(decode.NewJSON(everyType, time.UTC), everyType, strings.Repeat(text+"\n", 3), 1<<20); len(rows) != 3 || rows[0] != rows[2] {
			t.Errorf("%q three times: %q %q", text, rows, failures)
		}
	}
	for _, text := range badRecords {
		if row, failure := decodeOne(everyType, text); failure == "" {
			t.Errorf("%q became %s", text, row)
		}
		rows, failures, _ := decodeAll(decode.NewJSON(everyType, time.UTC), everyType, strings.Repeat("{\"s\":\"x\",\"i\":1}\n"+text+"\n", 3), 1<<20)
		if len(rows) != 3 || len(failures) != 3 {
			t.Errorf("%q among good ones: %q %q", text, rows, failures)
		}
	}
}

// TestOutcomes has what is defined beyond the grammar, value by value.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, row, failure string }{
		{`{"s":"\u0000"}`, "- | - | - | \x00 | - | -", ""},
		{`{"s":"\ud83d\ude00"}`, "- | - | - | 😀 | - | -", ""},
		{`{"s":"\ud83d"}`, "", "half of a surrogate pair"},
		{`{"s":"\ude00\ud83d"}`, "", "half of a surrogate pair"},
		{`{"s":"\ud83d","s":"x"}`, "", "half of a surrogate pair"},
		{`{"j":"\ud83d"}`, `- | - | - | - | - | "\ud83d"`, ""},
		{`{"\ud83d":1,"i":2}`, `- | 2 | - | - | - | -`, ""},
		{`{"s":"x","s":"y"}`, `- | - | - | y | - | -`, ""},
		{`{"s":"x\n","s":"y\t"}`, "- | - | - | y\t | - | -", ""},
		{`{"s":"x","\u0073":"z"}`, `- | - | - | z | - | -`, ""},
		{`{"s":"x","s":null}`, `- | - | - | - | - | -`, ""},
		{`{"j":{"a":1,"a":2}}`, `- | - | - | - | - | {"a":1,"a":2}`, ""},
		{`{"i":9007199254740993}`, `- | 9007199254740993 | - | - | - | -`, ""},
		{`{"i":9007199254740993e0}`, `- | 9007199254740993 | - | - | - | -`, ""},
		{`{"i":9007199254740993.0e0}`, `- | 9007199254740993 | - | - | - | -`, ""},
		{`{"i":1e18}`, `- | 1000000000000000000 | - | - | - | -`, ""},
		{`{"i":9.223372036854775807e18}`, `- | 9223372036854775807 | - | - | - | -`, ""},
		{`{"i":-9.223372036854775808e18}`, `- | -9223372036854775808 | - | - | - | -`, ""},
		{`{"i":9.223372036854775808e18}`, "", "out of the range"},
		{`{"i":1e19}`, "", "out of the range"},
		{`{"i":1e999999999999}`, "", "out of the range"},
		{`{"i":0e999999999999}`, `- | 0 | - | - | - | -`, ""},
		{`{"i":-0}`, `- | 0 | - | - | - | -`, ""},
		{`{"i":1000e-3}`, `- | 1 | - | - | - | -`, ""},
		{`{"i":1500e-3}`, "", "has a fraction"},
		{`{"i":100000000000000000000000e-5}`, `- | 1000000000000000000 | - | - | - | -`, ""},
		{`{"i":1.00000000000000000000000000}`, `- | 1 | - | - | - | -`, ""},
		{`{"i":1.00000000000000000000000001}`, "", "has a fraction"},
		{`{"i":0.0000000000000000000000001e25}`, `- | 1 | - | - | - | -`, ""},
		{`{"i":12345678901234567890123}`, "", "out of the range"},
		{`{"i":12345678901234567890123.0}`, "", "out of the range"},
		{`{"i":1e-1}`, "", "has a fraction"},
		{`{"i":922337203685477580.7e1}`, `- | 9223372036854775807 | - | - | - | -`, ""},
		{`{"i":1e-400}`, "", "has a fraction"},
		{`{"i":-1e-999999999999}`, "", "has a fraction"},
		{`{"t":1e-400}`, "", "has a fraction"},
		{`{"i":1,"other":01}`, "", "not valid JSON"},
		{`{"i":1,"other":{"a":1,}}`, "", "not valid JSON"},
		{`{"f":1e-400}`, `- | - | 0 | - | - | -`, ""},
		{`{"f":-0}`, `- | - | -0 | - | - | -`, ""},
		{`{"f":-0.0}`, `- | - | -0 | - | - | -`, ""},
		{`{"f":1e309}`, "", "out of the range"},
		{`{"f":0.30000000000000004}`, `- | - | 0.30000000000000004 | - | - | -`, ""},
		{`{"t":"2026-01-02\u002003:04:05"}`, `- | - | - | - | 2026-01-02T03:04:05Z | -`, ""},
		{`{"t":"1969-12-31T23:59:59Z"}`, `- | - | - | - | 1969-12-31T23:59:59Z | -`, ""},
		{`{"t":1700000000.5e3}`, `- | - | - | - | 2023-11-14T22:13:20.5Z | -`, ""},
		{`{"t":1e300}`, "", "out of the range"},
	} {
		row, failure := decodeOne(everyType, tt.text)
		if row != tt.row || (tt.failure == "") != (failure == "") || !strings.Contains(failure, tt.failure) {
			t.Errorf("%s: row %q, failure %q, want %q and %q", tt.text, row, failure, tt.row, tt.failure)
		}
	}
}

func TestDepth(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ open, close string }{{"[", "]"}, {`{"a":`, "}"}} {
		for _, place := range []string{`{"x":%s}`, `{"j":%s}`} {
			nested := func(levels int) string {
				return fmt.Sprintf(place, strings.Repeat(tt.open, levels)+"1"+strings.Repeat(tt.close, levels))
			}
			if _, failure := decodeOne(everyType, nested(decode.MaxDepth-1)); failure != "" {
				t.Errorf("%s, as deep as can be: %.200s", place, failure)
			}
			if _, failure := decodeOne(everyType, nested(decode.MaxDepth)); !strings.Contains(failure, "nested deeper than 1024 levels") {
				t.Errorf("%s, too deep: %.200s", place, failure)
			}
		}
	}
	text := `{"x":` + strings.Repeat("[", 1<<20)
	if _, failure := decodeOne(everyType, text); !strings.Contains(failure, "nested deeper") {
		t.Errorf("very deep: %.200s", failure)
	}
}

// TestShapes mixes records with other members, orders and spacing: what the decoder expects must never show.
func TestShapes(t *testing.T) {
	t.Parallel()
	shapes := []string{
		`{"i":1,"f":2.5,"s":"x","b":true}`, `{"i":1,"s":"x","b":true}`, `{"s":"x","i":1}`, `{}`, `{"b":false,"f":-0.125,"new":{"i":7},"i":3}`,
		`{ "i": 1, "f": 2.5, "s": "x", "b": true }`, `{"i":1,"f":null,"s":"é","b":null}`, `{"ii":1,"i":12345678,"iii":"i"}`, `{"a_name_of_more_than_sixteen_bytes":1,"s":"y"}`,
		`{"a_name_of_more_THAN_sixteen_bytes":1,"s":"z"}`, `{"i":1,"i":2,"i":null}`, `{"i":1e2,"f":1e-2,"s":"\n"}`, `{"i":1,"f":2.5,"s":"x","b":true`, `{"i":1,"f":2.5,"s":"x","b":true}}`,
	}
	var text strings.Builder
	var wantRows, wantFailures []string
	seed := uint32(7)
	for line := range 5000 {
		seed = seed*1664525 + 1013904223
		shape := shapes[int(seed>>10)%len(shapes)]
		text.WriteString(shape + "\n")
		row, failure := decodeOne(everyType, shape)
		if failure != "" {
			wantFailures = append(wantFailures, strings.Replace(failure, "f:1 ", fmt.Sprintf("f:%d ", line+1), 1))
		} else {
			wantRows = append(wantRows, row)
		}
	}
	rows, failures, _ := decodeAll(decode.NewJSON(everyType, time.UTC), everyType, text.String(), 300)
	if !slices.Equal(rows, wantRows) || !slices.Equal(failures, wantFailures) {
		t.Fatalf("%d rows, want %d; %d failures, want %d", len(rows), len(wantRows), len(failures), len(wantFailures))
	}
}

// TestManyNames holds that names without end neither grow the decoder for ever nor hide a column.
func TestManyNames(t *testing.T) {
	t.Parallel()
	schema := expr.Schema{{Name: "i", Type: expr.Int}}
	d, b := decode.NewJSON(schema, time.UTC), column.NewBatch(schema)
	for n := range 3000 {
		text := fmt.Appendf(nil, `{"n%d":1,"i":%d,"%s":2}`, n, n, strings.Repeat("x", n))
		r := d.Decode(b, decode.Input{Text: text, Final: true, MaxRows: 1})
		if r.Failed.Count > 0 || b.Len != 1 || b.Cols[0].Ints[0] != int64(n) {
			t.Fatalf("%d: %v", n, r.Failed)
		}
	}
}
