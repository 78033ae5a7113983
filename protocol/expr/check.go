package expr

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/outfeed/outfeed/internal/excerpt"
)

// Check gives a typed copy of a parsed tree, resolved against the columns of the rows it will see. Its error is an
// *Error.
//
// In the copy every node has its Type, both operands of an operator (but not of OpIn's constant list, which Check
// converts, and of OpCond's condition) have one type, and an int is widened to a float by OpCast or, for a constant, at
// once. Constant texts compared with a timestamp are timestamps. What is null whatever the rows is a literal null; only
// where it is the whole expression its Type is Null.
func Check(n *Node, columns Schema) (*Node, error) {
	return CheckWithin(n, columns, &Patterns{})
}

// CheckWithin is Check for one of several expressions, whose patterns are bounded together.
func CheckWithin(n *Node, columns Schema, patterns *Patterns) (*Node, error) {
	c := checker{columns: columns, patterns: patterns}
	return c.node(n)
}

type checker struct {
	columns  Schema
	patterns *Patterns
	// patternSize adds up the sizes of the patterns of matches, regex_extract and regex_replace.
	patternSize int
}

func (c *checker) node(n *Node) (*Node, error) {
	switch n.Op {
	case OpLiteral:
		return literal(n.Pos, n.Value), nil
	case OpColumn:
		return c.column(n)
	case OpCall:
		return c.call(n)
	case OpNot, OpNeg, OpAnd, OpOr, OpEq, OpNe, OpLt, OpLe, OpGt, OpGe, OpAdd, OpSub, OpMul, OpDiv, OpMod,
		OpCond, OpCoalesce, OpIn, OpMatches, OpCast:
	}
	args, err := c.all(n.Args)
	if err != nil {
		return nil, c.unquoted(n, err)
	}
	switch n.Op {
	case OpNot, OpAnd, OpOr:
		return logical(n, args)
	case OpNeg:
		return negation(n, args[0])
	case OpEq, OpNe, OpLt, OpLe, OpGt, OpGe:
		return comparison(n, args)
	case OpAdd, OpSub, OpMul, OpDiv, OpMod:
		return arithmetic(n, args)
	case OpCond, OpCoalesce:
		return choice(n, args)
	case OpIn:
		return membership(n, args)
	case OpMatches:
		return c.match(n, args)
	case OpCast:
		return args[0], nil
	case OpLiteral, OpColumn, OpCall:
	}
	return nil, errorAt(n.Pos, "unknown operation %d", n.Op)
}

func (c *checker) all(nodes []*Node) ([]*Node, error) {
	checked := make([]*Node, len(nodes))
	for i, n := range nodes {
		var err error
		if checked[i], err = c.node(n); err != nil {
			return nil, err
		}
	}
	return checked, nil
}

func (c *checker) column(n *Node) (*Node, error) {
	i := c.columns.Index(n.Name)
	if i < 0 {
		return nil, errorAt(n.Pos, "%s", Unknown("column", n.Name, c.columns.Names()))
	}
	return &Node{Op: OpColumn, Pos: n.Pos, Name: n.Name, Type: c.columns[i].Type, Column: i}, nil
}

// unquoted tells of quotes where a column of texts is compared with a name that is no column's and like none, as in
// state == RUN.
func (c *checker) unquoted(n *Node, err error) error {
	switch n.Op { //nolint:exhaustive // only these compare
	case OpEq, OpNe, OpLt, OpLe, OpGt, OpGe:
	default:
		return err
	}
	for i, a := range n.Args {
		other := c.columns.Index(n.Args[1-i].Name)
		if a.Op != OpColumn || n.Args[1-i].Op != OpColumn || other < 0 || c.columns[other].Type != String || c.columns.Index(a.Name) >= 0 {
			continue
		}
		return c.perhapsText(a, err)
	}
	return err
}

// unquotedArgument is unquoted for a call that may take a text where the name stands, as in starts_with(state, RUN), beside another
// argument that depends on the rows.
func (c *checker) unquotedArgument(f *Function, n *Node, err error) error {
	unknown := func(a *Node) bool { return a.Op == OpColumn && c.columns.Index(a.Name) < 0 }
	first := slices.IndexFunc(n.Args, unknown)
	if wrong, ok := errors.AsType[*Error](err); !ok || first < 0 || wrong.Pos != n.Args[first].Pos {
		return err // it is about what is within another argument
	}
	args, dependent := make([]*Node, len(n.Args)), false
	for i, a := range n.Args {
		if unknown(a) {
			args[i] = literal(a.Pos, Value{Type: String, Str: a.Name})
			continue
		}
		checked, wrong := c.node(a)
		if wrong != nil {
			return err
		}
		args[i], dependent = checked, dependent || checked.Op != OpLiteral
	}
	for i := range f.Signatures {
		if _, fits := f.Signatures[i].fit(args); fits && dependent {
			return c.perhapsText(n.Args[first], err)
		}
	}
	return err
}

