package engine

import (
	"slices"

	"github.com/outfeed/outfeed/agent/internal/column"
)

// batchText is how many bytes of text a step puts in a batch that it builds of what it holds or has spilled: a batch ends at
// it however few rows it has, so that long texts take no more memory than short ones. A single row may have more.
const batchText = 1 << 18

// fitText is how many of the rows sel, but at least one of them, have room bytes of text at most.
func fitText(cols []*column.Column, sel []int32, room int) int {
	total := 0
	for _, c := range cols {
		if storageOf(c.Type) == storeText {
			total += rowsText(c, sel)
		}
	}
	if total <= room {
		return len(sel)
	}
	for i := range sel {
		for _, c := range cols {
			room -= textLen(c, int(sel[i]))
		}
		if room < 0 {
			return max(i, 1)
		}
	}
	return len(sel)
}

// rowsText is the bytes of text of the rows sel.
func rowsText(c *column.Column, sel []int32) int {
	total := 0
	for _, row := range sel {
		total += int(c.Strs[row].Len)
	}
	return total
}

// textLen is the bytes of text of a row.
func textLen(c *column.Column, row int) int {
	if storageOf(c.Type) != storeText {
		return 0
	}
	return int(c.Strs[row].Len)
}

// ownText is the bytes of text in columns that have copied it.
func ownText(cols []column.Column) int {
	total := 0
	for i := range cols {
		total += len(cols[i].Data)
	}
	return total
}

// emptyColumns empties columns that have copied their text, and lets go of the memory of one that was long.
func emptyColumns(cols []column.Column) {
	for i := range cols {
		c := &cols[i]
		if c.Reset(); cap(c.Data) > 2*batchText {
			c.Data = nil
		}
	}
}

// textRefs are those of the columns at the positions that have text.
func textRefs(cols []column.Column, positions []int) []*column.Column {
	var refs []*column.Column
	for _, pos := range positions {
		if storageOf(cols[pos].Type) == storeText {
			refs = append(refs, &cols[pos])
		}
	}
	return refs
}

// texter is an accumulator whose results are texts.
type texter interface {
	// textLen is the bytes of a group's result.
	textLen(g int32) int
}

func (a *textExtremeAcc) textLen(g int32) int { return len(a.best[g].text) }
func (a *textPickAcc) textLen(g int32) int    { return len(a.values[g].text) }

// keepsText says whether groups hold texts beside their keys.
func (a *aggregate) keepsText() bool {
	return slices.ContainsFunc(a.accs, func(acc accumulator) bool {
		_, is := acc.(texter)
		return is
	})
}

// fitGroups is how many of the groups, but at least one of them, have the results of a batch.
func (a *aggregate) fitGroups(groups []int32) int {
	groups = groups[:min(len(groups), column.TargetRows)]
	room := batchText
	if !a.keepsText() && !slices.ContainsFunc(a.table.cols, func(c column.Column) bool { return storageOf(c.Type) == storeText }) {
		return len(groups)
	}
	for i, g := range groups {
		for k := range a.table.cols {
			room -= textLen(&a.table.cols[k], int(g))
		}
		for _, acc := range a.accs {
			if t, is := acc.(texter); is {
				room -= t.textLen(g)
			}
		}
		if room < 0 {
			return max(i, 1)
		}
	}
	return len(groups)
}
