package decode_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
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

// What a decoder remembers of the records before must never show in a record. So records are decoded one after another
// in every combination here, and each must give what it would give alone, which encoding/json tells.

var (
	long = flag.Bool("long", false, "also run the random tests at the length of make faults")
	seed = flag.Uint64("seed", 0, "what random records begin with, as a failed test has printed it; 0 for another each time")
)

// random gives a source of random numbers and says how to have the same again.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	first := *seed
	if first == 0 {
		first = rand.Uint64() //nolint:gosec // it only has to differ
	}
	t.Logf("for the same records again: go test -run %s ./agent/internal/decode -seed %d", t.Name(), first)
	return rand.New(rand.NewPCG(first, 1)) //nolint:gosec // tests that can be repeated
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// sequenceSchema has names that begin like others, and one that needs escapes.
var sequenceSchema = expr.Schema{
	{Name: "v", Type: expr.Int},
	{Name: "vv", Type: expr.Float},
	{Name: "b", Type: expr.Bool},
	{Name: "s", Type: expr.String},
	{Name: "t", Type: expr.Timestamp},
	{Name: "j", Type: expr.JSON},
	{Name: `a "quoted" näme, rather long`, Type: expr.Int},
	{Name: "", Type: expr.String},
}

// valuesOf are values for a column of the type, some of which do not fit.
var valuesOf = map[expr.Type][]string{
	expr.Int:       {"0", "5", "-7", "12345678", "123456789012345678", "9223372036854775807", "9223372036854775808", "3.0", "3.5", "1e3", `"5"`, "null", "01"},
	expr.Float:     {"0", "-0", "1.5", "60.25", "-0.0001", "123456.7", "12345678.9", "1e-400", "1e309", "2.5E3", "null", `"x"`, "[1]"},
	expr.Bool:      {"true", "false", "null", "1", "tru"},
	expr.String:    {`""`, `"x"`, `"abcdefg"`, `"abcdefgh"`, `"a longer text, of more than sixteen bytes"`, `"é"`, `"a\nb"`, `"\u00e9\\"`, `"\ud83d\ude00"`, `"\ud83d"`, "null", "5", `"{\"v\": 5}"`, `"open`},
	expr.Timestamp: {"1700000000123", "0", "-1", `"2026-01-02T03:04:05Z"`, `"2026-01-02\u002003:04:05.5"`, `"no time"`, "1.5", "1e300", "null"},
	expr.JSON:      {`{}`, `[]`, `{ "v" : [ 1 , { "v": 5 } ] }`, `[1,"]",{"}":"\""}]`, `"\ud83d"`, `-1.5e-3`, "true", "null", "[1,]", `{"v" 1}`},
}

// writer writes records that resemble those before.
type writer struct {
	*rand.Rand
	members []string // names as JSON texts
	// style is the white space that most records have.
	style []string
}

// name is the JSON text of a name, now and then with an escape that it does not need.
func (r *writer) name(name string) string {
	text, err := json.Marshal(name)
	if err != nil {
		panic(err)
	}
	if name != "" && r.IntN(8) == 0 {
		first, n := utf8.DecodeRuneInString(name)
		if rest, err := json.Marshal(name[n:]); err == nil {
			return fmt.Sprintf(`"\u%04x%s`, first, rest[1:])
		}
	}
	return string(text)
}

// change makes the next record's members of those of the one before.
func (r *writer) change() {
	switch r.IntN(8) {
	case 0:
		r.members = nil
		for _, c := range sequenceSchema {
			if r.IntN(4) > 0 {
				r.members = append(r.members, r.name(c.Name))
			}
		}
	case 1:
		r.Shuffle(len(r.members), func(i, k int) { r.members[i], r.members[k] = r.members[k], r.members[i] })
	case 2:
		r.members = append(r.members, r.name(pick(r.Rand, sequenceSchema).Name)) // often the second of its name
	case 3:
		r.members = append(r.members, pick(r.Rand, []string{`"x"`, `"V"`, `"v "`, `" v"`, `"vvv"`, `"\ud83d"`, `"v\":"`, `"another name that is rather long"`}))
	case 4:
		if len(r.members) > 0 {
			at := r.IntN(len(r.members))
			r.members = slices.Delete(r.members, at, at+1)
		}
	}
	if r.IntN(6) == 0 {
		r.style = pick(r.Rand, [][]string{{""}, {"", " "}, {" "}, {"", "", "", "\t"}, {"", " ", "  ", "\t", " \t ", "\r", "         "}})
	}
}

func (r *writer) space() string { return pick(r.Rand, r.style) }

