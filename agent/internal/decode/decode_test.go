package decode_test

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/protocol/expr"
)

var everyType = expr.Schema{
	{Name: "b", Type: expr.Bool},
	{Name: "i", Type: expr.Int},
	{Name: "f", Type: expr.Float},
	{Name: "s", Type: expr.String},
	{Name: "t", Type: expr.Timestamp},
	{Name: "j", Type: expr.JSON},
}

// cells writes the rows of a batch as text.
func cells(b *column.Batch) []string {
	var rows []string
	for i := range b.Len {
		var row []string
		for c := range b.Cols {
			row = append(row, cell(&b.Cols[c], i))
		}
		rows = append(rows, strings.Join(row, " | "))
	}
	return rows
}

func cell(c *column.Column, i int) string {
	if c.Null(i) {
		return "-"
	}
	switch c.Type {
	case expr.Bool:
		return strconv.FormatBool(c.Bools[i])
	case expr.Int:
		return strconv.FormatInt(c.Ints[i], 10)
	case expr.Float:
		return strconv.FormatFloat(c.Floats[i], 'g', -1, 64)
	case expr.Timestamp:
		return time.UnixMicro(c.Ints[i]).UTC().Format(time.RFC3339Nano)
	case expr.String, expr.JSON:
		return string(c.Bytes(i))
	case expr.Invalid, expr.Null:
	}
	return "?"
}

// decodeAll decodes text in pieces of at most size bytes more at a time, as a reader of a file does.
func decodeAll(d decode.Decoder, schema expr.Schema, text string, size int) (rows, failures []string, read int64) {
	b := column.NewBatch(schema)
	buf, line, have := []byte(nil), int64(1), 0
	for {
		n := min(have+size, len(text))
		buf = append(buf, text[have:n]...)
		have = n
		r := d.Decode(b, decode.Input{Text: buf, Final: have == len(text), MaxRows: 3, Name: "f", Line: line})
		rows = append(rows, cells(b)...)
		for _, f := range r.Failed.Sample {
			failures = append(failures, f.Where+" "+f.Reason+" <"+f.Record+">")
		}
		read += r.Read
		buf, line = slices.Clone(buf[r.Next:]), r.Line
		if have == len(text) && len(buf) == 0 {
			return rows, failures, read
		}
		if !r.Incomplete && r.Next == 0 && len(buf) > 0 {
			panic("the decoder stands still")
		}
	}
}

