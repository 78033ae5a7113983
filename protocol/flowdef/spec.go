package flowdef

// ConnectorSpec describes a kind of connection: what the form in the dashboard, the documentation and the checks of
// `CONN.yaml` and `with:` are made from. It travels from the agent to the control plane as JSON.
type ConnectorSpec struct {
	Kind  string `json:"kind"`
	Title string `json:"title"`
	Help  string `json:"help"`
	// Options are the connection's, ReadOptions those of `with:` in a read step.
	Options     []Option `json:"options"`
	ReadOptions []Option `json:"read_options"`
	// LookupOptions and WriteOptions are those of `with:` in a lookup and in a write step; none means that connections of
	// this kind cannot be looked up, or written to.
	LookupOptions []Option `json:"lookup_options,omitempty"`
	WriteOptions  []Option `json:"write_options,omitempty"`
	// Example is a working `CONN.yaml` entry, ReadExample a working `with:`.
	Example     string `json:"example"`
	ReadExample string `json:"read_example"`
}

// OptionType is the type of an option's value.
type OptionType string

// The option types. A duration is written like 5s, 15m or 1h30m.
const (
	OptionString   OptionType = "string"
	OptionInt      OptionType = "int"
	OptionBool     OptionType = "bool"
	OptionDuration OptionType = "duration"
	OptionEnum     OptionType = "enum"
	// OptionSecret is a string that the control plane stores encrypted and never shows again.
	OptionSecret OptionType = "secret"
	// OptionColumns is a list of column names.
	OptionColumns OptionType = "columns"
)

// Option is one setting of a connection or of a read.
type Option struct {
	Name     string     `json:"name"`
	Type     OptionType `json:"type"`
	Required bool       `json:"required,omitempty"`
	// Default is what a left-out option means, as text.
	Default string   `json:"default,omitempty"`
	Enum    []string `json:"enum,omitempty"`
	// Min and Max bound an int; both 0 means no bound.
	Min int64 `json:"min,omitempty"`
	Max int64 `json:"max,omitempty"`
	// Help is one sentence.
	Help string `json:"help"`
}
