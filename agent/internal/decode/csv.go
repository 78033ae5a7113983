package decode

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/protocol/expr"
)

// CSV decodes comma-separated values as RFC 4180 describes them, with any one-byte delimiter.
//
// An empty field is null; an empty field in quotes is an empty text in a string column and null in any other. White
// space around a value that is not text does not count. A quote inside a field that does not begin with one is an
// ordinary character. Records with too few or too many fields are failed records.
type CSV struct {
	rows
	clock expr.Clock
	delim byte
	// delims is the delimiter eight times.
	delims uint64
	// fields is the column of each field of a record, or -1; last is the last field that has one.
	fields []int
	last   int
	// steps is fields for quickRecord.
	steps []step
	// quote is where the next quote is, from the start of the text.
	quote int
	// parts are the fields of a record with quotes.
	parts []part
	// astray is what the last record taught whose quotes do not come out right.
	astray astray
	// comma says that numbers have a decimal comma; number is the last one with a point.
	comma  bool
	number []byte
	// failedCol and failedFields describe the last problem.
	failedCol, failedFields int
	_                       [apart]byte
}

// NewCSV makes a decoder of the wanted columns of records whose fields are names, in order. Times without a zone are
// in loc.
func NewCSV(schema expr.Schema, names []string, delim byte, loc *time.Location) *CSV {
	d := &CSV{rows: newRows(schema), clock: expr.NewClock(loc), delim: delim, last: -1, fields: make([]int, len(names))}
	d.delims, d.steps = everyByte*uint64(delim), make([]step, len(names))
	for i, name := range names {
		col := schema.Index(name)
		d.fields[i] = col
		if col >= 0 {
			d.last, d.steps[i] = i, step{col: col, typ: schema[col].Type}
			if strings.IndexByte("0123456789+-.eE", delim) >= 0 && schema[col].Type != expr.String {
				d.steps[i].typ = expr.Null // a number ends where such a delimiter is, not where its digits do
			}
		}
	}
	return d
}

// DecimalComma makes the decoder read numbers with a comma, as in 3,5, and none with a point, which stands for thousands
// where people write so. It is called before the first record.
func (d *CSV) DecimalComma() {
	d.comma = true
	for i := range d.steps {
		if t := d.steps[i].typ; t == expr.Float || t == expr.Int {
			d.steps[i].typ = expr.Null // cell knows of the comma
		}
	}
}

// Header reads the header at text[off:] and gives its names and where the first record starts; that is -1 when the
// header is not complete and more may follow.
func Header(text []byte, off int, delim byte, final bool) (names []string, next int, err error) {
	d := &CSV{delim: delim, delims: everyByte * uint64(delim), quote: -1}
	in := Input{Text: text, Final: final}
	end, next, bad := d.split(&in, off)
	switch {
	case next < 0:
		return nil, -1, nil
	case bad != ok:
		return nil, 0, &RecordError{Reason: bad.message("")}
	case !utf8.Valid(text[off:end]):
		return nil, 0, &RecordError{Reason: badUTF8.message("") + "; have the file written as UTF-8"}
	}
	for _, p := range d.parts {
		name := string(text[p.start:p.end])
		if p.doubled {
			name = strings.ReplaceAll(name, `""`, `"`)
		}
		names = append(names, strings.TrimSpace(name))
	}
	return names, next, nil
}

// CheckHeader says which column of the schema the names lack, and whether one that is wanted comes twice. With
// connector.DriftReport they may lack columns, which are null then and which CheckDrift notes.
func CheckHeader(policy connector.Drift, schema expr.Schema, names []string) error {
	for _, c := range schema {
		n := 0
		for _, name := range names {
			if name == c.Name {
				n++
			}
		}
		switch {
		case n > 1:
			return &RecordError{Reason: fmt.Sprintf("the header has column %q %d times; give each its own name", c.Name, n)}
		case n == 0 && policy != connector.DriftReport:
			return &RecordError{Reason: "the header lacks a column of the schema: " + expr.Unknown("column", c.Name, names)}
		}
	}
	return nil
}

