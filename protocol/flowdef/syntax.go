package flowdef

import (
	"bytes"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/excerpt"
)

// yamlError is what the YAML library has found: what is wrong, where, and, where it knows, the place at which that
// begins in which the error stands, such as a mapping or a text in quotes. A line of 0 is no place.
type yamlError struct {
	message     string
	at, context Pos
}

// yamlErrorOf finds the place of an error of the library, whose text is `yaml: line 3: …`: that has no column, and most
// often the line at which the collection begins. The library's reader knows the place, but keeps it to itself. Where it
// does not have what is looked for here, as another version may not, the line of the text is what there is.
func yamlErrorOf(d *yaml.Decoder, err error) yamlError {
	e := yamlError{message: strings.TrimPrefix(err.Error(), "yaml: "), at: Pos{1, 1}}
	if rest, ok := strings.CutPrefix(e.message, "line "); ok {
		if number, after, found := strings.Cut(rest, ": "); found {
			if line, err := strconv.Atoi(number); err == nil {
				e.at, e.message = Pos{line, 1}, after
			}
		}
	}
	reader := reflect.ValueOf(d).Elem().FieldByName("parser")
	if reader.Kind() != reflect.Pointer || reader.IsNil() {
		return e
	}
	scanner, event := fieldOf(reader.Elem(), "parser"), fieldOf(reader.Elem(), "event")
	problem := fieldOf(scanner, "problem")
	if problem.Kind() != reflect.String {
		return e
	}
	if problem.Len() == 0 { // the text can be read, and what it says is refused: an alias of nothing
		if pos := markOf(event, "start_mark"); pos.Line > 0 {
			e.at = pos
		}
		return e
	}
	if pos := markOf(scanner, "problem_mark"); pos != (Pos{1, 1}) || e.at.Line == 1 {
		e.at = pos
	}
	if context := fieldOf(scanner, "context"); context.Kind() == reflect.String && context.Len() > 0 {
		e.context = markOf(scanner, "context_mark")
	}
	return e
}

// fieldOf is a field of a struct, the zero Value where there is none.
func fieldOf(v reflect.Value, name string) reflect.Value {
	if v.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return v.FieldByName(name)
}

// markOf is a place as the library notes it, counted from 0.
func markOf(v reflect.Value, name string) Pos {
	mark := fieldOf(v, name)
	line, column := fieldOf(mark, "line"), fieldOf(mark, "column")
	if !line.IsValid() || !column.IsValid() || !line.CanInt() || !column.CanInt() {
		return Pos{}
	}
	return Pos{int(line.Int()) + 1, int(column.Int()) + 1}
}

