package expr

// Op says what a Node does.
type Op uint8

// The operations of a node and its arguments.
const (
	// OpLiteral is a constant: Node.Value.
	OpLiteral Op = iota + 1
	// OpColumn reads the column at Node.Column of the schema it was checked against (Node.Name before).
	OpColumn
	// OpNot and OpNeg take one argument.
	OpNot
	OpNeg
	// OpAnd and OpOr take two: three-valued logic, as SQL's.
	OpAnd
	OpOr
	// Comparisons take two arguments of one type, or an int and a float; a null operand gives null.
	OpEq
	OpNe
	OpLt
	OpLe
	OpGt
	OpGe
	// OpAdd also joins strings. OpDiv always gives a float; OpDiv and OpMod by zero give null;
	// int overflow in OpAdd, OpSub, OpMul and OpNeg gives null, as does a float result that is not finite and a joined
	// string of more than MaxText bytes.
	OpAdd
	OpSub
	OpMul
	OpDiv
	OpMod
	// OpCond is `cond ? a : b`: three arguments; a null condition takes b.
	OpCond
	// OpCoalesce is `a ?? b`.
	OpCoalesce
	// OpIn is `x in [a, b]`: the first argument is x, the others are literals.
	OpIn
	// OpMatches is `text matches "pattern"`: RE2 syntax, the pattern is a literal.
	OpMatches
	// OpCall calls Node.Func with the arguments.
	OpCall
	// OpCast widens its one argument from int to float. Check inserts it; text never holds it.
	OpCast
)

// Value is a constant. Which field counts is said by Type; Null is the type of null.
// Timestamps and ints are in Int.
type Value struct {
	Type  Type
	Bool  bool
	Int   int64
	Float float64
	Str   string
}

// Node is a node of an expression's tree. Parse gives it without Type, Column and Func; Check fills those in a copy.
// A literal null has the Type that its place asks for in a checked tree, while its Value.Type stays Null.
type Node struct {
	Op   Op
	Args []*Node
	// Pos is the byte offset in the expression's text, for messages.
	Pos int
	// Name is the column's or the function's name as written.
	Name string
	// Value is the literal's.
	Value Value

	// Type is the result's type.
	Type Type
	// Column is the position in the schema, for OpColumn.
	Column int
	// Func is the function called, for OpCall.
	Func *Function
}

// Error is what is wrong with an expression's text, and where.
type Error struct {
	// Pos is the byte offset in the text.
	Pos int
	// Message says what is wrong and what to write instead.
	Message string
}

func (e *Error) Error() string { return e.Message }

// Function is the signature of a function of the language. The kernels live in the agent's engine, by Name.
type Function struct {
	Name string
	// Signatures are the accepted argument types with their result; Check picks the first that fits,
	// widening int to float where needed.
	Signatures []Signature
	// Help is one sentence; Example is an expression that uses it, and Result is what it gives.
	Help, Example, Result string
	// Windowed marks an aggregate that needs the time column of a window.
	Windowed bool

	// check checks the arguments that must be constants of a form that their type does not say; nil when there are none.
	check constantCheck
}

// Signature is one way to call a function.
type Signature struct {
	Args   []Type
	Result Type
	// Variadic lets the last argument repeat.
	Variadic bool
	// Literal marks the arguments that must be constants, by position.
	Literal []bool
}
