package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/outfeed/outfeed/controlplane/cmd/outfeed/internal/client"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

func (a *app) connectorCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List the kinds of connection that the agents offer",
		Example: "  outfeed connector list\n  outfeed connector list --json", Args: cobra.NoArgs,
	}
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, _ []string) error {
		kinds, err := connectors(ctx, remote)
		if err != nil {
			return err
		}
		return list(a, asJSON, kinds, []string{"KIND", "TITLE", "OPTIONS"}, func(s flowdef.ConnectorSpec) []string {
			var options []string
			for _, o := range s.Options {
				options = append(options, o.Name)
			}
			return []string{s.Kind, s.Title, strings.Join(options, " ")}
		})
	})
	return group("connector", "List the kinds of connection", c)
}

func connectors(ctx context.Context, remote *client.Client) ([]flowdef.ConnectorSpec, error) {
	kinds, err := client.Get[api.List[flowdef.ConnectorSpec]](ctx, remote, "/connectors", nil)
	return kinds.Items, err
}

func (a *app) connectionCommand() *cobra.Command {
	return group("connection", "Apply, list and delete connections to plant systems",
		a.connectionApply(), a.connectionList(), a.connectionDelete())
}

func (a *app) connectionApply() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "apply -f CONN.yaml", Short: "Make or change the connections of a file",
		Long: `The file maps the name of each connection to its kind and options:

  press-plc:
    kind: mqtt
    url: tls://broker.plant.lan:8883
    username: outfeed
    password: ${PRESS_PASSWORD}

Which options are secret comes from the connector. A secret is ${VARIABLE} for a variable of the environment, @FILE for
the contents of a file beside CONN.yaml, or the text itself (@@ stands for @ at its start). A secret that is left out
stays as it is. Connections that the file does not name stay as they are.`,
		Example: "  outfeed connection apply -f connections.yaml", Args: cobra.NoArgs,
	}
	c.Flags().StringVarP(&path, "file", "f", "", "file with the connections")
	if err := c.MarkFlagRequired("file"); err != nil {
		panic(err) // the flag is declared one line above
	}
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, _ []string) error {
		wanted, err := readConnections(path)
		if err != nil {
			return err
		}
		kinds, err := connectors(ctx, remote)
		if err != nil {
			return err
		}
		return a.applyConnections(ctx, remote, resolver{dir: filepath.Dir(path), getenv: a.getenv, kinds: kinds}, wanted, asJSON)
	})
	return c
}

// readConnections reads a CONN.yaml: a map of name to kind and options.
func readConnections(path string) (map[string]map[string]any, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the user names the file
	if err != nil {
		return nil, fmt.Errorf("read the connections: %w", err)
	}
	var wanted map[string]map[string]any
	if err := yaml.Unmarshal(text, &wanted); err != nil {
		return nil, fmt.Errorf("%s is not a map of connection name to {kind: …, options}: %w", path, err)
	}
	if len(wanted) == 0 {
		return nil, fmt.Errorf("%s names no connection", path)
	}
	return wanted, nil
}

