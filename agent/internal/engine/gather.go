package engine

import "github.com/outfeed/outfeed/agent/internal/column"

// gatherOptional is Gather with noEntry for a row of null.
func gatherOptional(dst, src *column.Column, rows []int32) {
	dst.Reset()
	dst.Data = src.Data
	for i, row := range rows {
		if row == noEntry || src.Null(int(row)) {
			dst.AppendNull()
			continue
		}
		switch storageOf(dst.Type) {
		case storeBool:
			dst.Bools = append(dst.Bools, src.Bools[row])
		case storeInt:
			dst.Ints = append(dst.Ints, src.Ints[row])
		case storeFloat:
			dst.Floats = append(dst.Floats, src.Floats[row])
		case storeText:
			dst.Strs = append(dst.Strs, src.Strs[row])
		case storeNone:
			dst.SetNull(i)
		}
	}
}
