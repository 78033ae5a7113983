package flowdef

import (
	"bytes"
	"fmt"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// syntax reports an error of the YAML library, whose text is `yaml: line 3: …`. The library names no line when it means
// the first one, and counts from zero what its parser, unlike its scanner, found.
func (p *parser) syntax(err error) {
	const what = "the text is neither YAML nor JSON: %s"
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	pos := Pos{1, 1}
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		if number, after, found := strings.Cut(rest, ": "); found {
			if line, err := strconv.Atoi(number); err == nil {
				pos, message = Pos{line, 1}, after
				if fromParser(message) {
					pos.Line = min(line+1, len(p.lines))
				}
			}
		}
	}
	unseen := func(r rune) bool { return unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r' && r != '\u0085' }
	if strings.HasPrefix(message, "control characters") {
		if i := bytes.IndexFunc(p.text, unseen); i >= 0 {
			pos = p.place(i)
		}
	} else if name, at := p.bareVariable(message, pos.Line); name != "" {
		p.problem(at, "write %s in quotes: between { and } its own braces mean something else to YAML", strconv.Quote(name))
		return
	}
	if hint, at := p.indentation(message, pos.Line); hint != "" {
		p.problem(at, what, clip(message)+"; "+hint)
		return
	}
	if at := p.behindQuotes(message, pos.Line); at.Line > 0 {
		p.problem(at, what, clip(message)+"; a text in quotes ends here, so put the whole value in quotes of the other kind")
		return
	}
	p.problem(pos, what, clip(message))
}

var quoted = regexp.MustCompile(`[:,\[{][ \t]+("(?:[^"\\\n]|\\.)*"|'[^'\n]*')[ \t]*([^ \t\r\n,:}\]#'])`)

// behindQuotes finds what follows a text in quotes that is not the whole value, between braces in the given line; such a
// value is most often an expression.
func (p *parser) behindQuotes(message string, line int) Pos {
	if !strings.HasPrefix(message, "did not find expected ',' or") || line < 1 || line > len(p.lines) {
		return Pos{}
	}
	start := p.lines[line-1]
	text, _, _ := bytes.Cut(p.text[start:], []byte("\n"))
	if m := quoted.FindSubmatchIndex(text); m != nil {
		return p.place(start + m[4])
	}
	return Pos{}
}

// indentation explains an error of a list or mapping, for which the library names the line where it begins. The line
// that does not fit is the last of the shortest part of the text that has the same error.
func (p *parser) indentation(message string, begins int) (hint string, at Pos) {
	what := "keys"
	switch {
	case strings.HasPrefix(message, "did not find expected '-' indicator"):
		what = "list"
	case !strings.HasPrefix(message, "did not find expected key"):
		return "", Pos{}
	}
	// A longer part of the text has the error of a shorter one too.
	line := begins + sort.Search(len(p.lines)-begins, func(i int) bool {
		end := len(p.text)
		if next := begins + i; next < len(p.lines) {
			end = p.lines[next]
		}
		var part yaml.Node
		err := yaml.Unmarshal(p.text[:end], &part)
		return err != nil && strings.HasSuffix(err.Error(), message)
	})
	start := p.lines[line-1]
	first := bytes.IndexFunc(p.text[start:], func(r rune) bool { return r != ' ' })
	if line <= begins || first < 0 {
		return "", Pos{}
	}
	return fmt.Sprintf("this line does not fit the %s that begin%s in line %d: look at the indentation of the lines %d to %d",
		what, map[string]string{"list": "s"}[what], begins, begins, line), p.place(start + first)
}

// fromParser says whether the message is of the library's parser and not of its scanner.
func fromParser(message string) bool {
	for _, prefix := range [...]string{
		"did not find expected ',' or", "did not find expected key", "did not find expected '-' indicator", "did not find expected node content",
		"did not find expected <", "found undefined tag handle", "found duplicate %", "found incompatible YAML document",
	} {
		if strings.HasPrefix(message, prefix) {
			return true
		}
	}
	return false
}

var bare = regexp.MustCompile(`[:,\[{]\s+(\$\{[A-Za-z_][A-Za-z0-9_]*\})`)

// bareVariable finds the ${NAME} without quotes that broke a {…}, in the given line or below; "" when that was not it.
func (p *parser) bareVariable(message string, line int) (string, Pos) {
	if !strings.HasPrefix(message, "did not find expected ',' or") || line < 1 || line > len(p.lines) {
		return "", Pos{}
	}
	start := p.lines[line-1]
	m := bare.FindSubmatchIndex(p.text[start:])
	if m == nil {
		return "", Pos{}
	}
	return string(p.text[start+m[2] : start+m[3]]), p.place(start + m[2])
}

// place is the place of a byte of the text.
func (p *parser) place(offset int) Pos {
	line := bytes.Count(p.text[:offset], []byte("\n"))
	return Pos{line + 1, utf8.RuneCount(p.text[p.lines[line]:offset]) + 1}
}
