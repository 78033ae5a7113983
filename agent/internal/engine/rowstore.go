package engine

import (
	"fmt"
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// storeBits makes a block of a rowStore 65,536 rows.
const (
	storeBits = 16
	storeRows = 1 << storeBits
	storeMask = storeRows - 1
)

// rowStore keeps rows by number, in blocks of columns. A full block never moves, so that growing needs no second copy of
// what is there.
type rowStore struct {
	types  []expr.Type
	blocks [][]column.Column
	n      int
	// full is the bytes of the full blocks.
	full int64
	// texts is by column the memory of what gather has put together, and views what it looks at.
	texts [][]byte
	views blockViews
	// longest is by column the length of the longest text.
	longest []int
}

func newRowStore(types []expr.Type) *rowStore {
	return &rowStore{types: types, longest: make([]int, len(types))}
}

// append adds the rows sel of the columns, which have the store's types.
func (s *rowStore) append(cols []*column.Column, sel []int32) error {
	for len(sel) > 0 {
		at := s.n & storeMask
		if at == 0 {
			s.addBlock()
		}
		n := min(len(sel), storeRows-at)
		block := s.blocks[len(s.blocks)-1]
		for i := range block {
			if err := block[i].AppendRows(cols[i], sel[:n]); err != nil {
				return fmt.Errorf("hold rows in memory: %w", err)
			}
			for _, str := range block[i].Strs[min(at, len(block[i].Strs)):] {
				s.longest[i] = max(s.longest[i], int(str.Len))
			}
		}
		sel = sel[n:]
		if s.n += n; s.n&storeMask == 0 {
			trimBlock(block)
			s.full += blockBytes(block)
		}
	}
	return nil
}

// addBlock begins a block. The first grows with its rows; those behind it will be full, so they get their room at once.
func (s *rowStore) addBlock() {
	block := make([]column.Column, len(s.types))
	for i, t := range s.types {
		block[i].Type = t
		if len(s.blocks) == 0 {
			continue
		}
		switch storageOf(t) {
		case storeBool:
			block[i].Bools = make([]bool, 0, storeRows)
		case storeInt:
			block[i].Ints = make([]int64, 0, storeRows)
		case storeFloat:
			block[i].Floats = make([]float64, 0, storeRows)
		case storeText:
			block[i].Strs = make([]column.Str, 0, storeRows)
		case storeNone:
		}
	}
	s.blocks = append(s.blocks, block)
}

// trimBlock cuts off the room for text that a full block will not need.
func trimBlock(block []column.Column) {
	for i := range block {
		if c := &block[i]; cap(c.Data)-len(c.Data) > len(c.Data)/8 {
			c.Data = append(make([]byte, 0, len(c.Data)), c.Data...)
		}
	}
}

func blockBytes(block []column.Column) int64 {
	total := 0
	for i := range block {
		c := &block[i]
		total += cap(c.Bools) + 8*(cap(c.Ints)+cap(c.Floats)+cap(c.Strs)+cap(c.Nulls)) + cap(c.Data)
	}
	return int64(total)
}

// size is the bytes that the store takes.
func (s *rowStore) size() int64 {
	if s.n&storeMask == 0 {
		return s.full
	}
	return s.full + blockBytes(s.blocks[len(s.blocks)-1])
}

// column is the column c of the block that holds a row, and the row's place in it.
func (s *rowStore) column(c int, row int32) (col *column.Column, at int) {
	return &s.blocks[row>>storeBits][c], int(row & storeMask)
}

// gather makes dst the rows of a column, with noEntry for a row of null. Text is valid until the next gather of the column.
func (s *rowStore) gather(dst *column.Column, c int, rows []int32) {
	if storageOf(dst.Type) == storeText {
		s.gatherText(dst, c, rows)
		return
	}
	dst.Reset()
	v := &s.views
	switch storageOf(dst.Type) {
	case storeBool:
		v.bools = v.bools[:0]
		for _, b := range s.blocks {
			v.bools = append(v.bools, b[c].Bools)
		}
		dst.Bools = gatherValues(dst.Bools, v.bools, rows)
	case storeInt:
		v.ints = v.ints[:0]
		for _, b := range s.blocks {
			v.ints = append(v.ints, b[c].Ints)
		}
		dst.Ints = gatherValues(dst.Ints, v.ints, rows)
	case storeFloat:
		v.floats = v.floats[:0]
		for _, b := range s.blocks {
			v.floats = append(v.floats, b[c].Floats)
		}
		dst.Floats = gatherValues(dst.Floats, v.floats, rows)
	case storeText, storeNone:
	}
	s.gatherNulls(dst, c, rows)
}

// blockViews are the values of one column by block, while it is gathered: with them a value is two steps away.
type blockViews struct {
	bools  [][]bool
	ints   [][]int64
	floats [][]float64
	strs   [][]column.Str
}

// gatherValues makes dst the values of rows.
func gatherValues[T bool | int64 | float64 | column.Str](dst []T, blocks [][]T, rows []int32) []T {
	dst = resize(dst, len(rows))
	for i, row := range rows {
		if row == noEntry {
			var none T
			dst[i] = none
			continue
		}
		dst[i] = blocks[row>>storeBits][row&storeMask]
	}
	return dst
}

// gatherNulls marks the rows that are noEntry or null.
func (s *rowStore) gatherNulls(dst *column.Column, c int, rows []int32) {
	for _, block := range s.blocks {
		if block[c].HasNulls() {
			for i, row := range rows {
				if row == noEntry {
					dst.SetNull(i)
				} else if col, at := s.column(c, row); col.Null(at) {
					dst.SetNull(i)
				}
			}
			return
		}
	}
	for i, row := range rows {
		if row == noEntry {
			dst.SetNull(i)
		}
	}
}

// fitText is how many of the rows, but at least one of them, have batchText bytes of text at most in the columns.
func (s *rowStore) fitText(cols []int, rows []int32) int {
	most, room := 0, batchText
	for _, c := range cols {
		most += s.longest[c]
	}
	if most*len(rows) <= room {
		return len(rows)
	}
	for i, row := range rows {
		for _, c := range cols {
			room -= s.textLen(c, row)
		}
		if room < 0 {
			return max(i, 1)
		}
	}
	return len(rows)
}

// textLen is the bytes of text of a row in a column; noEntry has none.
func (s *rowStore) textLen(c int, row int32) int {
	if row == noEntry || storageOf(s.types[c]) != storeText {
		return 0
	}
	col, at := s.column(c, row)
	return int(col.Strs[at].Len)
}

// gatherText is gather for text, which stays where it is when all of it is in one block.
func (s *rowStore) gatherText(dst *column.Column, c int, rows []int32) {
	v := &s.views
	v.strs = v.strs[:0]
	for _, b := range s.blocks {
		v.strs = append(v.strs, b[c].Strs)
	}
	dst.Strs, dst.Nulls = gatherValues(dst.Strs, v.strs, rows), dst.Nulls[:0]
	s.gatherNulls(dst, c, rows)
	if len(s.blocks) == 1 {
		dst.Data = slices.Clip(s.blocks[0][c].Data)
		return
	}
	s.texts = growTo(s.texts, len(s.types))
	own := s.texts[c][:0]
	if cap(own) > 2*batchText {
		own = nil // a long text is rare
	}
	for i, row := range rows {
		from := dst.Strs[i]
		if from.Len == 0 {
			dst.Strs[i] = column.Str{}
			continue
		}
		dst.Strs[i] = textAt(len(own), int(from.Len))
		own = append(own, s.blocks[row>>storeBits][c].Data[from.Off:from.Off+from.Len]...)
	}
	s.texts[c], dst.Data = own, own
}

// sequence gives 0, 1, … n-1 in the memory of dst.
func sequence(dst []int32, n int) []int32 {
	dst = resize(dst, n)
	for i := range dst {
		dst[i] = i32(i)
	}
	return dst
}

// each calls fn for the rows, block by block.
func (s *rowStore) each(fn func(cols []*column.Column, rows []int32) error) error {
	cols := make([]*column.Column, len(s.types))
	var rows []int32
	for i := range s.blocks {
		for c := range cols {
			cols[c] = &s.blocks[i][c]
		}
		rows = sequence(rows, min(storeRows, s.n-i<<storeBits))
		if err := fn(cols, rows); err != nil {
			return err
		}
	}
	return nil
}
