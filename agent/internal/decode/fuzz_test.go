package decode_test

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/protocol/expr"
)

// FuzzJSON holds that pieces of any size give the same rows, and that the standard library agrees on what it takes.
func FuzzJSON(f *testing.F) {
	f.Add(`{"b":true,"i":-7,"f":1.5,"s":"x","t":"2026-01-02T03:04:05Z","j":{"a":[1,"}"]}}`, 3)
	f.Add("{\"s\":\"a\\u00e9\\\"\"}\n\n{\"i\":1e3,\"i\":2}\r\n{", 1)
	f.Add(`{"s":"\ud83d\ude00","x":[{"y":"]"}]} `, 9)
	f.Fuzz(func(t *testing.T, text string, size int) {
		size = max(size&0xff, 1)
		rows, failures, read := decodeAll(decode.NewJSON(everyType, time.UTC), everyType, text, size)
		whole, wholeFailures, wholeRead := decodeAll(decode.NewJSON(everyType, time.UTC), everyType, text, len(text)+1)
		if !slices.Equal(rows, whole) || read != wholeRead || len(failures) > 0 != (len(wholeFailures) > 0) {
			t.Fatalf("by %d: %q %d, whole: %q %d", size, rows, read, whole, wholeRead)
		}
		if strings.ContainsRune(text, '\n') || !json.Valid([]byte(text)) || len(whole) != 1 {
			return
		}
		checkAgainstStandard(t, text)
	})
}

// checkAgainstStandard compares the string column of a valid record with encoding/json.
func checkAgainstStandard(t *testing.T, text string) {
	t.Helper()
	var want map[string]any
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		t.Fatalf("decoded %q, which is not an object: %v", text, err)
	}
	schema := expr.Schema{{Name: "s", Type: expr.String}, {Name: "f", Type: expr.Float}}
	b := column.NewBatch(schema)
	r := decode.NewJSON(schema, time.UTC).Decode(b, decode.Input{Text: []byte(text), Final: true, MaxRows: 1})
	if r.Failed.Count > 0 {
		return
	}
	s, isText := want["s"].(string)
	if isText != !b.Cols[0].Null(0) || isText && s != string(b.Cols[0].Bytes(0)) {
		t.Fatalf("%q: s is %q, want %q", text, cell(&b.Cols[0], 0), s)
	}
	n, isNumber := want["f"].(float64)
	if isNumber != !b.Cols[1].Null(0) || isNumber && n != b.Cols[1].Floats[0] {
		t.Fatalf("%q: f is %s, want %v", text, cell(&b.Cols[1], 0), n)
	}
}

// FuzzCSV holds that pieces of any size give the same rows, and that the standard library agrees where it is as strict.
func FuzzCSV(f *testing.F) {
	f.Add("x;true;e;-7;1.5;2026-01-02T03:04:05Z;[1]\n", 3)
	f.Add("\"a;\"\"b\"\"\r\nc\";1;\"\";\"5\";2;;\"{\"\"k\"\":\"\"v\"\"}\"", 1)
	f.Add("\"a\n\";;;;;;\n;;;;;;\r\n\"", 9)
	names := []string{"s", "b", "extra", "i", "f", "t", "j"}
	f.Fuzz(func(t *testing.T, text string, size int) {
		size = max(size&0xff, 1)
		d := func() decode.Decoder { return decode.NewCSV(everyType, names, ';', time.UTC) }
		rows, _, read := decodeAll(d(), everyType, text, size)
		whole, _, wholeRead := decodeAll(d(), everyType, text, len(text)+1)
		if !slices.Equal(rows, whole) || read != wholeRead {
			t.Fatalf("by %d: %q %d, whole: %q %d", size, rows, read, whole, wholeRead)
		}
		standard := csv.NewReader(strings.NewReader(text))
		standard.Comma, standard.FieldsPerRecord = ';', 1
		schema := expr.Schema{{Name: "s", Type: expr.String}}
		ours, failures, _ := decodeAll(decode.NewCSV(schema, []string{"s"}, ';', time.UTC), schema, text, size)
		var want []string
		for {
			record, err := standard.Read()
			if err == io.EOF {
				break
			}
			if err != nil || !utf8.ValidString(text) || strings.Contains(text, "\r") || strings.Contains(text, `""`) {
				return // stricter or laxer than ours there
			}
			if record[0] == "" {
				record[0] = "-"
			}
			want = append(want, record[0])
		}
		if !slices.Equal(ours, want) || len(failures) > 0 {
			t.Fatalf("%q: rows %q, failures %q, want %q", text, ours, failures, want)
		}
	})
}