// value is a random value for the name, mostly one that fits.
func (r *writer) value(name string) string {
	typ := pick(r.Rand, []expr.Type{expr.Int, expr.Float, expr.Bool, expr.String, expr.Timestamp, expr.JSON})
	var plain string
	if json.Unmarshal([]byte(name), &plain) == nil && r.IntN(50) > 0 {
		if i := sequenceSchema.Index(plain); i >= 0 {
			typ = sequenceSchema[i].Type
		}
	}
	if r.IntN(3) > 0 {
		return valuesOf[typ][r.IntN(2)] // the first ones are plain
	}
	return pick(r.Rand, valuesOf[typ])
}

// next writes a record, without its end of line.
func (r *writer) next() string {
	r.change()
	var text strings.Builder
	write := func(parts ...string) {
		for _, part := range parts {
			text.WriteString(r.space() + part)
		}
	}
	write("{")
	for i, name := range r.members {
		if i > 0 {
			write(",")
		}
		write(name, ":", r.value(name))
	}
	write("}", "")
	if record := text.String(); r.IntN(30) == 0 { // one byte put in, taken out or changed
		at := r.IntN(len(record))
		return record[:at] + pick(r.Rand, []string{"", "{", "}", "[", "]", ":", ",", `"`, `\`, " ", "0", "x", "\xff"}) + record[at+r.IntN(2):]
	}
	return text.String()
}

// standardRow is the row that encoding/json and the documented rules make of a record, and whether it is one. compare
// is false where encoding/json cannot tell.
func standardRow(schema expr.Schema, record string) (row string, good, compare bool) {
	if strings.Count(record, "[")+strings.Count(record, "{") >= decode.MaxDepth {
		return "", false, false
	}
	if !json.Valid([]byte(record)) || !utf8.ValidString(record) || strings.TrimSpace(record)[0] != '{' {
		return "", false, true
	}
	cells := make([]string, len(schema))
	for i := range cells {
		cells[i] = "-"
	}
	good = true
	members := json.NewDecoder(strings.NewReader(record))
	next := func(to any) {
		if err := members.Decode(to); err != nil {
			panic(err) // it is valid
		}
	}
	if _, err := members.Token(); err != nil {
		panic(err)
	}
	for members.More() {
		name, err := members.Token()
		if err != nil {
			panic(err)
		}
		var raw json.RawMessage
		next(&raw)
		text, _ := name.(string)
		if i := schema.Index(text); i >= 0 {
			value, fits := standardCell(schema[i].Type, string(raw))
			cells[i], good = value, good && fits
		}
	}
	// It turns half of a surrogate pair into this character, which a record may have in its own right.
	replaced := strings.ContainsRune(record, utf8.RuneError) || strings.Contains(strings.ToLower(record), `\ufffd`)
	return strings.Join(cells, " | "), good, !replaced
}

// standardCell is what encoding/json makes of a value for a column, as cell writes it.
func standardCell(typ expr.Type, raw string) (value string, fits bool) {
	if raw == "null" {
		return "-", true
	}
	var text string
	isText := json.Unmarshal([]byte(raw), &text) == nil
	switch typ {
	case expr.JSON:
		return raw, true
	case expr.Bool:
		return raw, raw == "true" || raw == "false"
	case expr.String:
		return text, isText && !strings.ContainsRune(text, utf8.RuneError)
	case expr.Int, expr.Float:
		return wantNumber(raw, typ)
	case expr.Timestamp:
		at, isTime := decode.ParseTime([]byte(text), time.UTC)
		if !isText {
			ms, err := strconv.ParseInt(raw, 10, 64)
			if whole, fits := wantNumber(raw, expr.Int); err != nil && fits {
				ms, err = strconv.ParseInt(whole, 10, 64)
			}
			year := time.UnixMilli(ms).UTC().Year()
			at, isTime = ms*1000, err == nil && year >= 1 && year <= 9999
		}
		return time.UnixMicro(at).UTC().Format(time.RFC3339Nano), isTime
	case expr.Invalid, expr.Null:
	}
	return "", false
}

// outcome is what decoding many records gave.
type outcome struct {
	rows         []string
	read, failed int64
	next         int64 // line
}

// decodePieces decodes text in pieces and batches of sizes that the functions give.
func decodePieces(d decode.Decoder, schema expr.Schema, text string, piece, maxRows func() int) outcome {
	var got outcome
	b, buf, have := column.NewBatch(schema), []byte(nil), 0
	got.next = 1
	for have < len(text) || len(buf) > 0 {
		n := min(have+piece(), len(text))
		buf = append(buf, text[have:n]...)
		have = n
		r := d.Decode(b, decode.Input{Text: buf, Final: have == len(text), MaxRows: maxRows(), Name: "f", Line: got.next})
		got.rows = append(got.rows, cells(b)...)
		got.read, got.failed, got.next = got.read+r.Read, got.failed+r.Failed.Count, r.Line
		buf = slices.Clone(buf[r.Next:])
	}
	return got
}

func decodeWhole(d decode.Decoder, schema expr.Schema, text string) outcome {
	return decodePieces(d, schema, text, func() int { return len(text) }, func() int { return len(text) + 1 })
}

func (o outcome) same(p outcome) bool {
	return slices.Equal(o.rows, p.rows) && o.read == p.read && o.failed == p.failed && o.next == p.next
}

// checkSequence decodes lines one after another with one decoder, and compares each with what it is alone.
func checkSequence(t *testing.T, schema expr.Schema, lines []string) {
	t.Helper()
	d, b := decode.NewJSON(schema, time.UTC), column.NewBatch(schema)
	for i, line := range lines {
		want, good, compare := standardRow(schema, line)
		d.Begin(b, 1)
		text := []byte(line + pick(rand.New(rand.NewPCG(uint64(i), 2)), []string{"", "\n", "\n{\"v\": 9, \"vv\": 9}\n"})) //nolint:gosec // what is behind a record does not count
		err := d.Record(text, 0, len(line))
		d.Finish(text)
		switch {
		case !compare:
		case (err == nil) != good:
			t.Fatalf("%q behind %q: %v, want good: %v", line, lines[max(i-3, 0):i], err, good)
		case good && cells(b)[0] != want:
			t.Fatalf("%q behind %q: %s, want %s", line, lines[max(i-3, 0):i], cells(b)[0], want)
		}
	}
}

// TestRecordsInSequence holds that records give what encoding/json says, whatever came before them, and that pieces and
// batches of any size give the same.
func TestRecordsInSequence(t *testing.T) {
	t.Parallel()
	r := random(t)
	sequences := 100
	if *long {
		sequences = 20_000
	}
	var rows, records int64
	for range sequences {
		next := writer{Rand: r, style: []string{""}}
		var lines []string
		var text strings.Builder
		var want outcome
		compare := true
		for range 40 {
			line := next.next()
			row, good, known := standardRow(sequenceSchema, line)
			compare = compare && known
			lines = append(lines, line)
			if want.read++; good {
				want.rows = append(want.rows, row)
			} else {
				want.failed++
			}
			text.WriteString(line + pick(r, []string{"\n", "\n", "\r\n", " \n", "\n\n", "\n \r\n"}))
		}
		checkSequence(t, sequenceSchema, lines)
		whole := decodeWhole(decode.NewJSON(sequenceSchema, time.UTC), sequenceSchema, text.String())
		want.next = int64(strings.Count(text.String(), "\n")) + 1
		if compare && !whole.same(want) {
			t.Fatalf("%q:\ngives %+v\nwant  %+v", text.String(), whole, want)
		}
		rows, records = rows+int64(len(whole.rows)), records+whole.read
		pieces := decodePieces(decode.NewJSON(sequenceSchema, time.UTC), sequenceSchema, text.String(),
			func() int { return r.IntN(300) }, func() int { return 1 + r.IntN(20) })
		if !pieces.same(whole) {
			t.Fatalf("%q:\nin pieces %+v\nas a whole %+v", text.String(), pieces, whole)
		}
	}
	if t.Logf("%d records, %d of them rows", records, rows); rows < records/4 || rows > records*9/10 {
		t.Errorf("%d of %d records are rows; this tests too little", rows, records)
	}
}

// FuzzJSONSequence decodes two records in either order, twice.
func FuzzJSONSequence(f *testing.F) {
	f.Add(`{"v":5}`, `{"v": 6}`)
	f.Add(`{"v": 5,"x":1}`, `{"v":  5,"x":	2}`)
	f.Add(`{"x":5,"v":5}`, `{"x": 5,"v":5}`)
	f.Add(`{"j":[1],"s":"a\n"}`, `{ "j" : [ 1 ] , "s" : "\ud83d" }`)
	f.Add(`{"v":1,"v":2}`, `{"\u0076":1,"v": null}`)
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.ContainsAny(a+b, "\n") || strings.TrimSpace(a) == "" || strings.TrimSpace(b) == "" {
			return
		}
		checkSequence(t, sequenceSchema, []string{a, b, a, a, b, b, a})
	})
}
