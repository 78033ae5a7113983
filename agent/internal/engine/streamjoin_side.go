package engine

import (
	"math"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// streamSide is the rows that a join of two streams holds of one side, numbered as they came. A row that was let go is
// dead and stays until compact.
type streamSide struct {
	keys    *keySide
	entries []int32
	time    int
	// cols are the input's columns that are held, outs where they go in the output, and rows their values.
	cols, outs []int
	rows       []column.Column
	// By row: its time, its key's entry, the next row of the same key, its number over restarts, whether it has found a
	// partner, and what the store knows of it.
	times   []int64
	entry   []int32
	next    []int32
	seq     []uint64
	dead    []bool
	matched []bool
	saved   []bool
	changed []bool
	deaths  int
	// head and tail are the first and the last row of a key, plus one, so that zero is none.
	head, tail []int32
	// due orders the linked rows of an endless join by time; it has none that is dead.
	due dueHeap
	// newest is the greatest time seen, if any was.
	newest  int64
	seen    bool
	nextSeq uint64
}

func newStreamSide(keys []int, time int) *streamSide {
	return &streamSide{keys: newKeySide(keys), time: time}
}

// hold notes a column of the input to hold, and where it goes.
func (s *streamSide) hold(from, to int, t expr.Type) {
	s.cols, s.outs, s.rows = append(s.cols, from), append(s.outs, to), append(s.rows, column.Column{Type: t})
}

// watermark is the time before which rows of this side are late.
func (s *streamSide) watermark(late int64) int64 {
	if !s.seen || s.newest < math.MinInt64+late {
		return math.MinInt64
	}
	return s.newest - late
}

// add appends a row, which is not linked yet.
func (s *streamSide) add(b *column.Batch, a arrival) int32 {
	for i, pos := range s.cols {
		s.rows[i].AppendFrom(&b.Cols[pos], a.row)
	}
	s.nextSeq++
	return s.append(a.entry, a.time, s.nextSeq-1)
}

// append makes room for what is known of a row whose values are there.
func (s *streamSide) append(entry int32, time int64, seq uint64) int32 {
	s.times, s.entry, s.next, s.seq = append(s.times, time), append(s.entry, entry), append(s.next, noEntry), append(s.seq, seq)
	s.dead, s.matched = append(s.dead, false), append(s.matched, false)
	s.saved, s.changed = append(s.saved, false), append(s.changed, true)
	return i32(len(s.times) - 1)
}

// link puts a row at the end of its key's rows.
func (s *streamSide) link(row int32) {
	e := s.entry[row]
	if s.head[e] == 0 {
		s.head[e] = row + 1
	} else {
		s.next[s.tail[e]-1] = row
	}
	s.tail[e] = row + 1
}

// unlink takes a row out of its key's rows; before is the one before it, noEntry for none.
func (s *streamSide) unlink(e, before, row int32) {
	if before == noEntry {
		s.head[e] = s.next[row] + 1
	} else {
		s.next[before] = s.next[row]
	}
	if s.next[row] == noEntry {
		s.tail[e] = before + 1
	}
}

func (s *streamSide) match(row int32) {
	if !s.matched[row] {
		s.matched[row], s.changed[row] = true, true
	}
}

// textOf is about how many bytes of text a row holds.
func (s *streamSide) textOf(row int32) int {
	n := 0
	for i := range s.rows {
		if storageOf(s.rows[i].Type) == storeText {
			n += int(s.rows[i].Strs[row].Len)
		}
	}
	return n
}

// compact drops the dead rows. place gives the new entry of each key, of which there are n.
func (s *streamSide) compact(place []int32, n int) {
	keep := make([]int32, 0, len(s.dead)-s.deaths)
	moved := make([]int32, len(s.dead))
	for row, dead := range s.dead {
		if !dead {
			moved[row] = i32(len(keep))
			keep = append(keep, i32(row))
		}
	}
	for i := range s.rows {
		compactOwned(&s.rows[i], keep)
	}
	s.times, s.entry, s.next, s.seq = compactSlice(s.times, keep), compactSlice(s.entry, keep), s.next[:len(keep)], compactSlice(s.seq, keep)
	s.matched, s.saved, s.changed = compactSlice(s.matched, keep), compactSlice(s.saved, keep), compactSlice(s.changed, keep)
	s.dead, s.deaths = s.dead[:len(keep)], 0
	clear(s.dead)
	for i := range s.due {
		s.due[i].row = moved[s.due[i].row] // the order stays, because rows keep theirs
	}
	s.head, s.tail = resize(s.head, n), resize(s.tail, n)
	clear(s.head)
	clear(s.tail)
	for row := range s.entry {
		s.entry[row], s.next[row] = place[s.entry[row]], noEntry
	}
	for row := range s.entry {
		s.link(i32(row))
	}
}

// due is a row and its time.
type due struct {
	time int64
	row  int32
}

func (d due) before(o due) bool { return d.time < o.time || d.time == o.time && d.row < o.row }

// dueHeap is a binary heap with the oldest row first.
type dueHeap []due

func (h *dueHeap) push(d due) {
	list := append(*h, d)
	for i := len(list) - 1; i > 0; {
		parent := (i - 1) / 2
		if !list[i].before(list[parent]) {
			break
		}
		list[i], list[parent] = list[parent], list[i]
		i = parent
	}
	*h = list
}

// pop takes the oldest row off; there must be one.
func (h *dueHeap) pop() due {
	list := *h
	first := list[0]
	n := len(list) - 1
	list[0] = list[n]
	list = list[:n]
	for i := 0; ; {
		child := 2*i + 1
		if child >= n {
			break
		}
		if child+1 < n && list[child+1].before(list[child]) {
			child++
		}
		if !list[child].before(list[i]) {
			break
		}
		list[i], list[child] = list[child], list[i]
		i = child
	}
	*h = list
	return first
}
