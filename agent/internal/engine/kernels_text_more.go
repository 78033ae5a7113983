package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/outfeed/outfeed/agent/internal/column"
	"github.com/outfeed/outfeed/protocol/expr"
)

// textKernels are the functions that make, take apart or search texts.
func textKernels() map[string]builder {
	return map[string]builder{
		"lower": textToText(lowerText), "upper": textToText(upperText), "trim": textToText(trimText), "reverse": textToText(reverseText),
		"length":   fromText(expr.Int, ints, lengthOfText),
		"contains": textPair(bytes.Contains), "starts_with": textPair(bytes.HasPrefix), "ends_with": textPair(bytes.HasSuffix),
		"replace": buildReplace, "substring": buildSubstring, "concat": buildConcat,
		"left": textRows(leftText, expr.String, expr.Int), "right": textRows(rightText, expr.String, expr.Int),
		"pad_left":   textRows(padLeft, expr.String, expr.Int, expr.String),
		"pad_right":  textRows(padRight, expr.String, expr.Int, expr.String),
		"repeat":     textRows(repeatText, expr.String, expr.Int),
		"index_of":   rows(expr.Int, ints, indexOfText, expr.String, expr.String),
		"split_part": textRows(splitPart, expr.String, expr.String, expr.Int),
		"hex":        toText(ints, hexOfInt), "from_hex": fromText(expr.Int, ints, intOfHex), "sha256": textToText(sha256Text),
		"regex_extract": textRowsWith(prepareExtract, expr.String), "regex_replace": textRowsWith(prepareReplace, expr.String),
	}
}

func leftText(dst []byte, cols []*column.Column, i int) ([]byte, bool) {
	s, n := cols[0].Bytes(i), cols[1].Ints[i]
	return append(dst, s[:runeOffset(s, n)]...), n >= 0
}

func rightText(dst []byte, cols []*column.Column, i int) ([]byte, bool) {
	s, n := cols[0].Bytes(i), cols[1].Ints[i]
	at := len(s)
	for left := n; left > 0 && at > 0; left-- {
		_, size := utf8.DecodeLastRune(s[:at])
		at -= size
	}
	return append(dst, s[at:]...), n >= 0
}

func padLeft(dst []byte, cols []*column.Column, i int) ([]byte, bool) {
	dst, ok := appendPadding(dst, cols, i)
	return append(dst, cols[0].Bytes(i)...), ok
}

func padRight(dst []byte, cols []*column.Column, i int) ([]byte, bool) {
	return appendPadding(append(dst, cols[0].Bytes(i)...), cols, i)
}

// appendPadding appends what fills the text up; ok is false where the whole would be too long.
func appendPadding(dst []byte, cols []*column.Column, i int) ([]byte, bool) {
	s, n := cols[0].Bytes(i), cols[1].Ints[i]
	fill := []byte(" ")
	if len(cols) > 2 {
		fill = cols[2].Bytes(i)
	}
	if n < 0 || len(fill) == 0 {
		return dst, false
	}
	missing := n - int64(utf8.RuneCount(s))
	if missing <= 0 {
		return dst, true
	}
	if missing > expr.MaxText {
		return dst, false
	}
	count := int64(utf8.RuneCount(fill))
	whole, rest := int(missing/count), fill[:runeOffset(fill, missing%count)]
	if len(s)+len(rest)+whole*len(fill) > expr.MaxText {
		return dst, false
	}
	return append(appendRepeated(dst, fill, whole), rest...), true
}

// appendRepeated appends s so many times.
func appendRepeated(dst, s []byte, times int) []byte {
	start, size := len(dst), len(s)*times
	if size == 0 {
		return dst
	}
	dst = append(slices.Grow(dst, size), s...)
	for done := len(s); done < size; done = len(dst) - start {
		dst = append(dst, dst[start:start+min(done, size-done)]...)
	}
	return dst
}

func repeatText(dst []byte, cols []*column.Column, i int) ([]byte, bool) {
	s, n := cols[0].Bytes(i), cols[1].Ints[i]
	if n < 0 || (len(s) > 0 && n > int64(expr.MaxText/len(s))) {
		return dst, false
	}
	if len(s) == 0 {
		return dst, true
	}
	return appendRepeated(dst, s, int(n)), true
}

func reverseText(dst, s []byte) ([]byte, bool) {
	for len(s) > 0 {
		_, size := utf8.DecodeLastRune(s)
		dst, s = append(dst, s[len(s)-size:]...), s[:len(s)-size]
	}
	return dst, true
}

func indexOfText(cols []*column.Column, i int) (int64, bool) {
	s := cols[0].Bytes(i)
	at := bytes.Index(s, cols[1].Bytes(i))
	if at < 0 {
		return 0, false
	}
	return int64(utf8.RuneCount(s[:at])), true
}

