package connector

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// Options is the checked options of a connection or of a read, with the defaults filled in.
// The getters panic when the spec has no option of that name and type, which is a mistake in the connector.
type Options struct {
	values  map[string]any
	secrets map[string]secret.String
	given   map[string]bool
}

// ParseOptions checks values against their spec: unknown and missing names, types, enums and bounds. What is wrong is
// an *OptionError for the first wrong option in the order of the spec. Secret options are taken from secrets alone.
func ParseOptions(spec []flowdef.Option, values map[string]any, secrets map[string]secret.String) (Options, error) {
	o := Options{values: make(map[string]any, len(spec)), secrets: make(map[string]secret.String), given: make(map[string]bool)}
	if err := unknownOption(spec, values, secrets); err != nil {
		return Options{}, err
	}
	for _, opt := range spec {
		if opt.Type == flowdef.OptionSecret {
			s := secrets[opt.Name]
			if opt.Required && s.Empty() {
				return Options{}, &OptionError{Option: opt.Name, Message: "is missing; it is a secret of the connection"}
			}
			o.secrets[opt.Name], o.given[opt.Name] = s, !s.Empty()
			continue
		}
		raw, ok := values[opt.Name]
		if !ok {
			if opt.Required {
				return Options{}, &OptionError{Option: opt.Name, Message: "is missing: " + opt.Help}
			}
			raw = opt.Default
		}
		v, err := optionValue(opt, raw, ok)
		if err != nil {
			return Options{}, &OptionError{Option: opt.Name, Message: err.Error()}
		}
		o.values[opt.Name], o.given[opt.Name] = v, ok
	}
	return o, nil
}

func unknownOption(spec []flowdef.Option, values map[string]any, secrets map[string]secret.String) error {
	names, plain := make([]string, len(spec)), make(map[string]bool)
	for i, opt := range spec {
		names[i] = opt.Name
		plain[opt.Name] = opt.Type != flowdef.OptionSecret
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		open, known := plain[name]
		switch {
		case !known:
			return &OptionError{Option: name, Message: unknownMessage(name, names)}
		case !open:
			return &OptionError{Option: name, Message: "is a secret and must be given as one, not as an open value"}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		if _, known := plain[name]; !known {
			return &OptionError{Option: name, Message: unknownMessage(name, names)}
		}
	}
	return nil
}

func unknownMessage(name string, names []string) string {
	if near := Nearest(name, names); near != "" {
		return "is not known; did you mean " + near + "?"
	}
	if len(names) == 0 {
		return "is not known; there are no options here"
	}
	return "is not known; the options are " + strings.Join(names, ", ")
}

// optionValue turns a written value, or the default's text, into the value that the getters give.
func optionValue(opt flowdef.Option, raw any, written bool) (any, error) {
	text, isText := raw.(string)
	switch opt.Type {
	case flowdef.OptionString:
		if !isText {
			return nil, fmt.Errorf("must be a text, not %v", raw)
		}
		return text, nil
	case flowdef.OptionBool:
		if b, ok := raw.(bool); ok {
			return b, nil
		}
		if !written {
			return text == "true", nil
		}
		return nil, fmt.Errorf("must be true or false, not %v", raw)
	case flowdef.OptionInt:
		return intOption(opt, raw, written)
	case flowdef.OptionDuration:
		if !isText {
			return nil, fmt.Errorf("must be a duration like 5s or 1h30m, not %v", raw)
		}
		if text == "" && !written {
			return time.Duration(0), nil
		}
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 {
			return nil, fmt.Errorf("must be a duration like 5s or 1h30m, not %q", text)
		}
		return d, nil
	case flowdef.OptionEnum:
		return enumOption(opt, raw, written)
	case flowdef.OptionSecret:
	}
	return nil, fmt.Errorf("has the type %q, which this agent does not know; update the agent", opt.Type)
}

func intOption(opt flowdef.Option, raw any, written bool) (any, error) {
	var n int64
	switch v := raw.(type) {
	case int64:
		n = v
	case int:
		n = int64(v)
	case float64:
		if v != math.Trunc(v) || math.Abs(v) > 1<<53 {
			return nil, fmt.Errorf("must be a whole number, not %v", v)
		}
		n = int64(v)
	case string:
		if written {
			return nil, fmt.Errorf("must be a whole number without quotes, not %q", v)
		}
		if v == "" {
			return int64(0), nil
		}
		d, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("has a default that is not a whole number: %q", v)
		}
		n = d
	default:
		return nil, fmt.Errorf("must be a whole number, not %v", raw)
	}
	if (opt.Min != 0 || opt.Max != 0) && (n < opt.Min || n > opt.Max) {
		return nil, fmt.Errorf("must be between %d and %d, not %d", opt.Min, opt.Max, n)
	}
	return n, nil
}

func enumOption(opt flowdef.Option, raw any, written bool) (any, error) {
	text := fmt.Sprint(raw) // a version written as 5 is read as a number
	if text == "" && !written {
		return "", nil
	}
	if !slices.Contains(opt.Enum, text) {
		return nil, fmt.Errorf("must be one of %s, not %q", strings.Join(opt.Enum, ", "), text)
	}
	return text, nil
}

func optionOf[T any](o Options, name string) T {
	v, ok := o.values[name].(T)
	if !ok {
		panic(fmt.Sprintf("connector: the spec has no option %q of type %T", name, v))
	}
	return v
}

// String is a string or enum option.
func (o Options) String(name string) string { return optionOf[string](o, name) }

// Int is an int option.
func (o Options) Int(name string) int64 { return optionOf[int64](o, name) }

// Bool is a bool option.
func (o Options) Bool(name string) bool { return optionOf[bool](o, name) }

// Duration is a duration option; 0 when it was left out and has no default.
func (o Options) Duration(name string) time.Duration { return optionOf[time.Duration](o, name) }

// Secret is a secret option, empty when it was left out.
func (o Options) Secret(name string) secret.String { return o.secrets[name] }

// Given says whether the option was written, rather than left to its default.
func (o Options) Given(name string) bool { return o.given[name] }

// Location is the time zone that a string option names; "" is UTC. What is wrong is an *OptionError.
func (o Options) Location(name string) (*time.Location, error) {
	zone := o.String(name)
	if zone == "Local" {
		return nil, &OptionError{Option: name, Message: "must name a time zone such as Europe/Berlin; Local differs between machines"}
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return nil, &OptionError{Option: name, Message: fmt.Sprintf("%q is not a known time zone; write an IANA name such as Europe/Berlin", zone)}
	}
	return loc, nil
}

// Nearest is the candidate that is most like name, "" when none is alike enough for a hint.
func Nearest(name string, candidates []string) string {
	best, bestDistance := "", len([]rune(name))/2+1
	for _, c := range candidates {
		if d := editDistance([]rune(strings.ToLower(name)), []rune(strings.ToLower(c))); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// editDistance counts the insertions, deletions and substitutions between two texts.
func editDistance(a, b []rune) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i, ra := range a {
		diagonal := row[0]
		row[0] = i + 1
		for j, rb := range b {
			cost := diagonal
			if ra != rb {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
