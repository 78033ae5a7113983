package decode_test

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"math"
	"math/big"
	"slices"
	"strconv"
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
	for _, value := range slices.Concat(goodValues, badValues) {
		f.Add(`{"s":1,"x":`+value+`}`, 64)
	}
	for _, record := range slices.Concat(goodRecords, badRecords) {
		f.Add(record, 64)
	}
	f.Fuzz(func(t *testing.T, text string, size int) {
		size = max(size&0xff, 1)
		rows, failures, read := decodeAll(decode.NewJSON(everyType, time.UTC), everyType, text, size)
		whole, wholeFailures, wholeRead := decodeAll(decode.NewJSON(everyType, time.UTC), everyType, text, len(text)+1)
		if !slices.Equal(rows, whole) || read != wholeRead || len(failures) > 0 != (len(wholeFailures) > 0) {
			t.Fatalf("by %d: %q %d, whole: %q %d", size, rows, read, whole, wholeRead)
		}
		if !strings.ContainsRune(text, '\n') && strings.TrimSpace(text) != "" {
			checkAgainstStandard(t, text)
		}
	})
}

// checkAgainstStandard compares one line with encoding/json. We refuse what it lets pass: text that is not UTF-8, half of
// a surrogate pair where it is read, and what is nested too deep.
func checkAgainstStandard(t *testing.T, text string) {
	t.Helper()
	var want map[string]any
	standard := json.NewDecoder(strings.NewReader(text))
	standard.UseNumber()
	good := json.Valid([]byte(text)) && standard.Decode(&want) == nil && want != nil
	if strings.Count(text, "[")+strings.Count(text, "{") >= decode.MaxDepth {
		return
	}
	unread := expr.Schema{{Name: "\x00", Type: expr.Bool}}
	if _, failure := decodeOne(unread, text); (failure == "") != (good && utf8.ValidString(text)) {
		t.Fatalf("%q: %q, the standard library says %v", text, failure, good)
	}
	if !good || !utf8.ValidString(text) {
		return
	}
	for _, typ := range []expr.Type{expr.String, expr.Float, expr.Int, expr.Bool, expr.JSON} {
		for name, value := range want {
			checkValue(t, text, expr.Column{Name: name, Type: typ}, value)
		}
	}
}

// checkValue compares a value that is read as the column with that of encoding/json.
func checkValue(t *testing.T, text string, column expr.Column, value any) {
	t.Helper()
	name, typ := column.Name, column.Type
	row, failure := decodeOne(expr.Schema{column}, text)
	if strings.Contains(failure, "surrogate") || strings.ContainsRune(name, utf8.RuneError) {
		return
	}
	if duplicates := strings.Count(text, ":") > 1; duplicates && failure != "" {
		return // an earlier one of the same name may have failed, which the standard library does not look at
	}
	want, fits := "", false
	switch v := value.(type) {
	case nil:
		want, fits = "-", true
	case string:
		want, fits = v, typ == expr.String
		if strings.ContainsRune(v, utf8.RuneError) {
			return
		}
	case bool:
		want, fits = strconv.FormatBool(v), typ == expr.Bool
	case json.Number:
		want, fits = wantNumber(v.String(), typ)
	}
	switch {
	case typ == expr.JSON:
		if failure != "" {
			t.Fatalf("%q: %s as json: %s", text, name, failure)
		}
	case fits != (failure == ""):
		t.Fatalf("%q: %s as %s: failure %q, want %q", text, name, typ, failure, want)
	case fits && row != want:
		t.Fatalf("%q: %s as %s: %q, want %q", text, name, typ, row, want)
	}
}

