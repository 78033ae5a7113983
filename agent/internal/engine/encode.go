package engine

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

// appendFloat writes the shortest decimal that reads back as the same float, as ECMAScript and encoding/json do; what
// JSON has no number for is NaN, Infinity and -Infinity, without quotes.
func appendFloat(dst []byte, v float64) []byte {
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

// appendTime writes RFC 3339 in UTC, with as many decimals as the microseconds need.
func appendTime(dst []byte, micros int64) []byte {
	return time.UnixMicro(micros).UTC().AppendFormat(dst, time.RFC3339Nano)
}

const hexDigits = "0123456789abcdef"

// appendString writes a JSON string; bytes that are no UTF-8 become U+FFFD.
func appendString(dst, s []byte) []byte {
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
		return appendString(dst, s)
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

// scanner walks JSON text. It never panics on text that is not JSON: ok turns false.
type scanner struct {
	s  []byte
	at int
	ok bool
}

// maxJSONDepth bounds the recursion of skip.
const maxJSONDepth = 512

func (p *scanner) space() {
	for p.at < len(p.s) && (p.s[p.at] == ' ' || p.s[p.at] == '\n' || p.s[p.at] == '\r' || p.s[p.at] == '\t') {
		p.at++
	}
}

// peek is the next byte that is not white space, 0 at the end.
func (p *scanner) peek() byte {
	p.space()
	if p.at >= len(p.s) {
		return 0
	}
	return p.s[p.at]
}

// text skips a string and gives what stands between its quotes.
func (p *scanner) text() []byte {
	if p.peek() != '"' {
		p.ok = false
		return nil
	}
	p.at++
	start := p.at
	for ; p.at < len(p.s); p.at++ {
		switch p.s[p.at] {
		case '\\':
			p.at++
		case '"':
			p.at++
			return p.s[start : p.at-1]
		}
	}
	p.ok = false
	return nil
}

// skip passes one value and gives its text.
func (p *scanner) skip(depth int) []byte {
	c := p.peek()
	start := p.at
	switch {
	case depth > maxJSONDepth:
		p.ok = false
	case c == '"':
		p.text()
	case c == '{' || c == '[':
		p.members(depth, func([]byte, int) { p.skip(depth + 1) })
	default:
		for p.at < len(p.s) && bytes.IndexByte([]byte(",]} \n\r\t"), p.s[p.at]) < 0 {
			p.at++
		}
		p.ok = p.ok && p.at > start
	}
	if !p.ok {
		return nil
	}
	return p.s[start:p.at]
}

// members walks an object or an array: visit gets each member's raw name or place and must skip its value.
func (p *scanner) members(depth int, visit func(name []byte, index int)) {
	object := p.s[p.at] == '{'
	closing := byte(']')
	if object {
		closing = '}'
	}
	p.at++
	if p.peek() == closing {
		p.at++
		return
	}
	for i := 0; p.ok && depth <= maxJSONDepth; i++ {
		var name []byte
		if object {
			name = p.text()
			if p.peek() != ':' {
				p.ok = false
				return
			}
			p.at++
		}
		visit(name, i)
		switch p.peek() {
		case ',':
			p.at++
		case closing:
			p.at++
			return
		default:
			p.ok = false
			return
		}
	}
}

// findJSON gives the value at the path; of members with the same name the last one counts, as in PostgreSQL's jsonb.
func findJSON(s []byte, path []expr.PathStep) ([]byte, bool) {
	for _, step := range path {
		p := scanner{s: s, ok: true}
		open := p.peek()
		if (step.Index < 0 && open != '{') || (step.Index >= 0 && open != '[') {
			return nil, false
		}
		var found []byte
		p.members(0, func(name []byte, index int) {
			value := p.skip(1)
			if (step.Index < 0 && sameName(name, step.Key)) || (step.Index >= 0 && index == step.Index) {
				found = value
			}
		})
		if !p.ok || found == nil {
			return nil, false
		}
		s = found
	}
	s = bytes.TrimSpace(s)
	return s, len(s) > 0 && !bytes.Equal(s, []byte("null"))
}

func sameName(raw []byte, name string) bool {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw) == name
	}
	text, ok := unescape(nil, raw)
	return ok && string(text) == name
}

// unescape appends the text of a raw JSON string.
func unescape(dst, raw []byte) ([]byte, bool) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return append(dst, raw...), true
	}
	var text string
	quoted := make([]byte, 0, len(raw)+2)
	quoted = append(append(append(quoted, '"'), raw...), '"')
	if err := json.Unmarshal(quoted, &text); err != nil {
		return dst, false
	}
	return append(dst, text...), true
}

// appendValue writes row i of a column as JSON.
func appendValue(dst []byte, c *column.Column, i int) []byte {
	if c.Null(i) {
		return append(dst, "null"...)
	}
	return appendNonNull(dst, c, i)
}

func appendNonNull(dst []byte, c *column.Column, i int) []byte {
	switch c.Type {
	case expr.Bool:
		return strconv.AppendBool(dst, c.Bools[i])
	case expr.Int:
		return strconv.AppendInt(dst, c.Ints[i], 10)
	case expr.Timestamp:
		return append(appendTime(append(dst, '"'), c.Ints[i]), '"')
	case expr.Float:
		v := c.Floats[i]
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return append(appendFloat(append(dst, '"'), v), '"')
		}
		return appendFloat(dst, v)
	case expr.String:
		return appendString(dst, c.Bytes(i))
	case expr.JSON:
		return appendInline(dst, c.Bytes(i))
	case expr.Invalid, expr.Null:
	}
	return append(dst, "null"...)
}
