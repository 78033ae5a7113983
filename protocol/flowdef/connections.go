package flowdef

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/expr"
)

// ConnectionDef is one entry of a CONN.yaml.
type ConnectionDef struct {
	Name, Kind string
	// Options are the values of the options that are not secret.
	Options map[string]any
	// Secrets are the values of the secret ones.
	Secrets map[string]secret.String
	Pos     Pos
}

// References gives what the values of a CONN.yaml may refer to.
type References struct {
	// Env gives an environment variable, for a text that is ${NAME} as a whole.
	Env func(name string) (string, bool)
	// File gives the contents of a file, for a secret that is @NAME. A secret that begins with @@ begins with @.
	File func(name string) ([]byte, error)
}

// ParseConnections reads a CONN.yaml: a map of connection name to `{kind: …, …options}`, in YAML or JSON. The kinds tell
// which options there are and which are secret. Its error is Problems.
func ParseConnections(text []byte, kinds []ConnectorSpec, from References) ([]ConnectionDef, error) {
	p := parser{text: bytes.TrimPrefix(text, []byte("\ufeff"))}
	if len(bytes.TrimSpace(p.text)) == 0 {
		return nil, Problems{{Pos: Pos{1, 1}, Message: "there are no connections; write name: {kind: …, …options}"}}
	}
	root := p.document()
	if root == nil {
		return nil, p.err()
	}
	var all []ConnectionDef
	for _, e := range p.entries(root, "the connections", "as a map of name to {kind: …, options}") {
		c := ConnectionDef{Name: e.key, Pos: e.pos, Options: map[string]any{}, Secrets: map[string]secret.String{}}
		values, places := map[string]any{}, map[string]Pos{"": e.pos}
		for _, o := range p.entries(e.value, fmt.Sprintf("connection %q", e.key), "{kind: …, options}") {
			places[o.key] = o.pos
			if o.key == "kind" {
				c.Kind, _ = p.word(o.value, fmt.Sprintf("the kind of connection %q", e.key))
				continue
			}
			values[o.key] = p.resolve(p.value(o.value, 0), o, from)
		}
		p.connection(&c, kinds, values, places, from)
		all = append(all, c)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return all, nil
}

var variable = regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$`)

// resolve puts the environment's value in the place of a text that is ${NAME}.
func (p *parser) resolve(v any, o entry, from References) any {
	text, ok := v.(string)
	if !ok {
		return v
	}
	m := variable.FindStringSubmatch(text)
	if m == nil {
		return v
	}
	value, set := from.Env(m[1])
	if !set {
		p.problem(at(o.value), "option %q: the environment variable %s is not set", o.key, m[1])
	}
	return value
}

// connection holds the values against the kind, and parts the secret ones from the others.
func (p *parser) connection(c *ConnectionDef, kinds []ConnectorSpec, values map[string]any, places map[string]Pos, from References) {
	var names []string
	for i := range kinds {
		names = append(names, kinds[i].Kind)
	}
	k := slices.Index(names, c.Kind)
	switch {
	case c.Kind == "":
		p.problem(c.Pos, "connection %q has no kind; write one of %s", c.Name, strings.Join(names, ", "))
		return
	case k < 0:
		p.problem(places["kind"], "connection %q: %s", c.Name, expr.Unknown("kind", c.Kind, names))
		return
	}
	if err := ValidateOptions(kinds[k].Options, values); err != nil {
		found, ok := errors.AsType[OptionProblems](err)
		if !ok {
			p.problem(c.Pos, "connection %q: %v", c.Name, err)
		}
		for _, wrong := range found {
			pos, ok := places[wrong.Option]
			if !ok {
				pos = c.Pos
			}
			p.problem(pos, "connection %q: %s", c.Name, wrong.Message)
		}
		return
	}
	for name, v := range values {
		isSecret := slices.ContainsFunc(kinds[k].Options, func(o Option) bool { return o.Name == name && o.Type == OptionSecret })
		text, isText := v.(string)
		switch {
		case v == nil:
		case isSecret && isText:
			c.Secrets[name] = p.secretOf(text, name, places[name], from)
		default:
			c.Options[name] = v
		}
	}
}

// secretOf gives the secret that a text stands for.
func (p *parser) secretOf(text, option string, pos Pos, from References) secret.String {
	rest, isFile := strings.CutPrefix(text, "@")
	switch {
	case !isFile:
		return secret.New(text)
	case strings.HasPrefix(rest, "@"):
		return secret.New(rest)
	}
	content, err := from.File(rest)
	if err != nil {
		p.problem(pos, "option %q: cannot read its file: %v", option, err)
	}
	return secret.New(strings.TrimRight(string(content), "\r\n"))
}