func checkDecode(t *testing.T, d func() decode.Decoder, text string, rows, failures []string) {
	t.Helper()
	for _, size := range []int{1, 7, 1 << 20} {
		gotRows, gotFailures, read := decodeAll(d(), everyType, text, size)
		if !slices.Equal(gotRows, rows) {
			t.Errorf("by %d bytes: rows\n%s\nwant\n%s", size, strings.Join(gotRows, "\n"), strings.Join(rows, "\n"))
		}
		if !slices.Equal(gotFailures, failures) {
			t.Errorf("by %d bytes: failures\n%s\nwant\n%s", size, strings.Join(gotFailures, "\n"), strings.Join(failures, "\n"))
		}
		if read != int64(len(rows)+len(failures)) {
			t.Errorf("by %d bytes: read %d, want %d", size, read, len(rows)+len(failures))
		}
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, row, failure string }{
		{"all", `{"b":true,"i":-7,"f":1.5,"s":"x","t":"2026-01-02T03:04:05Z","j":{"a":[1,"}"]}}`, `true | -7 | 1.5 | x | 2026-01-02T03:04:05Z | {"a":[1,"}"]}`, ""},
		{"order and space", " { \"s\" : \"x\" , \"b\" :\tfalse }\r", `false | - | - | x | - | -`, ""},
		{"empty object", `{}`, `- | - | - | - | - | -`, ""},
		{"nulls", `{"b":null,"i":null,"f":null,"s":null,"t":null,"j":null}`, `- | - | - | - | - | -`, ""},
		{"unwanted", `{"x":[[{"s":"\""}]],"y":"\\","z":-1e5,"w":null,"i":1}`, `- | 1 | - | - | - | -`, ""},
		{"last wins", `{"i":1,"s":"a\n","i":2,"s":"b","f":1,"f":null}`, `- | 2 | - | b | - | -`, ""},
		{"escaped name", `{"\u0069":3}`, `- | 3 | - | - | - | -`, ""},
		{"escapes", `{"s":"a\"b\\c\/\u00e9\ud83d\ude00\t"}`, "- | - | - | a\"b\\c/é😀\t | - | -", ""},
		{"big int", `{"i":9223372036854775807}`, `- | 9223372036854775807 | - | - | - | -`, ""},
		{"least int", `{"i":-9223372036854775808}`, `- | -9223372036854775808 | - | - | - | -`, ""},
		{"whole float as int", `{"i":3.0}`, `- | 3 | - | - | - | -`, ""},
		{"exact whole float as int", `{"i":9007199254740993.00}`, `- | 9007199254740993 | - | - | - | -`, ""},
		{"exponent as int", `{"i":12e2}`, `- | 1200 | - | - | - | -`, ""},
		{"int as float", `{"f":12345678901234567890}`, `- | - | 1.2345678901234567e+19 | - | - | -`, ""},
		{"small float", `{"f":-2.5E-3}`, `- | - | -0.0025 | - | - | -`, ""},
		{"epoch", `{"t":1700000000123}`, `- | - | - | - | 2023-11-14T22:13:20.123Z | -`, ""},
		{"local", `{"t":"2026-07-01 12:00:00.123456789"}`, `- | - | - | - | 2026-07-01T10:00:00.123456Z | -`, ""},
		{"scalar json", `{"j": 5 }`, `- | - | - | - | - | 5`, ""},
		{"json text", `{"j":"a\n"}`, `- | - | - | - | - | "a\n"`, ""},

		{"fraction in int", `{"i":3.5}`, "", "column i: the number has a fraction and the column is of type int"},
		{"int overflow", `{"i":9223372036854775808}`, "", "column i: the number is out of the range of type int"},
		{"float overflow", `{"f":1e999}`, "", "column f: the number is out of the range of type float"},
		{"number in string", `{"s":5}`, "", "column s: the value is not of type string"},
		{"string in int", `{"i":"5"}`, "", "column i: the value is not of type int"},
		{"number in bool", `{"b":1}`, "", "column b: the value is not of type bool"},
		{"object in string", `{"s":{}}`, "", "column s: the value is not of type string"},
		{"bad time", `{"t":"2026-02-29 00:00:00"}`, "", "column t: not a time: write RFC 3339, YYYY-MM-DD hh:mm:ss or epoch milliseconds"},
		{"number in text as time", `{"t":"1700000000123"}`, "", "column t: not a time: write RFC 3339, YYYY-MM-DD hh:mm:ss or epoch milliseconds"},
		{"leading zero", `{"i":01}`, "", "column i: not valid JSON: this is not a value"},
		{"bare word", `{"i":nul}`, "", "column i: not valid JSON: this is not a value"},
		{"array", `[1]`, "", "not a JSON object"},
		{"cut", `{"i":1,"s":"x`, "", "column s: not valid JSON: this is not a value"},
		{"no close", `{"i":1`, "", "not valid JSON: a comma or the end of the object is missing"},
		{"no comma", `{"i":1 "s":"x"}`, "", "not valid JSON: a comma or the end of the object is missing"},
		{"no colon", `{"i" 1}`, "", "not valid JSON: a member's name in quotes and a colon are missing"},
		{"trailing comma", `{"i":1,}`, "", "not valid JSON: a member's name in quotes and a colon are missing"},
		{"more", `{"i":1} {"i":2}`, "", "not valid JSON: there is more text after the object"},
		{"bad escape", `{"s":"a\tb","j":1,"s":"\x"}`, "", "column s: not valid JSON: an escape in the text is wrong"},
		{"half surrogate", `{"s":"\ud83d"}`, "", "column s: an escape in the text is half of a surrogate pair, which is no character"},
		{"bad UTF-8", "{\"s\":\"\xff\"}", "", "column s: the text is not valid UTF-8"},
		{"bad nested", `{"j":{"a" 1}}`, "", "column j: the value is not valid JSON"},
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	d := func() decode.Decoder { return decode.NewJSON(everyType, berlin) }
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			good := `{"i":42,"s":"ok"}`
			text := good + "\n" + tt.text + "\n\n" + good
			rows, failures := []string{"- | 42 | - | ok | - | -"}, []string(nil)
			if tt.failure == "" {
				rows = append(rows, tt.row)
			} else {
				failures = []string{fmt.Sprintf("f:2 %s <%s>", tt.failure, tt.text)}
			}
			checkDecode(t, d, text, append(rows, rows[0]), failures)
		})
	}
}

