package decode

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// maxMembers bounds how many different member names are remembered.
const maxMembers = 1024

// JSON decodes JSON objects, one a line or one at a time.
//
// A record is an object; its members fill the columns of their name. A missing member and null are null, of members of
// one name the last counts, nested values go into json columns as they are written. Members that no column wants are
// passed over without a look inside.
type JSON struct {
	rows
	clock clock
	// members has what is known of a member name, by its text with the quotes and the colon.
	members map[string]*member
	wanted  map[string]int
	// order is the members of the record before: the next one likely has the same ones in the same order.
	order []*member
	// escape is where the next backslash is, from the start of the text.
	escape  int
	scratch []byte
	// presetCol is the column that Preset gave the next record, or -1.
	presetCol, presetStart, presetEnd int
	// failedCol is the column of the last problem, or -1.
	failedCol int
	drift     *drift
}

// member is a name in the text of records.
type member struct {
	// key is `"name":`, col the column or -1.
	key string
	col int
}

// NewJSON makes a decoder of the wanted columns. Times without a zone are in loc.
func NewJSON(schema expr.Schema, loc *time.Location) *JSON {
	d := &JSON{
		rows: newRows(schema), clock: clock{loc: loc},
		members: make(map[string]*member), wanted: make(map[string]int, len(schema)),
		presetCol: -1,
	}
	for i, c := range schema {
		d.wanted[c.Name] = i
	}
	return d
}

// Decode decodes JSON lines. Empty lines are passed over.
func (d *JSON) Decode(b *column.Batch, in Input) Result {
	d.Begin(b, in.MaxRows)
	r := Result{Next: in.Off, Line: in.Line}
	for d.row < in.MaxRows && r.Next < len(in.Text) {
		n := bytes.IndexByte(in.Text[r.Next:], '\n')
		end, next := r.Next+n, r.Next+n+1
		if n < 0 {
			if !in.Final {
				r.Incomplete = true
				break
			}
			end, next = len(in.Text), len(in.Text)
		}
		d.line(&r, &in, end)
		r.Next = next
		r.Line++
	}
	d.Finish(in.Text)
	r.note(&in, d.Drift(in.Final && !r.Incomplete && r.Next == len(in.Text)))
	return r
}

func (d *JSON) line(r *Result, in *Input, end int) {
	p := d.record(in.Text, r.Next, end)
	if p == ok {
		r.Read++
		return
	}
	record := bytes.TrimSpace(in.Text[r.Next:end])
	if len(record) == 0 {
		return
	}
	r.Read++
	reason := ""
	if r.sampling() {
		reason = d.reason(p)
	}
	r.fail(in, record, reason)
}

// Ignore leaves the column to Preset: no member fills it.
func (d *JSON) Ignore(name string) { delete(d.wanted, name) }

// Preset gives the string column the text[start:end] in the record that is decoded next.
func (d *JSON) Preset(col, start, end int) {
	d.presetCol, d.presetStart, d.presetEnd = col, start, end
}

// Begin prepares an empty batch for up to n records, which Record then decodes one by one.
func (d *JSON) Begin(b *column.Batch, n int) {
	d.open(b, n)
	d.escape = -1
}

// Record decodes the record text[start:end] into the next row. An error says what is wrong with it; it is no row then.
func (d *JSON) Record(text []byte, start, end int) error {
	if p := d.record(text, start, end); p != ok {
		return &RecordError{Reason: d.reason(p)}
	}
	return nil
}

// Finish ends the batch; its texts refer to text.
func (d *JSON) Finish(text []byte) { d.close(text) }

// RecordError says why a record could not be decoded.
type RecordError struct{ Reason string }

func (e *RecordError) Error() string { return e.Reason }

// record decodes text[start:end] and commits the row when all is well.
func (d *JSON) record(text []byte, start, end int) problem {
	d.begin()
	d.drift.begin()
	d.failedCol = -1
	if d.presetCol >= 0 {
		d.setStr(d.presetCol, d.presetStart, d.presetEnd)
		d.presetCol = -1
	}
	s := text[:end]
	if end-start > MaxRecord {
		return tooLong
	}
	p := space(s, start)
	if p >= end || s[p] != '{' {
		return notObject
	}
	if p = space(s, p+1); p < end && s[p] == '}' {
		return d.finishRecord(s, p+1)
	}
	return d.object(s, p)
}

