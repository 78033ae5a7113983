package flowdef

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/protocol/expr"
)

// scalar is where a text value stands in a definition, so that a place in the value can be found in the definition.
type scalar struct {
	text  []byte
	start int
	pos   Pos
	style yaml.Style
}

func (p *parser) scalar(n *yaml.Node) *scalar {
	s := &scalar{text: p.text, pos: at(n), style: n.Style}
	if n.Line < 1 || n.Line > len(p.lines) {
		return nil
	}
	s.start = p.offset(n.Line, n.Column)
	return s
}

// cutShort explains an expression that ends too early because it stands between { and } without quotes, where YAML takes
// a comma for the end of the value.
func (s *scalar) cutShort(n *yaml.Node, err error) string {
	if s == nil || s.style != 0 || !strings.HasPrefix(err.Error(), expr.EndsTooEarly) {
		return ""
	}
	end := s.start + len(n.Value) // a plain value in one line is its text
	if end >= len(s.text) || string(s.text[s.start:end]) != n.Value || !bytes.HasPrefix(bytes.TrimLeft(s.text[end:], " "), []byte(",")) {
		return ""
	}
	return "; between { and } YAML takes the comma behind it for the end of the value, so write the expression in quotes"
}

// offset is where a column of a line begins. It goes on from where it was called for last, since a whole definition may
// stand in one line.
func (p *parser) offset(line, column int) int {
	if p.last.line != line || column <= p.last.column/2 {
		p.last.line, p.last.column, p.last.offset = line, 1, p.lines[line-1]
	}
	for p.last.column < column && p.last.offset < len(p.text) {
		_, size := utf8.DecodeRune(p.text[p.last.offset:])
		p.last.column, p.last.offset = p.last.column+1, p.last.offset+size
	}
	for p.last.column > column {
		_, size := utf8.DecodeLastRune(p.text[:p.last.offset])
		p.last.column, p.last.offset = p.last.column-1, p.last.offset-size
	}
	return p.last.offset
}

// lineStarts is the offset of every line.
func lineStarts(text []byte) []int {
	starts := []int{0}
	for i, c := range text {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// at is the place of the byte at the offset of the expression's text.
func (e *Expression) at(offset int) Pos {
	if e.source == nil {
		if strings.ContainsRune(e.Text, '\n') {
			return e.Pos
		}
		return Pos{e.Pos.Line, e.Pos.Column + utf8.RuneCountInString(e.Text[:min(offset, len(e.Text))])}
	}
	return e.source.locate(e.Text, offset)
}

// locate walks through the value and the text that it was read from side by side, up to the offset in the value. Where
// the two differ, the text has quotes, an escape, indentation or a folded line end.
func (s *scalar) locate(value string, offset int) Pos {
	j := s.skipOpening()
	for i := 0; i < min(offset, len(value)) && j < len(s.text); {
		vn, sn := s.step(value[i:], s.text[j:])
		if vn+sn == 0 {
			break
		}
		i, j = i+vn, j+sn
	}
	for j < len(s.text) && offset < len(value) && isSpace(s.text[j]) && !isSpace(value[offset]) {
		j++
	}
	pos := s.pos
	for k := s.start; k < min(j, len(s.text)); {
		r, size := utf8.DecodeRune(s.text[k:])
		k += size
		if pos.Column++; r == '\n' {
			pos = Pos{pos.Line + 1, 1}
		}
	}
	return pos
}

// skipOpening gives the offset of the first byte of the value: behind the quote, or below a block's header.
func (s *scalar) skipOpening() int {
	switch {
	case s.style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0:
		return s.start + 1
	case s.style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		if end := bytes.IndexByte(s.text[s.start:], '\n'); end >= 0 {
			return s.start + end + 1
		}
	}
	return s.start
}

// step is how many bytes to go on in the value and in the text.
func (s *scalar) step(value string, text []byte) (inValue, inText int) {
	switch {
	case s.style&yaml.DoubleQuotedStyle != 0 && text[0] == '\\':
		_, size := utf8.DecodeRuneInString(value)
		return escapeLength(text, size)
	case s.style&yaml.SingleQuotedStyle != 0 && text[0] == '\'':
		return 1, 2
	case value[0] == text[0]:
		return 1, 1
	case !isSpace(text[0]):
		return 0, 0
	case isSpace(value[0]): // a folded line end
		n := 0
		for n < len(text) && isSpace(text[n]) {
			n++
		}
		return 1, n
	}
	return 0, 1
}

func escapeLength(text []byte, runeSize int) (inValue, inText int) {
	if len(text) < 2 {
		return 0, 0
	}
	switch text[1] {
	case '\n', '\r':
		return 0, 2
	case 'x':
		return runeSize, 4
	case 'u':
		if runeSize == utf8.UTFMax { // JSON writes what is beyond 16 bits as two
			return runeSize, 12
		}
		return runeSize, 6
	case 'U':
		return runeSize, 10
	}
	return runeSize, 2
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
