package flowdef

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/outfeed/outfeed/protocol/expr"
)

// OptionProblem is one thing that is wrong with the options of a connection or of a read.
type OptionProblem struct {
	// Option is its name.
	Option string `json:"option"`
	// Message says what is wrong and what to write; it names the option.
	Message string `json:"message"`
}

// OptionProblems is everything that is wrong with a set of options. It is an error.
type OptionProblems []OptionProblem //nolint:errname // named like Problems

// Error is one line per problem.
func (p OptionProblems) Error() string {
	lines := make([]string, len(p))
	for i := range p {
		lines[i] = p[i].Message
	}
	return strings.Join(lines, "\n")
}

// ValidateOptions holds values against what a connector takes: unknown names (with the nearest valid one), types,
// bounds and what is required. A null counts as left out. Numbers may also be float64 without decimals, as
// encoding/json reads them. Its error is OptionProblems, first the values by name, then what is missing; nil means that
// all is well.
func ValidateOptions(options []Option, values map[string]any) error {
	var found OptionProblems
	byName := make(map[string]*Option, len(options))
	names := make([]string, len(options))
	for i := range options {
		byName[options[i].Name], names[i] = &options[i], options[i].Name
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		o, ok := byName[name]
		switch {
		case len(found) >= MaxProblems:
		case !ok:
			found = append(found, OptionProblem{name, expr.Unknown("option", name, names)})
		case values[name] != nil:
			if wrong := o.check(values[name]); wrong != "" {
				found = append(found, OptionProblem{name, fmt.Sprintf("option %q %s", name, wrong)})
			}
		}
	}
	for i := range options {
		if o := &options[i]; o.Required && values[o.Name] == nil {
			found = append(found, OptionProblem{o.Name, fmt.Sprintf("option %q is missing: %s", o.Name, o.Help)})
		}
	}
	if len(found) == 0 {
		return nil
	}
	return found
}

// check says what is wrong with the value; "" when nothing is. It never repeats a secret.
func (o *Option) check(value any) string {
	switch o.Type {
	case OptionInt:
		return o.checkInt(value)
	case OptionBool:
		if _, ok := value.(bool); !ok {
			return "must be true or false"
		}
		return ""
	case OptionColumns:
		if _, ok := ColumnList(value); !ok {
			return "must be a list of different column names, as in [order_no, machine]"
		}
		return ""
	case OptionString, OptionSecret, OptionDuration, OptionEnum:
	}
	text, ok := value.(string)
	if o.Type == OptionEnum {
		text, ok = EnumText(value)
	}
	if !ok {
		return fmt.Sprintf("must be a %s; put the value in quotes", o.typeName())
	}
	switch {
	case text == "" && o.Required:
		return "is empty"
	case o.Type == OptionDuration:
		if _, err := ParseDuration(text); err != nil {
			return "is wrong: " + err.Error()
		}
	case o.Type == OptionEnum && !slices.Contains(o.Enum, text):
		return "is wrong: " + expr.Unknown("value", text, o.Enum)
	}
	return ""
}

// EnumText is the word of an enum option: as it is, or the text of a whole number, so that `version: 5` needs no quotes.
func EnumText(value any) (text string, ok bool) {
	switch v := value.(type) {
	case string:
		return v, true
	case int64:
		return strconv.FormatInt(v, 10), true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	default:
		return "", false
	}
}

// ColumnList is the names of an OptionColumns value, which are different from one another and not empty.
func ColumnList(value any) (names []string, ok bool) {
	list, isList := value.([]any)
	for _, item := range list {
		name, isText := item.(string)
		if !isText || name == "" || slices.Contains(names, name) {
			return nil, false
		}
		names = append(names, name)
	}
	return names, isList && len(names) > 0
}

func (o *Option) typeName() string {
	switch o.Type {
	case OptionDuration:
		return "duration such as 5s or 15m"
	case OptionEnum:
		return "word of " + strings.Join(o.Enum, ", ")
	case OptionString, OptionSecret, OptionInt, OptionBool, OptionColumns:
	}
	return "string"
}

func (o *Option) checkInt(value any) string {
	var n int64
	switch v := value.(type) {
	case int64:
		n = v
	case int:
		n = int64(v)
	case float64:
		if n = int64(v); float64(n) != v || v >= 1<<63 || v < -1<<63 {
			return "must be a whole number"
		}
	default:
		return "must be a whole number"
	}
	if (o.Min != 0 || o.Max != 0) && (n < o.Min || n > o.Max) {
		return "must lie from " + strconv.FormatInt(o.Min, 10) + " to " + strconv.FormatInt(o.Max, 10)
	}
	return ""
}
