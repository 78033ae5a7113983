package expr

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/outfeed/outfeed/internal/excerpt"
)

const (
	// MaxLength is the most bytes of an expression's text.
	MaxLength = 64 << 10
	// MaxDepth is the most levels that an expression is nested, parentheses included. A chain of operators that bind
	// alike and group to the left, such as a and b and c, is one level.
	MaxDepth = 200
	// MaxOperators is the most levels of the tree, to which each operator of a chain adds one: what walks a tree calls
	// itself that often.
	MaxOperators = 2000
)

// EndsTooEarly is how the error of an expression begins that something is missing behind.
const EndsTooEarly = "the expression ends too early"

// Binding powers, from the loosest operator to the tightest.
const (
	bindNothing = iota
	bindCond
	bindOr
	bindAnd
	bindNot
	bindCompare
	bindCoalesce
	bindAdd
	bindMul
	bindNeg
)

// operator is how an operator between two operands binds.
type operator struct {
	op    Op
	power int
}

// infix gives the operator of a symbol that stands between two operands; its power is 0 for any other symbol.
func infix(symbol string) operator {
	switch symbol {
	case "?":
		return operator{OpCond, bindCond}
	case "or":
		return operator{OpOr, bindOr}
	case "and":
		return operator{OpAnd, bindAnd}
	case "==":
		return operator{OpEq, bindCompare}
	case "!=":
		return operator{OpNe, bindCompare}
	case "<":
		return operator{OpLt, bindCompare}
	case "<=":
		return operator{OpLe, bindCompare}
	case ">":
		return operator{OpGt, bindCompare}
	case ">=":
		return operator{OpGe, bindCompare}
	}
	return tightInfix(symbol)
}

func tightInfix(symbol string) operator {
	switch symbol {
	case "in":
		return operator{OpIn, bindCompare}
	case "matches":
		return operator{OpMatches, bindCompare}
	case "not": // of `not in` and `not matches`
		return operator{OpNot, bindCompare}
	case "??":
		return operator{OpCoalesce, bindCoalesce}
	case "+":
		return operator{OpAdd, bindAdd}
	case "-":
		return operator{OpSub, bindAdd}
	case "*":
		return operator{OpMul, bindMul}
	case "/":
		return operator{OpDiv, bindMul}
	case "%":
		return operator{OpMod, bindMul}
	}
	return operator{}
}

// Parse reads an expression. Its error is an *Error.
func Parse(text string) (*Node, error) {
	if len(text) > MaxLength {
		return nil, errorAt(0, "the expression has %d bytes; the most is %d", len(text), MaxLength)
	}
	if !utf8.ValidString(text) {
		return nil, errorAt(0, "the expression is not UTF-8 text")
	}
	p := parser{lexer: lexer{text: text}, heights: map[*Node]height{}}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.tok.kind == tokenEnd {
		return nil, errorAt(0, "the expression is empty")
	}
	node, err := p.expression(bindNothing)
	if err != nil {
		return nil, err
	}
	if p.tok.kind != tokenEnd {
		wanted := "an operator or the end"
		if hint := hintAt(token{kind: tokenName, text: node.Name}); hint != "" && node.Op == OpColumn && hintAt(p.tok) == "" {
			wanted += " after " + node.Name + "; " + hint
		}
		return nil, p.unexpected(wanted)
	}
	return node, nil
}

// parser is a Pratt parser: expression(power) reads everything that binds tighter than power.
type parser struct {
	lexer lexer
	tok   token
	depth int
	// heights holds the height of each inner node's tree; a node that is not in it is a leaf.
	heights map[*Node]height
}

// height is how far a node is above its leaves: nested counts a chain as one level, levels every operator of it.
type height struct{ nested, levels int }

func (p *parser) advance() (err error) {
	p.tok, err = p.lexer.next()
	return err
}

func (p *parser) unexpected(wanted string) *Error {
	if p.tok.kind == tokenEnd {
		return errorAt(p.tok.pos, EndsTooEarly+"; expected %s", wanted)
	}
	hint := hintAt(p.tok)
	if p.tok.is("*") && strings.HasSuffix(strings.TrimRight(p.lexer.text[:p.tok.pos], " "), "(") {
		hint = "count() counts all rows"
	}
	if hint != "" {
		wanted = wanted + "; " + hint
	}
	return errorAt(p.tok.pos, "unexpected %s; expected %s", p.tok, wanted)
}

