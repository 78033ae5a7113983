package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/outfeed/outfeed/agent"
)

// TestMain lets this program be the child that the agent has read a file of the staging: it starts itself for that.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == agent.VerifyCommand {
		os.Exit(verifyStore(os.Args[2]))
	}
	if len(os.Args) > 3 && os.Args[1] == measuredCommand {
		os.Exit(measured(os.Args[2], os.Args[3], os.Args[4:]))
	}
	os.Exit(m.Run())
}

// measuredCommand has this program run another one and write its peak memory, in kilobytes, to a file. The system counts what
// a process had before it became the program, which is what its parent has, and the one that runs the tests has much.
const measuredCommand = "measured-command"

func measured(peakFile, program string, args []string) int {
	c := exec.CommandContext(context.Background(), program, args...) //nolint:gosec // what the test gives
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	err := c.Run()
	if err == nil {
		err = os.WriteFile(peakFile, []byte(strconv.FormatInt(peak(c.ProcessState), 10)), 0o600) //nolint:gosec // the test's own file
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func verifyStore(path string) int {
	err := agent.VerifyStore(path)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, agent.ErrCannotVerify):
		fmt.Fprintln(os.Stderr, err)
		return agent.ExitCannotVerify
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}