func TestCSV(t *testing.T) {
	t.Parallel()
	names := []string{"s", "b", "extra", "i", "f", "t", "j"}
	tests := []struct{ name, text, row, failure string }{
		{"all", `x;true;e;-7;1.5;2026-01-02T03:04:05Z;[1]`, `true | -7 | 1.5 | x | 2026-01-02T03:04:05Z | [1]`, ""},
		{"empty", `;;;;;;`, `- | - | - | - | - | -`, ""},
		{"quoted empty", `"";"";"";"";"";"";""`, `- | - | - |  | - | -`, ""},
		{"quotes", "\"a;\"\"b\"\"\r\nc\";1;\"\";\"5\";2;;\"{\"\"k\"\":\"\"v\"\"}\"", "true | 5 | 2 | a;\"b\"\r\nc | - | {\"k\":\"v\"}", ""},
		{"inch", `5" pipe;0;;;;;`, `false | - | - | 5" pipe | - | -`, ""},
		{"crlf", "x;TRUE;;;;;\r", `true | - | - | x | - | -`, ""},
		{"white space", ` x ; 1 ;; 5 ; 2.5 ;;`, `true | 5 | 2.5 |  x  | - | -`, ""},
		{"epoch", `;;;;;1700000000123;`, `- | - | - | - | 2023-11-14T22:13:20.123Z | -`, ""},
		{"local time", `;;;;;2026-01-01 12:00:00;`, `- | - | - | - | 2026-01-01T11:00:00Z | -`, ""},
		{"loose numbers", `;;;+007;.5;;`, `- | 7 | 0.5 | - | - | -`, ""},
		{"whole float", `;;;3.0;7.;;`, `- | 3 | 7 | - | - | -`, ""},

		{"too few", `x;true`, "", "it has 2 fields instead of 7"},
		{"too many", `x;true;;;;;;`, "", "it has 8 fields instead of 7"},
		{"too many in quotes", `"x";true;;;;;;`, "", "it has 8 fields instead of 7"},
		{"fraction", `;;;3.5;;;`, "", "column i: the number has a fraction and the column is of type int"},
		{"no number", `;;;;NaN;;`, "", "column f: the value is not of type float"},
		{"hexadecimal", `;;;0x10;;;`, "", "column i: the value is not of type int"},
		{"no bool", `;yes;;;;;`, "", "column b: the value is not of type bool"},
		{"no time", `;;;;;01.02.2026;`, "", "column t: not a time: write RFC 3339, YYYY-MM-DD hh:mm:ss or epoch milliseconds"},
		{"no json", `;;;;;;{`, "", "column j: the value is not valid JSON"},
		{"after quote", `"x"y;true;;;;;`, "", "there is text after the closing quote of a field"},
		{"bad UTF-8", "\xff;;;;;;", "", "column s: the text is not valid UTF-8"},
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	d := func() decode.Decoder { return decode.NewCSV(everyType, names, ';', berlin) }
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := "ok;;;42;;;\n" + tt.text + "\n\r\nok;;;42;;;"
			rows, failures := []string{"- | 42 | - | ok | - | -"}, []string(nil)
			if tt.failure == "" {
				rows = append(rows, tt.row)
			} else {
				failures = []string{fmt.Sprintf("f:2 %s <%s>", tt.failure, tt.text)}
			}
			checkDecode(t, d, text, append(rows, rows[0]), failures)
		})
	}
}

