package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/controlplane"
	"github.com/outfeed/outfeed/internal/terminal"
)

func keysCommand() *cobra.Command {
	keys := &cobra.Command{
		Use: "keys", Short: "Look at the control plane's own keys, and replace lost ones",
		Long: `The control plane has three keys in its data directory, which belong into every backup beside the database:

  master.key    encrypts the other keys and the stored credentials of connections (or OUTFEED_MASTER_KEY_FILE)
  identity.key  is what agents know this control plane by
  bundle.key    signs what agents run

They are made at the first start. The database records their fingerprints, and a start with a missing or another
installation's key is refused.`,
	}
	keys.AddCommand(keysShow(), keysReplace())
	return keys
}

func keysShow() *cobra.Command {
	c := &cobra.Command{
		Use: "show", Short: "Print the fingerprints of the keys in OUTFEED_DATA_DIR",
		Long:    "Prints the fingerprints of the keys in OUTFEED_DATA_DIR, such as those of a restored backup. It needs no database and changes nothing.",
		Example: "  outfeed-controlplane keys show\n  OUTFEED_DATA_DIR=/mnt/backup outfeed-controlplane keys show --json",
		Args:    cobra.NoArgs,
	}
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.RunE = func(c *cobra.Command, _ []string) error {
		cfg, err := config()
		if err != nil {
			return err
		}
		keys, err := controlplane.ShowKeys(cfg)
		if err != nil {
			return err
		}
		if *asJSON {
			return terminal.WriteJSON(c.OutOrStdout(), keys, "  ")
		}
		return printKeys(c.OutOrStdout(), keys)
	}
	return c
}

// keyNames are the names that the command takes.
func keyNames() []string { return []string{"master", "identity", "bundle"} }

func keysReplace() *cobra.Command {
	c := &cobra.Command{
		Use: "replace NAME...", Short: "Make new keys in the place of lost ones, and tell what must be done then",
		Long: `Makes new keys (master, identity, bundle) for who has lost the old ones for good or does not trust them any more.
Stop every control plane of this installation first. Without --yes it only tells what it would mean.

With the identity or the bundle key every agent must be enrolled again; with the master key, which replaces all three,
every credential of a connection must be entered again too. Files that are there are kept as NAME.key.replaced-TIME.`,
		Example: "  outfeed-controlplane keys replace identity\n  outfeed-controlplane keys replace identity --yes",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("name the keys to replace: %s", strings.Join(keyNames(), ", "))
			}
			for _, a := range args {
				if !slices.Contains(keyNames(), a) {
					return fmt.Errorf("there is no key %q; the keys are %s", a, strings.Join(keyNames(), ", "))
				}
			}
			return nil
		},
	}
	yes := c.Flags().Bool("yes", false, "do it")
	asJSON := c.Flags().Bool("json", false, "print JSON")
	c.RunE = func(c *cobra.Command, args []string) error {
		cfg, err := config()
		if err != nil {
			return err
		}
		cfg.LogLevel = max(cfg.LogLevel, slog.LevelWarn)
		act := controlplane.PriceOfKeys
		if *yes {
			act = controlplane.ReplaceKeys
		}
		r, err := act(c.Context(), cfg, cfg.Logger(c.ErrOrStderr()), args)
		if err != nil {
			return fmt.Errorf("replace keys: %w", err)
		}
		if *asJSON {
			err = terminal.WriteJSON(c.OutOrStdout(), r, "  ")
		} else {
			err = printReplacement(c.OutOrStdout(), r)
		}
		if err == nil && !*yes {
			err = errors.New("nothing was changed; to do it, stop every control plane of this installation and add --yes")
		}
		return err
	}
	return c
}

func printKeys(w io.Writer, keys []controlplane.Key) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "KEY\tFILE\tFINGERPRINT") // Flush tells
	for _, k := range keys {
		fingerprint := k.Fingerprint
		if fingerprint == "" {
			fingerprint = "to be made"
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\n", k.Name, k.File, fingerprint) // as above
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// printReplacement tells what is replaced and what must be done then.
func printReplacement(w io.Writer, r controlplane.KeyReplacement) error {
	if err := printKeys(w, r.Keys); err != nil {
		return err
	}
	text := fmt.Sprintf(`
With these keys:

- %d agents must be enrolled again, because they trust the old keys alone. On each machine stop the agent, remove the
  folder "identity" in its data directory, enrol it with a new token (outfeed agent token; outfeed-agent enroll) and
  start it. Until then its flows go on with what they have. Insights that still wait there are kept aside and are not
  sent. Then deploy the flows on the new agents, and revoke the old ones (outfeed agent revoke).
`, r.Agents)
	if slices.ContainsFunc(r.Keys, func(k controlplane.Key) bool { return k.Name == "master" }) {
		text += fmt.Sprintf(`- %d credentials of connections must be entered again, because they were encrypted under the old master key
  (outfeed connection list; outfeed connection apply, or the dashboard). An agent whose flows need one gets no flows before.
`, r.Credentials)
	}
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}