// object decodes the members of an object from s[p:] on.
func (d *JSON) object(s []byte, p int) problem {
	for i := 0; ; i++ {
		m, next := d.member(s, p, i)
		if next < 0 {
			return badKey
		}
		p = anySpace(s, next)
		if m.col < 0 {
			if p = skip(s, p); p < 0 {
				return badSyntax
			}
		} else {
			var bad problem
			if p, bad = d.value(s, p, m.col); bad != ok {
				d.failedCol = m.col
				return bad
			}
		}
		p = anySpace(s, p)
		switch {
		case p >= len(s):
			return badSyntax
		case s[p] == '}':
			return d.finishRecord(s, p+1)
		case s[p] != ',':
			return badSyntax
		}
		p = anySpace(s, p+1)
	}
}

func (d *JSON) finishRecord(s []byte, p int) problem {
	if space(s, p) != len(s) {
		return afterEnd
	}
	if d.drift.offends() {
		return unnamed
	}
	for _, e := range d.pending {
		n, _ := unescape(s[e.start:e.end])                                                 // text has tried it on a copy
		if d.seen[e.col] == d.serial && d.cols[e.col].Strs[d.row].Off == uint32(e.start) { //nolint:gosec // as in setStr
			d.setStr(e.col, e.start, e.start+n)
		}
	}
	d.commit()
	return ok
}

// member reads the name at s[p:] with its colon, as the i-th of the record, and gives the position behind, or -1.
func (d *JSON) member(s []byte, p, i int) (*member, int) {
	if i < len(d.order) {
		m := d.order[i]
		if len(s)-p >= len(m.key) && string(s[p:p+len(m.key)]) == m.key {
			return m, p + len(m.key)
		}
	}
	if p >= len(s) || s[p] != '"' {
		return nil, -1
	}
	end := stringEnd(s, p+1)
	if end < 0 {
		return nil, -1
	}
	colon := space(s, end+1)
	if colon >= len(s) || s[colon] != ':' {
		return nil, -1
	}
	m := d.known(s[p:colon+1], s[p+1:end])
	if m == nil {
		return nil, -1
	}
	if i < len(d.order) {
		d.order[i] = m
	} else if i == len(d.order) && i < maxMembers {
		d.order = append(d.order, m)
	}
	return m, colon + 1
}

// unwanted is a member that is not remembered and that no column wants.
var unwanted = member{col: -1, key: "\x00"}

// known is the member written as key. Names are remembered as they are written, so that escapes in them cost once.
func (d *JSON) known(key, raw []byte) *member {
	if m, found := d.members[string(key)]; found {
		return m
	}
	name := bytes.Clone(raw)
	n, good := len(name), true
	if bytes.IndexByte(name, '\\') >= 0 {
		n, good = unescape(name)
	}
	if !good {
		return nil
	}
	col, isWanted := d.wanted[string(name[:n])]
	if !isWanted {
		col = -1
	}
	if forget := d.drift.see(name[:n], isWanted); forget || len(d.members) >= maxMembers && !isWanted || len(key) > 4096 {
		if !isWanted {
			return &unwanted
		}
		return &member{key: string(key), col: col}
	}
	m := &member{key: string(key), col: col}
	d.members[m.key] = m
	return m
}

// value decodes the value at s[p:] into the column and gives the position behind it.
func (d *JSON) value(s []byte, p, col int) (int, problem) {
	if p >= len(s) {
		return p, badSyntax
	}
	c := &d.cols[col]
	first := s[p]
	if first == 'n' && c.Type != expr.JSON {
		if !literal(s, p, "null") {
			return p, badValue
		}
		d.unset(col)
		return p + 4, ok
	}
	switch c.Type {
	case expr.Float, expr.Int:
		return d.numberValue(s, p, col)
	case expr.String:
		if first != '"' {
			return p, d.mismatch(s, p)
		}
		return d.text(s, p+1, col)
	case expr.Timestamp:
		return d.timeValue(s, p, col)
	case expr.Bool:
		switch {
		case literal(s, p, "true"):
			c.Bools[d.row] = true
			p += 4
		case literal(s, p, "false"):
			c.Bools[d.row] = false
			p += 5
		default:
			return p, d.mismatch(s, p)
		}
		d.set(col)
		return p, ok
	case expr.JSON:
		return d.jsonValue(s, p, col)
	case expr.Invalid, expr.Null:
	}
	return p, wrongType
}

// mismatch tells a value of another type from text that is no value.
func (d *JSON) mismatch(s []byte, p int) problem {
	if skip(s, p) < 0 {
		return badValue
	}
	return wrongType
}

