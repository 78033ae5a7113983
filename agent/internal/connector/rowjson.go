package connector

import "github.com/outfeed/outfeed/agent/internal/column"

// AppendRowJSON appends a row as one JSON object on one line, its members in the order of the columns. Times are in
// RFC 3339; NaN and the infinities are the texts "NaN", "Infinity" and "-Infinity", as in insights.
func AppendRowJSON(dst []byte, b *column.Batch, row int) []byte {
	dst = append(dst, '{')
	for i := range b.Cols {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(column.AppendJSONString(dst, []byte(b.Schema[i].Name)), ':')
		dst = column.AppendJSON(dst, &b.Cols[i], row)
	}
	return append(dst, '}')
}
