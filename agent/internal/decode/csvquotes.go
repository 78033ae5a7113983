package decode

import "bytes"

// Records with quotes, which may have several lines, and how to go on behind a stray one.

// astray is a record of several lines whose quotes do not come out right, or that is too long. Nothing ends it before to.
//
// Its first line alone is given up, so the next record starts within what it swallowed. All line ends there are within
// quotes for the one that went astray. So whichever of these lines ends within quotes, when it is read as the start of a
// record, goes on as that one did: it need not be read to the end again, which would take a time that grows with the
// square of the length.
type astray struct {
	to  int
	why problem
}

// part is a field of a record with quotes, without them.
type part struct {
	start, end int
	quoted     bool
	doubled    bool
}

// quotedRecord decodes a record with quotes, which may have several lines. It says false when the record is not complete.
func (d *CSV) quotedRecord(r *Result, in *Input) bool {
	start := r.Next
	d.failedCol = -1
	end, next, bad := d.splitOrAstray(in, start)
	if next < 0 {
		return false
	}
	if bad == openQuote || bad == strayQuote || bad == tooLong {
		// One stray quote must not swallow what follows: only its line is given up.
		n := bytes.IndexByte(in.Text[start:], '\n')
		if n < 0 && !in.Final {
			return false
		}
		if end, next = start+n, start+n+1; n < 0 {
			end, next = len(in.Text), len(in.Text)
		}
		if bad == tooLong && end-start <= MaxRecord {
			bad = openQuote // its lines are not too long
		}
	}
	// Counted now, because halving the doubled quotes moves what is behind them.
	lines := int64(bytes.Count(in.Text[start:next], []byte{'\n'}))
	if next == len(in.Text) && (next == 0 || in.Text[next-1] != '\n') {
		lines++
	}
	r.Read++
	if bad == ok {
		bad = d.quotedFields(in.Text)
	}
	if bad != ok {
		d.failed(r, in, end, bad)
	}
	r.Next, r.Line = next, r.Line+lines
	return true
}

// splitOrAstray is split that remembers a record that goes astray, and knows one that goes on as the last one did.
func (d *CSV) splitOrAstray(in *Input, start int) (end, next int, bad problem) {
	if n := bytes.IndexByte(in.Text[start:max(start, d.astray.to)], '\n'); n >= 0 {
		line := Input{Text: in.Text[:start+n+1]}
		if end, next, bad = d.split(&line, start); next >= 0 {
			return end, next, bad
		}
		if d.astray.why != tooLong || d.astray.to-start > MaxRecord {
			return 0, 0, d.astray.why
		}
	}
	end, next, bad = d.split(in, start)
	switch {
	case next < 0 && len(in.Text)-start > MaxRecord:
		next, bad = 0, openQuote
		d.astray = astray{to: len(in.Text), why: tooLong} // it is not known yet whether it ends
	case bad == tooLong:
		d.astray = astray{to: d.reach(in.Text, start, end), why: tooLong}
	case bad == strayQuote:
		d.astray = astray{to: end, why: strayQuote}
	case bad == openQuote:
		d.astray = astray{to: len(in.Text), why: openQuote}
	}
	return end, next, bad
}

// reach is up to where a record that is too long certainly goes on, up to twice the length that it may have, so that
// this is not looked for again at each of its lines. A field of it ends at p.
func (d *CSV) reach(s []byte, start, p int) int {
	for p < len(s) && s[p] != '\n' && p-start < 2*MaxRecord {
		f, stop, bad := d.field(s, p+1)
		if bad == strayQuote {
			return f.end
		}
		p = stop
	}
	return p
}

// quotedFields decodes the parts of a record.
func (d *CSV) quotedFields(text []byte) problem {
	d.begin()
	d.failedCol = -1
	if bad := d.count(len(d.parts)); bad != ok {
		return bad
	}
	for f, p := range d.parts {
		col := d.fields[f]
		if col < 0 {
			continue
		}
		if bad := d.cell(text, p, col); bad != ok {
			d.failedCol = col
			return bad
		}
	}
	for _, e := range d.pending {
		d.setStr(e.col, e.start, e.start+halveQuotes(text[e.start:e.end]))
	}
	d.commit()
	return ok
}

// split finds the fields of the record at off, its end and the start of the next one. A next of -1 means that it is
// not complete and more may follow. With strayQuote, end is where the quote is that closes nothing.
func (d *CSV) split(in *Input, off int) (end, next int, bad problem) {
	s, p := in.Text, off
	d.parts = d.parts[:0]
	for {
		f, stop, wrong := d.field(s, p)
		switch {
		case stop == len(s) && !in.Final:
			return 0, -1, ok
		case wrong == openQuote:
			return 0, 0, wrong
		case wrong != ok:
			bad = wrong
		}
		d.parts = append(d.parts, f)
		switch {
		case stop-off > MaxRecord:
			return stop, stop, tooLong
		case wrong == strayQuote:
			return f.end, 0, wrong
		case stop == len(s):
			return stop, stop, bad
		case s[stop] == '\n':
			return stop, stop + 1, bad
		}
		p = stop + 1
	}
}

// field reads the field at p, and where the delimiter or the end of the line is that ends it.
func (d *CSV) field(s []byte, p int) (f part, stop int, bad problem) {
	if p == len(s) || s[p] != '"' {
		stop = d.fieldEnd(s, p)
		return part{start: p, end: stop - carriageReturn(s, p, stop)}, stop, ok
	}
	f, after, closed := quotedPart(s, p+1)
	if !closed {
		return f, len(s), openQuote
	}
	stop = d.fieldEnd(s, after)
	if stop-carriageReturn(s, after, stop) > after {
		bad = afterQuote
		if bytes.IndexByte(s[f.start:f.end], '\n') >= 0 {
			bad = strayQuote
		}
	}
	return f, stop, bad
}

func (d *CSV) fieldEnd(s []byte, p int) int {
	stop, _ := fieldStop(s, p, d.delims)
	return stop
}

// carriageReturn is 1 when s[start:stop] ends in the carriage return of a line's end.
func carriageReturn(s []byte, start, stop int) int {
	if stop > start && s[stop-1] == '\r' && (stop == len(s) || s[stop] == '\n') {
		return 1
	}
	return 0
}

// quotedPart finds the end of a quoted field whose text starts at p.
func quotedPart(s []byte, p int) (f part, next int, closed bool) {
	f = part{start: p, quoted: true}
	for {
		n := bytes.IndexByte(s[p:], '"')
		if n < 0 {
			return f, len(s), false
		}
		p += n + 1
		if p < len(s) && s[p] == '"' {
			f.doubled = true
			p++
			continue
		}
		f.end = p - 1
		return f, p, true
	}
}

// halveQuotes turns doubled quotes into one, in place, and gives the new length.
func halveQuotes(s []byte) int {
	w := 0
	for p := 0; p < len(s); p++ {
		s[w] = s[p]
		w++
		if s[p] == '"' {
			p++
		}
	}
	return w
}