// wantNumber is the number as the type, exactly.
func wantNumber(text string, typ expr.Type) (want string, fits bool) {
	switch typ {
	case expr.Float:
		f, err := strconv.ParseFloat(text, 64)
		return strconv.FormatFloat(f, 'g', -1, 64), err == nil
	case expr.Int:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || f > 1e30 || f < -1e30 {
			return "", false
		}
		if zero := strings.Trim(strings.ToLower(strings.SplitN(strings.ToLower(text), "e", 2)[0]), "-0.") == ""; zero {
			return "0", true
		}
		if f > -1e-30 && f < 1e-30 {
			return "", false
		}
		r, _ := new(big.Rat).SetString(text)
		return r.Num().String(), r.IsInt() && r.Num().IsInt64()
	case expr.Bool, expr.String, expr.Timestamp, expr.JSON, expr.Invalid, expr.Null:
	}
	return "", false
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
		whole, wholeFailures, wholeRead := decodeAll(d(), everyType, text, len(text)+1)
		if !slices.Equal(rows, whole) || read != wholeRead {
			t.Fatalf("by %d: %q %d, whole: %q %d", size, rows, read, whole, wholeRead)
		}
		careful, carefulFailures, _ := decodeAll(decode.Careful(decode.NewCSV(everyType, names, ';', time.UTC)), everyType, text, len(text)+1)
		if !slices.Equal(careful, whole) || !slices.Equal(carefulFailures, wholeFailures) {
			t.Fatalf("%q: rows %q, carefully %q, failures %q, carefully %q", text, whole, careful, wholeFailures, carefulFailures)
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

// FuzzCutCSV holds that a cut falls between records: what is before and behind it decodes as the whole does.
func FuzzCutCSV(f *testing.F) {
	f.Add("x;1\n\"a\n\"\"b\";2\ny;\"3\n", 4, false)
	f.Add("5\" pipe;1\n\"a\" ;\"\n\"\n", 0, true)
	f.Add(strings.Repeat("\"a;\"\"\n\";x\n", 5), 3, false)
	schema := expr.Schema{{Name: "s", Type: expr.String}, {Name: "t", Type: expr.String}}
	f.Fuzz(func(t *testing.T, text string, off int, final bool) {
		off = min(off&0xf, len(text))
		cut, sure := decode.CutCSV([]byte(text), off, ';', final)
		slow, slowSure := decode.CutByField([]byte(text), off, ';', final)
		if sure != slowSure || sure && cut != slow {
			t.Fatalf("%q from %d: %d %v, by field %d %v", text, off, cut, sure, slow, slowSure)
		}
		if !sure {
			return
		}
		if cut < off || cut > len(text) || !final && cut > off && text[cut-1] != '\n' {
			t.Fatalf("%q from %d: cut at %d", text, off, cut)
		}
		d := decode.NewCSV(schema, []string{"s", "t"}, ';', time.UTC)
		b := column.NewBatch(schema)
		r := d.Decode(b, decode.Input{Text: []byte(text[:cut]), Off: off, MaxRows: len(text) + 1, Final: final})
		if r.Next != cut || r.Incomplete {
			t.Fatalf("%q from %d: cut at %d, decoded to %d", text, off, cut, r.Next)
		}
		if !final {
			// Whatever follows, the records before the cut are the same, and the next one starts at it.
			whole := d.Decode(column.NewBatch(schema), decode.Input{Text: []byte(text), Off: off, MaxRows: max(int(r.Read), 1), Final: false})
			if whole.Read > r.Read || whole.Failed.Count != r.Failed.Count {
				t.Fatalf("%q from %d: cut at %d, %d records of which %d failed, as a whole %d and %d", text, off, cut, r.Read, r.Failed.Count, whole.Read, whole.Failed.Count)
			}
		}
	})
}

// FuzzNumber holds every way to read a number against strconv.
func FuzzNumber(f *testing.F) {
	for _, value := range goodValues[:70] {
		f.Add(value, "1.5")
	}
	schema := expr.Schema{{Name: "a", Type: expr.Float}, {Name: "b", Type: expr.Float}}
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, text := range []string{a, b} {
			if _, isNumber := json.Number(text), json.Valid([]byte(text)); !isNumber || strings.ContainsAny(text, "tfn\"{[ \r\n\t") {
				return
			}
		}
		wantA, errA := strconv.ParseFloat(a, 64)
		wantB, errB := strconv.ParseFloat(b, 64)
		batch := column.NewBatch(schema)
		padding := strings.Repeat(" ", 40)
		for name, r := range map[string]decode.Result{
			"JSON": decode.NewJSON(schema, time.UTC).Decode(batch, decode.Input{Text: []byte(`{"a":` + a + `,"b":` + b + `}` + padding), Final: true, MaxRows: 1}),
			"CSV":  decode.NewCSV(schema, []string{"a", "b"}, ',', time.UTC).Decode(batch, decode.Input{Text: []byte(a + "," + b + "\n" + padding), Final: true, MaxRows: 1}),
		} {
			if (errA == nil && errB == nil) != (r.Failed.Count == 0) {
				t.Fatalf("%s: %s, %s: %v", name, a, b, r.Failed)
			}
			if r.Failed.Count == 0 && (math.Float64bits(batch.Cols[0].Floats[0]) != math.Float64bits(wantA) || math.Float64bits(batch.Cols[1].Floats[0]) != math.Float64bits(wantB)) {
				t.Fatalf("%s: %s, %s became %v, %v", name, a, b, batch.Cols[0].Floats[0], batch.Cols[1].Floats[0])
			}
		}
	})
}

// FuzzCSVAgainstStandard holds what encoding/csv takes against what is decoded, in records of three fields. It reads a
// line end in quotes as one byte, and passes over what is odd about quotes, so such texts are left out.
func FuzzCSVAgainstStandard(f *testing.F) {
	f.Add("a,b,c\n\"a,\"\"\",\"\nb\",\n\n,,\n")
	f.Add("\"a\",\"b\",\"c\"\n1,2,3")
	f.Add("é,\"ü\n\",\"\"\"\"\nabcdefgh,ijklmnop,qrstuvwx\n")
	names := []string{"a", "b", "c"}
	schema := expr.Schema{{Name: "c", Type: expr.String}, {Name: "a", Type: expr.String}, {Name: "b", Type: expr.String}}
	f.Fuzz(func(t *testing.T, text string) {
		standard := csv.NewReader(strings.NewReader(text))
		standard.FieldsPerRecord = 3
		want, err := standard.ReadAll()
		if err != nil || !utf8.ValidString(text) || strings.Contains(text, "\r") {
			return
		}
		b := column.NewBatch(schema)
		in := decode.Input{Text: []byte(text + strings.Repeat("\n", 20)), Final: true, MaxRows: len(want) + 1}
		r := decode.NewCSV(schema, names, ',', time.UTC).Decode(b, in)
		if r.Failed.Count > 0 || b.Len != len(want) {
			t.Fatalf("%q: %d rows, want %d; %v", text, b.Len, len(want), r.Failed)
		}
		for i, record := range want {
			for col, field := range []int{2, 0, 1} {
				if got := string(b.Cols[col].Bytes(i)); got != record[field] {
					t.Fatalf("%q: record %d, field %d: %q, want %q", text, i, field, got, record[field])
				}
			}
		}
	})
}
