// Package secret has the type for values that must never be printed, logged or marshalled by accident.
//
// It is safe for concurrent use: a String is immutable.
package secret

// redacted is what every printing path shows instead of the value.
const redacted = "[REDACTED]"

// String is a secret text. fmt, slog, encoding/json and yaml all show "[REDACTED]"; Reveal gives the value.
type String struct{ value string }

// New wraps a secret.
func New(value string) String { return String{value: value} }

// Reveal is the secret itself, for the one place that needs it.
func (s String) Reveal() string { return s.value }

// Empty says whether there is no secret.
func (s String) Empty() bool { return s.value == "" }

// String is "[REDACTED]", or "" when empty.
func (s String) String() string {
	if s.value == "" {
		return ""
	}
	return redacted
}

// GoString keeps %#v from showing the value.
func (s String) GoString() string { return s.String() }

// MarshalText keeps encoders from writing the value.
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a secret from a file or an environment variable.
func (s *String) UnmarshalText(text []byte) error {
	s.value = string(text)
	return nil
}