// syntax reports an error of the YAML library.
func (p *parser) syntax(d *yaml.Decoder, err error) {
	e := yamlErrorOf(d, err)
	unseen := func(r rune) bool { return unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r' && r != '\u0085' }
	if strings.HasPrefix(e.message, "control characters") {
		if i := bytes.IndexFunc(p.text, unseen); i >= 0 {
			e.at = p.place(i)
		}
	}
	e.at.Line = min(max(e.at.Line, 1), len(p.lines))
	e.at.Column = max(e.at.Column, 1)
	if name := p.bareVariable(&e); name != "" {
		p.problem(e.at, "write %s in quotes: between { and } its own braces mean something else to YAML", strconv.Quote(name))
		return
	}
	hint := p.explain(&e)
	p.problem(e.at, "the text is neither YAML nor JSON: %s%s", excerpt.Of(e.message), hint)
}

// explain says more of an error, for people who do not know the library's words, and may find a better place for it.
func (p *parser) explain(e *yamlError) string {
	is := func(beginning string) bool { return strings.HasPrefix(e.message, beginning) }
	switch {
	case is("unknown anchor"), is("did not find expected alphabetic") && e.context.Line > 0:
		if e.context.Line > 0 {
			e.at = e.context
		}
		return "; * and & begin aliases and anchors in YAML: put a text that begins with one of them in quotes"
	case is("found unexpected end of stream") && e.context.Line > 0:
		e.at = e.context
		return "; the quote that opens here is never closed"
	case is("mapping values are not allowed"):
		return `; put a text that holds ": " in quotes, and look at the indentation of this line`
	case is("did not find expected ',' or"):
		return p.explainBraces(e)
	case is("did not find expected '-' indicator"):
		return p.explainBlock("list that begins", e)
	case is("did not find expected key"):
		return p.explainBlock("keys that begin", e)
	}
	return ""
}

// explainBraces explains what stands between brackets or braces and does not belong there.
func (p *parser) explainBraces(e *yamlError) string {
	rest, before := p.split(e.at)
	switch {
	case bytes.HasPrefix(rest, []byte("? ")):
		return "; put an expression that holds ? and : in quotes"
	case endsInQuote(before):
		return "; a text in quotes ends here, so put the whole value in quotes of the other kind"
	case e.context.Line > 0 && e.context.Line < e.at.Line:
		return fmt.Sprintf("; the %s in line %d, column %d is still open here", p.bracket(e.context), e.context.Line, e.context.Column)
	}
	return ""
}

// explainBlock explains a line that does not fit those before it, or a bracket too many.
func (p *parser) explainBlock(what string, e *yamlError) string {
	rest, before := p.split(e.at)
	switch {
	case len(bytes.TrimSpace(before)) == 0 && e.context.Line < e.at.Line:
		return fmt.Sprintf("; this line does not fit the %s in line %d: look at the indentation of the lines %d to %d", what, e.context.Line, e.context.Line, e.at.Line)
	case len(rest) > 0 && (rest[0] == '}' || rest[0] == ']'):
		return fmt.Sprintf("; this %c closes nothing", rest[0])
	}
	return ""
}

// bracket is the opening bracket or brace at a place.
func (p *parser) bracket(at Pos) string {
	if rest, _ := p.split(at); len(rest) > 0 && rest[0] == '[' {
		return "["
	}
	return "{"
}

// split is the text from a place on, and its line before that.
func (p *parser) split(at Pos) (rest, before []byte) {
	if at.Line < 1 || at.Line > len(p.lines) {
		return nil, nil
	}
	start := p.lines[at.Line-1]
	rest = p.text[start:]
	for range at.Column - 1 {
		_, size := utf8.DecodeRune(rest)
		rest = rest[size:]
	}
	return rest, p.text[start : len(p.text)-len(rest)]
}

// endsInQuote says whether the text ends with one in quotes. Where something follows that in a value, the value is most
// often an expression.
func endsInQuote(text []byte) bool {
	text = bytes.TrimRight(text, " \t")
	return bytes.HasSuffix(text, []byte{'"'}) || bytes.HasSuffix(text, []byte{'\''})
}

var bare = regexp.MustCompile(`[:,\[{]\s+(\$\{[A-Za-z_][A-Za-z0-9_]*\})`)

// bareVariable finds the ${NAME} without quotes that broke a {…}, in the line in which that begins or below, and moves the
// error there; "" when that was not it.
func (p *parser) bareVariable(e *yamlError) string {
	if !strings.HasPrefix(e.message, "did not find expected ',' or") {
		return ""
	}
	line := e.at.Line
	if e.context.Line > 0 {
		line = min(line, e.context.Line)
	}
	start := p.lines[line-1]
	m := bare.FindSubmatchIndex(p.text[start:])
	if m == nil {
		return ""
	}
	e.at = p.place(start + m[2])
	return string(p.text[start+m[2] : start+m[3]])
}

// place is the place of a byte of the text.
func (p *parser) place(offset int) Pos {
	line := bytes.Count(p.text[:offset], []byte("\n"))
	return Pos{line + 1, utf8.RuneCount(p.text[p.lines[line]:offset]) + 1}
}
