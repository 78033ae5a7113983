package engine

import (
	"bytes"
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// concatKernel joins texts: OpAdd of strings and concat. A result longer than expr.MaxText is null.
type concatKernel struct {
	args []kernel
	cols []*column.Column
	out  column.Column
}

func newConcat(args []kernel) *concatKernel {
	return &concatKernel{args: args, cols: make([]*column.Column, len(args)), out: column.Column{Type: expr.String}}
}

func buildConcat(n *expr.Node) (kernel, error) {
	args, err := compileArgs(n, expr.String)
	if err != nil {
		return nil, err
	}
	return newConcat(args), nil
}

func (k *concatKernel) eval(b *column.Batch) *column.Column {
	out := &k.out
	for i, a := range k.args {
		k.cols[i] = a.eval(b)
	}
	limit := beginText(out, b)
	for _, c := range k.cols {
		addNulls(out, c)
	}
	for i := range b.Len {
		if out.Null(i) {
			out.Strs = append(out.Strs, column.Str{})
			continue
		}
		start, total := len(out.Data), 0
		for _, c := range k.cols {
			total += int(c.Strs[i].Len)
		}
		if total > expr.MaxText || start+total > limit {
			out.AppendNull()
			if total <= expr.MaxText && outgrown(out, b) {
				break
			}
			continue
		}
		for _, c := range k.cols {
			out.Data = append(out.Data, c.Bytes(i)...)
		}
		out.Strs = append(out.Strs, textAt(start, total))
	}
	return endText(out, b)
}

func textAt(start, length int) column.Str {
	return column.Str{Off: uint32(start), Len: uint32(length)} //nolint:gosec // the callers check against column.MaxData
}

// finishText ends a row whose text was appended to c.Data from start on; ok false makes it null. One with which the column
// would have more than limit bytes is null too, and then false comes back.
func finishText(c *column.Column, start, limit int, ok bool) (fits bool) {
	length := len(c.Data) - start
	if !ok || len(c.Data) > limit {
		c.Data = c.Data[:start]
		c.AppendNull()
		return !ok
	}
	c.Strs = append(c.Strs, textAt(start, length))
	return true
}

type replaceKernel struct {
	text, old, with kernel
	out             column.Column
}

func buildReplace(n *expr.Node) (kernel, error) {
	args, err := compileArgs(n, expr.String)
	if err != nil {
		return nil, err
	}
	return &replaceKernel{text: args[0], old: args[1], with: args[2], out: column.Column{Type: expr.String}}, nil
}

func (k *replaceKernel) eval(b *column.Batch) *column.Column {
	text, old, with, out := k.text.eval(b), k.old.eval(b), k.with.eval(b), &k.out
	limit := beginText(out, b)
	addNulls(out, text)
	addNulls(out, old)
	addNulls(out, with)
	for i := range b.Len {
		if out.Null(i) {
			out.Strs = append(out.Strs, column.Str{})
			continue
		}
		start := len(out.Data)
		ok := replaceRow(out, start, text.Bytes(i), [2][]byte{old.Bytes(i), with.Bytes(i)})
		if !finishText(out, start, limit, ok) && outgrown(out, b) {
			break
		}
	}
	return endText(out, b)
}

// replaceRow appends s with pair[0] replaced by pair[1]; false says that the result grew past expr.MaxText.
func replaceRow(out *column.Column, start int, s []byte, pair [2][]byte) bool {
	for len(pair[0]) > 0 {
		at := bytes.Index(s, pair[0])
		if at < 0 {
			break
		}
		out.Data = append(append(out.Data, s[:at]...), pair[1]...)
		s = s[at+len(pair[0]):]
		if len(out.Data)-start > expr.MaxText {
			return false
		}
	}
	out.Data = append(out.Data, s...)
	return len(out.Data)-start <= expr.MaxText
}

// substringKernel counts in characters; a missing count means to the end.
type substringKernel struct {
	text, from, count kernel
	out               column.Column
}

func buildSubstring(n *expr.Node) (kernel, error) {
	k := &substringKernel{out: column.Column{Type: expr.String}}
	var err error
	if k.text, err = compileExpr(n.Args[0], expr.String); err != nil {
		return nil, err
	}
	if k.from, err = compileExpr(n.Args[1], expr.Int); err != nil {
		return nil, err
	}
	if len(n.Args) > 2 {
		if k.count, err = compileExpr(n.Args[2], expr.Int); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func (k *substringKernel) eval(b *column.Batch) *column.Column {
	text, from, out := k.text.eval(b), k.from.eval(b), &k.out
	var count *column.Column
	if k.count != nil {
		count = k.count.eval(b)
	}
	limit := beginText(out, b)
	addNulls(out, text)
	addNulls(out, from)
	if count != nil {
		addNulls(out, count)
	}
	for i := range b.Len {
		if out.Null(i) || from.Ints[i] < 0 || (count != nil && count.Ints[i] < 0) {
			out.SetNull(i)
			out.Strs = append(out.Strs, column.Str{})
			continue
		}
		s := text.Bytes(i)
		s = s[runeOffset(s, from.Ints[i]):]
		if count != nil {
			s = s[:runeOffset(s, count.Ints[i])]
		}
		if !addText(out, s, limit) && outgrown(out, b) {
			break
		}
	}
	return endText(out, b)
}

// runeOffset is the byte offset of character n, or the length where there are fewer.
func runeOffset(s []byte, n int64) int {
	at := 0
	for ; n > 0 && at < len(s); n-- {
		_, size := utf8.DecodeRune(s[at:])
		at += size
	}
	return at
}

// The functions below are the rows of the generic kernels in kernels_func.go.

func lowerText(dst, s []byte) ([]byte, bool) {
	start := len(dst)
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst, i = append(dst, c), i+1
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		dst, i = utf8.AppendRune(dst, unicode.ToLower(r)), i+size
	}
	return dst, len(dst)-start <= expr.MaxText
}

func upperText(dst, s []byte) ([]byte, bool) {
	start := len(dst)
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			dst, i = append(dst, c), i+1
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		dst, i = utf8.AppendRune(dst, unicode.ToUpper(r)), i+size
	}
	return dst, len(dst)-start <= expr.MaxText
}

func trimText(dst, s []byte) ([]byte, bool) { return append(dst, bytes.TrimSpace(s)...), true }

func copyText(dst, s []byte) ([]byte, bool) { return append(dst, s...), true }

func lengthOfText(s []byte) (int64, bool) { return int64(utf8.RuneCount(s)), true }

func intOfText(s []byte) (int64, bool) {
	v, err := strconv.ParseInt(string(bytes.TrimSpace(s)), 10, 64)
	return v, err == nil
}

// floatOfText refuses what strconv takes beyond decimal numbers: hexadecimal, underscores, inf and nan.
func floatOfText(s []byte) (float64, bool) {
	s = bytes.TrimSpace(s)
	for _, c := range s {
		if (c < '0' || c > '9') && c != '.' && c != '-' && c != '+' && c != 'e' && c != 'E' {
			return 0, false
		}
	}
	v, err := strconv.ParseFloat(string(s), 64)
	return v, err == nil
}

func boolOfText(s []byte) (value, ok bool) {
	s = bytes.TrimSpace(s)
	switch {
	case len(s) == 1 && s[0] == '1', bytes.EqualFold(s, []byte("true")):
		return true, true
	case len(s) == 1 && s[0] == '0', bytes.EqualFold(s, []byte("false")):
		return false, true
	}
	return false, false
}

func textOfBool(dst []byte, v bool) ([]byte, bool) { return strconv.AppendBool(dst, v), true }
func textOfInt(dst []byte, v int64) ([]byte, bool) { return strconv.AppendInt(dst, v, 10), true }

func textOfFloat(dst []byte, v float64) ([]byte, bool) { return column.AppendFloatText(dst, v), true }

func textOfTime(dst []byte, v int64) ([]byte, bool) { return column.AppendTimeText(dst, v), true }
