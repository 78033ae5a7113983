// Package decode turns the text of records, JSON lines and CSV, into rows of a column batch.
//
// It decodes straight into the columns that are wanted and allocates nothing per record; texts stay where they are in
// the buffer that was read, which the batch then refers to. It does no I/O and starts nothing. A decoder belongs to one
// goroutine.
package decode

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/connector"
	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

// MaxRecord is the length of the longest record that is decoded, in bytes. A longer one is a failed record.
const MaxRecord = 8 << 20

// Input is a piece of text to decode.
type Input struct {
	// Text is the buffer. The batch refers to it afterwards, and texts with escapes are changed in it.
	Text []byte
	// Off is where the first record starts.
	Off int
	// Final says that nothing will follow Text, so that a last record without an end of line counts.
	Final bool
	// MaxRows is how many rows the batch may have.
	MaxRows int
	// Name says where the text is from and Line which of its lines starts at Off, counted from one; for messages.
	Name string
	Line int64
}

// Result is what a Decode did.
type Result struct {
	// Next is where the first record starts that was not consumed, and Line its line.
	Next int
	Line int64
	// Incomplete says that the text from Next on is not a whole record; otherwise there are no more, or the batch is full.
	Incomplete bool
	// Read counts the records, failed ones included.
	Read   int64
	Failed connector.Failures
}

func (r *Result) fail(in *Input, record []byte, reason string) {
	if r.Failed.Count >= connector.MaxSamples {
		r.Failed.Count++
		return
	}
	r.Failed.Add(connector.FailedRecord{
		Where:  fmt.Sprintf("%s:%d", in.Name, r.Line),
		Reason: reason,
		Record: excerpt.Bytes(record, connector.MaxSampled),
	})
}

// sampling says whether the next failure's text would be kept, so that no message is made in vain.
func (r *Result) sampling() bool { return r.Failed.Count < connector.MaxSamples }

// Decoder decodes the records of one format.
type Decoder interface {
	// Decode appends the whole records of the input to an empty batch until it is full.
	Decode(b *column.Batch, in Input) Result
}

// rows writes the rows of a batch by position: a row counts only once it is committed, so a record that turns out bad
// leaves nothing behind, and of two values for one column the last stays.
type rows struct {
	schema expr.Schema
	batch  *column.Batch
	cols   []column.Column
	// row is the row being written.
	row int
	// have has the bit of every column that got a value in this record, every those of all columns.
	have, every []uint64
	// pending are the texts of this record whose escapes must be resolved when it is committed.
	pending []escaped
}

// apart is how many bytes keep what one decoder writes for every record off the cache lines of another, which a
// processor beside it may be writing.
const apart = 128

// escaped is a text with escapes, by column and position in the buffer.
type escaped struct {
	col        int
	start, end int
}

func newRows(schema expr.Schema) rows {
	words := (len(schema) + 63) / 64
	r := rows{schema: schema, have: make([]uint64, words, words+apart/8), every: make([]uint64, words)}
	for i := range schema {
		r.every[i>>6] |= 1 << (uint(i) & 63)
	}
	return r
}

// open prepares b for up to n rows.
func (r *rows) open(b *column.Batch, n int) {
	b.Schema = r.schema
	if len(b.Cols) != len(r.schema) {
		b.Cols = column.NewBatch(r.schema).Cols
	}
	for i := range b.Cols {
		c := &b.Cols[i]
		c.Type = r.schema[i].Type
		switch c.Type {
		case expr.Bool:
			c.Bools = slices.Grow(c.Bools[:0], n)[:n]
		case expr.Int, expr.Timestamp:
			c.Ints = slices.Grow(c.Ints[:0], n)[:n]
		case expr.Float:
			c.Floats = slices.Grow(c.Floats[:0], n)[:n]
		case expr.String, expr.JSON:
			c.Strs = slices.Grow(c.Strs[:0], n)[:n]
		case expr.Invalid, expr.Null:
			panic("decode: a column of type " + c.Type.String())
		}
		c.Nulls, c.Data = c.Nulls[:0], nil
	}
	r.batch, r.cols, r.row, b.Len = b, b.Cols, 0, 0
}

// close cuts the columns to the rows there are and lets the texts refer to text.
func (r *rows) close(text []byte) {
	for i := range r.cols {
		c := &r.cols[i]
		switch c.Type {
		case expr.Bool:
			c.Bools = c.Bools[:r.row]
		case expr.Int, expr.Timestamp:
			c.Ints = c.Ints[:r.row]
		case expr.Float:
			c.Floats = c.Floats[:r.row]
		case expr.String, expr.JSON:
			c.Strs = c.Strs[:r.row]
			c.Data = slices.Clip(text) // a caller's append must not write behind it
		case expr.Invalid, expr.Null:
		}
	}
	r.batch.Len = r.row
	r.batch, r.cols = nil, nil
}

// begin starts a record.
func (r *rows) begin() {
	clear(r.have)
	r.pending = r.pending[:0]
}

// set notes that the column has a value in this record.
func (r *rows) set(col int) { r.have[col>>6] |= 1 << (uint(col) & 63) }

// unset makes the column null in this record.
func (r *rows) unset(col int) { r.have[col>>6] &^= 1 << (uint(col) & 63) }

func (r *rows) has(col int) bool { return r.have[col>>6]&(1<<(uint(col)&63)) != 0 }

func (r *rows) setStr(col, start, end int) {
	r.cols[col].Strs[r.row] = column.Str{Off: uint32(start), Len: uint32(end - start)} //nolint:gosec // buffers are far below 4 GiB
	r.set(col)
}

// setEscaped sets a text whose escapes are resolved when the record is committed.
func (r *rows) setEscaped(col, start, end int) {
	r.setStr(col, start, end)
	r.pending = append(r.pending, escaped{col: col, start: start, end: end})
}

// commit makes the record a row. Its pending texts must have been resolved.
func (r *rows) commit() {
	for w, have := range r.have {
		for missing := r.every[w] &^ have; missing != 0; missing &= missing - 1 {
			r.setNull(w<<6 | bits.TrailingZeros64(missing))
		}
	}
	r.row++
}

func (r *rows) setNull(col int) {
	c := &r.cols[col]
	c.SetNull(r.row)
	if c.Type == expr.String || c.Type == expr.JSON {
		c.Strs[r.row] = column.Str{}
	}
}

// problem is why a record failed; its message is made only when it is kept.
type problem uint8

const (
	ok problem = iota
	notObject
	badSyntax
	afterEnd
	badKey
	badValue
	wrongType
	notWhole
	outOfRange
	notTime
	badUTF8
	badEscape
	badControl
	halfPair
	tooDeep
	badJSON
	fewFields
	manyFields
	afterQuote
	openQuote
	strayQuote
	tooLong
	unnamed
	commaDecimal
	pointNumber
)
