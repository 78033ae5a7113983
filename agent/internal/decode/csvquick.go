package decode

import (
	"math/bits"
	"unicode/utf8"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// step is what to do with a field of a record: fill the column of the type, or nothing when the type is Invalid.
type step struct {
	col int
	typ expr.Type
	// The rows of the column in the batch that is being filled.
	floats []float64
	ints   []int64
	strs   []column.Str
	// have has the bit of the column.
	have *uint64
	bit  uint64
}

// aim points the steps at the rows of a new batch.
func (d *CSV) aim() {
	for i := range d.steps {
		f := &d.steps[i]
		if f.typ == expr.Invalid {
			continue
		}
		c := &d.cols[f.col]
		f.floats, f.ints, f.strs = c.Floats, c.Ints, c.Strs
		f.have, f.bit = &d.have[f.col>>6], 1<<(uint(f.col)&63)
	}
}

// quickRecord decodes the record at text[p:] when nothing about it is unusual and gives where the next one starts.
// It gives -1, and no row, when the record wants a closer look because it may be bad, cut off, long, empty or oddly
// quoted. So what is wrong with a record is decided in one place.
func (d *CSV) quickRecord(text []byte, p int) int {
	start, last := p, len(d.steps)-1
	d.begin()
	for i := range d.steps {
		f := &d.steps[i]
		end := d.quickField(text, p, f)
		if i < last && end > 0 && text[end] == d.delim {
			p = end + 1
			continue
		}
		if end == 0 || !d.ends(text[end]) {
			if end = d.quickText(text, p, f); end < 0 {
				return -1
			}
		}
		if i < last {
			if text[end] != d.delim {
				return -1
			}
			p = end + 1
			continue
		}
		if end = lineEnd(text, start, end); end < 0 {
			return -1
		}
		d.commit()
		return end + 1
	}
	return -1
}

// lineEnd is where the line feed is that ends the record of text[start:end], or -1 when there is none, or no record.
func lineEnd(text []byte, start, end int) int {
	if text[end] == '\r' && end+1 < len(text) {
		end++
	}
	if text[end] != '\n' || text[start] < ' ' && end-start < 2 || end-start > MaxRecord {
		return -1
	}
	return end
}

// quickField decodes a number, or a short text before a delimiter, at text[p:] and gives the position behind it, which
// has a byte. It is 0 when there is something else.
func (d *CSV) quickField(text []byte, p int, f *step) (end int) {
	switch f.typ {
	case expr.Float:
		var v float64
		if v, end = quickFloat(text, p); end > 0 {
			f.floats[d.row] = v
			*f.have |= f.bit
		}
	case expr.Int:
		var v int64
		if v, end = quickInt(text, p); end > 0 {
			f.ints[d.row] = v
			*f.have |= f.bit
		}
	case expr.Timestamp:
		ms, after := quickInt(text, p)
		if t, good := epochMillis(ms); good && after > 0 {
			f.ints[d.row] = t
			*f.have |= f.bit
			end = after
		}
	case expr.String:
		if end = d.quickWord(text, p); end > 0 {
			f.strs[d.row] = column.Str{Off: uint32(p), Len: uint32(end - p)} //nolint:gosec // as in setStr
			*f.have |= f.bit
		}
	case expr.Invalid:
		end = d.quickWord(text, p)
	case expr.Bool, expr.JSON, expr.Null:
	}
	return end
}

// quickWord is the position of the delimiter behind up to seven plain characters at text[p:], or 0.
func (d *CSV) quickWord(text []byte, p int) (end int) {
	if p+8 > len(text) {
		return 0
	}
	w := load8(text, p)
	stop := zeroBytes(w ^ d.delims)
	// A byte that is not ASCII, a quote or a line end before the delimiter wants a closer look, and one behind it does not.
	odd := w&highBits | zeroBytes(w^'"'*everyByte) | zeroBytes(w^'\n'*everyByte)
	if lowest := stop & -stop; lowest == 0 || lowest == 1<<7 || odd&(lowest-1) != 0 {
		return 0
	}
	return p + bits.TrailingZeros64(stop)>>3
}

func (d *CSV) ends(c byte) bool { return c == d.delim || c == '\n' || c == '\r' }

// quickText decodes the field at text[p:] and gives the position of what ends it, which has a byte, or -1.
func (d *CSV) quickText(text []byte, p int, f *step) int {
	if p < len(text) && text[p] == '"' {
		return d.quickQuoted(text, p+1, f)
	}
	stop, wide := fieldStop(text, p, d.delims)
	if stop >= len(text) {
		return -1
	}
	if text[stop] == '\n' && stop > p && text[stop-1] == '\r' {
		stop--
	}
	switch {
	case f.typ == expr.Invalid || stop == p:
		return stop
	case f.typ == expr.String:
		if wide != 0 && !utf8.Valid(text[p:stop]) {
			return -1
		}
		f.strs[d.row] = column.Str{Off: uint32(p), Len: uint32(stop - p)} //nolint:gosec // as in setStr
		d.set(f.col)
		return stop
	}
	if d.cell(text, part{start: p, end: stop}, f.col) != ok {
		return -1
	}
	return stop
}

// quickQuoted is quickText for a field in quotes, from behind the first one on, that has no others and no line end.
func (d *CSV) quickQuoted(text []byte, p int, f *step) int {
	stop, _ := quoteStop(text, p)
	if stop >= len(text)-1 || text[stop] != '"' || !d.ends(text[stop+1]) {
		return -1
	}
	if f.typ != expr.Invalid && d.cell(text, part{start: p, end: stop, quoted: true}, f.col) != ok {
		return -1
	}
	return stop + 1
}
