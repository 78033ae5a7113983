package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/agent"
	"github.com/outfeed/outfeed/internal/terminal"
)

func flowCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:   "flow",
		Short: "Check, test and run flow definitions on this machine",
		Long:  "Works on a flow definition without any control plane. docs/flows.md describes the language.",
	}
	c.AddCommand(flowCheckCommand(f), flowTestCommand(f), flowRunCommand(f), flowExplainCommand())
	return c
}

func flowExplainCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "explain [WORD]",
		Short:   "Explain a word of the language: a verb, a window, a function, an aggregate",
		Long:    "Explains a word of the flow language, with an example. Without a word it lists them all.",
		Example: "  outfeed-agent flow explain\n  outfeed-agent flow explain join\n  outfeed-agent flow explain time_weighted_avg",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			text, err := agent.ExplainFlow(strings.Join(args, ""))
			if err != nil {
				return &usageError{err}
			}
			fmt.Fprint(c.OutOrStdout(), text)
			return nil
		},
	}
}

func flowCheckCommand(f *flags) *cobra.Command {
	var connections string
	c := &cobra.Command{
		Use:   "check FLOW.yaml",
		Short: "Say what is wrong with a definition, and what would leave the plant",
		Long: `Checks a definition as the control plane and the agent do: names, types, windows. With --connections it also checks
the connections and the options of each read. When all is well it prints the egress manifest: every column that would
leave the plant, where it comes from, and whether it is aggregated or raw; then what the flow writes into the plant's
systems.

Exit code 0: all is well; 2: the definition is wrong.`,
		Example: "  outfeed-agent flow check press-health.yaml --connections connections.yaml",
		Args:    oneFile,
		RunE: func(c *cobra.Command, args []string) error {
			d, err := readDefinition(args[0], connections)
			if err != nil {
				return err
			}
			m, err := agent.CheckFlow(d)
			if f.json {
				return printCheckJSON(c, args[0], m, err)
			}
			if err != nil {
				return err
			}
			return printManifest(c.OutOrStdout(), args[0], m)
		},
	}
	c.Flags().StringVar(&connections, "connections", "", "`FILE` with the connections (YAML)")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return c
}

// printCheckJSON prints the problems or the manifest; the exit code is that of the text form.
func printCheckJSON(c *cobra.Command, name string, m agent.CheckedFlow, err error) error {
	wrong, isDefinition := errors.AsType[*agent.DefinitionError](err)
	if err != nil && !isDefinition {
		return err
	}
	out := struct {
		File     string         `json:"file"`
		OK       bool           `json:"ok"`
		Problems agent.Problems `json:"problems"`
		Egress   agent.Manifest `json:"egress"`
		// Writes is what the flow writes into the plant's systems.
		Writes []agent.PlannedWrite `json:"writes,omitempty"`
	}{File: name, OK: err == nil, Egress: m.Egress, Writes: m.Writes}
	if isDefinition {
		out.Problems = wrong.Problems
	}
	return errors.Join(terminal.WriteJSON(c.OutOrStdout(), out, "  "), err)
}

func printManifest(out io.Writer, name string, m agent.CheckedFlow) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintf(w, "%s is well. What leaves the plant:\n", name)
	for _, col := range m.Egress.Columns {
		kind, from := "raw", strings.Join(col.Sources, ", ")
		if col.Aggregated {
			kind = "aggregated"
		}
		if from == "" {
			from = "no column"
		}
		fmt.Fprintf(w, "  %s.%s\t%s\t%s\tfrom %s\n", col.Insight, terminal.Line(col.Column), col.Type, kind, terminal.Line(from))
	}
	if len(m.Egress.Columns) == 0 {
		fmt.Fprintln(w, "  nothing")
	}
	if len(m.Writes) > 0 {
		fmt.Fprintln(w, "What is written into the plant's systems, where the agent's configuration allows it:")
	}
	for _, write := range m.Writes {
		fmt.Fprintf(w, "  step %s\tinto %s\t%s\t%s\n", write.Step, write.Connection, terminal.Line(optionsText(write.With)), terminal.Line(strings.Join(write.Columns, ", ")))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the manifest: %w", err)
	}
	return nil
}

