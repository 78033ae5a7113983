package engine

import (
	"bytes"

	"github.com/outfeed/outfeed/agent/internal/decode"
	"github.com/outfeed/outfeed/protocol/expr"
)

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

// findJSON gives the value at the path, which may be null; of members with the same name the last one counts, as in PostgreSQL's jsonb.
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
	return s, len(s) > 0
}

func sameName(raw []byte, name string) bool {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw) == name
	}
	text, ok := decode.AppendText(nil, raw)
	return ok && string(text) == name
}
