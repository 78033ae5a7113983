package expr

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

func partFunctions() []Function {
	return []Function{
		{
			Name: "left", Signatures: []Signature{sig(String, String, Int)},
			Help:    "The first characters, as many as the number says or there are; null for a negative number.",
			Example: `left("OP20-M1", 4)`, Result: `"OP20"`,
		},
		{
			Name: "right", Signatures: []Signature{sig(String, String, Int)},
			Help:    "The last characters, as many as the number says or there are; null for a negative number.",
			Example: `right("OP20-M1", 2)`, Result: `"M1"`,
		},
		{
			Name: "pad_left", Signatures: padSignatures(),
			Help:    "The text with the third one, or spaces, repeated in front of it up to the number of characters; a longer text stays as it is. An empty third text, a negative number and a result of more than 1 MiB give null.",
			Example: `pad_left("7", 3, "0")`, Result: `"007"`,
		},
		{
			Name: "pad_right", Signatures: padSignatures(),
			Help:    "The text with the third one, or spaces, repeated behind it, as pad_left does.",
			Example: `pad_right("M1", 4, ".")`, Result: `"M1.."`,
		},
		{
			Name: "repeat", Signatures: []Signature{sig(String, String, Int)},
			Help:    "The text so many times; null for a negative number and a result of more than 1 MiB.",
			Example: `repeat("ab", 3)`, Result: `"ababab"`,
		},
		{
			Name: "reverse", Signatures: []Signature{sig(String, String)},
			Help:    "The characters in the opposite order.",
			Example: `reverse("M12")`, Result: `"21M"`,
		},
		{
			Name: "index_of", Signatures: []Signature{sig(Int, String, String)},
			Help:    "Where the second text first occurs in the first, counted in characters from 0; null where it does not.",
			Example: `index_of("OP20-M1", "-")`, Result: `4`,
		},
		{
			Name: "split_part", Signatures: []Signature{sig(String, String, String, Int)},
			Help:    "The part of the first text between two occurrences of the second: 0 is the first part and -1 the last. Null when there is no such part or the second text is empty.",
			Example: `split_part("plant/press/7", "/", -1)`, Result: `"7"`,
		},
		{
			Name: "hex", Signatures: []Signature{sig(String, Int)},
			Help:    "The bits of the int as a hexadecimal number in lower case, without leading zeros.",
			Example: `hex(255)`, Result: `"ff"`,
		},
		{
			Name: "from_hex", Signatures: []Signature{sig(Int, String)},
			Help:    "A hexadecimal number of 1 to 16 digits, with or without 0x in front and white space around, as the int of these bits; any other text is null.",
			Example: `from_hex("0x1F")`, Result: `31`,
		},
		{
			Name: "sha256", Signatures: []Signature{sig(String, String)},
			Help:    "The SHA-256 digest of the text in hexadecimal: a pseudonym of a name that must not leave the plant. Whoever can guess names can compute the same digests, so join a secret of your own to them first.",
			Example: `left(sha256("secret" + "Meier"), 8)`, Result: `"210c4b9b"`,
		},
	}
}

func padSignatures() []Signature {
	return []Signature{sig(String, String, Int), sig(String, String, Int, String)}
}

func patternFunctions() []Function {
	return []Function{
		{
			Name:       "regex_extract",
			Signatures: []Signature{withConstants(1, String, String, String), withConstants(1, String, String, String, Int)},
			Help:       "The first match of the constant pattern or, with a third argument, what the group of that number in it matched. Null when nothing matches.",
			Example:    `regex_extract("order 4711/2", "(\\d+)/(\\d+)", 2)`, Result: `"2"`,
			check: checkExtract,
		},
		{
			Name:       "regex_replace",
			Signatures: []Signature{withConstants(1, String, String, String, String)},
			Help:       "The text with every match of the constant pattern replaced. In the replacement, $1 or ${1} is what the first group matched and $$ a dollar sign. A result of more than 1 MiB is null.",
			Example:    `regex_replace("M-07", "^M-0*(\\d+)$", "machine $1")`, Result: `"machine 7"`,
			check: checkReplace,
		},
	}
}
