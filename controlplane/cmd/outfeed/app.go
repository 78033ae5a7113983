package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/controlplane/cmd/outfeed/internal/client"
	"github.com/outfeed/outfeed/internal/buildinfo"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/internal/terminal"
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// app is what the commands share: the world outside, so that tests can be it.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	now            func() time.Time
}

// failure is an error of a command that was called rightly. Every other error is one of usage.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// errReported is a failure whose reasons are printed already.
var errReported = errors.New("the reasons are above")

// run runs the command and gives its exit code.
func run(ctx context.Context, args []string, a *app) int {
	root := a.root() //nolint:contextcheck // cobra hands the context to the commands
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	command, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errReported):
		return exitFailed
	}
	a.say("Error: %s", terminal.Text(err.Error()))
	if _, failed := errors.AsType[failure](err); failed {
		return exitFailed
	}
	a.say("See %s --help.", command.CommandPath())
	return exitUsage
}

// say writes a line for the person, not for the next program.
func (a *app) say(format string, args ...any) {
	_, _ = fmt.Fprintf(a.stderr, format+"\n", args...) // nowhere is left to report it
}

// print writes a line of the result.
func (a *app) print(format string, args ...any) error {
	if _, err := fmt.Fprintf(a.stdout, format+"\n", args...); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "outfeed",
		Short: "Work with an Outfeed control plane",
		Long: `outfeed works with an Outfeed control plane: its agents, connections, flows, runs and insights.

Log in once; the address and the key are kept in the user's configuration directory, or in the file that
OUTFEED_CONFIG names. OUTFEED_URL with OUTFEED_API_KEY go before that file.

Exit codes: 0 success; 1 the control plane refused, could not be reached, or a flow has problems; 2 wrong usage.`,
		Example: `  outfeed login https://outfeed.example --api-key-file key.txt
  outfeed agent token --label site=berlin
  outfeed connection apply -f connections.yaml
  outfeed flow apply press-health.yaml --publish --deploy site=berlin
  outfeed insight tail press_health`,
		SilenceUsage: true, SilenceErrors: true,
		Args: cobra.NoArgs,
		RunE: help,
	}
	root.AddCommand(
		a.loginCommand(), a.versionCommand(),
		a.agentCommand(), a.apiKeyCommand(), a.connectorCommand(), a.connectionCommand(),
		a.flowCommand(), a.runCommand(), a.insightCommand(),
	)
	return root
}

// group is a command that only has others below it.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: help}
	g.AddCommand(commands...)
	return g
}

func help(c *cobra.Command, _ []string) error {
	if err := c.Help(); err != nil {
		return fmt.Errorf("write the help: %w", err)
	}
	return nil
}

// does marks the errors of a command's work as failures, apart from those of its usage.
func does(work func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		err := work(c.Context(), args)
		if err == nil {
			return nil
		}
		if _, usage := errors.AsType[*usageError](err); usage {
			return err
		}
		return failure{err}
	}
}

// asks is does with a client.
func (a *app) asks(work func(ctx context.Context, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return does(func(ctx context.Context, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return work(ctx, c, args)
	})
}

// usageError is a wrong flag or argument that only the command's work could see.
type usageError struct{ message string }

func (e *usageError) Error() string { return e.message }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

func (a *app) client() (*client.Client, error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	return a.newClient(c)
}

func (a *app) newClient(c config) (*client.Client, error) {
	return client.New(client.Settings{
		URL: c.URL, Key: secret.New(c.APIKey), CA: []byte(c.CA), UserAgent: "outfeed/" + buildinfo.Version(),
	})
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version of this program", Example: "  outfeed version", Args: cobra.NoArgs,
		RunE: does(func(context.Context, []string) error { return a.print("outfeed %s", buildinfo.Version()) }),
	}
}
