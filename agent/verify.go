package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// VerifyCommand is the name of the hidden command that runs VerifyStore.
const VerifyCommand = "verify-store"

// ErrCannotVerify is what VerifyStore wraps when it could not find out whether the file is damaged.
var ErrCannotVerify = errors.New("the file could not be read")

// ExitCannotVerify is the exit code for it, and ExitNoRoom that for stage.ErrNoRoom: what is whole could not be written. Every
// other failure of the command, and its death, means damage.
const (
	ExitCannotVerify = 75
	ExitNoRoom       = 73
)

// NoRoom says whether a command of this program has failed because of a full disk.
func NoRoom(err error) bool { return stage.IsNoSpace(err) }

// VerifyStore reads a file of the staging from end to end. A damaged one gives an error, or ends the process.
func VerifyStore(path string) error {
	if err := stage.Verify(path); err != nil {
		return fmt.Errorf("verify %s: %w", path, exitError(err))
	}
	return nil
}

// SalvageStore writes what is whole of a damaged file of the staging into a new file. Of an outbox segment the records up
// to the sequence end count, which is a decimal number.
func SalvageStore(path, target, end string) error {
	last, err := strconv.ParseUint(end, 10, 64)
	if err != nil {
		return fmt.Errorf("%w: the last sequence %q is not a number", ErrCannotVerify, end)
	}
	if err := stage.Salvage(path, target, last); err != nil {
		return exitError(err)
	}
	return nil
}

// exitError lets an error that is not about damage end the command with ExitCannotVerify.
func exitError(err error) error {
	if errors.Is(err, stage.ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCannotVerify, err)
}

// verifyInChild has a child process of this same program verify a file, because reading a damaged one can end the
// process that does.
func verifyInChild(ctx context.Context, path string) error { return runOnStore(ctx, path) }

// salvageInChild has a child process salvage a file.
func salvageInChild(ctx context.Context, path, target string, end uint64) error {
	return runOnStore(ctx, path, target, strconv.FormatUint(end, 10))
}

// runOnStore runs this program's hidden command on a file. Its death, and every failure that is not ExitCannotVerify, say
// that the file is damaged.
func runOnStore(ctx context.Context, path string, more ...string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to verify %s: %w", path, err)
	}
	c := exec.CommandContext(ctx, self, append([]string{VerifyCommand, path}, more...)...) //nolint:gosec // this same program, and a file of the data directory
	c.Env = childEnv(os.Environ())
	var said bytes.Buffer
	c.Stderr = &said
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c.SysProcAttr = endWithParent()
	err = c.Run()
	if err == nil {
		return nil
	}
	first, _, _ := strings.Cut(said.String(), "\n")
	exit, exited := errors.AsType[*exec.ExitError](err)
	if exited && ctx.Err() == nil && exit.ExitCode() == ExitNoRoom {
		return fmt.Errorf("%w: %s", stage.ErrNoRoom, first)
	}
	if !exited || ctx.Err() != nil || exit.ExitCode() == ExitCannotVerify || wasStopped(exit.ProcessState) {
		return fmt.Errorf("cannot find out whether %s is damaged: %w: %s", path, err, first)
	}
	return fmt.Errorf("%w: %s", stage.ErrDamaged, first)
}

// wasStopped says whether somebody told the child to stop: a service manager that stops the agent tells the child as well,
// and the child may have ended before the agent was told.
func wasStopped(p *os.ProcessState) bool {
	status, ok := p.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return false
	}
	s := status.Signal()
	return s == syscall.SIGTERM || s == syscall.SIGINT || s == syscall.SIGHUP
}

// childEnv is what a child of this program is given of an environment: what a system's own programs need, and nothing
// that a person has set, which may hold passwords.
func childEnv(environ []string) []string {
	needed := []string{"PATH", "HOME", "LANG", "TZ", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR"}
	return slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return !slices.Contains(needed, strings.ToUpper(name))
	})
}
