package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

func validJSON(dst, s []byte) ([]byte, bool) { return append(dst, s...), json.Valid(s) }

// jsonString is the text of a JSON string.
func jsonString(dst, s []byte) ([]byte, bool) {
	s = bytes.TrimSpace(s)
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return dst, false
	}
	return unescape(dst, s[1:len(s)-1])
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
	path []jsonStep
	out  column.Column
}

func buildJSONGet(n *expr.Node) (kernel, error) {
	arg, err := compileExpr(n.Args[0], expr.JSON)
	if err != nil {
		return nil, err
	}
	path, err := parsePath(n.Args[1].Value.Str)
	if err != nil {
		return nil, fmt.Errorf("json_get at offset %d: %w", n.Pos, err)
	}
	return &jsonGetKernel{arg: arg, path: path, out: column.Column{Type: expr.JSON}}, nil
}

// parsePath reads a path such as tool.offsets[0] or ["a.b"].c into steps.
func parsePath(path string) ([]jsonStep, error) {
	var steps []jsonStep
	for rest := path; rest != ""; {
		if rest[0] == '[' {
			step, after, err := parseBracket(path, rest)
			if err != nil {
				return nil, err
			}
			steps, rest = append(steps, step), after
		} else {
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			if end == 0 {
				return nil, fmt.Errorf("the path %q has an empty name", path)
			}
			steps, rest = append(steps, jsonStep{name: rest[:end], index: -1}), rest[end:]
		}
		if strings.HasPrefix(rest, ".") {
			rest = rest[1:]
			if rest == "" || rest[0] == '[' {
				return nil, fmt.Errorf("the path %q has an empty name", path)
			}
		}
	}
	return steps, nil
}

func parseBracket(path, rest string) (step jsonStep, after string, err error) {
	if strings.HasPrefix(rest, `["`) {
		quoted, quoteErr := strconv.QuotedPrefix(rest[1:])
		if quoteErr != nil || !strings.HasPrefix(rest[1+len(quoted):], "]") {
			return jsonStep{}, "", fmt.Errorf(`the path %q has a [" without "]`, path)
		}
		name, unquoteErr := strconv.Unquote(quoted)
		if unquoteErr != nil {
			return jsonStep{}, "", fmt.Errorf("the path %q: %w", path, unquoteErr)
		}
		return jsonStep{name: name, index: -1}, rest[len(quoted)+2:], nil
	}
	end := strings.IndexByte(rest, ']')
	if end < 0 {
		return jsonStep{}, "", fmt.Errorf("the path %q has a [ without ]", path)
	}
	index, convErr := strconv.ParseUint(rest[1:end], 10, 31)
	if convErr != nil {
		return jsonStep{}, "", fmt.Errorf("the path %q has no whole number in [%s]", path, rest[1:end])
	}
	return jsonStep{index: int(index)}, rest[end+1:], nil //nolint:gosec // 31 bits were read
}

func (k *jsonGetKernel) eval(b *column.Batch) *column.Column {
	a, out := k.arg.eval(b), &k.out
	begin(out, b.Len)
	addNulls(out, a)
	for i := range b.Len {
		if out.Null(i) {
			out.Strs = append(out.Strs, column.Str{})
			continue
		}
		value, ok := findJSON(a.Bytes(i), k.path)
		start := len(out.Data)
		out.Data = append(out.Data, value...)
		finishText(out, start, ok)
	}
	return out
}
