package engine

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
)

// sortKey is a column to sort by: a position in the rows.
type sortKey struct {
	col        int
	descending bool
}

// sortRun is rows column by column, in the order in which they came, which a sort brings into order. It is the unit of
// an external merge sort: each run is ordered by itself.
type sortRun struct {
	cols []column.Column
	rows int
}

// sortEntry is a row with the normalised value of one of its keys: an unsigned number with the order of the values.
type sortEntry struct {
	key uint64
	row int32
}

// sorter has the memory that ordering a run needs.
type sorter struct {
	keys         []sortKey
	entries, tmp []sortEntry
	order        []int32
}

// sortRows gives the rows of a run in the order of the keys, nulls last and rows with equal keys as they came. It is
// valid until the next call.
//
// Rows are ordered by one key after the other: by the first, then within each stretch of equal values by the next. Each
// time the values become numbers with the same order, which a radix sort orders without a comparison.
func (s *sorter) sortRows(run *sortRun) []int32 {
	s.entries, s.tmp = resize(s.entries, run.rows), resize(s.tmp, run.rows)
	for i := range s.entries {
		s.entries[i].row = i32(i)
	}
	s.sort(run, s.entries, 0)
	s.order = resize(s.order, run.rows)
	for i := range s.entries {
		s.order[i] = s.entries[i].row
	}
	return s.order
}

// sort orders entries, which are in the order in which their rows came, by the keys from k on.
func (s *sorter) sort(run *sortRun, entries []sortEntry, k int) {
	if k == len(s.keys) || len(entries) < 2 {
		return
	}
	c := &run.cols[s.keys[k].col]
	if c.HasNulls() {
		values := s.nullsLast(c, entries)
		s.sort(run, entries[values:], k+1)
		entries = entries[:values]
	}
	if storageOf(c.Type) == storeText {
		s.sortText(run, entries, textKey{k: k})
		return
	}
	normalise(entries, c, s.keys[k].descending)
	s.byKey(entries)
	if k+1 == len(s.keys) {
		return
	}
	stretches(entries, func(part []sortEntry) { s.sort(run, part, k+1) })
}

// stretches calls visit for each stretch of entries with equal keys.
func stretches(entries []sortEntry, visit func(part []sortEntry)) {
	for from := 0; from < len(entries); {
		to := from + 1
		for to < len(entries) && entries[to].key == entries[from].key {
			to++
		}
		visit(entries[from:to])
		from = to
	}
}

// textKey is a key of texts that agree up to an offset.
type textKey struct{ k, offset int }

// maxOffset is how far texts are ordered piece by piece.
const maxOffset = 16 * exactText

// sortText orders rows by a text, a piece of it at a time, and then by the keys behind.
func (s *sorter) sortText(run *sortRun, entries []sortEntry, t textKey) {
	if len(entries) < 2 {
		return
	}
	if t.offset >= maxOffset {
		s.compareText(run, entries, t.k)
		return
	}
	key := s.keys[t.k]
	c := &run.cols[key.col]
	flip := flipOf(key.descending)
	for i := range entries {
		entries[i].key = normalText(c.Bytes(int(entries[i].row))[t.offset:]) ^ flip
	}
	s.byKey(entries)
	stretches(entries, func(part []sortEntry) {
		if len(c.Bytes(int(part[0].row))) > t.offset+exactText {
			s.sortText(run, part, textKey{k: t.k, offset: t.offset + exactText})
		} else {
			s.sort(run, part, t.k+1)
		}
	})
}

// nullsLast moves the rows that are null behind the others, and gives the number of the others.
func (s *sorter) nullsLast(c *column.Column, entries []sortEntry) int {
	values, nulls := 0, s.tmp[:0]
	for _, e := range entries {
		if c.Null(int(e.row)) {
			nulls = append(nulls, e)
		} else {
			entries[values] = e
			values++
		}
	}
	copy(entries[values:], nulls)
	return values
}

