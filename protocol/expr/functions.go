package expr

import "sync"

// MaxText is the most bytes that a string made by an expression can have: a longer result of `+`, concat, replace,
// lower or upper is null. It keeps the memory of a row bounded, since a map could double a text with every line.
const MaxText = 1 << 20

// Functions lists the scalar functions in the order of the documentation. The slice is the caller's.
//
// Unless its help says otherwise, a function gives null when one of its arguments is null, and a float result that is
// not a finite number is null. Characters are Unicode code points. Times are taken in UTC.
func Functions() []Function {
	var all []Function
	all = append(all, textFunctions()...)
	all = append(all, numberFunctions()...)
	all = append(all, choiceFunctions()...)
	all = append(all, castFunctions()...)
	all = append(all, timeFunctions()...)
	return append(all, jsonFunctions()...)
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

func textFunctions() []Function {
	return []Function{
		{
			Name: "lower", Signatures: []Signature{sig(String, String)},
			Help:    "The text in lower case.",
			Example: `lower("RUN")`, Result: `"run"`,
		},
		{
			Name: "upper", Signatures: []Signature{sig(String, String)},
			Help:    "The text in upper case.",
			Example: `upper("run")`, Result: `"RUN"`,
		},
		{
			Name: "trim", Signatures: []Signature{sig(String, String)},
			Help:    "The text without white space at both ends.",
			Example: `trim("  M1 ")`, Result: `"M1"`,
		},
		{
			Name: "length", Signatures: []Signature{sig(Int, String)},
			Help:    "The number of characters.",
			Example: `length("Öl")`, Result: `2`,
		},
		{
			Name: "contains", Signatures: []Signature{sig(Bool, String, String)},
			Help:    "Whether the second text occurs in the first; the empty text occurs everywhere.",
			Example: `contains("press-07", "ss-0")`, Result: `true`,
		},
		{
			Name: "starts_with", Signatures: []Signature{sig(Bool, String, String)},
			Help:    "Whether the first text begins with the second.",
			Example: `starts_with("press-07", "press")`, Result: `true`,
		},
		{
			Name: "ends_with", Signatures: []Signature{sig(Bool, String, String)},
			Help:    "Whether the first text ends with the second.",
			Example: `ends_with("press-07", "-08")`, Result: `false`,
		},
		{
			Name: "replace", Signatures: []Signature{sig(String, String, String, String)},
			Help:    "The first text with every occurrence of the second replaced by the third; an empty second text replaces nothing. A result of more than 1 MiB is null.",
			Example: `replace("1,5", ",", ".")`, Result: `"1.5"`,
		},
		{
			Name: "substring", Signatures: []Signature{sig(String, String, Int), sig(String, String, Int, Int)},
			Help:    "The text from a position on, counted in characters from 0, as far as it goes or for the given number of characters. Past the end it is empty; a negative position or number gives null.",
			Example: `substring("OP20-M1", 0, 4)`, Result: `"OP20"`,
		},
		{
			Name: "concat", Signatures: []Signature{{Args: []Type{String}, Result: String, Variadic: true}},
			Help:    "The texts joined. A result of more than 1 MiB is null.",
			Example: `concat("M", "1", "-", "OP20")`, Result: `"M1-OP20"`,
		},
	}
}

func numberFunctions() []Function {
	return []Function{
		{
			Name: "abs", Signatures: []Signature{sig(Int, Int), sig(Float, Float)},
			Help:    "The value without its sign; null for the smallest int, which has no counterpart.",
			Example: `abs(-3)`, Result: `3`,
		},
		{
			Name: "round",
			Signatures: []Signature{
				sig(Int, Int), sig(Float, Float),
				{Args: []Type{Float, Int}, Result: Float, Literal: []bool{false, true}},
			},
			Help:    "The nearest whole number, halves away from zero. With a second, constant argument from 0 to 15 it keeps that many decimals: round(x * 10^n) / 10^n, or x itself where x * 10^n is not finite.",
			Example: `round(2.346, 2)`, Result: `2.35`,
		},
		{
			Name: "floor", Signatures: []Signature{sig(Int, Int), sig(Float, Float)},
			Help:    "The greatest whole number that is not greater.",
			Example: `floor(-1.5)`, Result: `-2.0`,
		},
		{
			Name: "ceil", Signatures: []Signature{sig(Int, Int), sig(Float, Float)},
			Help:    "The smallest whole number that is not smaller.",
			Example: `ceil(1.2)`, Result: `2.0`,
		},
		{
			Name: "sqrt", Signatures: []Signature{sig(Float, Float)},
			Help:    "The square root; null for a negative number.",
			Example: `sqrt(9)`, Result: `3.0`,
		},
		{
			Name: "pow", Signatures: []Signature{sig(Float, Float, Float)},
			Help:    "The first number to the power of the second; null where that is not a finite real number.",
			Example: `pow(2, 10)`, Result: `1024.0`,
		},
	}
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
			Name: "timestamp", Signatures: fromEach(Timestamp, Timestamp, String, Int),
			Help:    "A text in RFC 3339, or YYYY-MM-DD hh:mm:ss[.ffffff] or YYYY-MM-DD in UTC; an int as milliseconds since 1970. Another text, or a year outside 1 to 9999, is null.",
			Example: `timestamp("2026-01-01 06:00:00")`, Result: `timestamp("2026-01-01T06:00:00Z")`,
		},
		{
			Name: "json", Signatures: fromEach(JSON, JSON, String),
			Help:    "A text that holds one JSON value, as it stands; any other text is null.",
			Example: `string(json("[1, 2]"))`, Result: `"[1, 2]"`,
		},
	}
}

