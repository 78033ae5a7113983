package decode

import "github.com/outfeed/outfeed/protocol/expr"

// member is a member's name as records have it.
type member struct {
	// pattern is everything from the end of the value before to the start of the value, such as `,"temp": `. Only its
	// white space at the end can make one the start of another's: closer sees to that.
	pattern string
	// head and tail are its first and last eight bytes, the last ones at tailAt, as far as mask has them. reach is how
	// far comparing them goes.
	head, tail, mask uint64
	tailAt, reach    int
	col              int
	typ              expr.Type
	// place is its column's for the drift, and seen the record that had it last.
	place int
	seen  int64
	// next is the member that followed last time, and after the one that followed before that.
	next, after *member
}

// set makes the member that of a pattern and a column.
func (m *member) set(pattern string, col int, schema expr.Schema) {
	m.pattern, m.col, m.typ = pattern, col, expr.Invalid
	if col >= 0 {
		m.typ = schema[col].Type
	}
	var short [8]byte
	n := copy(short[:], pattern)
	m.mask = 1<<(8*uint(n)) - 1
	m.head = load8(short[:], 0)
	m.tailAt = max(len(pattern)-8, 0)
	copy(short[:], pattern[m.tailAt:])
	m.tail = load8(short[:], 0)
	m.reach = max(len(pattern), 8)
}

// at says whether the member's pattern is text[p:], not behind end.
func (m *member) at(text []byte, p, end int) bool {
	if p+m.reach > len(text) || load8(text, p)&m.mask != m.head || load8(text, p+m.tailAt)&m.mask != m.tail {
		return false
	}
	return len(m.pattern) <= 16 && p+len(m.pattern) <= end || m.whole(text[:end], p)
}

func (m *member) whole(s []byte, p int) bool { return literal(s, p, m.pattern) }
