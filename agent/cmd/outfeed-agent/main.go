// Command outfeed-agent runs data flows inside a plant and sends only their insights to the control plane.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // flows name time zones, and Windows has none

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/agent"
	"github.com/outfeed/outfeed/internal/buildinfo"
	"github.com/outfeed/outfeed/internal/coredump"
	"github.com/outfeed/outfeed/internal/terminal"
)

// The exit codes. They are part of the command line's contract.
const (
	exitOK = iota
	// exitFailed: it was tried and did not work.
	exitFailed
	// exitUsage: the command line, the configuration or the definition is wrong.
	exitUsage
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	args := hideToken(os.Args[1:])
	if err := coredump.Disable(); err != nil {
		fmt.Fprintln(os.Stderr, "outfeed-agent: warning:", err)
	}
	os.Exit(run(ctx, args))
}

func run(ctx context.Context, args []string) int {
	began := false
	root := newRoot(&began) //nolint:contextcheck // the commands take theirs from ExecuteContext
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if errors.Is(err, errSilent) {
		return exitFailed
	}
	fmt.Fprintln(root.ErrOrStderr(), "outfeed-agent:", terminal.Text(err.Error()))
	if errors.Is(err, agent.ErrCannotVerify) {
		if agent.NoRoom(err) {
			return agent.ExitNoRoom
		}
		return agent.ExitCannotVerify
	}
	if !began || errors.As(err, new(*usageError)) || errors.As(err, new(*agent.DefinitionError)) {
		return exitUsage
	}
	return exitFailed
}

// errSilent ends a command that has said what is wrong already.
var errSilent = errors.New("failed")

// usageError is a mistake in the command line or the configuration.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// flags are those that more than one command has.
type flags struct {
	configFile string
	dataDir    string
	json       bool
}

// config reads the configuration; --data-dir wins over it.
func (f *flags) config() (agent.Config, error) {
	c, err := agent.LoadConfig(f.configFile, func(name string) (string, bool) {
		if name == "OUTFEED_AGENT_DATA_DIR" && f.dataDir != "" {
			return f.dataDir, true
		}
		return os.LookupEnv(name)
	})
	if err != nil {
		return agent.Config{}, &usageError{err}
	}
	return c, nil
}

// newRoot makes the commands. Began is set when the command line was right and the command's work begins.
func newRoot(began *bool) *cobra.Command {
	var f flags
	root := &cobra.Command{
		Use:   "outfeed-agent",
		Short: "Runs data flows inside a plant and sends only their insights out",
		Long: `outfeed-agent runs data flows where a plant's data is, and sends only their insights to the control plane.

It opens one outbound connection and no inbound port. Enrol it once with a token from the control plane, then run it
as a service. Flow definitions can be checked, tested and run on this machine without any control plane.`,
		Example: `  outfeed-agent enroll --url https://outfeed.example.com --token-file token.txt
  outfeed-agent run
  outfeed-agent flow check press-health.yaml
  outfeed-agent flow run press-health.yaml --connections connections.yaml`,
		Version:           buildinfo.Version(),
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w (see %s --help)", err, c.CommandPath())}
	})
	root.PersistentFlags().StringVar(&f.configFile, "config", "", "configuration `FILE` (YAML)")
	root.PersistentFlags().StringVar(&f.dataDir, "data-dir", "", "`DIR` of the agent's keys and staging; wins over the configuration")
	root.AddCommand(enrollCommand(&f), runCommand(&f), statusCommand(&f), rotateCommand(&f), flowCommand(&f), verifyCommand())
	markBegin(root, began)
	return root
}

// markBegin notes when a command's work begins, which is after cobra has judged the command line. A command without work
// of its own takes no arguments and shows its help.
func markBegin(c *cobra.Command, began *bool) {
	work := c.RunE
	if work == nil {
		c.Args = noArgs
		work = func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	c.RunE = func(c *cobra.Command, args []string) error {
		*began = true
		return work(c, args)
	}
	for _, sub := range c.Commands() {
		markBegin(sub, began)
	}
}

func runCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Run the agent until it is asked to stop",
		Long: `Runs the deployed flows and keeps one connection to the control plane.

Flows start and go on without the control plane; what they produce waits in the staging until it can be sent.`,
		Example: "  outfeed-agent run\n  outfeed-agent run --config /etc/outfeed-agent/agent.yaml",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := f.config()
			if err != nil {
				return err
			}
			return agent.New(cfg, cfg.Logger(c.ErrOrStderr())).Run(c.Context())
		},
	}
}

func enrollCommand(f *flags) *cobra.Command {
	var e agent.Enrollment
	var t tokenFlags
	c := &cobra.Command{
		Use:   "enroll --url URL (--token-file FILE | --token -)",
		Short: "Make this machine an agent of a control plane, once",
		Long: `Makes this machine an agent. The token comes from the dashboard or from "outfeed agent token"; it works once and
for an hour, and it says which control plane is the right one: the agent refuses any other.

Give the token in a file, or on the standard input with --token -. On the command line itself (--token TOKEN) other users
of this machine could see it.`,
		Example: `  outfeed-agent enroll --url https://outfeed.example.com --token-file token.txt --label site=berlin --label line=7
  outfeed-agent enroll --url https://outfeed.example.com --token - < token.txt`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := f.config()
			if err != nil {
				return err
			}
			if e.Token, err = t.read(c); err != nil {
				return &usageError{err}
			}
			id, err := agent.Enroll(c.Context(), cfg, e)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "This machine is agent %s of %s now.\nStart it with: outfeed-agent run --data-dir %s\n", terminal.Line(id), e.URL, cfg.DataDir)
			return nil
		},
	}
	c.Flags().StringVar(&e.URL, "url", "", "`URL` of the control plane, like https://outfeed.example.com")
	c.Flags().StringVar(&t.token, "token", "", "enrolment `TOKEN`; - reads it from the standard input")
	c.Flags().StringVar(&t.file, "token-file", "", "`FILE` that holds the enrolment token")
	c.Flags().StringToStringVar(&e.Labels, "label", nil, "label of the agent, `KEY=VALUE`; repeatable")
	c.MarkFlagsMutuallyExclusive("token", "token-file")
	c.MarkFlagsOneRequired("token", "token-file")
	if err := c.MarkFlagRequired("url"); err != nil {
		panic(err)
	}
	return c
}

// noArgs refuses what is left on the command line.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{fmt.Errorf("%q is not a part of this command (see %s --help)", args[0], c.CommandPath())}
	}
	return nil
}

// oneFile wants exactly one file name.
func oneFile(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return &usageError{fmt.Errorf("name one flow definition (see %s --help)", c.CommandPath())}
	}
	return nil
}
