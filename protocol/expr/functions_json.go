package expr

func jsonFunctions() []Function {
	// read is a function of a JSON value or of the value at a path in it.
	read := func(name string, result Type, help string) Function {
		return Function{
			Name: name, Signatures: []Signature{sig(result, JSON), withConstants(1, result, JSON, String)}, Help: help,
			check: constantAt(1, name, checkPath),
		}
	}
	of := func(f Function, example, result string) Function {
		f.Example, f.Result = example, result
		return f
	}
	return []Function{
		{
			Name: "json_get", Signatures: []Signature{withConstants(1, JSON, JSON, String)},
			Help:    `The value at a constant path such as "tool.offsets[0]" (an odd name as ["a.b"]); null when there is none or it is JSON's null.`,
			Example: `string(json_get(json("{\"tool\": {\"id\": 7}}"), "tool.id"))`, Result: `"7"`,
			check: constantAt(1, "json_get", checkPath),
		},
		of(read("json_string", String, "The text of a JSON string, unescaped, at the constant path where there is one; null for any other JSON value, and where an escape is half of a surrogate pair, which is no character."),
			`json_string(json("{\"id\": \"T7\"}"), "id")`, `"T7"`),
		of(read("json_number", Float, "The number of a JSON number, at the constant path where there is one; null for any other JSON value."),
			`json_number(json("1.5"))`, `1.5`),
		of(read("json_int", Int, "The whole number of a JSON number, exact in all of its 64 bits; null when it has decimals other than zeros or does not fit, and for any other JSON value."),
			`json_int(json("{\"n\": 9007199254740993}"), "n")`, `9007199254740993`),
		of(read("json_bool", Bool, "JSON's true or false; null for any other JSON value."),
			`json_bool(json("{\"ok\": true}"), "ok")`, `true`),
		of(read("json_length", Int, "The number of elements of an array or of members of an object; null for any other JSON value."),
			`json_length(json("[1, 2, 3]"))`, `3`),
		of(read("json_type", String, "What a JSON value is: object, array, string, number, bool or null; null itself where the path leads to nothing, and for a column whose member is missing or null in the record."),
			`json_type(json("{\"a\": []}"), "a")`, `"array"`),
	}
}
