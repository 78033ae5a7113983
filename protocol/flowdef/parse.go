package flowdef

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

// The bounds of a definition's text.
const (
	// MaxBytes is the most bytes of its text.
	MaxBytes = 1 << 20
	// MaxSteps is the most steps of a flow.
	MaxSteps = 1000
	// maxColumns is the most columns of one step.
	maxColumns = 2000
	// maxName is the most bytes of a name.
	maxName = 200
	// maxNesting is how deep option and test values may be nested.
	maxNesting = 32
	// maxParts is the most operators, columns and constants of all expressions together.
	maxParts = 100_000
	// maxGivenRows is the most rows that all tests together give to the flow.
	maxGivenRows = 10_000
	// maxMarks is the most marks of its text that begin a key or a value. A value takes a hundred times the memory of its
	// text, so they are counted before any is read.
	maxMarks = 100_000
)

// Parse reads a definition in YAML or JSON. Its error is Problems: everything that is wrong with the form of the text
// and of its expressions. What needs the types of columns, or the names of connections, is up to Check.
func Parse(text []byte) (*Flow, error) {
	p := parser{text: bytes.TrimPrefix(text, []byte("\ufeff"))}
	root := p.document()
	if root == nil {
		return nil, p.err()
	}
	flow := p.flow(root)
	if err := p.err(); err != nil {
		return nil, err
	}
	return flow, nil
}

type parser struct {
	collector
	text  []byte
	lines []int
	// last is where scalar found the last one.
	last struct{ line, column, offset int }
	// step is the id of the step being read.
	step string
	// places is the Test.places of the test being read.
	places map[string]Pos
	// cutLine is the line of the last expression that a comma between { and } has cut short.
	cutLine int
	// parts adds up the sizes of the expressions.
	parts int
	// given counts the rows that the tests give.
	given int
}

func (p *parser) problem(pos Pos, format string, args ...any) { p.add(pos, p.step, format, args...) }

// document reads the text as JSON or else as YAML; nil when that failed.
func (p *parser) document() *yaml.Node {
	if len(p.text) > MaxBytes {
		p.problem(Pos{}, "the definition has %d bytes; the most is %d", len(p.text), MaxBytes)
		return nil
	}
	p.lines = lineStarts(p.text)
	if !utf8.Valid(p.text) {
		p.problem(p.place(validUTF8(p.text)), "the definition is not UTF-8 text; save it in that encoding")
		return nil
	}
	if offset := crowded(p.text); offset >= 0 {
		p.problem(p.place(offset), "the definition has more than about %d keys and values up to here; shorten its tests, or make several flows of it", maxMarks)
		return nil
	}
	if isJSON(p.text) {
		r := jsonReader{text: p.text, line: 1, column: 1}
		root := r.value()
		if p.refuseNUL(root); len(p.found) > 0 {
			return nil
		}
		return root
	}
	decoder := yaml.NewDecoder(bytes.NewReader(p.text))
	var doc, second yaml.Node
	if err := decoder.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			p.problem(Pos{1, 1}, "the definition is empty; begin with flow: and a name")
		} else {
			p.syntax(decoder, err)
		}
		return nil
	}
	if err := decoder.Decode(&second); err == nil {
		p.problem(at(&second), "the definition has a second document; write one flow per text")
		return nil
	} else if !errors.Is(err, io.EOF) {
		p.syntax(decoder, err)
		return nil
	}
	p.refuseAnchors(&doc)
	if p.refuseNUL(&doc); len(p.found) > 0 || len(doc.Content) != 1 {
		return nil
	}
	return doc.Content[0]
}

// validUTF8 is how many bytes of a text are UTF-8, up to the first that is not.
func validUTF8(text []byte) int {
	n := 0
	for n < len(text) {
		r, size := utf8.DecodeRune(text[n:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		n += size
	}
	return n
}

// crowded is where a text has more than maxMarks marks, -1 when it has not. It does not know texts in quotes, so their
// commas count too.
func crowded(text []byte) int {
	marks := 0
	for i, b := range text {
		switch b {
		case ',', '{', '[', '\n':
			marks++
		case ':':
			// Not those of a time such as 06:30:00.
			if i > 0 && text[i-1] == '"' || i+1 == len(text) || text[i+1] <= ' ' {
				marks++
			}
		case '-', '?':
			if i+1 == len(text) || text[i+1] <= ' ' {
				marks++
			}
		}
		if marks > maxMarks {
			return i
		}
	}
	return -1
}

func (p *parser) refuseAnchors(n *yaml.Node) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		p.problem(at(n), "anchors and aliases (& and *) are not allowed; write the value out, or quote it")
		return
	}
	for _, child := range n.Content {
		p.refuseAnchors(child)
	}
}

