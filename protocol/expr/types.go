package expr

import "fmt"

// Type is the type of a column or of an expression. Every value can be null.
type Type uint8

// The types of the language.
const (
	// Invalid is the zero Type; no column has it.
	Invalid Type = iota
	// Bool is true or false.
	Bool
	// Int is a signed 64-bit integer.
	Int
	// Float is an IEEE 754 double.
	Float
	// String is UTF-8 text.
	String
	// Timestamp is an instant: microseconds since 1970-01-01T00:00:00Z.
	Timestamp
	// JSON is the text of one JSON value.
	JSON
	// Null is the type of the literal null alone; it fits wherever another type is expected.
	Null
)

var typeNames = [...]string{"invalid", "bool", "int", "float", "string", "timestamp", "json", "null"}

// String is the type's name as a flow definition spells it.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// ColumnTypes lists the types that a column can have, in the order of the documentation.
func ColumnTypes() []Type { return []Type{Bool, Int, Float, String, Timestamp, JSON} }

// ParseType finds the type of that name; ok is false when there is none.
func ParseType(name string) (t Type, ok bool) {
	for _, t := range ColumnTypes() {
		if t.String() == name {
			return t, true
		}
	}
	return Invalid, false
}

// Column is a name and a type.
type Column struct {
	Name string
	Type Type
}

// Schema is the ordered columns of a batch. Names are unique.
type Schema []Column

// Index is the position of the column of that name, or -1.
func (s Schema) Index(name string) int {
	for i := range s {
		if s[i].Name == name {
			return i
		}
	}
	return -1
}

// Names lists the columns' names in order.
func (s Schema) Names() []string {
	names := make([]string, len(s))
	for i := range s {
		names[i] = s[i].Name
	}
	return names
}
