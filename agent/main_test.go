package agent_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/outfeed/outfeed/agent"
)

// TestMain lets this program be the child that the agent has read a file of the staging: it starts itself for that.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == agent.VerifyCommand {
		os.Exit(verifyStore(os.Args[2]))
	}
	os.Exit(m.Run())
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
