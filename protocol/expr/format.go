package expr

import (
	"strconv"
	"strings"
)

// Format writes the tree as canonical text, with the fewest parentheses. Parsing it gives the same tree, positions
// aside; the casts that Check has inserted are left out.
func Format(n *Node) string {
	var b strings.Builder
	format(&b, n, bindNothing)
	return b.String()
}

// powerOf is how tightly the node's own operator binds; what needs no parentheses anywhere binds tightest.
func powerOf(n *Node) int {
	switch n.Op {
	case OpCond:
		return bindCond
	case OpOr:
		return bindOr
	case OpAnd:
		return bindAnd
	case OpNot:
		return bindNot
	case OpEq, OpNe, OpLt, OpLe, OpGt, OpGe, OpIn, OpMatches:
		return bindCompare
	case OpCoalesce:
		return bindCoalesce
	case OpAdd, OpSub:
		return bindAdd
	case OpMul, OpDiv, OpMod:
		return bindMul
	case OpNeg:
		return bindNeg
	case OpLiteral, OpColumn, OpCall, OpCast:
		return bindNeg + 1
	}
	return bindNothing
}

func symbolOf(op Op) string {
	for _, s := range [...]string{"or", "and", "==", "!=", "<", "<=", ">", ">=", "in", "matches", "??", "+", "-", "*", "/", "%"} {
		if infix(s).op == op {
			return s
		}
	}
	return ""
}

// format writes n where an operator of the given power surrounds it.
func format(b *strings.Builder, n *Node, power int) {
	if n.Op == OpCast {
		format(b, n.Args[0], power)
		return
	}
	own := powerOf(n)
	if own < power {
		b.WriteByte('(')
		defer b.WriteByte(')')
	}
	switch n.Op {
	case OpLiteral:
		b.WriteString(formatValue(n.Value))
	case OpColumn:
		b.WriteString(formatName(n.Name))
	case OpCall:
		b.WriteString(n.Name)
		formatList(b, "(", n.Args, ")")
	case OpNot:
		b.WriteString("not ")
		format(b, n.Args[0], bindNot)
	case OpNeg:
		formatNegative(b, n.Args[0])
	case OpCond:
		format(b, n.Args[0], bindOr)
		b.WriteString(" ? ")
		format(b, n.Args[1], bindNothing)
		b.WriteString(" : ")
		format(b, n.Args[2], bindNothing)
	case OpIn:
		format(b, n.Args[0], bindCompare+1)
		b.WriteString(" in ")
		formatList(b, "[", n.Args[1:], "]")
	case OpAnd, OpOr, OpEq, OpNe, OpLt, OpLe, OpGt, OpGe, OpAdd, OpSub, OpMul, OpDiv, OpMod, OpCoalesce, OpMatches:
		left, right := own, own+1
		if n.Op == OpCoalesce {
			left, right = right, left
		} else if own == bindCompare {
			left = right
		}
		format(b, n.Args[0], left)
		b.WriteString(" " + symbolOf(n.Op) + " ")
		format(b, n.Args[1], right)
	case OpCast: // written above
	}
}

func formatList(b *strings.Builder, open string, list []*Node, shut string) {
	b.WriteString(open)
	for i, n := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		format(b, n, bindNothing)
	}
	b.WriteString(shut)
}

// formatNegative keeps the operand apart from the minus where the two would read as one negative number.
func formatNegative(b *strings.Builder, operand *Node) {
	text := Format(operand)
	b.WriteByte('-')
	if powerOf(operand) < bindNeg || text[0] >= '0' && text[0] <= '9' {
		text = "(" + text + ")"
	}
	b.WriteString(text)
}

func formatName(name string) string {
	if isName(name) {
		return name
	}
	return "`" + strings.ReplaceAll(name, "`", "``") + "`"
}

func formatValue(v Value) string {
	switch v.Type {
	case Bool:
		return strconv.FormatBool(v.Bool)
	case Int:
		return strconv.FormatInt(v.Int, 10)
	case Float:
		text := strconv.FormatFloat(v.Float, 'g', -1, 64)
		if !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		return text
	case String, JSON:
		return quote(v.Str)
	case Timestamp:
		return `timestamp(` + quote(FormatTimestamp(v.Int)) + `)`
	case Null, Invalid:
	}
	return "null"
}