func TestCSVStrayQuoteLosesItsLineOnly(t *testing.T) {
	t.Parallel()
	names := []string{"i", "s"}
	d := func() decode.Decoder { return decode.NewCSV(everyType, names, ',', time.UTC) }
	checkDecode(t, d, "1,a\n2,\"b\n3,c\n4,d\n",
		[]string{"- | 1 | - | a | - | -", "- | 3 | - | c | - | -", "- | 4 | - | d | - | -"},
		[]string{`f:2 a quote is opened and never closed <2,"b>`})
}

func TestCSVDecimalComma(t *testing.T) {
	t.Parallel()
	names := []string{"f", "i", "s"}
	comma := func() decode.Decoder {
		d := decode.NewCSV(everyType, names, ';', time.UTC)
		d.DecimalComma()
		return d
	}
	const point = `the number has a point, and the read's options say decimal: ","`
	checkDecode(t, comma, "1,5;2,0;a,b\n-,5e1;7;\n \"+0,25\" ;\"8\";c\n3;4;1.5\n1.000,5;1;x\n1;1.000;x\n1,5,5;1;x\n,;1;x\n1;1,5;x\n;;x\n",
		[]string{"- | 2 | 1.5 | a,b | - | -", "- | 7 | -5 | - | - | -", "- | 4 | 3 | 1.5 | - | -", "- | - | - | x | - | -"},
		[]string{
			`f:3 column f: the value is not of type float < "+0,25" ;"8";c>`,
			`f:5 column f: ` + point + ` <1.000,5;1;x>`,
			`f:6 column i: ` + point + ` <1;1.000;x>`,
			`f:7 column f: the value is not of type float <1,5,5;1;x>`,
			`f:8 column f: the value is not of type float <,;1;x>`,
			`f:9 column i: the number has a fraction and the column is of type int <1;1,5;x>`,
		})
	points := func() decode.Decoder { return decode.NewCSV(everyType, names, ';', time.UTC) }
	checkDecode(t, points, "1,5;2;a\n1.5;2,5;a\nx,5;2;a\n",
		nil, []string{
			`f:1 column f: the number has a comma; say decimal: "," in the read's options where all numbers are written so <1,5;2;a>`,
			`f:2 column i: the number has a comma; say decimal: "," in the read's options where all numbers are written so <1.5;2,5;a>`,
			`f:3 column f: the value is not of type float <x,5;2;a>`,
		})
}

func TestCSVHeader(t *testing.T) {
	t.Parallel()
	text := []byte("\"a \"\"x\"\"\", b ,c\r\n1,2,3\n")
	names, next, err := decode.Header(text, 0, ',', false)
	if err != nil || !slices.Equal(names, []string{`a "x"`, "b", "c"}) || string(text[next:]) != "1,2,3\n" {
		t.Fatalf("names %q, next %d, error %v", names, next, err)
	}
	if _, next, err := decode.Header([]byte("a,b"), 0, ',', false); next != -1 || err != nil {
		t.Fatalf("a cut header: next %d, error %v", next, err)
	}
	torque := expr.Schema{{Name: "torque_nm", Type: expr.Float}}
	for policy, want := range map[connector.Drift]bool{connector.DriftIgnore: true, connector.DriftReport: false, connector.DriftFail: true} {
		err = decode.CheckHeader(policy, torque, []string{"id", "torque_mn"})
		if (err != nil) != want || want && !strings.Contains(err.Error(), `unknown column "torque_nm"; did you mean "torque_mn"?`) {
			t.Errorf("with policy %d: error %v", policy, err)
		}
		if err = decode.CheckHeader(policy, torque, []string{"torque_nm", "torque_nm"}); err == nil {
			t.Errorf("with policy %d a column may come twice", policy)
		}
	}
}

