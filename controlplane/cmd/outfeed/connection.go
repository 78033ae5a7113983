package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/controlplane/cmd/outfeed/internal/client"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/internal/terminal"
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
		return list(a, asJSON, kinds, []string{"KIND", "TITLE", "USES", "OPTIONS"}, func(s flowdef.ConnectorSpec) []string {
			var options []string
			for _, o := range s.Options {
				options = append(options, o.Name)
			}
			return []string{s.Kind, s.Title, usesOf(s), strings.Join(options, " ")}
		})
	})
	return group("connector", "List the kinds of connection", c)
}

// usesOf is the verbs that take connections of a kind.
func usesOf(s flowdef.ConnectorSpec) string {
	uses := "read"
	if len(s.LookupOptions) > 0 {
		uses += " lookup"
	}
	if len(s.WriteOptions) > 0 {
		uses += " write"
	}
	return uses
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
    address: mqtts://broker.plant.lan:8883
    username: outfeed
    password: ${PRESS_PASSWORD}

A value that is ${VARIABLE} as a whole stands for a variable of the environment. Which options are secret comes from the
connector; a secret may also be @FILE for the contents of a file beside CONN.yaml (@@ stands for @ at its start), and one
that is left out stays as it is. Connections that the file does not name stay as they are.`,
		Example: "  outfeed connection apply -f connections.yaml", Args: cobra.NoArgs,
	}
	c.Flags().StringVarP(&path, "file", "f", "", "file with the connections")
	if err := c.MarkFlagRequired("file"); err != nil {
		panic(err) // the flag is declared one line above
	}
	asJSON := jsonFlag(c)
	c.RunE = a.asks(func(ctx context.Context, remote *client.Client, _ []string) error {
		kinds, err := connectors(ctx, remote)
		if err != nil {
			return err
		}
		wanted, err := a.readConnections(path, kinds)
		if err != nil {
			return err
		}
		return a.applyConnections(ctx, remote, wanted, asJSON)
	})
	return c
}

// readConnections reads a CONN.yaml, with what it refers to.
func (a *app) readConnections(path string, kinds []flowdef.ConnectorSpec) ([]flowdef.ConnectionDef, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the user names the file
	if err != nil {
		return nil, fmt.Errorf("read the connections: %w", err)
	}
	if len(kinds) == 0 {
		return nil, errors.New("no agent has told yet what kinds of connection there are; enrol one and run it, then apply again")
	}
	wanted, err := flowdef.ParseConnections(text, kinds, flowdef.References{
		Env: func(name string) (string, bool) { v := a.getenv(name); return v, v != "" },
		File: func(name string) ([]byte, error) {
			if !filepath.IsAbs(name) {
				name = filepath.Join(filepath.Dir(path), name)
			}
			return os.ReadFile(name) //nolint:gosec // the user names the file
		},
	})
	if problems, ok := errors.AsType[flowdef.Problems](err); ok {
		var lines []string
		for _, p := range problems {
			lines = append(lines, fmt.Sprintf("%s:%d:%d: %s", path, p.Line, p.Column, p.Message))
		}
		return nil, errors.New(strings.Join(lines, "\n"))
	}
	return wanted, err
}

// applyConnections applies what was read; all of it was checked before.
func (a *app) applyConnections(ctx context.Context, remote *client.Client, wanted []flowdef.ConnectionDef, asJSON *bool) error {
	applied := make([]api.Connection, len(wanted))
	for i, w := range wanted {
		apply := api.ConnectionApply{Kind: w.Kind, Options: w.Options, Secrets: map[string]string{}}
		for name, value := range w.Secrets {
			apply.Secrets[name] = value.Reveal()
		}
		connection, err := client.Put[api.Connection](ctx, remote, "/connections/"+url.PathEscape(w.Name), apply)
		if err != nil {
			return fmt.Errorf("connection %s (%d of %d were applied): %w", w.Name, i, len(wanted), err)
		}
		applied[i] = connection
		if !*asJSON {
			if err := a.print("Applied connection %s (%s).", terminal.Text(connection.Name), terminal.Text(connection.Kind)); err != nil {
				return err
			}
		}
	}
	if *asJSON {
		return a.printJSON(applied)
	}
	return nil
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
