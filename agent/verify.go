package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// VerifyCommand is the name of the hidden command that runs VerifyStore.
const VerifyCommand = "verify-store"

// VerifyStore reads a file of the staging from end to end. A damaged one gives an error, or ends the process.
func VerifyStore(path string) error {
	if err := stage.Verify(path); err != nil {
		return fmt.Errorf("verify %s: %w", path, err)
	}
	return nil
}

// verifyInChild has a child process of this same program verify a file, because reading a damaged one can end the
// process that does.
func verifyInChild(ctx context.Context, path string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to verify %s: %w", path, err)
	}
	c := exec.CommandContext(ctx, self, VerifyCommand, path) //nolint:gosec // this same program, and a file of the data directory
	var said bytes.Buffer
	c.Stderr = &said
	err = c.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); exited && ctx.Err() == nil {
		first, _, _ := strings.Cut(said.String(), "\n")
		return fmt.Errorf("%w: %s", stage.ErrDamaged, first)
	}
	if err != nil {
		return fmt.Errorf("start a child to verify %s: %w", path, err)
	}
	return nil
}
