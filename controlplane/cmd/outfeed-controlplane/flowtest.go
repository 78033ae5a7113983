package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/agent"
	"github.com/outfeed/outfeed/internal/terminal"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// flowTestName is the command that the control plane calls itself with. People have `outfeed-agent flow test`.
const flowTestName = "flow-test"

// flowTestLine is the command line that tests a definition in a process of its own.
func flowTestLine() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, to test flows with it: %w", err)
	}
	return []string{self, flowTestName}, nil
}

// flowTestCommand runs the tests of a definition with the agent's engine.
func flowTestCommand() *cobra.Command {
	return &cobra.Command{
		Use:    flowTestName,
		Short:  "Run the tests of the definition on standard input, with JSON results",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := limitMemory(); err != nil {
				return err
			}
			text, err := io.ReadAll(io.LimitReader(c.InOrStdin(), flowdef.MaxBytes+1))
			if err != nil {
				return fmt.Errorf("read the definition: %w", err)
			}
			results, err := agent.TestFlow(c.Context(), agent.Definition{File: "flow", Flow: text})
			if err != nil {
				return err
			}
			return terminal.WriteJSON(c.OutOrStdout(), results, "")
		},
	}
}