func TestParseTimeAgreesWithTheStandardLibrary(t *testing.T) {
	t.Parallel()
	loc, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	for at := time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC); at.Year() < 9999; at = at.Add(31*24*time.Hour*7 + 1234567891*time.Microsecond) {
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999", "2006-01-02T15:04:05Z07:00"} {
			text := at.In(loc).Format(layout)
			want, err := time.ParseInLocation(layout, text, loc)
			if err != nil {
				continue // a zone of the nineteenth century with seconds
			}
			if second := want.Add(time.Hour); second.Format(layout) == text {
				want = second // the library may take either of two, ParseTime takes the later
			}
			got, good := decode.ParseTime([]byte(text), loc)
			if !good || got != want.UnixMicro() {
				t.Fatalf("%s: got %v %s, want %s", text, good, time.UnixMicro(got).UTC(), want.UTC())
			}
		}
	}
}

// TestReadersTakeTheTimesOfTheLanguage holds the reader of JSON against expr.ParseTimestamp.
func TestReadersTakeTheTimesOfTheLanguage(t *testing.T) {
	t.Parallel()
	schema := expr.Schema{{Name: "ts", Type: expr.Timestamp}}
	for _, text := range []string{
		"2026-01-01t06:00:00z", "2026-01-01T06:00:00Z", "2026-01-01 06:00:00", "2026-01-01", "2026-01-01T06:00:00+0200", "2026-06-30T23:59:60Z",
		"2026-06-30t23:59:60z", "2026-01-01T06:00Z",
	} {
		want, right := expr.ParseTimestamp(text, time.UTC)
		d, b := decode.NewJSON(schema, time.UTC), column.NewBatch(schema)
		r := d.Decode(b, decode.Input{Text: []byte(`{"ts":"` + text + `"}`), Final: true, MaxRows: 1})
		if (r.Failed.Count == 0) != right || right && b.Cols[0].Ints[0] != want {
			t.Errorf("%s: %v, want %d %t", text, r.Failed, want, right)
		}
	}
}

func TestFloatsAgreeWithStrconv(t *testing.T) {
	t.Parallel()
	schema := expr.Schema{{Name: "f", Type: expr.Float}}
	d, b := decode.NewJSON(schema, time.UTC), column.NewBatch(schema)
	for i := range uint64(20000) {
		want := math.Float64frombits(i * 0x9e3779b97f4a7c15)
		if math.IsNaN(want) || math.IsInf(want, 0) {
			continue
		}
		if i%2 == 0 {
			want = math.Trunc(want*1000) / 1000
		}
		text := []byte(`{"f":` + strconv.FormatFloat(want, 'g', int(i%18)-1, 64) + `}`)
		want, err := strconv.ParseFloat(string(text[5:len(text)-1]), 64)
		if err != nil || math.IsInf(want, 0) {
			continue
		}
		if r := d.Decode(b, decode.Input{Text: text, Final: true, MaxRows: 1}); r.Failed.Count > 0 || b.Cols[0].Floats[0] != want {
			t.Fatalf("%s: %v, want %v", text, r.Failed, want)
		}
	}
}

// TestWideRecords has more columns than a word has bits, and every third value missing.
func TestWideRecords(t *testing.T) {
	t.Parallel()
	const columns, records = 150, 20
	var schema expr.Schema
	for i := range columns {
		schema = append(schema, expr.Column{Name: fmt.Sprintf("c%d", i), Type: []expr.Type{expr.Int, expr.Float, expr.String}[i%3]})
	}
	var lines, fields strings.Builder
	for n := range records {
		var members, cells []string
		for i := range columns {
			switch value := strconv.Itoa(n*columns + i); {
			case (n+i)%7 == 0:
				cells = append(cells, "")
			case i%3 == 2:
				members = append(members, fmt.Sprintf(`"c%d":"%s"`, i, value))
				cells = append(cells, value)
			default:
				members = append(members, fmt.Sprintf(`"c%d":%s`, i, value))
				cells = append(cells, value)
			}
		}
		lines.WriteString("{" + strings.Join(members, ",") + "}\n")
		fields.WriteString(strings.Join(cells, ",") + "\n")
	}
	for text, d := range map[string]decode.Decoder{
		lines.String():  decode.NewJSON(schema, time.UTC),
		fields.String(): decode.NewCSV(schema, schema.Names(), ',', time.UTC),
	} {
		b := column.NewBatch(schema)
		if r := d.Decode(b, decode.Input{Text: []byte(text), Final: true, MaxRows: records}); r.Failed.Count > 0 || b.Len != records {
			t.Fatalf("%d rows, %v", b.Len, r.Failed)
		}
		for n := range records {
			for i := range columns {
				want := strconv.Itoa(n*columns + i)
				if (n+i)%7 == 0 {
					want = "-"
				}
				if got := cell(&b.Cols[i], n); got != want {
					t.Fatalf("record %d, column %d: %s, want %s", n, i, got, want)
				}
			}
		}
	}
}

