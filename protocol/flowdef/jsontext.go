package flowdef

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// isJSON says whether the text is a JSON object or array. YAML would read most of them, but not every escape nor every
// tab of JSON.
func isJSON(text []byte) bool {
	start := bytes.TrimLeft(text, " \t\r\n")
	return len(start) > 0 && (start[0] == '{' || start[0] == '[') && json.Valid(text)
}

// jsonReader makes of a valid JSON text the tree that YAML would give, with the places of the text.
type jsonReader struct {
	text         []byte
	at           int
	line, column int
}

func (r *jsonReader) advance(n int) {
	for _, c := range r.text[r.at : r.at+n] {
		switch {
		case c == '\n':
			r.line, r.column = r.line+1, 1
		case utf8.RuneStart(c):
			r.column++
		}
	}
	r.at += n
}

// next passes white space, commas and colons, and gives the byte behind them; 0 at the end.
func (r *jsonReader) next() byte {
	for r.at < len(r.text) && bytes.IndexByte([]byte(" \t\r\n,:"), r.text[r.at]) >= 0 {
		r.advance(1)
	}
	if r.at == len(r.text) {
		return 0
	}
	return r.text[r.at]
}

// value reads a value. The text's nesting is bounded by json.Valid.
func (r *jsonReader) value() *yaml.Node {
	c := r.next()
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line, Column: r.column}
	switch c {
	case '{', '[':
		n.Kind, n.Tag, n.Style = yaml.MappingNode, "!!map", yaml.FlowStyle
		if c == '[' {
			n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		}
		r.advance(1)
		// The closing bracket is the opening one's second neighbour in ASCII.
		for end := r.next(); end != c+2 && end != 0; end = r.next() {
			n.Content = append(n.Content, r.value())
		}
		r.advance(min(1, len(r.text)-r.at))
	case '"':
		n.Tag, n.Style = "!!str", yaml.DoubleQuotedStyle
		size := stringLength(r.text[r.at:])
		n.Value = unquoteJSON(r.text[r.at : r.at+size])
		r.advance(size)
	default:
		size := bytes.IndexAny(r.text[r.at:], " \t\r\n,:]}")
		if size < 0 {
			size = len(r.text) - r.at
		}
		n.Value = string(r.text[r.at : r.at+size])
		r.advance(size)
	}
	return n
}

// stringLength is how many bytes the string at the beginning of a valid text has, its quotes included.
func stringLength(text []byte) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

func unquoteJSON(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 && len(quoted) >= 2 {
		return string(quoted[1 : len(quoted)-1])
	}
	var text string
	if err := json.Unmarshal(quoted, &text); err != nil {
		return string(quoted)
	}
	return text
}