// perhapsText tells of quotes for a name that is no column's and like none.
func (c *checker) perhapsText(n *Node, err error) error {
	if _, near := Nearest(n.Name, c.columns.Names()); near {
		return err
	}
	return errorAt(n.Pos, "unknown column %q; if it is a text, write it in quotes: %s", excerpt.Of(n.Name), quote(excerpt.Of(n.Name)))
}

func literal(pos int, v Value) *Node { return &Node{Op: OpLiteral, Pos: pos, Value: v, Type: v.Type} }

// null is a literal null of a type.
func null(pos int, t Type) *Node {
	return &Node{Op: OpLiteral, Pos: pos, Value: Value{Type: Null}, Type: t}
}

func isNull(n *Node) bool { return n.Op == OpLiteral && n.Value.Type == Null }

func typed(n *Node, t Type, args ...*Node) *Node {
	return &Node{Op: n.Op, Pos: n.Pos, Name: n.Name, Type: t, Args: args}
}

// fit gives n as a value of type t; ok is false when it is of another type. Ints fit floats, null fits everything.
func fit(n *Node, t Type) (fitted *Node, ok bool) {
	switch {
	case n.Type == t:
		return n, true
	case isNull(n):
		return null(n.Pos, t), true
	case n.Type == Int && t == Float && n.Op == OpLiteral:
		return literal(n.Pos, Value{Type: Float, Float: float64(n.Value.Int)}), true
	case n.Type == Int && t == Float:
		return &Node{Op: OpCast, Pos: n.Pos, Type: Float, Args: []*Node{n}}, true
	}
	return n, false
}

// unify gives the nodes one type; ok is false when they have none in common. The type is Null when all are null.
func unify(nodes ...*Node) (t Type, ok bool) {
	t = Null
	for _, n := range nodes {
		switch {
		case isNull(n) || n.Type == t:
		case t == Null, t == Int && n.Type == Float:
			t = n.Type
		case t == Float && n.Type == Int:
		default:
			return Invalid, false
		}
	}
	for i, n := range nodes {
		nodes[i], _ = fit(n, t)
	}
	return t, true
}

// describe is how messages call an operand: its type, and its text when that is short.
func describe(n *Node) string {
	name := n.Type.String()
	if n.Op == OpColumn {
		return fmt.Sprintf("column %s is %s", formatName(n.Name), article(name))
	}
	if text := Format(n); len(text) <= 40 {
		return fmt.Sprintf("%s is %s", text, article(name))
	}
	return "this is " + article(name)
}

func article(typeName string) string {
	switch typeName {
	case "int", "invalid":
		return "an " + typeName
	case "json", "null":
		return typeName
	}
	return "a " + typeName
}

func operatorName(op Op) string {
	switch op { //nolint:exhaustive // the others have a symbol
	case OpNot:
		return "not"
	case OpNeg:
		return "-"
	case OpCond:
		return "?:"
	}
	return symbolOf(op)
}

func logical(n *Node, args []*Node) (*Node, error) {
	for i, a := range args {
		fitted, ok := fit(a, Bool)
		if !ok {
			return nil, errorAt(a.Pos, "%s needs a bool; %s", operatorName(n.Op), describe(a))
		}
		args[i] = fitted
	}
	return typed(n, Bool, args...), nil
}

func negation(n, arg *Node) (*Node, error) {
	switch {
	case isNull(arg):
		return null(n.Pos, Null), nil
	case arg.Type == Int || arg.Type == Float:
		return typed(n, arg.Type, arg), nil
	}
	return nil, errorAt(arg.Pos, "- needs a number; %s", describe(arg))
}

// convertTimes turns the constant texts among the nodes into timestamps where another node is one.
func convertTimes(nodes []*Node) error {
	times := false
	for _, n := range nodes {
		times = times || n.Type == Timestamp && !isNull(n)
	}
	for i, n := range nodes {
		if !times || n.Op != OpLiteral || n.Value.Type != String {
			continue
		}
		converted, err := timestampLiteral(n, time.UTC)
		if err != nil {
			return err
		}
		nodes[i] = converted
	}
	return nil
}

func timestampLiteral(n *Node, loc *time.Location) (*Node, error) {
	micros, ok := ParseTimestamp(n.Value.Str, loc)
	if !ok {
		return nil, errorAt(n.Pos, "%s is not a timestamp; write it like \"2026-01-31T06:00:00Z\"", quote(excerpt.Of(n.Value.Str)))
	}
	return literal(n.Pos, Value{Type: Timestamp, Int: micros}), nil
}

