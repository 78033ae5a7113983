package connector

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// AppendRowJSON appends a row as one JSON object on one line, its members in the order of the columns. Times are in
// RFC 3339; NaN and the infinities are the texts "NaN", "Infinity" and "-Infinity", as in insights.
func AppendRowJSON(dst []byte, b *column.Batch, row int) []byte {
	dst = append(dst, '{')
	for i := range b.Cols {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendJSONText(dst, []byte(b.Schema[i].Name)), ':')
		dst = appendJSONValue(dst, &b.Cols[i], row)
	}
	return append(dst, '}')
}

func appendJSONValue(dst []byte, c *column.Column, row int) []byte {
	if c.Null(row) {
		return append(dst, "null"...)
	}
	switch c.Type {
	case expr.Bool:
		return strconv.AppendBool(dst, c.Bools[row])
	case expr.Int:
		return strconv.AppendInt(dst, c.Ints[row], 10)
	case expr.Float:
		return appendJSONFloat(dst, c.Floats[row])
	case expr.Timestamp:
		dst = time.UnixMicro(c.Ints[row]).UTC().AppendFormat(append(dst, '"'), "2006-01-02T15:04:05.999999Z07:00") // as expr.FormatTimestamp does
		return append(dst, '"')
	case expr.String:
		return appendJSONText(dst, c.Bytes(row))
	case expr.JSON:
		var text bytes.Buffer
		if json.Compact(&text, c.Bytes(row)) != nil {
			return appendJSONText(dst, c.Bytes(row))
		}
		return append(dst, text.Bytes()...)
	case expr.Invalid, expr.Null:
	}
	return append(dst, "null"...)
}

func appendJSONFloat(dst []byte, v float64) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(dst, `"-Infinity"`...)
	}
	format := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, v, format, -1, 64)
}

// appendJSONText appends a JSON string; bytes that are no UTF-8 become U+FFFD.
func appendJSONText(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for len(text) > 0 {
		c := text[0]
		switch {
		case c == '"' || c == '\\':
			dst, text = append(dst, '\\', c), text[1:]
		case c < ' ':
			dst, text = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15]), text[1:]
		default:
			r, size := utf8.DecodeRune(text)
			dst, text = utf8.AppendRune(dst, r), text[size:]
		}
	}
	return append(dst, '"')
}
