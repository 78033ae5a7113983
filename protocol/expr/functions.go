package expr

import "sync"

// MaxText is the most bytes that a string made by an expression can have: a longer one that +, concat, replace or
// another function would make is null. It keeps the memory of a row bounded, since a map could double a text with every line.
const MaxText = 1 << 20

// Functions lists the scalar functions in the order of the documentation. The slice is the caller's.
//
// Unless its help says otherwise, a function gives null when one of its arguments is null, and a float result that is
// not a finite number is null. Characters are Unicode code points. Times are taken in UTC where no zone is given.
func Functions() []Function {
	var all []Function
	for _, list := range [][]Function{
		textFunctions(), partFunctions(), patternFunctions(), numberFunctions(), mathsFunctions(), angleFunctions(), bitFunctions(), unitFunctions(),
		choiceFunctions(), castFunctions(), timePartFunctions(), timeFunctions(), jsonFunctions(),
	} {
		all = append(all, list...)
	}
	return all
}

// FindFunction gives the scalar function of that name; ok is false when there is none. What it points to must not be
// changed.
func FindFunction(name string) (f *Function, ok bool) {
	f, ok = functionIndex()[name]
	return f, ok
}

var functionIndex = sync.OnceValue(func() map[string]*Function { return indexByName(Functions()) })

func indexByName(list []Function) map[string]*Function {
	index := make(map[string]*Function, len(list))
	for i := range list {
		index[list[i].Name] = &list[i]
	}
	return index
}

func sig(result Type, args ...Type) Signature { return Signature{Args: args, Result: result} }

// sameType makes one variadic signature for each type, whose result is that type.
func sameType(types ...Type) []Signature {
	list := make([]Signature, len(types))
	for i, t := range types {
		list[i] = Signature{Args: []Type{t}, Result: t, Variadic: true}
	}
	return list
}

// fromEach makes a signature of one argument for each type.
func fromEach(result Type, types ...Type) []Signature {
	list := make([]Signature, len(types))
	for i, t := range types {
		list[i] = sig(result, t)
	}
	return list
}

func choiceFunctions() []Function {
	return []Function{
		{
			Name: "least", Signatures: sameType(Int, Float, String, Timestamp),
			Help:    "The smallest of its arguments.",
			Example: `least(3, 1, 2)`, Result: `1`,
		},
		{
			Name: "greatest", Signatures: sameType(Int, Float, String, Timestamp),
			Help:    "The greatest of its arguments.",
			Example: `greatest(3, 1, 2)`, Result: `3`,
		},
		{
			Name: "coalesce", Signatures: sameType(Bool, Int, Float, String, Timestamp, JSON),
			Help:    "The first of its arguments that is not null; null when all are.",
			Example: `coalesce(null, 7, 8)`, Result: `7`,
		},
		{
			Name: "is_null", Signatures: fromEach(Bool, Bool, Int, Float, String, Timestamp, JSON),
			Help:    "Whether the value is null; never null itself.",
			Example: `is_null(1 / 0)`, Result: `true`,
		},
	}
}

func castFunctions() []Function {
	return []Function{
		{
			Name: "int", Signatures: fromEach(Int, Int, Float, Bool, String),
			Help:    "A float without its decimals, a bool as 1 or 0, a text read as a decimal whole number (white space around it ignored). What does not fit in 64 bits or is no such text is null.",
			Example: `int("42")`, Result: `42`,
		},
		{
			Name: "float", Signatures: fromEach(Float, Int, Float, Bool, String),
			Help:    "An int as a float, a bool as 1 or 0, a text read as a decimal number with an optional exponent (white space around it ignored). What is no such text is null.",
			Example: `float(" 1.5e3 ")`, Result: `1500.0`,
		},
		{
			Name: "string", Signatures: fromEach(String, String, Int, Float, Bool, Timestamp, JSON),
			Help:    "The value as text: a float in the shortest form that reads back as itself, written as in JSON; a timestamp in RFC 3339 in UTC with as many decimals as it needs; json as it stands.",
			Example: `string(0.5)`, Result: `"0.5"`,
		},
		{
			Name: "bool", Signatures: fromEach(Bool, Bool, Int, Float, String),
			Help:    "False for 0 and true for any other number; true for the texts true and 1, false for false and 0, in any case and with white space around ignored. Any other text is null.",
			Example: `bool("TRUE")`, Result: `true`,
		},
		{
			Name:       "timestamp",
			Signatures: append(fromEach(Timestamp, Timestamp, String, Int), withConstants(1, Timestamp, String, String)),
			Help:       "A text in RFC 3339 (the T and the Z may be small letters), or YYYY-MM-DD hh:mm:ss[.ffffff] or YYYY-MM-DD in UTC or in the zone; an int as milliseconds since 1970. Another text, a leap second such as 23:59:60, or a year outside 1 to 9999, is null.",
			Example:    `timestamp("2026-07-01 06:00:00", "Europe/Berlin")`, Result: `timestamp("2026-07-01T04:00:00Z")`,
			check: zoneAt(1),
		},
		{
			Name: "json", Signatures: fromEach(JSON, JSON, String),
			Help:    "A text that holds one JSON value, as it stands; any other text is null.",
			Example: `string(json("[1, 2]"))`, Result: `"[1, 2]"`,
		},
	}
}

// withConstants makes a signature whose arguments from the position first on must be constants.
func withConstants(first int, result Type, args ...Type) Signature {
	s := Signature{Args: args, Result: result, Literal: make([]bool, len(args))}
	for i := first; i < len(args); i++ {
		s.Literal[i] = true
	}
	return s
}
