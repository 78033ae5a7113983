package engine

import (
	"fmt"
	"math"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// What the expressions of a step may make of texts, with those that are only parts of others, such as the argument of
// sha256. A function can make a text of expr.MaxText of every row, which for the rows of a batch would be gigabytes.
const (
	// partText is how many bytes they make of some rows at a time: a batch of which they would make more goes through the
	// step in parts.
	partText = 8 * batchText
	// rowText is how many bytes they may make of a single row; one of which they would make more fails.
	rowText = 8 << 20
	// keptText is how much memory the kernels of a step may keep for their next texts, less where the run has much of texts.
	keptText = 3 * rowText / 2
)

// errRowText is why a row fails.
var errRowText = fmt.Errorf("the expressions of the step make more than %d MiB of texts of this row, which is the most; make them shorter, or divide them among several steps", rowText>>20)

// textBounds are other bounds than partText and rowText, for tests; 0 is the usual one. That of a part is not the greater.
type textBounds struct{ part, row int }

// evaluator is an operator in two halves.
type evaluator interface {
	// evaluate computes the expressions of the rows. It changes nothing that outlives the next call.
	evaluate(b *column.Batch)
	// use works on what was evaluated last, of the same batch.
	use(b *column.Batch) error
}

// textParts leads batches through a step whose expressions make texts. A nil one is that of a step whose expressions make
// none.
type textParts struct {
	room textRoom
	// rows is how many to take at a time: as many as had room lately.
	rows int
	view column.Batch
}

// newTextParts gives nil when none of the expressions makes texts. An expression may be nil.
func newTextParts(nodes ...*expr.Node) *textParts {
	if slices.ContainsFunc(nodes, makesText) {
		return &textParts{rows: math.MaxInt32}
	}
	return nil
}

// makesText says whether an expression or a part of it computes a text.
func makesText(n *expr.Node) bool {
	if n == nil {
		return false
	}
	if n.Op != expr.OpColumn && n.Op != expr.OpLiteral && storageOf(n.Type) == storeText {
		return true
	}
	return slices.ContainsFunc(n.Args, makesText)
}

// push gives the batch to the operator in parts of which its expressions make no more texts than they may, in the order of
// the rows. A row that alone is too much fails.
func (p *textParts) push(b *column.Batch, op evaluator, counts *stepCounts) error {
	if p == nil {
		op.evaluate(b)
		return op.use(b)
	}
	p.room.meter = b.Texts
	for from := 0; from < b.Len; {
		rows := min(p.rows, b.Len-from)
		part := p.part(b, from, rows)
		p.room.begin(counts.bounds, rows)
		part.Texts = &p.room
		op.evaluate(part)
		part.Texts = b.Texts
		if err := p.room.beat(); err != nil {
			return err
		}
		switch {
		case p.room.full && rows > 1:
			p.rows = rows / 2
			continue
		case p.room.full:
			counts.in++
			if err := counts.failRow(failedRow{part, 0, errRowText.Error()}); err != nil {
				return err
			}
		default:
			p.widen(rows)
			if err := p.use(part, op); err != nil {
				return err
			}
		}
		from += rows
	}
	return nil
}

// widen lets the next part have more rows when these had room enough for twice as many, and some more.
func (p *textParts) widen(rows int) {
	if rows == p.rows && p.room.left > p.room.size/3*2 && p.rows <= math.MaxInt32/2 {
		p.rows *= 2
	}
}

// made is how many bytes of texts were made of the last part.
func (p *textParts) made() int {
	if p == nil {
		return 0
	}
	return p.room.size - p.room.left
}

// use tells the worker which texts the kernels have counted already.
func (p *textParts) use(part *column.Batch, op evaluator) error {
	w, ok := p.room.meter.(*worker)
	if !ok {
		return op.use(part)
	}
	before := len(w.counted)
	w.counted = append(w.counted, p.room.made...)
	err := op.use(part)
	w.counted = w.counted[:before]
	return err
}

// part is a view of some rows of a batch.
func (p *textParts) part(b *column.Batch, from, rows int) *column.Batch {
	v := &p.view
	if len(v.Cols) != len(b.Cols) {
		v.Cols = make([]column.Column, len(b.Cols))
	}
	v.Schema, v.Len = b.Schema, rows
	for i := range b.Cols {
		c, to := &b.Cols[i], &v.Cols[i]
		to.Type, to.Data = c.Type, c.Data
		to.Bools, to.Ints = part(c.Bools, from, rows), part(c.Ints, from, rows)
		to.Floats, to.Strs = part(c.Floats, from, rows), part(c.Strs, from, rows)
		to.Nulls = someNulls(to.Nulls[:0], c, from, rows)
	}
	return v
}

// someNulls are the bits of some rows of a column.
func someNulls(dst []uint64, c *column.Column, from, rows int) []uint64 {
	shift := uint(from) & 63
	for at := 0; at < rows; at += 64 {
		w := (from + at) >> 6
		if w >= len(c.Nulls) {
			break
		}
		bits := c.Nulls[w] >> shift
		if w+1 < len(c.Nulls) {
			bits |= c.Nulls[w+1] << (64 - shift)
		}
		if left := rows - at; left < 64 {
			bits &= 1<<uint(left) - 1
		}
		dst = append(dst, bits)
	}
	return dst
}

// textRoom is the meter of the texts that the expressions of a step make of a part of a batch. When there is too much of
// them it is full, and what was evaluated is worth nothing.
type textRoom struct {
	// meter is that of the run; nil counts nothing.
	meter column.TextMeter
	// left is how many bytes of size may still be made. One kernel's texts may take so much at most.
	size, left int
	full       bool
	// held is the memory that the kernels keep; one that keeps more than keep lets go of it before its next texts.
	held, keep int
	// made are the first bytes of what the kernels made and counted.
	made []*byte
}

// begin readies the room for the texts of some rows.
func (r *textRoom) begin(bounds textBounds, rows int) {
	size, other := partText, bounds.part
	if rows == 1 {
		size, other = rowText, bounds.row
	}
	if other > 0 {
		size = other
	}
	r.size, r.left, r.full, r.made = size, size, false, r.made[:0]
	r.keep = math.MaxInt
	if w, ok := r.meter.(*worker); r.held > keptText || ok && w.tight() {
		r.keep = batchText
	}
}

// Grow counts memory for the run; see column.TextMeter.
func (r *textRoom) Grow(bytes int) bool {
	r.held += bytes
	return (r.meter == nil || r.meter.Grow(bytes)) && !r.full
}

// beat says that the run was ended, and shows that it comes along.
func (r *textRoom) beat() error {
	switch m := r.meter.(type) {
	case *worker:
		return m.beat()
	case *testGuard:
		return m.full()
	}
	return nil
}

// beginText readies a scratch column for the results of a kernel, whose arguments were evaluated. Of text it may have limit
// bytes.
func beginText(out *column.Column, b *column.Batch) (limit int) {
	begin(out, b.Len)
	room, ok := b.Texts.(*textRoom)
	if !ok {
		return column.MaxData
	}
	if cap(out.Data) > room.keep {
		out.Data = nil
	}
	return room.left
}

// outgrown is called when a text did not fit, and is null. It says whether the room is full, and then makes the rows behind it null
// as well.
func outgrown(out *column.Column, b *column.Batch) bool {
	room, ok := b.Texts.(*textRoom)
	if !ok {
		return false
	}
	room.full = true
	begin(out, b.Len)
	for i := range b.Len {
		if storageOf(out.Type) == storeText {
			out.Strs = append(out.Strs, column.Str{})
		}
		out.SetNull(i)
	}
	return true
}

// endText ends what beginText has begun.
func endText(out *column.Column, b *column.Batch) *column.Column {
	if room, ok := b.Texts.(*textRoom); ok && len(out.Data) > 0 {
		room.left -= len(out.Data)
	}
	return out
}
