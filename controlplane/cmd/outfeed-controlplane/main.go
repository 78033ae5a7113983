// Command outfeed-controlplane is the cloud side of Outfeed: it holds flows, receives insights and talks to agents.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // flows name time zones, and a small container has none

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/controlplane"
	"github.com/outfeed/outfeed/internal/buildinfo"
	"github.com/outfeed/outfeed/internal/coredump"
	"github.com/outfeed/outfeed/internal/terminal"
)

// The exit codes. They are part of the command line's contract.
const (
	exitOK = iota
	// exitFailed: it was tried and did not work.
	exitFailed
	// exitUsage: the command line or the configuration is wrong.
	exitUsage
)

// errUsage marks a mistake in the command line or the configuration.
var errUsage = errors.New("")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := coredump.Disable(); err != nil {
		fmt.Fprintln(os.Stderr, "outfeed-controlplane: warning:", err)
	}
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	began := false
	root := newRoot(&began) //nolint:contextcheck // the commands take theirs from ExecuteContext
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(root.ErrOrStderr(), "outfeed-controlplane:", terminal.Text(err.Error()))
	if !began || errors.Is(err, errUsage) {
		return exitUsage
	}
	return exitFailed
}

// config reads the configuration from the environment.
func config() (controlplane.Config, error) {
	c, err := controlplane.LoadConfig(os.LookupEnv)
	if err != nil {
		return controlplane.Config{}, fmt.Errorf("configuration: %w%w", err, errUsage)
	}
	return c, nil
}

// newRoot makes the commands. Began is set when the command line was right and the command's work begins.
func newRoot(began *bool) *cobra.Command {
	var help strings.Builder
	help.WriteString("outfeed-controlplane is the cloud side of Outfeed. It is configured by environment variables:\n\n")
	for _, v := range controlplane.Variables() {
		fmt.Fprintf(&help, "  %s\n        %s\n", v[0], v[1])
	}
	root := &cobra.Command{
		Use:               "outfeed-controlplane",
		Short:             "The cloud side of Outfeed",
		Long:              help.String(),
		Example:           "  OUTFEED_DATA_DIR=./data outfeed-controlplane serve\n  outfeed-controlplane admin tenant create \"My company\" --owner me@example.com",
		Version:           buildinfo.Version(),
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w (see %s --help)%w", err, c.CommandPath(), errUsage)
	})
	root.AddCommand(serveCommand(), migrateCommand(), adminCommand(), keysCommand(), flowTestCommand())
	markBegin(root, began)
	return root
}

// markBegin notes when a command's work begins, which is after cobra has judged the command line. A command without work
// of its own takes no arguments and shows its help.
func markBegin(c *cobra.Command, began *bool) {
	work := c.RunE
	if work == nil {
		c.Args = cobra.NoArgs
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

func serveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Serve the API, the dashboard and the agents until it is asked to stop",
		Long: `Serves the API, the dashboard and the agents.

With no OUTFEED_DATABASE_URL it starts a private PostgreSQL in OUTFEED_DATA_DIR from this machine's own binaries,
migrates it, and looks after it.`,
		Example: "  OUTFEED_DATA_DIR=./data OUTFEED_LISTEN=127.0.0.1:8480 outfeed-controlplane serve",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config()
			if err != nil {
				return err
			}
			if cfg.FlowTest, err = flowTestLine(); err != nil {
				return err
			}
			collectOften()
			return controlplane.New(cfg, cfg.Logger(c.ErrOrStderr())).Run(c.Context())
		},
	}
}

func migrateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the schema of a PostgreSQL of your own up to date",
		Long: `Brings the schema up to date, as the role that owns it (OUTFEED_MIGRATE_DATABASE_URL), and gives the application role
its rights. Running it again changes nothing. A private PostgreSQL is migrated by serve.`,
		Example: "  OUTFEED_MIGRATE_DATABASE_URL=postgres://outfeed_owner@db/outfeed outfeed-controlplane migrate",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := config()
			if err != nil {
				return err
			}
			if err := controlplane.Migrate(c.Context(), cfg); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "The schema is up to date.")
			return nil
		},
	}
}

func adminCommand() *cobra.Command {
	admin := &cobra.Command{Use: "admin", Short: "What the operator of a control plane does", Long: "Speaks to the running control plane of this machine, through OUTFEED_ADMIN_LISTEN with the token in OUTFEED_ADMIN_TOKEN_FILE."}
	tenant := &cobra.Command{Use: "tenant", Short: "Work with tenants"}
	var owner string
	var asJSON bool
	create := &cobra.Command{
		Use:     "create NAME --owner EMAIL",
		Short:   "Make a tenant, and print it with its first API key",
		Long:    "Makes a tenant with a first workspace and an owner's API key. The key is printed this once.",
		Example: "  outfeed-controlplane admin tenant create \"My company\" --owner me@example.com",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := config()
			if err != nil {
				return err
			}
			t, err := controlplane.CreateTenant(c.Context(), cfg, args[0], owner)
			if err != nil {
				return err
			}
			if asJSON {
				return terminal.WriteJSON(c.OutOrStdout(), t, "  ")
			}
			fmt.Fprintf(c.OutOrStdout(), "tenant   %s  %s\nAPI key  %s\n\nThe key is shown this once. Sign in with it in the dashboard, or with:\n  outfeed login %s\n", t.ID, terminal.Line(t.Name), t.APIKey, cfg.PublicURL)
			return nil
		},
	}
	create.Flags().StringVar(&owner, "owner", "", "`EMAIL` of the owner")
	create.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	if err := create.MarkFlagRequired("owner"); err != nil {
		panic(err)
	}
	tenant.AddCommand(create)
	admin.AddCommand(tenant)
	return admin
}
