package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/agent"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/internal/terminal"
)

// readToken takes the token from the flag or the file.
func readToken(token, file string) (secret.String, error) {
	if file == "" {
		return secret.New(strings.TrimSpace(token)), nil
	}
	text, err := os.ReadFile(file) //nolint:gosec // the file that the person named
	if err != nil {
		return secret.String{}, fmt.Errorf("read the token: %w", err)
	}
	return secret.New(strings.TrimSpace(string(text))), nil
}

func statusCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show how the agent on this machine is doing",
		Long:    "Shows the connection to the control plane, every flow with its sources, and what waits to be sent.",
		Example: "  outfeed-agent status\n  outfeed-agent status --json",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := f.config()
			if err != nil {
				return err
			}
			s, err := agent.ReadStatus(c.Context(), cfg)
			if err != nil {
				return err
			}
			if f.json {
				e := json.NewEncoder(c.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(s)
			}
			return printStatus(tabwriter.NewWriter(c.OutOrStdout(), 0, 4, 2, ' ', 0), s)
		},
	}
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return c
}

func printStatus(w *tabwriter.Writer, s agent.LocalStatus) error {
	fmt.Fprintf(w, "agent\t%s\t%s\n", s.AgentID, s.Version)
	fmt.Fprintf(w, "control plane\t%s\t%s\n", s.ControlPlane, connection(s.Tunnel))
	if s.BundleError != "" {
		fmt.Fprintf(w, "newest bundle\trefused\t%s\n", terminal.Line(s.BundleError))
	}
	o := s.Outbox
	fmt.Fprintf(w, "insights\t%d produced\t%d stored by the control plane, %d waiting (%s)\n", o.Produced, o.Acknowledged, o.WaitingRecords, bytesText(o.WaitingBytes))
	if o.Lost > 0 {
		fmt.Fprintf(w, "\t%d lost\t%s\n", o.Lost, "damaged or cut off; see the log")
	}
	for _, a := range o.SetAside {
		waiting := "an unknown number of"
		if a.Waiting >= 0 {
			waiting = strconv.FormatInt(a.Waiting, 10)
		}
		fmt.Fprintf(w, "\tset aside\t%s insights of agent %s that were not sent, in %s\n", waiting, a.AgentID, a.Dir)
	}
	if len(s.Flows) == 0 {
		fmt.Fprintln(w, "flows\tnone deployed\t")
	}
	for _, fl := range s.Flows {
		fmt.Fprintf(w, "flow %s\t%s\tversion %d, since %s %s\n", fl.Name, fl.State, fl.Version, fl.Since.Local().Format(time.DateTime), terminal.Line(fl.Error))
		for _, src := range fl.Sources {
			fmt.Fprintf(w, "  %s from %s\t%s\t%s %s\n", src.Step, src.Connection, src.State, lastRecord(src.LastRecord), terminal.Line(src.Error))
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the status: %w", err)
	}
	return nil
}

func connection(t agent.TunnelStatus) string {
	if t.Connected {
		return "connected since " + t.Since.Local().Format(time.DateTime)
	}
	text := "not connected"
	if t.Error != "" {
		text += ": " + terminal.Line(t.Error)
	}
	if !t.NextTry.IsZero() {
		text += "; next try at " + t.NextTry.Local().Format(time.TimeOnly)
	}
	return text
}

func lastRecord(t time.Time) string {
	if t.IsZero() {
		return "no record yet"
	}
	return "last record " + t.Local().Format(time.DateTime)
}

// bytesText writes a size for people, in binary units.
func bytesText(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, i := float64(n), -1
	for value >= unit && i < 4 {
		value /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[i])
}

// verifyCommand is what the agent starts as a child after an unclean stop, because a damaged file can crash whoever
// reads it. With a target it writes there what is whole of the file.
func verifyCommand() *cobra.Command {
	const salvageArgs = 3
	return &cobra.Command{
		Use:    agent.VerifyCommand + " FILE [TARGET LAST]",
		Hidden: true,
		Args:   cobra.RangeArgs(1, salvageArgs),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == salvageArgs {
				return agent.SalvageStore(args[0], args[1], args[2])
			}
			return agent.VerifyStore(args[0])
		},
	}
}
