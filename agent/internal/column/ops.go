package column

import (
	"fmt"
	"math"
	"slices"

	"github.com/outfeed/outfeed/protocol/expr"
)

// MaxData is how many bytes of text one column can hold: what an int counts on every platform.
const MaxData = math.MaxInt32

// AppendBool adds a row.
func (c *Column) AppendBool(v bool) { c.Bools = append(c.Bools, v) }

// AppendInt adds a row of an Int or Timestamp column.
func (c *Column) AppendInt(v int64) { c.Ints = append(c.Ints, v) }

// AppendFloat adds a row.
func (c *Column) AppendFloat(v float64) { c.Floats = append(c.Floats, v) }

// Rows is how many rows the column has.
func (c *Column) Rows() int {
	switch c.Type {
	case expr.Bool:
		return len(c.Bools)
	case expr.Int, expr.Timestamp:
		return len(c.Ints)
	case expr.Float:
		return len(c.Floats)
	case expr.String, expr.JSON:
		return len(c.Strs)
	case expr.Invalid, expr.Null:
	}
	return 0
}

// HasNulls says whether any row is null.
func (c *Column) HasNulls() bool {
	for _, w := range c.Nulls {
		if w != 0 {
			return true
		}
	}
	return false
}

// AppendFrom adds row i of src, which has the same type, copying its text.
func (c *Column) AppendFrom(src *Column, i int) {
	if src.Null(i) {
		c.AppendNull()
		return
	}
	switch c.Type {
	case expr.Bool:
		c.Bools = append(c.Bools, src.Bools[i])
	case expr.Int, expr.Timestamp:
		c.Ints = append(c.Ints, src.Ints[i])
	case expr.Float:
		c.Floats = append(c.Floats, src.Floats[i])
	case expr.String, expr.JSON:
		c.AppendStr(src.Bytes(i))
	case expr.Invalid, expr.Null:
		panic("column: a column of type " + c.Type.String())
	}
}

// Gather makes the column the rows sel of src, in that order. The text is shared with src, not copied, so the column is
// valid as long as src is and takes no further rows until Reset and a new Gather. src must not be the column itself.
func (c *Column) Gather(src *Column, sel []int32) {
	c.Type = src.Type
	switch c.Type {
	case expr.Bool:
		c.Bools = gather(c.Bools[:0], src.Bools, sel)
	case expr.Int, expr.Timestamp:
		c.Ints = gather(c.Ints[:0], src.Ints, sel)
	case expr.Float:
		c.Floats = gather(c.Floats[:0], src.Floats, sel)
	case expr.String, expr.JSON:
		c.Strs = gather(c.Strs[:0], src.Strs, sel)
		c.Data = src.Data
	case expr.Invalid, expr.Null:
	}
	c.gatherNulls(src, sel)
}

func gather[T any](dst, src []T, sel []int32) []T {
	dst = slices.Grow(dst, len(sel))[:len(sel)]
	for i, row := range sel {
		dst[i] = src[row]
	}
	return dst
}

func (c *Column) gatherNulls(src *Column, sel []int32) {
	c.Nulls = c.Nulls[:0]
	if !src.HasNulls() {
		return
	}
	for i, row := range sel {
		if src.Null(int(row)) {
			c.SetNull(i)
		}
	}
}

// AppendRows adds the rows sel of src, which has the same type, copying their text. It fails when the text would not fit.
func (c *Column) AppendRows(src *Column, sel []int32) error {
	n := c.Rows()
	switch c.Type {
	case expr.Bool:
		c.Bools = appendRows(c.Bools, src.Bools, sel)
	case expr.Int, expr.Timestamp:
		c.Ints = appendRows(c.Ints, src.Ints, sel)
	case expr.Float:
		c.Floats = appendRows(c.Floats, src.Floats, sel)
	case expr.String, expr.JSON:
		for i, row := range sel {
			if src.Null(int(row)) {
				c.Strs = append(c.Strs, Str{})
				continue
			}
			text := src.Bytes(int(row))
			if len(c.Data)+len(text) > MaxData {
				return fmt.Errorf("a column can hold 2 GiB of text and row %d does not fit", n+i)
			}
			c.AppendStr(text)
		}
	case expr.Invalid, expr.Null:
	}
	if src.HasNulls() {
		for i, row := range sel {
			if src.Null(int(row)) {
				c.SetNull(n + i)
			}
		}
	}
	return nil
}

func appendRows[T any](dst, src []T, sel []int32) []T {
	dst = slices.Grow(dst, len(sel))
	for _, row := range sel {
		dst = append(dst, src[row])
	}
	return dst
}

// AppendRow adds row i of src, whose columns have the same types, copying its text.
func (b *Batch) AppendRow(src *Batch, i int) {
	for c := range b.Cols {
		b.Cols[c].AppendFrom(&src.Cols[c], i)
	}
	b.Len++
}

// CopyFrom makes the batch a copy of src that shares nothing with it. The columns have the same types.
func (b *Batch) CopyFrom(src *Batch) {
	b.Len = src.Len
	for i := range b.Cols {
		d, s := &b.Cols[i], &src.Cols[i]
		d.Bools = append(d.Bools[:0], s.Bools...)
		d.Ints = append(d.Ints[:0], s.Ints...)
		d.Floats = append(d.Floats[:0], s.Floats...)
		d.Strs = append(d.Strs[:0], s.Strs...)
		d.Data = append(d.Data[:0], s.Data...)
		d.Nulls = append(d.Nulls[:0], s.Nulls...)
	}
}

// Compact keeps only the rows sel, which must rise, in place.
func (b *Batch) Compact(sel []int32) {
	for i := range b.Cols {
		c := &b.Cols[i]
		switch c.Type {
		case expr.Bool:
			c.Bools = compact(c.Bools, sel)
		case expr.Int, expr.Timestamp:
			c.Ints = compact(c.Ints, sel)
		case expr.Float:
			c.Floats = compact(c.Floats, sel)
		case expr.String, expr.JSON:
			c.Strs = compact(c.Strs, sel)
		case expr.Invalid, expr.Null:
		}
		c.compactNulls(sel)
	}
	b.Len = len(sel)
}

func compact[T any](s []T, sel []int32) []T {
	for i, row := range sel {
		s[i] = s[row]
	}
	return s[:len(sel)]
}

// compactNulls moves bits down in place: a row only ever moves to a lower or the same place, so none is read after it
// was overwritten.
func (c *Column) compactNulls(sel []int32) {
	if !c.HasNulls() {
		c.Nulls = c.Nulls[:0]
		return
	}
	for i, row := range sel {
		null := c.Null(int(row))
		if w := i >> 6; w < len(c.Nulls) {
			c.Nulls[w] &^= 1 << (uint(i) & 63)
		}
		if null {
			c.SetNull(i)
		}
	}
	words := min((len(sel)+63)>>6, len(c.Nulls))
	c.Nulls = c.Nulls[:words]
	if rest := len(sel) & 63; rest != 0 && words == (len(sel)+63)>>6 {
		c.Nulls[words-1] &= 1<<uint(rest) - 1
	}
}
