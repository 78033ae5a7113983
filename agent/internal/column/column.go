// Package column holds the unit of data that moves through a flow: a batch of typed columns.
//
// Batches are plain memory: no locks, no goroutines, no I/O. One goroutine owns a batch at a time; handing it over
// hands over everything in it. Reset keeps the memory, so that the steady state allocates nothing.
package column

import (
	"github.com/outfeed/outfeed/protocol/expr"
)

// TargetRows is how many rows a source aims to put in a batch when there is enough to read.
const TargetRows = 4096

// Str is a slice of a column's Data.
type Str struct{ Off, Len uint32 }

// Column is one column of a batch. The slice that counts follows from Type:
// Bools for Bool, Ints for Int and Timestamp (UTC microseconds), Floats for Float, Strs with Data for String and JSON.
// A null row has an unspecified value in that slice and its bit set in Nulls.
type Column struct {
	Type   expr.Type
	Bools  []bool
	Ints   []int64
	Floats []float64
	Strs   []Str
	// Data holds the bytes of Strs. It may alias a buffer that its source owns until its next call.
	Data []byte
	// Nulls has bit i%64 of word i/64 set when row i is null. It may be shorter than the rows: what is missing is not null.
	Nulls []uint64
}

// Batch is rows of one schema, column by column. Every column has Len rows.
type Batch struct {
	Schema expr.Schema
	Len    int
	Cols   []Column
	// Texts counts the texts that expressions make of the batch and bounds them; nil does not.
	Texts TextMeter
}

// TextMeter counts the memory of texts. It must be safe for many goroutines.
type TextMeter interface {
	// Grow counts so many more bytes and says whether another text may be made.
	Grow(bytes int) bool
}

// NewBatch makes an empty batch of the schema.
func NewBatch(schema expr.Schema) *Batch {
	b := &Batch{Schema: schema, Cols: make([]Column, len(schema))}
	for i := range schema {
		b.Cols[i].Type = schema[i].Type
	}
	return b
}

// Reset empties the batch and keeps its memory. Data that aliases a source's buffer must be dropped by its owner first.
func (b *Batch) Reset() {
	b.Len = 0
	for i := range b.Cols {
		b.Cols[i].Reset()
	}
}

// Reset empties the column and keeps its memory.
func (c *Column) Reset() {
	c.Bools, c.Ints, c.Floats = c.Bools[:0], c.Ints[:0], c.Floats[:0]
	c.Strs, c.Data, c.Nulls = c.Strs[:0], c.Data[:0], c.Nulls[:0]
}

// Null says whether row i is null.
func (c *Column) Null(i int) bool {
	w := i >> 6
	return w < len(c.Nulls) && c.Nulls[w]&(1<<(uint(i)&63)) != 0
}

// SetNull marks row i null.
func (c *Column) SetNull(i int) {
	for w := i >> 6; w >= len(c.Nulls); {
		c.Nulls = append(c.Nulls, 0)
	}
	c.Nulls[i>>6] |= 1 << (uint(i) & 63)
}

// Bytes is the text of row i of a String or JSON column, valid as long as the batch is.
func (c *Column) Bytes(i int) []byte {
	s := c.Strs[i]
	return c.Data[s.Off : s.Off+s.Len]
}

// AppendStr adds a row of text, copying it into Data.
func (c *Column) AppendStr(text []byte) {
	c.Strs = append(c.Strs, Str{Off: uint32(len(c.Data)), Len: uint32(len(text))}) //nolint:gosec // a batch's text is bounded far below 4 GiB by its sources
	c.Data = append(c.Data, text...)
}

// AppendNull adds a null row.
func (c *Column) AppendNull() {
	n := 0
	switch c.Type {
	case expr.Bool:
		n, c.Bools = len(c.Bools), append(c.Bools, false)
	case expr.Int, expr.Timestamp:
		n, c.Ints = len(c.Ints), append(c.Ints, 0)
	case expr.Float:
		n, c.Floats = len(c.Floats), append(c.Floats, 0)
	case expr.String, expr.JSON:
		n, c.Strs = len(c.Strs), append(c.Strs, Str{})
	case expr.Invalid, expr.Null:
		panic("column: a column of type " + c.Type.String())
	}
	c.SetNull(n)
}
