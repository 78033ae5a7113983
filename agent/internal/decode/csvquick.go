package decode

import (
	"unicode/utf8"

	"github.com/outfeed/outfeed/protocol/expr"
)

// step is what to do with a field of a record: fill the column of the type, or nothing when the type is Invalid.
type step struct {
	col int
	typ expr.Type
}

// quickRecord decodes the record at text[p:] when nothing about it is unusual and gives where the next one starts.
// It gives -1, and no row, when the record wants a closer look because it may be bad, cut off, long, empty or oddly
// quoted. So what is wrong with a record is decided in one place.
func (d *CSV) quickRecord(text []byte, p int) int {
	start := p
	d.begin()
	for i := range d.steps {
		end := d.quickField(text, p, d.steps[i])
		if end < 0 || end >= len(text) {
			return -1
		}
		if i < len(d.steps)-1 {
			if text[end] != d.delim {
				return -1
			}
			p = end + 1
			continue
		}
		if text[end] == '\r' && end+1 < len(text) {
			end++
		}
		if text[end] != '\n' || text[start] < ' ' && end-start < 2 || end-start > MaxRecord {
			return -1
		}
		d.commit()
		return end + 1
	}
	return -1
}

// quickField decodes the field at text[p:] and gives the position of what ends it, which the caller must check, or -1.
func (d *CSV) quickField(text []byte, p int, f step) int {
	switch f.typ {
	case expr.Float:
		if v, end := quickFloat(text, p); end > 0 && d.ends(text[end]) {
			d.cols[f.col].Floats[d.row] = v
			d.set(f.col)
			return end
		}
	case expr.Int:
		if v, end := quickInt(text, p); end > 0 && d.ends(text[end]) {
			d.cols[f.col].Ints[d.row] = v
			d.set(f.col)
			return end
		}
	case expr.Timestamp:
		if ms, end := quickInt(text, p); end > 0 && d.ends(text[end]) {
			if t, good := epochMillis(ms); good {
				d.cols[f.col].Ints[d.row] = t
				d.set(f.col)
				return end
			}
		}
	case expr.Bool, expr.String, expr.JSON, expr.Invalid, expr.Null:
	}
	return d.quickText(text, p, f)
}

func (d *CSV) ends(c byte) bool { return c == d.delim || c == '\n' || c == '\r' }

// quickText is quickField for a field whose end must be looked for.
func (d *CSV) quickText(text []byte, p int, f step) int {
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
		d.setStr(f.col, p, stop)
		return stop
	}
	if d.cell(text, part{start: p, end: stop}, f.col) != ok {
		return -1
	}
	return stop
}

// quickQuoted is quickText for a field in quotes, from behind the first one on, that has no others and no line end.
func (d *CSV) quickQuoted(text []byte, p int, f step) int {
	stop, _ := quoteStop(text, p)
	if stop >= len(text)-1 || text[stop] != '"' || !d.ends(text[stop+1]) {
		return -1
	}
	if f.typ != expr.Invalid && d.cell(text, part{start: p, end: stop, quoted: true}, f.col) != ok {
		return -1
	}
	return stop + 1
}