// Decode decodes records. Empty lines are passed over.
func (d *CSV) Decode(b *column.Batch, in Input) Result {
	d.open(b, in.MaxRows)
	d.aim()
	d.quote, d.astray = -1, astray{}
	r := Result{Next: in.Off, Line: in.Line}
	for d.row < in.MaxRows && r.Next < len(in.Text) {
		if next := d.quickRecord(in.Text, r.Next); next > 0 {
			r.Read++
			r.Next = next
			r.Line++
			continue
		}
		if d.quote < r.Next {
			d.quote = r.Next + indexOrLen(in.Text[r.Next:], '"')
		}
		n := bytes.IndexByte(in.Text[r.Next:], '\n')
		end, next := r.Next+n, r.Next+n+1
		if n < 0 {
			if end, next = len(in.Text), len(in.Text); !in.Final && d.quote >= end {
				r.Incomplete = true
				break
			}
		}
		if d.quote >= end {
			d.plainLine(&r, &in, end)
			r.Next = next
			r.Line++
			continue
		}
		if !d.quotedRecord(&r, &in) {
			r.Incomplete = true
			break
		}
	}
	d.close(in.Text)
	return r
}

// plainLine decodes a record without quotes.
func (d *CSV) plainLine(r *Result, in *Input, end int) {
	start := r.Next
	if end > start && in.Text[end-1] == '\r' {
		end--
	}
	if end == start {
		return
	}
	r.Read++
	if p := d.plain(in.Text[:end], start); p != ok {
		d.failed(r, in, end, p)
	}
}

func (d *CSV) plain(s []byte, p int) problem {
	d.begin()
	d.failedCol = -1
	if len(s)-p > MaxRecord {
		return tooLong
	}
	start, f := p, 0
	for f <= d.last {
		n := bytes.IndexByte(s[p:], d.delim)
		end := p + n
		if n < 0 {
			end = len(s)
		}
		if col := d.fields[f]; col >= 0 {
			if bad := d.cell(s, part{start: p, end: end}, col); bad != ok {
				d.failedCol = col
				return d.countFirst(s[start:], bad)
			}
		}
		f++
		if n < 0 {
			p = -1
			break
		}
		p = end + 1
	}
	if p >= 0 {
		f += bytes.Count(s[p:], []byte{d.delim}) + 1
	}
	if bad := d.count(f); bad != ok {
		return bad
	}
	d.commit()
	return ok
}

// countFirst prefers a wrong number of fields to a bad value as the reason: it is often the cause.
func (d *CSV) countFirst(record []byte, bad problem) problem {
	if wrong := d.count(bytes.Count(record, []byte{d.delim}) + 1); wrong != ok {
		return wrong
	}
	return bad
}

func (d *CSV) count(fields int) problem {
	d.failedFields = fields
	switch {
	case fields < len(d.fields):
		return fewFields
	case fields > len(d.fields):
		return manyFields
	}
	return ok
}

// cell decodes a field into the column.
func (d *CSV) cell(s []byte, f part, col int) problem {
	c := &d.cols[col]
	if c.Type == expr.String {
		return d.text(s, f, col)
	}
	text := s[f.start:f.end]
	if len(text) > 0 && (text[0] <= ' ' || text[len(text)-1] <= ' ') {
		text = bytes.TrimSpace(text)
	}
	if len(text) == 0 {
		return ok
	}
	var bad problem
	switch c.Type {
	case expr.Float, expr.Int:
		bad = d.numberCell(text, c)
	case expr.Timestamp:
		c.Ints[d.row], bad = d.time(text)
	case expr.Bool:
		c.Bools[d.row], bad = csvBool(text)
	case expr.JSON:
		return d.json(s, f, col)
	case expr.String, expr.Invalid, expr.Null:
	}
	if bad == ok {
		d.set(col)
	}
	return bad
}

func (d *CSV) numberCell(text []byte, c *column.Column) (bad problem) {
	if d.comma {
		if bytes.IndexByte(text, '.') >= 0 {
			return pointNumber
		}
		if n := bytes.IndexByte(text, ','); n >= 0 {
			d.number = append(d.number[:0], text...)
			d.number[n] = '.'
			text = d.number
		}
	}
	if c.Type == expr.Float {
		c.Floats[d.row], bad = csvFloat(text)
	} else {
		c.Ints[d.row], bad = csvInt(text)
	}
	if bad == wrongType && !d.comma && commaNumber(text) {
		return commaDecimal
	}
	return bad
}