func timeFunctions() []Function {
	part := func(name, help, result string) Function {
		return Function{
			Name: name, Signatures: []Signature{sig(Int, Timestamp)}, Help: help,
			Example: name + `(timestamp("2026-03-09T14:05:06.5Z"))`, Result: result,
		}
	}
	return []Function{
		part("year", "The year, in UTC.", `2026`),
		part("month", "The month, 1 to 12, in UTC.", `3`),
		part("day", "The day of the month, 1 to 31, in UTC.", `9`),
		part("hour", "The hour, 0 to 23, in UTC.", `14`),
		part("minute", "The minute, 0 to 59.", `5`),
		part("second", "The second, 0 to 59, without its decimals.", `6`),
		{
			Name:       "truncate",
			Signatures: []Signature{{Args: []Type{Timestamp, String}, Result: Timestamp, Literal: []bool{false, true}}},
			Help:       `The start of the minute, hour or day in UTC; the second argument is the constant "1m", "1h" or "1d".`,
			Example:    `truncate(timestamp("2026-03-09T14:05:06Z"), "1h")`, Result: `timestamp("2026-03-09T14:00:00Z")`,
		},
		{
			Name: "epoch_ms", Signatures: []Signature{sig(Int, Timestamp)},
			Help:    "Whole milliseconds since 1970-01-01T00:00:00Z, rounded down.",
			Example: `epoch_ms(timestamp("1970-01-01T00:00:01.5Z"))`, Result: `1500`,
		},
	}
}

func jsonFunctions() []Function {
	return []Function{
		{
			Name:       "json_get",
			Signatures: []Signature{{Args: []Type{JSON, String}, Result: JSON, Literal: []bool{false, true}}},
			Help:       `The value at a constant path such as "tool.offsets[0]" (an odd name as ["a.b"]); null when there is none or it is JSON's null.`,
			Example:    `string(json_get(json("{\"tool\": {\"id\": 7}}"), "tool.id"))`, Result: `"7"`,
		},
		{
			Name: "json_string", Signatures: []Signature{sig(String, JSON)},
			Help:    "The text of a JSON string, unescaped; null for any other JSON value.",
			Example: `json_string(json_get(json("{\"id\": \"T7\"}"), "id"))`, Result: `"T7"`,
		},
		{
			Name: "json_number", Signatures: []Signature{sig(Float, JSON)},
			Help:    "The number of a JSON number; null for any other JSON value.",
			Example: `json_number(json("1.5"))`, Result: `1.5`,
		},
	}
}