// applyConnections resolves all before it applies one, so that a mistake in the file changes nothing.
func (a *app) applyConnections(
	ctx context.Context, remote *client.Client, r resolver, wanted map[string]map[string]any, asJSON *bool,
) error {
	names := slices.Sorted(maps.Keys(wanted))
	resolved := make([]api.ConnectionApply, len(names))
	var wrong []error
	for i, name := range names {
		apply, err := r.resolve(wanted[name])
		if err != nil {
			wrong = append(wrong, fmt.Errorf("connection %s: %w", name, err))
		}
		resolved[i] = apply
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	applied := make([]api.Connection, len(names))
	for i, name := range names {
		connection, err := client.Put[api.Connection](ctx, remote, "/connections/"+url.PathEscape(name), resolved[i])
		if err != nil {
			return fmt.Errorf("connection %s (%d of %d were applied): %w", name, i, len(names), err)
		}
		applied[i] = connection
		if !*asJSON {
			if err := a.print("Applied connection %s (%s).", printable(connection.Name), printable(connection.Kind)); err != nil {
				return err
			}
		}
	}
	if *asJSON {
		return a.printJSON(applied)
	}
	return nil
}

// resolver tells secrets from options, and looks up what stands for a secret.
type resolver struct {
	dir    string
	getenv func(string) string
	kinds  []flowdef.ConnectorSpec
}

func (r resolver) resolve(entry map[string]any) (api.ConnectionApply, error) {
	kind, _ := entry["kind"].(string)
	if kind == "" {
		return api.ConnectionApply{}, errors.New("it has no kind; write kind: mqtt, for example")
	}
	at := slices.IndexFunc(r.kinds, func(s flowdef.ConnectorSpec) bool { return s.Kind == kind })
	if at < 0 {
		return api.ConnectionApply{}, r.unknown(kind)
	}
	apply := api.ConnectionApply{Kind: kind, Options: map[string]any{}, Secrets: map[string]string{}}
	for name, value := range entry {
		switch {
		case name == "kind":
		case isSecret(r.kinds[at], name):
			text, ok := value.(string)
			if !ok {
				return api.ConnectionApply{}, fmt.Errorf("option %s is a secret and must be a string; put it in quotes", name)
			}
			found, err := r.secret(text)
			if err != nil {
				return api.ConnectionApply{}, fmt.Errorf("option %s: %w", name, err)
			}
			apply.Secrets[name] = found
		default:
			apply.Options[name] = value
		}
	}
	return apply, nil
}

func (r resolver) unknown(kind string) error {
	if len(r.kinds) == 0 {
		return fmt.Errorf("no agent has told yet what kind %s is; enrol one first, then apply again", kind)
	}
	var known []string
	for _, s := range r.kinds {
		known = append(known, s.Kind)
	}
	return fmt.Errorf("no agent offers kind %s; they offer %s", kind, strings.Join(known, ", "))
}

func isSecret(s flowdef.ConnectorSpec, option string) bool {
	return slices.ContainsFunc(s.Options, func(o flowdef.Option) bool {
		return o.Name == option && o.Type == flowdef.OptionSecret
	})
}

// secret gives the secret that a text stands for.
func (r resolver) secret(text string) (string, error) {
	if m := regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$`).FindStringSubmatch(text); m != nil {
		value := r.getenv(m[1])
		if value == "" {
			return "", fmt.Errorf("the variable %s is not set", m[1])
		}
		return value, nil
	}
	rest, reference := strings.CutPrefix(text, "@")
	switch {
	case !reference:
		return text, nil
	case strings.HasPrefix(rest, "@"):
		return rest, nil
	}
	if !filepath.IsAbs(rest) {
		rest = filepath.Join(r.dir, rest)
	}
	content, err := os.ReadFile(rest) //nolint:gosec // the user names the file
	if err != nil {
		return "", fmt.Errorf("read its file: %w", err)
	}
	return strings.TrimRight(string(content), "\r\n"), nil
}

func (a *app) connectionList() *cobra.Command {
	c := &cobra.Command{
		Use: "list", Short: "List the connections; secrets show as their names only",
		Example: "  outfeed connection list", Args: cobra.NoArgs,
	}
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, _ []string) error {
		connections, err := client.Get[api.List[api.Connection]](ctx, remote, "/connections", nil)
		if err != nil {
			return err
		}
		heading := []string{"NAME", "KIND", "OPTIONS", "SECRETS", "UPDATED"}
		return list(a, asJSON, connections.Items, heading, func(n api.Connection) []string {
			options := map[string]string{}
			for name, value := range n.Options {
				options[name] = fmt.Sprint(value)
			}
			return []string{n.Name, n.Kind, pairs(options), strings.Join(n.SecretNames, " "), stamp(n.UpdatedAt)}
		})
	})
	return c
}

func (a *app) connectionDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a connection", Example: "  outfeed connection delete press-plc",
		Args: cobra.ExactArgs(1),
		RunE: a.asks(func(ctx context.Context, remote *client.Client, args []string) error {
			if err := remote.Order(ctx, http.MethodDelete, "/connections/"+url.PathEscape(args[0]), nil); err != nil {
				return err
			}
			return a.print("Deleted connection %s.", args[0])
		}),
	}
}