// commaNumber says whether a text reads as a number once its only comma is a point.
func commaNumber(text []byte) bool {
	n := bytes.IndexByte(text, ',')
	if n < 0 {
		return false
	}
	text = bytes.Clone(text)
	text[n] = '.'
	_, bad := csvFloat(text)
	return bad == ok
}

func (d *CSV) text(s []byte, f part, col int) problem {
	switch {
	case !utf8.Valid(s[f.start:f.end]):
		return badUTF8
	case f.doubled:
		d.setEscaped(col, f.start, f.end)
	case f.end > f.start || f.quoted:
		d.setStr(col, f.start, f.end)
	}
	return ok
}

func (d *CSV) json(s []byte, f part, col int) problem {
	f.start = space(s[:f.end], f.start)
	text := bytes.TrimRight(s[f.start:f.end], " \t\r\n")
	f.end = f.start + len(text)
	if f.doubled {
		text = bytes.ReplaceAll(text, []byte(`""`), []byte(`"`))
	}
	switch {
	case !utf8.Valid(text):
		return badUTF8
	case !json.Valid(text):
		return badJSON
	case string(text) == "null":
		return ok
	}
	return d.text(s, f, col)
}

func (d *CSV) time(text []byte) (int64, problem) {
	if t, good := d.clock.Parse(text); good {
		return t, ok
	}
	ms, bad := csvInt(text)
	if bad != ok {
		return 0, notTime
	}
	t, good := epochMillis(ms)
	if !good {
		return 0, outOfRange
	}
	return t, ok
}

func csvBool(text []byte) (bool, problem) {
	switch {
	case len(text) == 1 && text[0] == '1', len(text) == 4 && strings.EqualFold(string(text), "true"):
		return true, ok
	case len(text) == 1 && text[0] == '0', len(text) == 5 && strings.EqualFold(string(text), "false"):
		return false, ok
	}
	return false, wrongType
}

func csvFloat(text []byte) (float64, problem) {
	if n, end := scanNumber(text, 0); end == len(text) {
		return n.float(text)
	}
	text, good := looseNumber(text)
	if !good {
		return 0, wrongType
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return 0, outOfRange
	}
	return f, ok
}

func csvInt(text []byte) (int64, problem) {
	if n, end := scanNumber(text, 0); end == len(text) {
		return n.int(text)
	}
	text, good := looseNumber(text)
	if !good {
		return 0, wrongType
	}
	for len(text) > 1 && text[0] == '0' && text[1]-'0' <= 9 {
		text = text[1:]
	}
	n, end := scanNumber(text, 0)
	if end != len(text) {
		return 0, wrongType
	}
	return n.int(text)
}

// looseNumber accepts what JSON does not: a plus sign, leading zeros, nothing before or after the point.
func looseNumber(text []byte) ([]byte, bool) {
	if len(text) > 1 && text[0] == '+' {
		text = text[1:]
	}
	digits, points, rest := 0, 0, text
	if rest[0] == '-' {
		rest = rest[1:]
	}
	for len(rest) > 0 && (rest[0]-'0' <= 9 || rest[0] == '.') {
		if rest[0] == '.' {
			points++
		} else {
			digits++
		}
		rest = rest[1:]
	}
	if digits == 0 || points > 1 {
		return nil, false
	}
	if len(rest) > 0 {
		if _, end := scanExponent(number{}, rest, 1); rest[0]|0x20 != 'e' || end != len(rest) {
			return nil, false
		}
	}
	return text, true
}

func (d *CSV) failed(r *Result, in *Input, end int, p problem) {
	reason := ""
	if r.sampling() {
		reason = d.reason(p)
	}
	r.fail(in, in.Text[r.Next:end], reason)
}

func (d *CSV) reason(p problem) string {
	if p == fewFields || p == manyFields {
		return fmt.Sprintf("it has %d fields instead of %d", d.failedFields, len(d.fields))
	}
	if d.failedCol < 0 {
		return p.message("")
	}
	c := d.schema[d.failedCol]
	return fmt.Sprintf("column %s: %s", c.Name, p.message(c.Type.String()))
}

func indexOrLen(s []byte, c byte) int {
	if n := bytes.IndexByte(s, c); n >= 0 {
		return n
	}
	return len(s)
}