// refuseNUL refuses a value or a key that holds U+0000, as "\0" gives: PostgreSQL stores none in its texts.
func (p *parser) refuseNUL(n *yaml.Node) {
	if i := strings.IndexByte(n.Value, 0); i >= 0 {
		p.problem(p.within(n, i), "the text holds a NUL character, which nothing can store; remove it")
	}
	for _, child := range n.Content {
		p.refuseNUL(child)
	}
}

// within is the place of a byte of a scalar's value.
func (p *parser) within(n *yaml.Node, offset int) Pos {
	if s := p.scalar(n); s != nil {
		return s.locate(n.Value, offset)
	}
	return at(n)
}

func at(n *yaml.Node) Pos { return Pos{n.Line, n.Column} }

// entry is one member of a mapping.
type entry struct {
	key   string
	pos   Pos
	value *yaml.Node
}

// entries gives the members of a mapping in their order, without those whose key was there before.
func (p *parser) entries(n *yaml.Node, what, shape string) []entry {
	if n.Kind != yaml.MappingNode {
		p.problem(at(n), "%s must be written %s", what, shape)
		return nil
	}
	seen := make(map[string]Pos, len(n.Content)/2)
	list := make([]entry, 0, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" {
			p.problem(at(key), "a key of %s must be a name", what)
			continue
		}
		if first, twice := seen[key.Value]; twice {
			p.problem(at(key), "%q is there twice in %s; the first is in line %d", excerpt.Of(key.Value), what, first.Line)
			continue
		}
		seen[key.Value] = at(key)
		list = append(list, entry{key: key.Value, pos: at(key), value: n.Content[i+1]})
	}
	return list
}

// columnEntries is entries for a mapping by column, of which there may be maxColumns.
func (p *parser) columnEntries(n *yaml.Node, what, shape string) []entry {
	if p.tooWide(n, len(n.Content)/2, what) {
		return nil
	}
	return p.entries(n, what, shape)
}

func (p *parser) tooWide(n *yaml.Node, columns int, what string) bool {
	if columns > maxColumns {
		p.problem(at(n), "%s has %d columns; the most is %d", what, columns, maxColumns)
	}
	return columns > maxColumns
}

// known is entries without those whose key is not among the valid ones, which are problems, by key.
func (p *parser) known(n *yaml.Node, what, shape string, valid []string) map[string]entry {
	byKey := map[string]entry{}
	for _, e := range p.entries(n, what, shape) {
		if slices.Contains(valid, e.key) {
			byKey[e.key] = e
		} else if !p.full() {
			p.problem(e.pos, "%s", expr.Unknown("key", e.key, valid))
		}
	}
	return byKey
}

// items gives the elements of a sequence.
func (p *parser) items(n *yaml.Node, what, shape string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		p.problem(at(n), "%s must be a list, written %s", what, shape)
		return nil
	}
	return n.Content
}

// word reads a scalar as text; ok is false, and a problem reported, when it is none or is empty.
func (p *parser) word(n *yaml.Node, what string) (text string, ok bool) {
	if n.Kind != yaml.ScalarNode || n.Value == "" {
		p.problem(at(n), "%s is missing", what)
		return "", false
	}
	return n.Value, true
}

// prose reads a text for people, which may have several lines.
func (p *parser) prose(n *yaml.Node, what string) string {
	text, _ := p.word(n, what)
	unseen := func(r rune) bool { return unicode.IsControl(r) && r != '\t' && r != '\n' }
	if i := strings.IndexFunc(text, unseen); i >= 0 {
		p.problem(p.within(n, i), "%s has a control character; only tabs and line ends are allowed", what)
	}
	return text
}

// name reads a name that people and programs use: of a flow, a step, an insight.
func (p *parser) name(n *yaml.Node, what string) string {
	text, ok := p.word(n, what)
	if !ok {
		return ""
	}
	for i, r := range text {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_'
		if len(text) > maxName || !letter && (i == 0 || r != '-' && r != '.') {
			p.problem(at(n), "%s %q must be of the letters a to z, digits, _, - and ., begin with a letter, a digit or _, and have at most %d characters", what, excerpt.Of(text), maxName)
			return ""
		}
	}
	return text
}

// column checks a column's name.
func (p *parser) column(name string, pos Pos) {
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, unicode.IsControl) {
		p.problem(pos, "the column name %q is empty, longer than %d bytes or has control characters", excerpt.Of(name), maxName)
	}
}