func (p *parser) expect(symbol string) error {
	if !p.tok.is(symbol) {
		return p.unexpected(symbol)
	}
	return p.advance()
}

// make builds an inner node and refuses trees that are too deep for what walks them later.
func (p *parser) make(op Op, pos int, args ...*Node) (*Node, error) {
	var h height
	n := &Node{Op: op, Pos: pos, Args: args}
	for i, a := range args {
		below := p.heights[a]
		h.levels = max(h.levels, below.levels+1)
		if i > 0 || !chains(n, a) {
			below.nested++
		}
		h.nested = max(h.nested, below.nested)
	}
	if h.nested > MaxDepth {
		return nil, errTooDeep(pos)
	}
	if h.levels > MaxOperators {
		return nil, errorAt(pos, "the expression has more than %d operators in a row; split it over several columns of a map", MaxOperators)
	}
	p.heights[n] = h
	return n, nil
}

// chains says whether n continues the chain of operators that its left operand is.
func chains(n, left *Node) bool {
	switch power := powerOf(n); power {
	case bindOr, bindAnd, bindAdd, bindMul:
		return powerOf(left) == power
	}
	return false
}

func errTooDeep(pos int) *Error {
	return errorAt(pos, "the expression is nested more than %d levels deep; split it over several columns of a map", MaxDepth)
}

func (p *parser) expression(power int) (*Node, error) {
	if p.depth++; p.depth > MaxDepth {
		return nil, errTooDeep(p.tok.pos)
	}
	defer func() { p.depth-- }()
	left, err := p.prefix(power)
	compared := false
	for err == nil && p.tok.kind == tokenSymbol {
		o := infix(p.tok.text)
		if o.power <= power {
			break
		}
		if compared && o.power == bindCompare {
			return nil, errorAt(p.tok.pos, "comparisons do not chain; write a < b and b < c")
		}
		compared = o.power == bindCompare
		left, err = p.infix(left, o)
	}
	return left, err
}

// infix reads what follows the left operand, from the operator at the current token on.
func (p *parser) infix(left *Node, o operator) (*Node, error) {
	pos := p.tok.pos
	if err := p.advance(); err != nil {
		return nil, err
	}
	switch o.op { //nolint:exhaustive // the operators that are not read alike
	case OpCond:
		return p.cond(left, pos)
	case OpNot:
		return p.negated(left, pos)
	case OpIn:
		return p.in(left, pos)
	case OpCoalesce: // groups to the right
		o.power--
	}
	right, err := p.expression(o.power)
	if err != nil {
		return nil, err
	}
	return p.make(o.op, pos, left, right)
}

func (p *parser) cond(condition *Node, pos int) (*Node, error) {
	yes, err := p.expression(bindNothing)
	if err != nil {
		return nil, err
	}
	if !p.tok.is(":") {
		return nil, p.unexpected("the : of condition ? a : b")
	}
	if err = p.advance(); err != nil {
		return nil, err
	}
	no, err := p.expression(bindNothing)
	if err != nil {
		return nil, err
	}
	return p.make(OpCond, pos, condition, yes, no)
}

// negated reads `not in` and `not matches` after their not.
func (p *parser) negated(left *Node, pos int) (*Node, error) {
	if !p.tok.is("in") && !p.tok.is("matches") {
		return nil, p.unexpected("in or matches after not")
	}
	node, err := p.infix(left, infix(p.tok.text))
	if err != nil {
		return nil, err
	}
	return p.make(OpNot, pos, node)
}

