package decode

import (
	"bytes"
	"fmt"
	"time"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// maxMembers bounds how many different member names are remembered.
const maxMembers = 1024

// maxPattern is the length of the longest pattern that is remembered.
const maxPattern = 1024

// nowhere is the reach of a member that is at no position: further than any buffer goes, and no overflow behind one.
const nowhere = 1 << 30

// JSON decodes JSON objects, one a line or one at a time.
//
// A record is an object; its members fill the columns of their name. A missing member and null are null, of members of
// one name the last counts, nested values go into json columns as they are written. A record that is not JSON fails
// whatever is read of it. Most records have the members of the one before, written in the same way, so the decoder
// compares with what it expects and looks closely only where it is wrong.
type JSON struct {
	rows
	clock expr.Clock
	// members are what stood between two values before, by its text.
	members map[string]*member
	wanted  map[string]int
	// first is before every record: what it expects is the first member. never is expected where nothing is known.
	first, never *member
	// other is the member that was met last and is not remembered.
	other   *member
	scratch []byte
	// presetCol is the column that Preset gave the next record, or -1.
	presetCol, presetStart, presetEnd int
	// failedCol is the column of the last problem, or -1.
	failedCol int
	drift     *drift
	// seq is the number of the record under way, which counts while there is a drift.
	seq int64
	// ignored are the columns that Preset fills.
	ignored []string
	_       [apart]byte
}

// NewJSON makes a decoder of the wanted columns. Times without a zone are in loc.
func NewJSON(schema expr.Schema, loc *time.Location) *JSON {
	d := &JSON{
		rows: newRows(schema), clock: expr.NewClock(loc),
		members: make(map[string]*member), wanted: make(map[string]int, len(schema)),
		other: &member{}, presetCol: -1,
	}
	d.never = &member{reach: nowhere}
	d.first = &member{next: d.never, after: d.never}
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
	if in.Final && r.Next == len(in.Text) {
		d.endFile()
	}
	r.note(&in, d.Drift(false)) // other input may follow this one
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

// Ignore leaves the column to Preset: no member fills it, and none is missed. It is called before Watch.
func (d *JSON) Ignore(name string) {
	delete(d.wanted, name)
	d.ignored = append(d.ignored, name)
}

// Preset gives the string column the text[start:end] in the record that is decoded next.
func (d *JSON) Preset(col, start, end int) {
	d.presetCol, d.presetStart, d.presetEnd = col, start, end
}

// Begin prepares an empty batch for up to n records, which Record then decodes one by one.
func (d *JSON) Begin(b *column.Batch, n int) {
	d.open(b, n)
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
	p := anySpace(s, start)
	if p >= end || s[p] != '{' {
		return notObject
	}
	return d.object(text, s, p)
}

// object decodes the object at s[p:]; s is what text has up to the end of the record.
func (d *JSON) object(text, s []byte, p int) problem {
	for before := d.first; ; {
		m := before.next
		switch {
		case m.at(text, p, len(s)):
			p += len(m.pattern)
		case before.after.at(text, p, len(s)):
			m = before.after
			p += len(m.pattern)
		default:
			var bad problem
			if m, p, bad = d.member(s, p, before); m == nil {
				if bad != ok {
					return bad
				}
				return d.finishRecord(s, p)
			}
		}
		m.seen = d.seq
		end := d.quick(text, p, m)
		if end <= 0 || end >= len(s) || s[end] != ',' && s[end] != '}' {
			var bad problem
			if m, end, bad = d.closer(s, p, m, before); bad != ok {
				return bad
			}
		}
		if p = end; p < len(s) && s[p] == '}' {
			return d.finishRecord(s, p+1)
		}
		before = m
	}
}

// closer decodes the value of a member, whose pattern is before s[p:], that wants a closer look, and gives the position
// behind it. The member that was expected need not be the one that is there: its pattern may end within the white space
// behind the colon, because a pattern with less white space is the start of the same one with more. Then the true one is
// looked up, and expected from then on.
func (d *JSON) closer(s []byte, p int, m, before *member) (*member, int, problem) {
	if anySpace(s, p) > p {
		var bad problem
		if m, p, bad = d.member(s, p-len(m.pattern), before); bad != ok {
			return nil, p, bad
		}
	}
	end, bad := d.careful(s, p, m.col)
	return m, end, bad
}

// careful decodes any value at s[p:] into the column, when there is one, and gives the position behind it.
func (d *JSON) careful(s []byte, p, col int) (int, problem) {
	if col < 0 {
		return skip(s, p)
	}
	end, bad := d.value(s, p, col)
	if bad != ok {
		d.failedCol = col
	}
	return end, bad
}

// quick decodes a plain value of the right type at text[p:] and gives the position behind it, where a comma or the end
// of the object must be found before it counts. It is 0 when the value wants a closer look.
func (d *JSON) quick(text []byte, p int, m *member) int {
	switch m.typ {
	case expr.Float:
		f, end := quickFloat(text, p)
		if end > 0 {
			d.cols[m.col].Floats[d.row] = f
			d.set(m.col)
		}
		return end
	case expr.Int:
		v, end := quickInt(text, p)
		if end > 0 {
			d.cols[m.col].Ints[d.row] = v
			d.set(m.col)
		}
		return end
	case expr.String:
		if p >= len(text) || text[p] != '"' {
			return 0
		}
		end := stringStop(text, p+1)
		if end >= len(text) || text[end] != '"' {
			return 0
		}
		d.setStr(m.col, p+1, end)
		return end + 1
	case expr.Timestamp:
		ms, end := quickInt(text, p)
		if end == 0 {
			return 0
		}
		t, good := epochMillis(ms)
		if !good {
			return 0
		}
		d.cols[m.col].Ints[d.row] = t
		d.set(m.col)
		return end
	case expr.Invalid:
		return quickSkip(text, p)
	case expr.Bool, expr.JSON, expr.Null:
	}
	return 0
}

// quickSkip passes over a plain text or a short number.
func quickSkip(text []byte, p int) int {
	if p < len(text) && text[p] == '"' {
		end := stringStop(text, p+1)
		if end >= len(text) || text[end] != '"' {
			return 0
		}
		return end + 1
	}
	_, end := quickFloat(text, p)
	return end
}

func (d *JSON) finishRecord(s []byte, p int) problem {
	if p != len(s) && space(s, p) != len(s) {
		return afterEnd
	}
	if d.endRecord() {
		return unnamed
	}
	for _, e := range d.pending {
		n, _ := unescape(s[e.start:e.end])                                    // text has tried it on a copy
		if d.has(e.col) && d.cols[e.col].Strs[d.row].Off == uint32(e.start) { //nolint:gosec // as in setStr
			d.setStr(e.col, e.start, e.start+n)
		}
	}
	d.commit()
	return ok
}

// member reads what is between the value before s[p:], or the object's start, and the next value. The member is nil
// at the end of the object, with the position behind it, and when there is a problem.
func (d *JSON) member(s []byte, p int, before *member) (*member, int, problem) {
	start := p
	if p = anySpace(s, p); p >= len(s) {
		return nil, p, badSyntax
	}
	switch {
	case before == d.first:
		if p = anySpace(s, p+1); p < len(s) && s[p] == '}' {
			return nil, p + 1, ok
		}
	case s[p] == '}':
		return nil, p + 1, ok
	case s[p] != ',':
		return nil, p, badSyntax
	default:
		p = anySpace(s, p+1)
	}
	name := p
	p, bad := skipName(s, p)
	if bad == badValue { // its quote is not closed
		bad = badKey
	}
	if bad != ok {
		return nil, p, bad
	}
	m := d.known(s[start:p], s[name:p])
	if m != d.other && before.next != m {
		before.next, before.after = m, before.next
	}
	return m, p, ok
}

// known is the member of a pattern; raw is its end from the name on. Patterns are remembered as they are written, so
// that escapes in names cost once. That is also where a name is seen that no column wants.
func (d *JSON) known(pattern, raw []byte) *member {
	if m, found := d.members[string(pattern)]; found {
		m.seen = d.seq
		return m
	}
	end, escaped, _ := stringEnd(raw, 1)
	name, noName := raw[1:end], false
	if escaped {
		d.scratch = append(d.scratch[:0], name...)
		n, good := unescape(d.scratch)
		name, noName = d.scratch[:n], !good // half of a surrogate pair is valid JSON, but in no column's name
	}
	col, isWanted := d.wanted[string(name)]
	if !isWanted || noName {
		col = -1
	}
	place, forget := d.drift.see(name, d.seq)
	if forget || len(d.members) >= maxMembers || len(pattern) > maxPattern {
		d.other.set("", col, d.schema)
		d.other.reach, d.other.next, d.other.after = nowhere, d.never, d.never
		return d.other
	}
	m := &member{next: d.never, after: d.never, place: place}
	m.set(string(pattern), col, d.schema)
	d.members[m.pattern] = m
	d.drift.watch(m)
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
	if _, bad := skip(s, p); bad != ok {
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
	if s[p] == '"' {
		return d.writtenTime(s, p+1, col)
	}
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
	d.cols[col].Ints[d.row] = t
	d.set(col)
	return end, ok
}

// writtenTime takes the time in the string that starts at s[p:], behind its quote.
func (d *JSON) writtenTime(s []byte, p, col int) (int, problem) {
	end, escaped, bad := stringEnd(s, p)
	if bad != ok {
		return p, bad
	}
	text := s[p:end]
	if escaped {
		d.scratch = append(d.scratch[:0], text...)
		n, _ := unescape(d.scratch)
		text = d.scratch[:n]
	}
	t, good := d.clock.Parse(text)
	if !good {
		return p, notTime
	}
	d.cols[col].Ints[d.row] = t
	d.set(col)
	return end + 1, ok
}

// text takes the string that starts at s[p:], behind its quote.
func (d *JSON) text(s []byte, p, col int) (int, problem) {
	end, escaped, bad := stringEnd(s, p)
	if bad != ok {
		return p, bad
	}
	if !escaped {
		d.setStr(col, p, end)
		return end + 1, ok
	}
	// The text is changed only when the record is good, so that a failing one can be shown as it came.
	d.scratch = append(d.scratch[:0], s[p:end]...)
	if _, good := unescape(d.scratch); !good {
		return p, halfPair
	}
	d.setEscaped(col, p, end)
	return end + 1, ok
}

func (d *JSON) jsonValue(s []byte, p, col int) (int, problem) {
	end, bad := skip(s, p)
	switch {
	case bad == badUTF8 || bad == tooDeep:
		return p, bad
	case bad != ok:
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
	case tooDeep:
		return fmt.Sprintf("nested deeper than %d levels", MaxDepth)
	case ok, notObject, badSyntax, afterEnd, badKey, badValue, notTime, badUTF8, badEscape, badControl, halfPair, badJSON, fewFields, manyFields, afterQuote, openQuote, strayQuote, unnamed, commaDecimal, pointNumber:
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
	badControl: "not valid JSON: a text has a tab, a line end or another control character; write it as an escape",
	halfPair:   "an escape in the text is half of a surrogate pair, which is no character",
	badJSON:    "the value is not valid JSON",
	fewFields:  "it has too few fields",
	manyFields: "it has too many fields",
	afterQuote: "there is text after the closing quote of a field",
	openQuote:  "a quote is opened and never closed",
	strayQuote: "a quote is opened and never closed: the next one, on a later line, has text behind it",

	commaDecimal: `the number has a comma; say decimal: "," in the read's options where all numbers are written so`,
	pointNumber:  "the number has a point, and the read's options say decimal: \",\"",
}
