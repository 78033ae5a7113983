package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outfeed/outfeed/agent"
	"github.com/outfeed/outfeed/internal/secret"
)

// longestToken bounds what is read as a token, in bytes.
const longestToken = 64 << 10

// tokenFlags are the ways in which a token is given.
type tokenFlags struct{ token, file string }

// read takes the token from a file, from the standard input, or from the command line, where others can have seen it.
func (f tokenFlags) read(c *cobra.Command) (secret.String, error) {
	switch {
	case f.file != "":
		text, err := os.ReadFile(f.file)
		if err != nil {
			return secret.String{}, fmt.Errorf("read the token: %w", err)
		}
		return secret.New(strings.TrimSpace(string(text))), nil
	case f.token == "-":
		if info, err := os.Stdin.Stat(); err == nil && c.InOrStdin() == os.Stdin && info.Mode()&os.ModeCharDevice != 0 {
			fmt.Fprintln(c.ErrOrStderr(), "Paste the token and press Enter:")
		}
		line, err := bufio.NewReader(io.LimitReader(c.InOrStdin(), longestToken)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return secret.String{}, fmt.Errorf("read the token from the standard input: %w", err)
		}
		return secret.New(strings.TrimSpace(line)), nil
	}
	fmt.Fprintln(c.ErrOrStderr(), "outfeed-agent: a token on the command line can be seen by every user of this machine and stays in the shell's"+
		" history; give it with --token-file FILE, or with --token - on the standard input")
	return secret.New(strings.TrimSpace(f.token)), nil
}

func rotateCommand(f *flags) *cobra.Command {
	return &cobra.Command{
		Use:   "rotate-keys",
		Short: "Have the agent on this machine change its keys",
		Long: `Has the agent that runs on this machine make new keys and show them to the control plane, at once or when it connects
the next time. The old ones work until the agent has connected with the new ones, and are worth nothing after that.`,
		Example: "  outfeed-agent rotate-keys",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := f.config()
			if err != nil {
				return err
			}
			if err := agent.RotateKeys(c.Context(), cfg); err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), "The new keys are made; the control plane gets them at once, or when the agent connects.")
			return nil
		},
	}
}
