package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/protocol/expr"
)

// jsonKernels read JSON texts, at a constant path where the call has one.
func jsonKernels() map[string]builder {
	return map[string]builder{
		"json_get": buildJSONGet, "json_string": jsonToText(jsonString), "json_type": jsonToText(jsonType),
		"json_number": fromJSON(expr.Float, floats, jsonNumber), "json_int": fromJSON(expr.Int, ints, jsonInt),
		"json_bool": fromJSON(expr.Bool, bools, jsonBool), "json_length": fromJSON(expr.Int, ints, jsonLength),
	}
}

// jsonPath is the constant path of a call; empty when there is none.
func jsonPath(n *expr.Node) ([]expr.PathStep, error) {
	if len(n.Args) < 2 {
		return nil, nil // no path leads to the value itself
	}
	path, err := expr.ParsePath(n.Args[1].Value.Str)
	if err != nil {
		return nil, fmt.Errorf("%s at offset %d: %w", n.Name, n.Pos, err)
	}
	return path, nil
}

func fromJSON[R any](t expr.Type, to func(*column.Column) []R, row func([]byte) (R, bool)) builder {
	return func(n *expr.Node) (kernel, error) {
		path, err := jsonPath(n)
		if err != nil || len(path) == 0 {
			return orError(fromText(t, to, row), n, err)
		}
		return fromText(t, to, func(s []byte) (value R, ok bool) {
			if s, ok = findJSON(s, path); !ok {
				return value, false
			}
			return row(s)
		})(n)
	}
}

func jsonToText(row func(dst, s []byte) ([]byte, bool)) builder {
	return func(n *expr.Node) (kernel, error) {
		path, err := jsonPath(n)
		if err != nil || len(path) == 0 {
			return orError(textToText(row), n, err)
		}
		return textToText(func(dst, s []byte) ([]byte, bool) {
			s, ok := findJSON(s, path)
			if !ok {
				return dst, false
			}
			return row(dst, s)
		})(n)
	}
}

func orError(build builder, n *expr.Node, err error) (kernel, error) {
	if err != nil {
		return nil, err
	}
	return build(n)
}

func jsonType(dst, s []byte) ([]byte, bool) {
	s = bytes.TrimSpace(s)
	if len(s) == 0 {
		return dst, false
	}
	switch s[0] {
	case '{':
		return append(dst, "object"...), true
	case '[':
		return append(dst, "array"...), true
	case '"':
		return append(dst, "string"...), true
	case 't', 'f':
		return append(dst, "bool"...), true
	case 'n':
		return append(dst, "null"...), true
	}
	return append(dst, "number"...), true
}

func jsonBool(s []byte) (value, ok bool) {
	switch string(bytes.TrimSpace(s)) {
	case "true":
		return true, true
	case "false":
		return false, true
	}
	return false, false
}

func jsonLength(s []byte) (int64, bool) {
	p := scanner{s: s, ok: true}
	if open := p.peek(); open != '{' && open != '[' {
		return 0, false
	}
	count := int64(0)
	p.members(0, func([]byte, int) {
		p.skip(1)
		count++
	})
	return count, p.ok
}

// jsonInt works on the digits, since a float has too few: 1e3 and 10.00 are whole, 1.5 is not.
func jsonInt(s []byte) (int64, bool) {
	s = bytes.TrimSpace(s)
	if len(s) == 0 || (s[0] != '-' && (s[0] < '0' || s[0] > '9')) {
		return 0, false
	}
	if v, err := strconv.ParseInt(string(s), 10, 64); err == nil {
		return v, true
	}
	mantissa, exponent := s, 0
	if at := bytes.IndexAny(s, "eE"); at >= 0 {
		mantissa = s[:at]
		var err error
		// An exponent that does not fit an int leaves nothing but zero whole.
		if exponent, err = strconv.Atoi(string(s[at+1:])); err != nil {
			exponent = math.MinInt32
		}
	}
	return wholeNumber(bytes.TrimPrefix(mantissa, []byte("-")), exponent, s[0] == '-')
}

// wholeNumber is the decimal number times 10^exponent, where that is a whole number of 64 bits.
func wholeNumber(mantissa []byte, exponent int, negative bool) (int64, bool) {
	whole, decimals, _ := bytes.Cut(mantissa, []byte("."))
	var digits [24]byte
	n, shift := 0, exponent-len(decimals)
	for i, c := range mantissa {
		switch {
		case i == len(whole) && c == '.':
			continue
		case c < '0' || c > '9':
			return 0, false
		case c == '0' && n == 0: // leading zeros
			continue
		case n < len(digits):
			digits[n] = c
			n++
		case c != '0':
			return 0, false
		default:
			shift++
		}
	}
	return shifted(digits[:n], shift, negative)
}

// shifted is the digits times 10^shift, where that is a whole number of 64 bits.
func shifted(digits []byte, shift int, negative bool) (int64, bool) {
	for len(digits) > 0 && digits[len(digits)-1] == '0' {
		digits, shift = digits[:len(digits)-1], shift+1
	}
	if len(digits) == 0 {
		return 0, true
	}
	if shift < 0 || len(digits)+shift > 19 || shift > 19 {
		return 0, false
	}
	var text [20]byte
	all := text[:0]
	if negative {
		all = append(all, '-')
	}
	all = append(all, digits...)
	for range shift {
		all = append(all, '0')
	}
	v, err := strconv.ParseInt(string(all), 10, 64)
	return v, err == nil
}

func validJSON(dst, s []byte) ([]byte, bool) { return append(dst, s...), json.Valid(s) }

// jsonString is the text of a JSON string. Half of a surrogate pair is no character, so a string that has one is no text.
func jsonString(dst, s []byte) ([]byte, bool) {
	s = bytes.TrimSpace(s)
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return dst, false
	}
	return decode.AppendText(dst, s[1:len(s)-1])
}

func jsonNumber(s []byte) (float64, bool) {
	s = bytes.TrimSpace(s)
	if len(s) == 0 || (s[0] != '-' && (s[0] < '0' || s[0] > '9')) {
		return 0, false
	}
	return floatOfText(s)
}

// jsonGetKernel takes the value at a constant path out of each row.
type jsonGetKernel struct {
	arg  kernel
	path []expr.PathStep
	out  column.Column
}

func buildJSONGet(n *expr.Node) (kernel, error) {
	arg, err := compileExpr(n.Args[0], expr.JSON)
	if err != nil {
		return nil, err
	}
	path, err := expr.ParsePath(n.Args[1].Value.Str)
	if err != nil {
		return nil, fmt.Errorf("json_get at offset %d: %w", n.Pos, err)
	}
	return &jsonGetKernel{arg: arg, path: path, out: column.Column{Type: expr.JSON}}, nil
}

func (k *jsonGetKernel) eval(b *column.Batch) *column.Column {
	a, out := k.arg.eval(b), &k.out
	limit := beginText(out, b)
	addNulls(out, a)
	for i := range b.Len {
		if out.Null(i) {
			out.Strs = append(out.Strs, column.Str{})
			continue
		}
		value, ok := findJSON(a.Bytes(i), k.path)
		ok = ok && string(value) != "null"
		start := len(out.Data)
		out.Data = append(out.Data, value...)
		if !finishText(out, start, limit, ok) && outgrown(out, b) {
			break
		}
	}
	return endText(out, b)
}