func (p *parser) in(left *Node, pos int) (*Node, error) {
	if err := p.expect("["); err != nil {
		return nil, err
	}
	args := []*Node{left}
	for {
		item, err := p.prefix(bindNeg)
		if err != nil {
			return nil, err
		}
		switch item.Op { //nolint:exhaustive // the others are no constants either
		case OpLiteral:
		case OpColumn:
			return nil, errorAt(item.Pos, "a list of in holds constants only; write %s for a text, or x == a or x == b to compare with columns", quote(excerpt.Of(item.Name)))
		default:
			return nil, errorAt(item.Pos, "a list of in holds constants only; write x == a or x == b")
		}
		args = append(args, item)
		if !p.tok.is(",") {
			break
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
	}
	if err := p.expect("]"); err != nil {
		return nil, err
	}
	return p.make(OpIn, pos, args...)
}

// prefix reads an operand with the operators before it.
func (p *parser) prefix(power int) (*Node, error) {
	tok := p.tok
	switch tok.kind {
	case tokenInt, tokenFloat:
		return p.number("", tok.pos)
	case tokenString:
		return p.literal(Value{Type: String, Str: tok.text})
	case tokenQuotedName:
		return &Node{Op: OpColumn, Pos: tok.pos, Name: tok.text}, p.advance()
	case tokenName:
		return p.name()
	case tokenSymbol:
		return p.symbol(power)
	case tokenEnd:
	}
	return nil, p.unexpected("a value")
}

func (p *parser) symbol(power int) (*Node, error) {
	pos := p.tok.pos
	switch p.tok.text {
	case "true", "false":
		return p.literal(Value{Type: Bool, Bool: p.tok.text == "true"})
	case "null":
		return p.literal(Value{Type: Null})
	case "(":
		if err := p.advance(); err != nil {
			return nil, err
		}
		node, err := p.expression(bindNothing)
		if err != nil {
			return nil, err
		}
		return node, p.expect(")")
	case "-":
		return p.negative()
	case "not":
		if power >= bindNot {
			return nil, errorAt(pos, "write not with its operand in parentheses here")
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		// One less than not itself, so that it can follow itself.
		operand, err := p.expression(bindNot - 1)
		if err != nil {
			return nil, err
		}
		return p.make(OpNot, pos, operand)
	}
	return nil, p.unexpected("a value")
}

// negative reads a minus and its operand; before a number it is the number's sign.
func (p *parser) negative() (*Node, error) {
	pos := p.tok.pos
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.tok.kind == tokenInt || p.tok.kind == tokenFloat {
		return p.number("-", pos)
	}
	operand, err := p.expression(bindNeg)
	if err != nil {
		return nil, err
	}
	return p.make(OpNeg, pos, operand)
}

func (p *parser) literal(v Value) (*Node, error) {
	n := &Node{Op: OpLiteral, Pos: p.tok.pos, Value: v}
	return n, p.advance()
}

func (p *parser) number(sign string, pos int) (*Node, error) {
	v, text := Value{Type: Int}, sign+p.tok.text
	var err error
	if p.tok.kind == tokenInt {
		v.Int, err = strconv.ParseInt(text, 10, 64)
	} else {
		v.Type = Float
		v.Float, err = strconv.ParseFloat(text, 64)
	}
	if errors.Is(err, strconv.ErrRange) {
		return nil, errorAt(pos, "the number %s does not fit in 64 bits", excerpt.Of(text))
	}
	if err != nil {
		return nil, errorAt(pos, "%s is not a number", excerpt.Of(text))
	}
	return &Node{Op: OpLiteral, Pos: pos, Value: v}, p.advance()
}

// name reads a column or a function call.
func (p *parser) name() (*Node, error) {
	pos, name := p.tok.pos, p.tok.text
	if err := p.advance(); err != nil {
		return nil, err
	}
	if !p.tok.is("(") {
		return &Node{Op: OpColumn, Pos: pos, Name: name}, nil
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	var args []*Node
	for !p.tok.is(")") {
		arg, err := p.expression(bindNothing)
		if err != nil {
			return nil, err
		}
		args = append(args, arg)
		if p.tok.is(")") {
			break
		}
		if !p.tok.is(",") {
			return nil, p.unexpected("a comma or the ) of " + name)
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		if p.tok.is(")") {
			return nil, p.unexpected("another argument of " + name)
		}
	}
	node, err := p.make(OpCall, pos, args...)
	if err != nil {
		return nil, err
	}
	node.Name = name
	return node, p.advance()
}

// IsName says whether a column of that name can be written in an expression without backquotes.
func IsName(name string) bool { return isName(name) }

// quote writes a string literal.
func quote(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f:
			b.WriteString(`\u00`)
			b.WriteByte("0123456789abcdef"[r>>4])
			b.WriteByte("0123456789abcdef"[r&15])
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