// compareText orders rows whose texts agree for long.
func (s *sorter) compareText(run *sortRun, entries []sortEntry, k int) {
	c, descending := &run.cols[s.keys[k].col], s.keys[k].descending
	text := func(e sortEntry) []byte { return c.Bytes(int(e.row)) }
	slices.SortFunc(entries, func(a, b sortEntry) int {
		order := bytes.Compare(text(a), text(b))
		if descending {
			order = -order
		}
		return cmp.Or(order, cmp.Compare(a.row, b.row))
	})
	for from := 0; from < len(entries); {
		to := from + 1
		for to < len(entries) && bytes.Equal(text(entries[to]), text(entries[from])) {
			to++
		}
		s.sort(run, entries[from:to], k+1)
		from = to
	}
}

// exactText is the length up to which a text is wholly in its normalised value.
const exactText = 7

// normalise gives every entry the number that orders its value.
func normalise(entries []sortEntry, c *column.Column, descending bool) {
	const sign = 1 << 63
	flip := flipOf(descending)
	switch storageOf(c.Type) {
	case storeBool:
		for i := range entries {
			key := uint64(0)
			if c.Bools[entries[i].row] {
				key = 1
			}
			entries[i].key = key ^ flip
		}
	case storeInt:
		for i := range entries {
			entries[i].key = uint64Of(c.Ints[entries[i].row]) ^ sign ^ flip
		}
	case storeFloat:
		for i := range entries {
			bits := math.Float64bits(canonical(c.Floats[entries[i].row]))
			if bits&sign != 0 {
				bits = ^bits
			} else {
				bits |= sign
			}
			entries[i].key = bits ^ flip
		}
	case storeText, storeNone: // see sortText
	}
}

// flipOf turns the order of normalised values round where the greatest comes first.
func flipOf(descending bool) uint64 {
	if descending {
		return math.MaxUint64
	}
	return 0
}

// normalText is the first bytes of a text and its length, as far as both fit: of texts whose first bytes are equal, the
// shorter comes first.
func normalText(text []byte) uint64 {
	var key uint64
	for i := range exactText {
		key <<= 8
		if i < len(text) {
			key |= uint64(text[i])
		}
	}
	return key<<8 | uint64(min(len(text), exactText+1))
}

// radixFloor is how many entries there must be for counting bytes to be worth it.
const radixFloor = 512

// byKey orders entries by their key, those with equal keys by row, as they are at first.
func (s *sorter) byKey(entries []sortEntry) {
	if len(entries) < radixFloor {
		slices.SortFunc(entries, func(a, b sortEntry) int {
			return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.row, b.row))
		})
		return
	}
	var counts [8][256]uint32
	for i := range entries {
		key := entries[i].key
		for b := range counts {
			counts[b][byte(key)]++
			key >>= 8
		}
	}
	from, to := entries, s.tmp[:len(entries)]
	for b := range counts {
		shift := 8 * b
		if int(counts[b][byte(from[0].key>>shift&math.MaxUint8)]) == len(entries) {
			continue // all have the same byte here
		}
		at := uint32(0)
		for v, n := range counts[b] {
			counts[b][v] = at
			at += n
		}
		for _, e := range from {
			v := byte(e.key >> shift & math.MaxUint8)
			to[counts[b][v]] = e
			counts[b][v]++
		}
		from, to = to, from
	}
	if &from[0] != &entries[0] {
		copy(entries, from)
	}
}

// compare orders a row of a batch against a row of a run.
func (s *sorter) compare(cols []column.Column, row int, run *sortRun, other int) int {
	for _, key := range s.keys {
		a, b := &cols[key.col], &run.cols[key.col]
		order := compareRows(a, row, b, other)
		if key.descending && !a.Null(row) && !b.Null(other) {
			order = -order
		}
		if order != 0 {
			return order
		}
	}
	return 0
}