func comparison(n *Node, args []*Node) (*Node, error) {
	name := operatorName(n.Op)
	if (n.Op == OpEq || n.Op == OpNe) && (isNull(args[0]) || isNull(args[1])) {
		return nil, errorAt(n.Pos, "%s null is never true or false; write is_null(x) or not is_null(x)", name)
	}
	if err := convertTimes(args); err != nil {
		return nil, err
	}
	left, right := args[0], args[1]
	t, ok := unify(args...)
	switch {
	case !ok:
		return nil, errorAt(n.Pos, "%s needs two values of one type; %s, %s", name, describe(left), describe(right))
	case t == Null:
		return null(n.Pos, Bool), nil
	case t == JSON:
		return nil, errorAt(n.Pos, "%s does not compare json; take a value out of it with json_string or json_number", name)
	case t == Bool && n.Op != OpEq && n.Op != OpNe:
		return nil, errorAt(n.Pos, "%s does not compare bools; use == or !=", name)
	}
	return typed(n, Bool, args...), nil
}

func arithmetic(n *Node, args []*Node) (*Node, error) {
	left, right := args[0], args[1]
	t, ok := unify(args...)
	switch {
	case !ok:
	case t == Null:
		return null(n.Pos, Null), nil
	case t == Float, t == String && n.Op == OpAdd, t == Int && n.Op != OpDiv:
		return typed(n, t, args...), nil
	case t == Int: // a quotient
		args[0], _ = fit(args[0], Float)
		args[1], _ = fit(args[1], Float)
		return typed(n, Float, args...), nil
	}
	return nil, arithmeticError(n, left, right)
}

func arithmeticError(n, left, right *Node) error {
	name := operatorName(n.Op)
	switch {
	case n.Op == OpAdd && (left.Type == String || right.Type == String):
		return errorAt(n.Pos, "+ joins two strings; %s, %s: make a text of the other with string(…)", describe(left), describe(right))
	case left.Type == Timestamp || right.Type == Timestamp:
		return errorAt(n.Pos, "%s does not take timestamps; write time_between(a, b, \"s\") for how long it is from a to b, and add_time(a, \"5m\") for a later time", name)
	}
	return errorAt(n.Pos, "%s needs two numbers; %s, %s", name, describe(left), describe(right))
}

// choice checks ?: and ??.
func choice(n *Node, args []*Node) (*Node, error) {
	options := args
	if n.Op == OpCond {
		condition, ok := fit(args[0], Bool)
		if !ok {
			return nil, errorAt(args[0].Pos, "the condition of ?: must be a bool; %s", describe(args[0]))
		}
		args[0], options = condition, args[1:]
	}
	left, right := options[0], options[1]
	t, ok := unify(options...)
	switch {
	case !ok:
		return nil, errorAt(n.Pos, "both results of %s must have one type; %s, %s", operatorName(n.Op), describe(left), describe(right))
	case t == Null:
		return null(n.Pos, Null), nil
	}
	return typed(n, t, args...), nil
}

func membership(n *Node, args []*Node) (*Node, error) {
	for _, item := range args[1:] {
		if isNull(item) {
			return nil, errorAt(item.Pos, "null is never found in a list; write is_null(x) or x in […]")
		}
	}
	if err := convertTimes(args); err != nil {
		return nil, err
	}
	subject := args[0]
	if subject.Type == JSON {
		return nil, errorAt(n.Pos, "in does not compare json; take a value out of it with json_string or json_number")
	}
	for _, item := range args[1:] {
		if _, ok := unify(subject, item); !ok {
			return nil, errorAt(item.Pos, "in needs values of one type; %s, %s", describe(subject), describe(item))
		}
	}
	if _, ok := unify(args...); !ok {
		return nil, errorAt(n.Pos, "the values of the list must have one type")
	}
	if isNull(subject) {
		return null(n.Pos, Bool), nil
	}
	return typed(n, Bool, args...), nil
}

func (c *checker) match(n *Node, args []*Node) (*Node, error) {
	text, ok := fit(args[0], String)
	if !ok {
		return nil, errorAt(args[0].Pos, "matches needs a string; %s", describe(args[0]))
	}
	pattern := args[1]
	if pattern.Op != OpLiteral || pattern.Value.Type != String {
		return nil, errorAt(pattern.Pos, "the pattern of matches must be a constant string")
	}
	if _, err := c.pattern(pattern.Value.Str); err != nil {
		return nil, errorAt(pattern.Pos, "the pattern of matches %s", err)
	}
	return typed(n, Bool, text, pattern), nil
}
