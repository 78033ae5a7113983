package expr

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
				withConstants(1, Float, Float, Int),
			},
			Help:    "The nearest whole number, halves away from zero. With a second, constant argument from 0 to 15 it keeps that many decimals: round(x * 10^n) / 10^n, or x itself where x * 10^n is not finite.",
			Example: `round(2.346, 2)`, Result: `2.35`,
			check: checkDecimals,
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

func mathsFunctions() []Function {
	return []Function{
		{
			Name: "trunc", Signatures: []Signature{sig(Int, Int), sig(Float, Float)},
			Help:    "The number without its decimals.",
			Example: `trunc(-1.7)`, Result: `-1.0`,
		},
		{
			Name: "sign", Signatures: []Signature{sig(Int, Int), sig(Int, Float)},
			Help:    "-1 for a negative number, 0 for zero and 1 for a positive one; null for NaN.",
			Example: `sign(-2.5)`, Result: `-1`,
		},
		{
			Name: "clamp", Signatures: []Signature{sig(Int, Int, Int, Int), sig(Float, Float, Float, Float)},
			Help:    "The first number, or the second where it is smaller than that, or the third where it is greater than that; null when the second is greater than the third.",
			Example: `clamp(120, 0, 100)`, Result: `100`,
		},
		{
			Name: "exp", Signatures: []Signature{sig(Float, Float)},
			Help:    "e to the power of the number.",
			Example: `exp(0)`, Result: `1.0`,
		},
		{
			Name: "ln", Signatures: []Signature{sig(Float, Float)},
			Help:    "The natural logarithm; null for zero and less.",
			Example: `ln(1)`, Result: `0.0`,
		},
		{
			Name: "log10", Signatures: []Signature{sig(Float, Float)},
			Help:    "The logarithm to base 10; null for zero and less.",
			Example: `log10(1000)`, Result: `3.0`,
		},
		{
			Name: "log", Signatures: []Signature{sig(Float, Float, Float)},
			Help:    "The logarithm of the first number to the base of the second; null when one of them is not positive or the base is 1.",
			Example: `log(8, 2)`, Result: `3.0`,
		},
		{
			Name: "hypot", Signatures: []Signature{sig(Float, Float, Float)},
			Help:    "The length of the hypotenuse, sqrt(x * x + y * y).",
			Example: `hypot(3, 4)`, Result: `5.0`,
		},
		{
			Name: "is_nan", Signatures: []Signature{sig(Bool, Float)},
			Help:    "Whether the float is not a number, such as infinity minus infinity.",
			Example: `is_nan(1.5)`, Result: `false`,
		},
		{
			Name: "is_finite", Signatures: []Signature{sig(Bool, Float)},
			Help:    "Whether the float is neither infinite nor NaN.",
			Example: `is_finite(1.5)`, Result: `true`,
		},
	}
}

func angleFunctions() []Function {
	return []Function{
		{
			Name: "pi", Signatures: []Signature{sig(Float)},
			Help:    "The ratio of a circle's circumference to its diameter.",
			Example: `round(pi(), 4)`, Result: `3.1416`,
		},
		{
			Name: "sin", Signatures: []Signature{sig(Float, Float)},
			Help:    "The sine of an angle in radians.",
			Example: `sin(0)`, Result: `0.0`,
		},
		{
			Name: "cos", Signatures: []Signature{sig(Float, Float)},
			Help:    "The cosine of an angle in radians.",
			Example: `cos(0)`, Result: `1.0`,
		},
		{
			Name: "tan", Signatures: []Signature{sig(Float, Float)},
			Help:    "The tangent of an angle in radians.",
			Example: `tan(0)`, Result: `0.0`,
		},
		{
			Name: "asin", Signatures: []Signature{sig(Float, Float)},
			Help:    "The angle in radians whose sine is the number; null outside -1 to 1.",
			Example: `asin(0)`, Result: `0.0`,
		},
		{
			Name: "acos", Signatures: []Signature{sig(Float, Float)},
			Help:    "The angle in radians whose cosine is the number; null outside -1 to 1.",
			Example: `acos(1)`, Result: `0.0`,
		},
		{
			Name: "atan", Signatures: []Signature{sig(Float, Float)},
			Help:    "The angle in radians whose tangent is the number.",
			Example: `atan(0)`, Result: `0.0`,
		},
		{
			Name: "atan2", Signatures: []Signature{sig(Float, Float, Float)},
			Help:    "The angle in radians, from -pi to pi, of the point whose y is the first number and whose x is the second.",
			Example: `round(atan2(1, -1), 4)`, Result: `2.3562`,
		},
		{
			Name: "degrees", Signatures: []Signature{sig(Float, Float)},
			Help:    "Radians as degrees.",
			Example: `round(degrees(pi()), 9)`, Result: `180.0`,
		},
		{
			Name: "radians", Signatures: []Signature{sig(Float, Float)},
			Help:    "Degrees as radians.",
			Example: `round(radians(180), 4)`, Result: `3.1416`,
		},
	}
}

// bitFunctions see an int as 64 bits in two's complement.
func bitFunctions() []Function {
	return []Function{
		{
			Name: "bit", Signatures: []Signature{sig(Bool, Int, Int)},
			Help:    "Whether the bit of that number is set, counted from 0 for the lowest; null outside 0 to 63.",
			Example: `bit(6, 1)`, Result: `true`,
		},
		{
			Name: "bit_and", Signatures: []Signature{sig(Int, Int, Int)},
			Help:    "The bits that are set in both.",
			Example: `bit_and(12, 10)`, Result: `8`,
		},
		{
			Name: "bit_or", Signatures: []Signature{sig(Int, Int, Int)},
			Help:    "The bits that are set in one or both.",
			Example: `bit_or(12, 10)`, Result: `14`,
		},
		{
			Name: "bit_xor", Signatures: []Signature{sig(Int, Int, Int)},
			Help:    "The bits that are set in one alone.",
			Example: `bit_xor(12, 10)`, Result: `6`,
		},
		{
			Name: "bit_not", Signatures: []Signature{sig(Int, Int)},
			Help:    "The bits that are not set.",
			Example: `bit_not(0)`, Result: `-1`,
		},
		{
			Name: "bit_count", Signatures: []Signature{sig(Int, Int)},
			Help:    "The number of bits that are set.",
			Example: `bit_count(7)`, Result: `3`,
		},
		{
			Name: "shift_left", Signatures: []Signature{sig(Int, Int, Int)},
			Help:    "The bits moved up by so many places; what leaves 64 bits is lost. Null outside 0 to 63 places.",
			Example: `shift_left(1, 4)`, Result: `16`,
		},
		{
			Name: "shift_right", Signatures: []Signature{sig(Int, Int, Int)},
			Help:    "The bits moved down by so many places, with zeros coming in from above. Null outside 0 to 63 places.",
			Example: `shift_right(256, 8)`, Result: `1`,
		},
	}
}

func unitFunctions() []Function {
	return []Function{
		{
			Name:       "convert",
			Signatures: []Signature{withConstants(1, Float, Float, String, String)},
			Help:       "The number, which is in the unit of the second argument, in the unit of the third. Both are constants of the table of units and measure the same quantity.",
			Example:    `convert(212, "degF", "degC")`, Result: `100.0`,
			check: checkUnits,
		},
	}
}