func splitPart(dst []byte, cols []*column.Column, i int) ([]byte, bool) {
	s, separator, n := cols[0].Bytes(i), cols[1].Bytes(i), cols[2].Ints[i]
	if len(separator) == 0 {
		return dst, false
	}
	if n < 0 {
		if n += int64(bytes.Count(s, separator)) + 1; n < 0 {
			return dst, false
		}
	}
	for ; n > 0; n-- {
		at := bytes.Index(s, separator)
		if at < 0 {
			return dst, false
		}
		s = s[at+len(separator):]
	}
	if at := bytes.Index(s, separator); at >= 0 {
		s = s[:at]
	}
	return append(dst, s...), true
}

func hexOfInt(dst []byte, v int64) ([]byte, bool) {
	return strconv.AppendUint(dst, uint64(v), 16), true //nolint:gosec // the bits as they are
}

func intOfHex(s []byte) (int64, bool) {
	s = bytes.TrimSpace(s)
	if len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		s = s[2:]
	}
	if len(s) == 0 || len(s) > 16 {
		return 0, false
	}
	var v uint64
	for _, c := range s {
		digit := c - '0'
		if letter := c | 0x20; letter >= 'a' && letter <= 'f' {
			digit = letter - 'a' + 10
		} else if digit > 9 {
			return 0, false
		}
		v = v<<4 | uint64(digit)
	}
	return int64(v), true
}

func sha256Text(dst, s []byte) ([]byte, bool) {
	sum := sha256.Sum256(s)
	return hex.AppendEncode(dst, sum[:]), true
}

func constantPattern(n *expr.Node) (*regexp.Regexp, error) {
	pattern, err := regexp.Compile(n.Args[1].Value.Str)
	if err != nil {
		return nil, fmt.Errorf("the pattern at offset %d: %w", n.Args[1].Pos, err)
	}
	return pattern, nil
}

func prepareExtract(n *expr.Node) (textOf, error) {
	pattern, err := constantPattern(n)
	if err != nil {
		return nil, err
	}
	group := 0
	if len(n.Args) > 2 {
		if v := n.Args[2].Value.Int; v >= 0 && v <= int64(pattern.NumSubexp()) {
			group = int(v)
		}
	}
	if group == 0 {
		return func(dst []byte, cols []*column.Column, i int) ([]byte, bool) {
			found := pattern.Find(cols[0].Bytes(i))
			return append(dst, found...), found != nil
		}, nil
	}
	return func(dst []byte, cols []*column.Column, i int) ([]byte, bool) {
		s := cols[0].Bytes(i)
		if !pattern.Match(s) { // it allocates nothing
			return dst, false
		}
		at := pattern.FindSubmatchIndex(s)
		if at == nil || at[2*group] < 0 {
			return dst, false
		}
		return append(dst, s[at[2*group]:at[2*group+1]]...), true
	}, nil
}

// maxMatches is the most matches that regex_replace replaces in a text; it bounds what the search takes.
const maxMatches = 65_536

// replacement is a piece of what regex_replace puts in: a text, or a group where the text is empty.
type replacement struct {
	text  string
	group int
}

func prepareReplace(n *expr.Node) (textOf, error) {
	pattern, err := constantPattern(n)
	if err != nil {
		return nil, err
	}
	pieces := replacements(pattern, n.Args[2].Value.Str)
	return func(dst []byte, cols []*column.Column, i int) ([]byte, bool) {
		s, limit := cols[0].Bytes(i), len(dst)+expr.MaxText
		if !pattern.Match(s) {
			return append(dst, s...), true
		}
		matches := pattern.FindAllSubmatchIndex(s, maxMatches+1)
		if len(matches) > maxMatches {
			return dst, false
		}
		last := 0
		for _, m := range matches {
			dst = append(dst, s[last:m[0]]...)
			last = m[1]
			for _, p := range pieces {
				switch {
				case len(dst) > limit:
					return dst, false
				case p.text != "":
					dst = append(dst, p.text...)
				case m[2*p.group] >= 0:
					dst = append(dst, s[m[2*p.group]:m[2*p.group+1]]...)
				}
			}
		}
		dst = append(dst, s[last:]...)
		return dst, len(dst) <= limit
	}, nil
}

// replacements cuts a replacement, which the checker has accepted, into its pieces.
func replacements(pattern *regexp.Regexp, text string) []replacement {
	var pieces []replacement
	last := 0
	for _, m := range expr.GroupReferences(text) {
		if m.Start > last {
			pieces = append(pieces, replacement{text: text[last:m.Start]})
		}
		last = m.End
		if m.Name == "$" {
			pieces = append(pieces, replacement{text: "$"})
			continue
		}
		group, err := strconv.Atoi(m.Name)
		if err != nil {
			group = pattern.SubexpIndex(m.Name)
		}
		if group >= 0 && group <= pattern.NumSubexp() {
			pieces = append(pieces, replacement{group: group})
		}
	}
	if last < len(text) {
		pieces = append(pieces, replacement{text: text[last:]})
	}
	return pieces
}
