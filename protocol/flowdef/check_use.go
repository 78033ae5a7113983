package flowdef

import (
	"errors"
	"maps"
	"slices"

	"github.com/outfeed/outfeed/internal/excerpt"
	"github.com/outfeed/outfeed/protocol/expr"
)

// connectionUse is what a step wants of a connection.
type connectionUse struct {
	with map[string]any
	at   map[string]Pos
	// options gives what a kind of connection takes for it; offered is false for a kind that cannot do it, and cannot
	// then says what.
	options func(*ConnectorSpec) (options []Option, offered bool)
	cannot  string
	// rows is what an option of type columns names columns of.
	rows expr.Schema
}

func readUse(r *ReadStep) connectionUse {
	return connectionUse{with: r.With, at: r.WithPos, options: func(s *ConnectorSpec) ([]Option, bool) { return s.ReadOptions, true }}
}

func lookupUse(l *LookupStep) connectionUse {
	return connectionUse{
		with: l.With, at: l.WithPos, cannot: "cannot look rows up by key; read it and join it instead",
		options: func(s *ConnectorSpec) ([]Option, bool) { return s.LookupOptions, len(s.LookupOptions) > 0 },
	}
}

func writeUse(w *WriteStep) connectionUse {
	return connectionUse{
		with: w.With, at: w.WithPos, cannot: "cannot be written to",
		options: func(s *ConnectorSpec) ([]Option, bool) { return s.WriteOptions, len(s.WriteOptions) > 0 },
	}
}

// checkUse holds a step's connection and options against what is known of connections.
func (c *checker) checkUse(s *Step, name Ref, use connectionUse) {
	if c.env.Connections == nil {
		return
	}
	kind, ok := c.env.Connections[name.Name]
	if !ok {
		if !c.full() {
			c.problem(s, name.Pos, "%s", expr.Unknown("connection", name.Name, slices.Sorted(maps.Keys(c.env.Connections))))
		}
		return
	}
	spec, ok := c.env.Connectors[kind]
	if !ok {
		return
	}
	options, offered := use.options(&spec)
	if !offered {
		c.problem(s, name.Pos, "connection %q is of the kind %s, which %s", excerpt.Of(name.Name), kind, use.cannot)
		return
	}
	for i := range options {
		if names, listed := ColumnList(use.with[options[i].Name]); listed && options[i].Type == OptionColumns {
			for _, column := range names {
				c.column(s, Ref{Name: column, Pos: use.at[options[i].Name]}, use.rows)
			}
		}
	}
	problems, _ := errors.AsType[OptionProblems](ValidateOptions(options, use.with))
	for _, p := range problems {
		pos, written := use.at[p.Option]
		if !written {
			pos = s.Pos
		}
		c.problem(s, pos, "%s", p.Message)
	}
}