func (p *parser) ref(n *yaml.Node, what string) Ref {
	text, _ := p.word(n, what)
	return Ref{Name: text, Pos: at(n)}
}

// refs reads a list of column names.
func (p *parser) refs(n *yaml.Node, key string) []Ref {
	var list []Ref
	if p.tooWide(n, len(n.Content), key) {
		return nil
	}
	for _, item := range p.items(n, key, "["+key+"_column, …]") {
		if r := p.ref(item, "a column name of "+key); r.Name != "" {
			if slices.ContainsFunc(list, func(o Ref) bool { return o.Name == r.Name }) {
				p.problem(r.Pos, "column %q is there twice in %s", excerpt.Of(r.Name), key)
			}
			list = append(list, r)
		}
	}
	return list
}

func (p *parser) expression(n *yaml.Node, what string) Expression {
	e := Expression{Pos: at(n)}
	if p.parts > maxParts {
		return e // reported
	}
	if n.Kind != yaml.ScalarNode {
		p.problem(at(n), "%s must be the text of an expression; put it in quotes when it holds , : # { } [ or ]", what)
		return e
	}
	if p.refuseTag(n) {
		return e
	}
	e.Text, e.source = n.Value, p.scalar(n)
	var err error
	if e.Node, err = expr.Parse(e.Text); err != nil {
		if e.Text == "" && n.Line == p.cutLine {
			return e // it is the rest of the expression before it, which YAML took for a key
		}
		hint := e.source.cutShort(n, err)
		if hint != "" {
			p.cutLine = n.Line
		}
		p.add(e.place(err), p.step, "%s%s", err, hint)
		return e
	}
	if p.parts += partsOf(e.Node); p.parts > maxParts {
		p.problem(at(n), "the expressions of the flow have more than %d operators, columns and constants up to here; make several flows of it", maxParts)
		e.Node = nil
	}
	return e
}

// refuseTag says what became of an expression that begins with !, which is a tag to YAML.
func (p *parser) refuseTag(n *yaml.Node) bool {
	if n.Style&yaml.TaggedStyle == 0 {
		return false
	}
	p.problem(at(n), "%s at the beginning is a tag to YAML and no part of the expression; write not k instead of !k, and put a text that begins with ! in quotes", excerpt.Of(n.Tag))
	return true
}

func partsOf(n *expr.Node) int {
	parts := 1
	for _, arg := range n.Args {
		parts += partsOf(arg)
	}
	return parts
}

// place is where an error of the expression stands in the definition.
func (e *Expression) place(err error) Pos {
	if at, ok := errors.AsType[*expr.Error](err); ok {
		return e.at(at.Pos)
	}
	return e.Pos
}

// value reads an option's or a test's value: string, int64, float64, bool, nil, []any or map[string]any.
func (p *parser) value(n *yaml.Node, depth int) any {
	if depth > maxNesting {
		p.problem(at(n), "the value is nested more than %d levels deep", maxNesting)
		return nil
	}
	switch n.Kind {
	case yaml.SequenceNode:
		list := make([]any, 0, len(n.Content))
		for _, item := range n.Content {
			list = append(list, p.value(item, depth+1))
		}
		return list
	case yaml.MappingNode:
		members := map[string]any{}
		for _, e := range p.entries(n, "the value", "{name: value}") {
			members[e.key] = p.value(e.value, depth+1)
		}
		return members
	case yaml.ScalarNode:
		return p.scalarValue(n)
	case yaml.DocumentNode, yaml.AliasNode:
	}
	p.problem(at(n), "the value cannot be read")
	return nil
}

func (p *parser) scalarValue(n *yaml.Node) any {
	var err error
	switch tag := n.ShortTag(); tag {
	case "!!str", "!!timestamp":
		return n.Value
	case "!!null":
		return nil
	case "!!bool":
		var b bool
		if err = n.Decode(&b); err == nil {
			return b
		}
	case "!!int":
		var i int64
		if err = n.Decode(&i); err == nil {
			return i
		}
	case "!!float":
		var f float64
		if err = n.Decode(&f); err == nil && f-f == 0 {
			return f
		}
	default:
		err = fmt.Errorf("the tag %s is not allowed", tag)
	}
	if err == nil {
		err = errors.New("it is not a finite number")
	}
	p.problem(at(n), "the value %q cannot be used: %s", excerpt.Of(n.Value), excerpt.Of(strings.TrimPrefix(err.Error(), "yaml: ")))
	return nil
}