// TestCSVFailureNamesItsOwnColumn has a record with a wrong quote after one with a wrong value.
func TestCSVFailureNamesItsOwnColumn(t *testing.T) {
	t.Parallel()
	schema := expr.Schema{{Name: "i", Type: expr.Int}, {Name: "s", Type: expr.String}}
	d := decode.NewCSV(schema, schema.Names(), ',', time.UTC)
	_, failures, _ := decodeAll(d, schema, "x,a\n1,\"b\" c\n\"y\",\"d\"\n1,\"b\" c\n", 1<<20)
	want := []string{
		"f:1 column i: the value is not of type int <x,a>",
		"f:2 there is text after the closing quote of a field <1,\"b\" c>",
		"f:3 column i: the value is not of type int <\"y\",\"d\">",
		"f:4 there is text after the closing quote of a field <1,\"b\" c>",
	}
	if !slices.Equal(failures, want) {
		t.Fatalf("failures\n%s\nwant\n%s", strings.Join(failures, "\n"), strings.Join(want, "\n"))
	}
}

// TestDelimitersThatNumbersHave must not be taken for a part of the number.
func TestDelimitersThatNumbersHave(t *testing.T) {
	t.Parallel()
	for _, delim := range []byte("0.-+eE x|~") {
		schema := expr.Schema{{Name: "a", Type: expr.Int}, {Name: "b", Type: expr.Float}, {Name: "c", Type: expr.Int}}
		text := strings.ReplaceAll("12,34,56\n78,,9\n", ",", string(delim)) + strings.Repeat("\n", 20)
		rows, failures, _ := decodeAll(decode.NewCSV(schema, schema.Names(), delim, time.UTC), schema, text, 1<<20)
		if want := []string{"12 | 34 | 56", "78 | - | 9"}; !slices.Equal(rows, want) || len(failures) > 0 {
			t.Errorf("%q: rows %q, failures %q", delim, rows, failures)
		}
	}
}

// TestWhiteSpaceBehindTheColon has records with more of it than those before, in columns of every type and in none.
func TestWhiteSpaceBehindTheColon(t *testing.T) {
	t.Parallel()
	values := map[string][2]string{
		"b": {"true", "true"}, "i": {"5", "5"}, "f": {"1.5", "1.5"}, "s": {`"x"`, "x"},
		"t": {"0", "1970-01-01T00:00:00Z"}, "j": {"[1]", "[1]"}, "unread": {"7", "-"},
	}
	for name, value := range values {
		col := everyType.Index(name)
		schema := expr.Schema{{Name: "last", Type: expr.Int}}
		if col >= 0 {
			schema = append(schema, everyType[col])
		}
		var text strings.Builder
		var want []string
		for i, space := range []string{"", " ", "", "  ", "\t", " ", " \t ", "", "     ", "\t"} {
			fmt.Fprintf(&text, `{"%s":%s%s,"last":%s%d}`+"\n", name, space, value[0], space, i)
			row := strconv.Itoa(i)
			if col >= 0 {
				row += " | " + value[1]
			}
			want = append(want, row)
		}
		rows, failures, _ := decodeAll(decode.NewJSON(schema, time.UTC), schema, text.String(), 1<<20)
		if !slices.Equal(rows, want) || len(failures) > 0 {
			t.Errorf("%s: rows %q, want %q; failures %q", name, rows, want, failures)
		}
	}
}