// optionsText is the options of a step as they could be written.
func optionsText(with map[string]any) string {
	parts := make([]string, 0, len(with))
	for _, name := range slices.Sorted(maps.Keys(with)) {
		parts = append(parts, fmt.Sprintf("%s: %v", name, with[name]))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func flowTestCommand(f *flags) *cobra.Command {
	c := &cobra.Command{
		Use:     "test FLOW.yaml",
		Short:   "Run the tests of a definition",
		Long:    "Runs the `tests:` of a definition through the real engine and shows where the insights differ from those expected.\n\nExit code 0: all pass; 1: some fail; 2: the definition is wrong.",
		Example: "  outfeed-agent flow test press-health.yaml",
		Args:    oneFile,
		RunE: func(c *cobra.Command, args []string) error {
			d, err := readDefinition(args[0], "")
			if err != nil {
				return err
			}
			results, err := agent.TestFlow(c.Context(), d)
			if err != nil {
				return err
			}
			return printTests(c.OutOrStdout(), results, f.json)
		},
	}
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return c
}

func printTests(w io.Writer, results []agent.TestResult, asJSON bool) error {
	failed := 0
	for _, r := range results {
		if !r.Passed {
			failed++
		}
	}
	if asJSON {
		if err := terminal.WriteJSON(w, results, ""); err != nil {
			return err
		}
	} else {
		for _, r := range results {
			mark := "ok    "
			if !r.Passed {
				mark = "FAILED"
			}
			fmt.Fprintf(w, "%s %s%s\n", mark, terminal.Line(r.Name), terminal.Line(failedRecords(&r)))
			if r.Difference != "" {
				fmt.Fprintln(w, terminal.Text(strings.TrimRight(r.Difference, "\n")))
			}
		}
		fmt.Fprintf(w, "%d passed, %d failed\n", len(results)-failed, failed)
	}
	if failed > 0 {
		return errSilent
	}
	return nil
}

// failedRecords tells of records that failed in a test that passed and does not expect them, so that a mistake in its
// rows does not look like a pass.
func failedRecords(r *agent.TestResult) string {
	switch {
	case !r.Passed || r.FailedExpected || r.Failed == 0:
		return ""
	case r.Failed == 1:
		return fmt.Sprintf(" (1 record failed: %s)", r.FailedReason)
	}
	return fmt.Sprintf(" (%d records failed: %s)", r.Failed, r.FailedReason)
}

func flowRunCommand(f *flags) *cobra.Command {
	var connections string
	var allowWrites bool
	limit := agent.DefaultMemoryLimit
	c := &cobra.Command{
		Use:   "run FLOW.yaml --connections CONN.yaml",
		Short: "Run a flow here, with its insights as JSON lines on standard output",
		Long: `Runs a flow on this machine, without any control plane. Insights go to standard output, a line each:

  {"insight": NAME, "time": RFC 3339, "key": {...}, "values": {...}}

and a summary to standard error. The run ends when its sources do, or with Ctrl-C. With --data-dir it stages there what
must survive, and the next run with the same folder goes on where this one ended; without, every run starts anew. After
a run that was killed, the next one prints again what it cannot know to have been printed: a line comes at least once.
A run that ends by itself prints when it ends, or after five minutes; one of a flow with on_error: stop prints as it goes. What does not fit in the memory limit is spilled to
the folder, or to the system's temporary one.

A flow that writes into the plant's systems is refused unless --allow-writes is given.

Exit code 0: the run ended, or you ended it; 1: it failed, or a source was failing at its end; 2: the definition is wrong.`,
		Example: `  outfeed-agent flow run press-health.yaml --connections connections.yaml
  outfeed-agent flow run lathe.yaml --connections connections.yaml --data-dir ./state > insights.jsonl`,
		Args: oneFile,
		RunE: func(c *cobra.Command, args []string) error {
			d, err := readDefinition(args[0], connections)
			if err != nil {
				return err
			}
			run := agent.FlowRun{Definition: d, DataDir: f.dataDir, MemoryLimit: limit, Out: c.OutOrStdout(), Log: c.ErrOrStderr()}
			if allowWrites {
				run.Writes = agent.WritesAllowed
			}
			summary, err := agent.RunFlow(c.Context(), run)
			if summary.Started {
				printSummary(c.ErrOrStderr(), args[0], summary)
				if err == nil && summary.Read == 0 {
					fmt.Fprintln(c.ErrOrStderr(), "  nothing was there to read: no file, message or row fits what the read steps name, or all was read before")
				}
			}
			return err
		},
	}
	c.Flags().StringVar(&connections, "connections", "", "`FILE` with the connections (YAML)")
	c.Flags().BoolVar(&allowWrites, "allow-writes", false, "let the flow write into the plant's systems")
	c.Flags().Var(&limit, "memory-limit", "most memory that the process uses, such as 512MB or 2GB")
	if err := c.MarkFlagRequired("connections"); err != nil {
		panic(err)
	}
	return c
}

func printSummary(w io.Writer, name string, s agent.RunSummary) {
	fmt.Fprintf(w, "%s: %d records read (%s) in %v, %d insights, %d records failed, %d late\n",
		name, s.Read, terminal.Bytes(uint64(max(s.Bytes, 0))), s.Took.Round(1e6), s.Insights, s.Failed, s.Late)
	for _, step := range s.Steps {
		if step.Outside > 0 {
			fmt.Fprintf(w, "  step %s: %d records outside of every shift\n", terminal.Line(step.Step), step.Outside)
		}
	}
	shown := int64(0)
	for _, r := range s.Sample {
		if r.Note {
			fmt.Fprintf(w, "  noted in %s at %s: %s\n", r.Step, terminal.Line(r.Where), terminal.Line(r.Reason))
			continue
		}
		shown++
		text := terminal.Line(r.Reason)
		if r.Record != "" {
			text += ": " + terminal.Line(r.Record)
		}
		fmt.Fprintf(w, "  failed in %s at %s: %s\n", r.Step, terminal.Line(r.Where), text)
	}
	if more := s.Failed - shown; more > 0 && shown > 0 {
		fmt.Fprintf(w, "  and %d more\n", more)
	}
}

// readDefinition reads a definition and, when named, its connections.
func readDefinition(flow, connections string) (agent.Definition, error) {
	d := agent.Definition{File: flow, ConnectionsFile: connections}
	var err error
	if d.Flow, err = os.ReadFile(flow); err != nil { //nolint:gosec // the file that the person named
		return d, &usageError{fmt.Errorf("read the flow: %w", err)}
	}
	if connections == "" {
		return d, nil
	}
	if d.Connections, err = os.ReadFile(connections); err != nil { //nolint:gosec // the file that the person named
		return d, &usageError{fmt.Errorf("read the connections: %w", err)}
	}
	return d, nil
}
