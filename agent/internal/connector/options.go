package connector

import (
	"errors"
	"fmt"
	"maps"
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

// ParseOptions checks values as flowdef.ValidateOptions does, and fills in the defaults. What is wrong is an
// *OptionError for the first wrong option. Secret options are taken from secrets alone.
func ParseOptions(spec []flowdef.Option, values map[string]any, secrets map[string]secret.String) (Options, error) {
	all := maps.Clone(values)
	if all == nil {
		all = map[string]any{}
	}
	for name, s := range secrets {
		all[name] = s.Reveal()
	}
	if err := flowdef.ValidateOptions(spec, all); err != nil {
		if found, ok := errors.AsType[flowdef.OptionProblems](err); ok {
			name := found[0].Option
			message, named := strings.CutPrefix(found[0].Message, fmt.Sprintf("option %q ", name))
			if !named {
				message = "is wrong: " + message
			}
			return Options{}, &OptionError{Option: name, Message: message}
		}
		return Options{}, fmt.Errorf("check the options: %w", err)
	}
	o := Options{values: make(map[string]any, len(spec)), secrets: make(map[string]secret.String), given: make(map[string]bool)}
	for i := range spec {
		opt := &spec[i]
		raw, written := all[opt.Name]
		written = written && raw != nil
		o.given[opt.Name] = written
		switch {
		case opt.Type != flowdef.OptionSecret:
			if !written {
				raw = opt.Default
			}
			o.values[opt.Name] = optionValue(opt, raw)
		case values[opt.Name] != nil:
			return Options{}, &OptionError{Option: opt.Name, Message: "is a secret and must be given as one, not as an open value"}
		default:
			o.secrets[opt.Name] = secrets[opt.Name]
		}
	}
	return o, nil
}

// optionValue turns a checked value, or the text of a default, into the value that the getters give. A default that does
// not fit its type is a mistake in the connector.
func optionValue(opt *flowdef.Option, raw any) any {
	text, isText := raw.(string)
	var v any
	var err error
	switch opt.Type {
	case flowdef.OptionString, flowdef.OptionSecret:
		v = text
	case flowdef.OptionEnum:
		v, _ = flowdef.EnumText(raw)
	case flowdef.OptionBool:
		if v = raw; isText {
			v = text == "true"
		}
	case flowdef.OptionInt:
		v, err = intOption(raw)
	case flowdef.OptionColumns:
		v, _ = flowdef.ColumnList(raw)
	case flowdef.OptionDuration:
		v = time.Duration(0)
		if text != "" {
			v, err = flowdef.ParseDuration(text)
		}
	}
	if err != nil {
		panic(fmt.Sprintf("connector: the default of option %q: %v", opt.Name, err))
	}
	return v
}

func intOption(raw any) (int64, error) {
	switch v := raw.(type) {
	case int64:
		return v, nil
	case int:
		return int64(v), nil
	case float64:
		return int64(v), nil
	case string:
		if v == "" {
			return 0, nil
		}
		return strconv.ParseInt(v, 10, 64) //nolint:wrapcheck // the caller says which option
	default:
		return 0, fmt.Errorf("%v is no number", raw)
	}
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

// Columns is a list of column names, nil when it was left out.
func (o Options) Columns(name string) []string { return optionOf[[]string](o, name) }

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
		return nil, &OptionError{Option: name, Message: fmt.Sprintf("names the unknown time zone %q; write an IANA name such as Europe/Berlin", zone)}
	}
	return loc, nil
}