func (d *JSON) numberValue(s []byte, p, col int) (int, problem) {
	n, end := scanNumber(s, p)
	if end < 0 {
		return p, d.mismatch(s, p)
	}
	c := &d.cols[col]
	var bad problem
	if c.Type == expr.Float {
		c.Floats[d.row], bad = n.float(s[p:end])
	} else {
		c.Ints[d.row], bad = n.int(s[p:end])
	}
	d.set(col)
	return end, bad
}

func (d *JSON) timeValue(s []byte, p, col int) (int, problem) {
	c := &d.cols[col]
	if s[p] != '"' {
		n, end := scanNumber(s, p)
		if end < 0 {
			return p, d.mismatch(s, p)
		}
		ms, bad := n.int(s[p:end])
		if bad != ok {
			return p, bad
		}
		t, good := epochMillis(ms)
		if !good {
			return p, outOfRange
		}
		c.Ints[d.row] = t
		d.set(col)
		return end, ok
	}
	end := stringEnd(s, p+1)
	if end < 0 {
		return p, badValue
	}
	t, good := d.clock.parse(s[p+1 : end])
	if !good {
		return p, notTime
	}
	c.Ints[d.row] = t
	d.set(col)
	return end + 1, ok
}

// text takes the string that starts at s[p:], behind its quote.
func (d *JSON) text(s []byte, p, col int) (int, problem) {
	if d.escape < p {
		d.escape = p + indexOrLen(s[p:], '\\')
	}
	n := bytes.IndexByte(s[p:], '"')
	if n < 0 {
		return p, badValue
	}
	end, hasEscape := p+n, false
	if d.escape < end {
		hasEscape = true
		if end = stringEnd(s, p); end < 0 {
			return p, badValue
		}
	}
	if !utf8.Valid(s[p:end]) {
		return p, badUTF8
	}
	if !hasEscape {
		d.setStr(col, p, end)
		return end + 1, ok
	}
	// The text is changed only when the record is good, so that a failing one can be shown as it came.
	d.scratch = append(d.scratch[:0], s[p:end]...)
	if _, good := unescape(d.scratch); !good {
		return p, badEscape
	}
	d.setEscaped(col, p, end)
	return end + 1, ok
}

func (d *JSON) jsonValue(s []byte, p, col int) (int, problem) {
	end := skip(s, p)
	if end < 0 {
		return p, badValue
	}
	switch {
	case !utf8.Valid(s[p:end]):
		return p, badUTF8
	case !json.Valid(s[p:end]):
		return p, badJSON
	case s[p] == 'n':
		d.unset(col)
	default:
		d.setStr(col, p, end)
	}
	return end, ok
}

// reason says what the problem was, for a person.
func (d *JSON) reason(p problem) string {
	if p == unnamed {
		return unnamedMember(d.drift.offence) + ", and the read says drift: fail"
	}
	if d.failedCol < 0 {
		return p.message("")
	}
	c := d.schema[d.failedCol]
	return fmt.Sprintf("column %s: %s", c.Name, p.message(c.Type.String()))
}

// message describes a problem with a value of the type.
func (p problem) message(typ string) string {
	switch p {
	case wrongType:
		return "the value is not of type " + typ
	case notWhole:
		return "the number has a fraction and the column is of type " + typ
	case outOfRange:
		return "the number is out of the range of type " + typ
	case tooLong:
		return fmt.Sprintf("longer than %d MiB", MaxRecord>>20)
	case ok, notObject, badSyntax, afterEnd, badKey, badValue, notTime, badUTF8, badEscape, badJSON, fewFields, manyFields, afterQuote, openQuote, unnamed:
	}
	return problemTexts[p]
}

// problemTexts are the messages that are the same for every value.
var problemTexts = [...]string{
	notObject:  "not a JSON object",
	badSyntax:  "not valid JSON: a comma or the end of the object is missing",
	afterEnd:   "not valid JSON: there is more text after the object",
	badKey:     "not valid JSON: a member's name in quotes and a colon are missing",
	badValue:   "not valid JSON: this is not a value",
	notTime:    "not a time: write RFC 3339, YYYY-MM-DD hh:mm:ss or epoch milliseconds",
	badUTF8:    "the text is not valid UTF-8",
	badEscape:  "not valid JSON: an escape in the text is wrong",
	badJSON:    "the value is not valid JSON",
	fewFields:  "it has too few fields",
	manyFields: "it has too many fields",
	afterQuote: "there is text after the closing quote of a field",
	openQuote:  "a quote is opened and never closed",
}
