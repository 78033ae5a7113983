package expr

import (
	"fmt"
	"strings"
)

// AggregateCall is a checked call of an aggregate.
type AggregateCall struct {
	// Func is the aggregate.
	Func *Function
	// Arg is its typed argument; nil for count().
	Arg *Node
	// Params are the constants behind the argument.
	Params []Value
	// Result is the type of what it gives.
	Result Type
}

// CheckAggregate checks the tree of an aggregate step's result: one call of an aggregate, whose argument may be any
// expression over the columns of the input, whose patterns count with others. Its error is an *Error.
func CheckAggregate(n *Node, columns Schema, patterns *Patterns) (AggregateCall, error) {
	if n.Op != OpCall {
		return AggregateCall{}, errorAt(n.Pos, "a result of an aggregate step is one call such as avg(x); compute with it in a map step after this one")
	}
	f, ok := FindAggregate(n.Name)
	if !ok {
		return AggregateCall{}, errorAt(n.Pos, "%s", unknownAggregate(n.Name))
	}
	c := checker{columns: columns, patterns: patterns}
	args, err := c.all(n.Args)
	if err != nil {
		return AggregateCall{}, err
	}
	if len(args) > 1 && (n.Name == "min" || n.Name == "max") {
		return AggregateCall{}, errorAt(n.Pos, "%s takes one value of every row; for several values of one row use least or greatest", n.Name)
	}
	s, args, err := resolve(f, n, args)
	if err != nil {
		return AggregateCall{}, err
	}
	call := AggregateCall{Func: f, Result: s.Result}
	if len(args) > 0 {
		call.Arg = args[0]
		for _, a := range args[1:] {
			call.Params = append(call.Params, a.Value)
		}
	}
	if f.Name == "quantile" {
		if p := call.Params[0].Float; !(p >= 0 && p <= 1) {
			return AggregateCall{}, errorAt(args[1].Pos, "the second argument of quantile is a fraction from 0 to 1, such as 0.95; %v is not", p)
		}
	}
	return call, nil
}

func unknownAggregate(name string) string {
	if _, ok := FindFunction(name); ok {
		return fmt.Sprintf("%s is not an aggregate; a result of an aggregate step is a call such as max(%s(x))", name, name)
	}
	return Unknown("aggregate", name, names(Aggregates()))
}

func unknownFunction(name string) string {
	if _, ok := FindAggregate(name); !ok {
		if hint := otherLanguages(name); hint != "" {
			return fmt.Sprintf("unknown function %q; %s", name, hint)
		}
		return Unknown("function", name, names(Functions()))
	}
	message := name + " is an aggregate; use it as a result of an aggregate step"
	switch name {
	case "min":
		return message + ", or least for the smallest of several values"
	case "max":
		return message + ", or greatest for the greatest of several values"
	}
	return message
}

// otherLanguages is how this language says what a function does in others; "" where it is not known.
func otherLanguages(name string) string {
	switch strings.ToLower(name) {
	case "if", "iif", "iff", "ifelse", "case", "when", "switch", "cond", "decode":
		return conditionHint
	case "now", "today", "current_timestamp", "current_date", "current_time", "sysdate", "getdate", "utcnow", "localtime", "clock":
		return "the language has no clock, because a result must not depend on when it is computed; compare with a time column of the rows, such as the one that `time:` names"
	case "random", "rand", "uuid", "newid":
		return "the language has no chance, because the same records must give the same results"
	case "and", "or", "not":
		return strings.ToLower(name) + " is an operator: write it in lower case, as in not (a or b and c)"
	case "ifnull", "nvl", "isnull":
		return "write a ?? b for the first that is not null, or is_null(a)"
	case "len", "strlen", "char_length":
		return "write length(text)"
	case "datediff", "timestampdiff", "date_diff":
		return "write time_between(a, b, \"d\")"
	case "dateadd", "date_add":
		return "write add_time(a, 1, \"d\")"
	case "date_trunc", "time_bucket":
		return "write truncate(a, \"15m\")"
	case "to_char", "strftime", "date_format":
		return "write format_time(a, \"%Y-%m-%d\")"
	case "to_date", "strptime", "str_to_date":
		return "write parse_time(text, \"%d.%m.%Y\")"
	}
	return ""
}

func names(list []Function) []string {
	all := make([]string, len(list))
	for i := range list {
		all[i] = list[i].Name
	}
	return all
}

func (c *checker) call(n *Node) (*Node, error) {
	f, ok := FindFunction(n.Name)
	if !ok {
		return nil, errorAt(n.Pos, "%s", unknownFunction(n.Name))
	}
	args, err := c.all(n.Args)
	if err != nil {
		return nil, c.unquotedArgument(f, n, err)
	}
	s, args, err := resolve(f, n, args)
	if err != nil {
		return nil, err
	}
	if f.check != nil {
		if err := f.check(c, args); err != nil {
			return nil, err
		}
	}
	if f.Name == "timestamp" && args[0].Op == OpLiteral && args[0].Value.Type == String {
		return timestampLiteral(args[0], zoneOf(args[1:]))
	}
	call := typed(n, s.Result, args...)
	call.Func = f
	return call, nil
}

// resolve picks the first signature that the arguments fit, and gives the arguments fitted to it.
func resolve(f *Function, n *Node, args []*Node) (*Signature, []*Node, error) {
	for i := range f.Signatures {
		s := &f.Signatures[i]
		if fitted, ok := s.fit(args); ok {
			return s, fitted, nil
		}
	}
	for i := range f.Signatures {
		for j, must := range f.Signatures[i].Literal {
			if must && j < len(args) && (args[j].Op != OpLiteral || isNull(args[j])) {
				return nil, nil, errorAt(args[j].Pos, "argument %d of %s must be a constant", j+1, f.Name)
			}
		}
	}
	given := make([]string, len(args))
	for i, a := range args {
		given[i] = a.Type.String()
	}
	return nil, nil, errorAt(n.Pos, "%s takes %s, not (%s)", f.Name, signatures(f), strings.Join(given, ", "))
}

func (s *Signature) fit(args []*Node) (fitted []*Node, ok bool) {
	if len(args) != len(s.Args) && (!s.Variadic || len(args) < len(s.Args)) {
		return nil, false
	}
	fitted = make([]*Node, len(args))
	for i, a := range args {
		if i < len(s.Literal) && s.Literal[i] && (a.Op != OpLiteral || isNull(a)) {
			return nil, false
		}
		if fitted[i], ok = fit(a, s.Args[min(i, len(s.Args)-1)]); !ok {
			return nil, false
		}
	}
	return fitted, true
}

// signatures lists what the function takes: "(int) or (float, constant int)".
func signatures(f *Function) string {
	list := make([]string, len(f.Signatures))
	for i := range f.Signatures {
		list[i] = f.Signatures[i].String()
	}
	return strings.Join(list, " or ")
}

// String writes the arguments' types: "(float, constant int)", "(string, …)".
func (s *Signature) String() string {
	args := make([]string, 0, len(s.Args)+1)
	for i, t := range s.Args {
		if i < len(s.Literal) && s.Literal[i] {
			args = append(args, "constant "+t.String())
			continue
		}
		args = append(args, t.String())
	}
	if s.Variadic {
		args = append(args, "…")
	}
	return "(" + strings.Join(args, ", ") + ")"
}
