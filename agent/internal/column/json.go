package column

import (
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/outfeed/outfeed/protocol/expr"
)

// AppendFloatText writes the shortest decimal that reads back as the same float, as ECMAScript and encoding/json do; what
// JSON has no number for is NaN, Infinity and -Infinity, without quotes.
func AppendFloatText(dst []byte, v float64) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, "NaN"...)
	case math.IsInf(v, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(v, -1):
		return append(dst, "-Infinity"...)
	}
	if size := math.Abs(v); size != 0 && (size < 1e-6 || size >= 1e21) {
		dst = strconv.AppendFloat(dst, v, 'e', -1, 64)
		// strconv writes at least two digits of exponent; e-09 becomes e-9.
		if n := len(dst); n >= 4 && dst[n-4] == 'e' && dst[n-3] == '-' && dst[n-2] == '0' {
			dst[n-2] = dst[n-1]
			dst = dst[:n-1]
		}
		return dst
	}
	return strconv.AppendFloat(dst, v, 'f', -1, 64)
}

// AppendTimeText writes RFC 3339 in UTC, with as many decimals as the microseconds need.
func AppendTimeText(dst []byte, micros int64) []byte {
	return time.UnixMicro(micros).UTC().AppendFormat(dst, time.RFC3339Nano)
}

const hexDigits = "0123456789abcdef"

// AppendJSONString writes a JSON string; bytes that are no UTF-8 become U+FFFD.
func AppendJSONString(dst, s []byte) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[start:i]...), `\ufffd`...)
				start = i + 1
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

// appendInline writes a JSON value without its white space; text that is not JSON becomes a string, so that what
// leaves is always JSON.
func appendInline(dst, s []byte) []byte {
	if !json.Valid(s) {
		return AppendJSONString(dst, s)
	}
	inString := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case inString && c == '\\':
			dst = append(dst, c)
			i++
			c = s[i]
		case c == '"':
			inString = !inString
		case !inString && (c == ' ' || c == '\n' || c == '\r' || c == '\t'):
			continue
		}
		dst = append(dst, c)
	}
	return dst
}

// AppendJSON writes row i of a column as JSON.
func AppendJSON(dst []byte, c *Column, i int) []byte {
	if c.Null(i) {
		return append(dst, "null"...)
	}
	return appendNonNull(dst, c, i)
}

func appendNonNull(dst []byte, c *Column, i int) []byte {
	switch c.Type {
	case expr.Bool:
		return strconv.AppendBool(dst, c.Bools[i])
	case expr.Int:
		return strconv.AppendInt(dst, c.Ints[i], 10)
	case expr.Timestamp:
		return append(AppendTimeText(append(dst, '"'), c.Ints[i]), '"')
	case expr.Float:
		v := c.Floats[i]
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return append(AppendFloatText(append(dst, '"'), v), '"')
		}
		return AppendFloatText(dst, v)
	case expr.String:
		return AppendJSONString(dst, c.Bytes(i))
	case expr.JSON:
		return appendInline(dst, c.Bytes(i))
	case expr.Invalid, expr.Null:
	}
	return append(dst, "null"...)
}
