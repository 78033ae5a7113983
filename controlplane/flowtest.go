package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

const (
	// testTime is how long the process of one definition's tests may live, which ends them itself sooner; testsAtOnce how
	// many definitions are tested together, and slotTime how long another waits until one of them is done.
	testTime    = 75 * time.Second
	testsAtOnce = 2
	slotTime    = 4 * time.Second
	// maxTestOutput is how much a test process may say, in bytes.
	maxTestOutput = 4 << 20
)

// tester runs the tests of definitions in a process of their own, which gets neither this one's environment nor its
// files, and which a definition that spins or eats memory takes down alone.
type tester struct {
	command []string
	slots   chan struct{}
}

func newTester(command []string) *tester {
	return &tester{command: command, slots: make(chan struct{}, testsAtOnce)}
}

// TestFlow implements fleet.FlowTester.
func (t *tester) TestFlow(ctx context.Context, definition string) ([]fleet.FlowTest, error) {
	if len(t.command) == 0 {
		return nil, errors.New("this control plane has no command that tests flows")
	}
	wait, waited := context.WithTimeout(ctx, slotTime)
	defer waited()
	select {
	case t.slots <- struct{}{}:
		defer func() { <-t.slots }()
	case <-wait.Done():
		return nil, &fleet.Error{Code: fleet.Unavailable, Message: "other flows are being tested; try again in a moment", Err: wait.Err()}
	}
	ctx, cancel := context.WithTimeout(ctx, testTime)
	defer cancel()
	return t.run(ctx, definition)
}

func (t *tester) run(ctx context.Context, definition string) ([]fleet.FlowTest, error) {
	cmd := exec.CommandContext(ctx, t.command[0], t.command[1:]...) //nolint:gosec // main's own command line
	cmd.Env = []string{}
	cmd.Stdin = strings.NewReader(definition)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{Writer: &out, left: maxTestOutput}, &limited{Writer: &problems, left: maxTestOutput}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, &fleet.Error{Code: fleet.Invalid, Message: fmt.Sprintf("the tests of the flow took longer than %s and were ended; give them fewer rows", testTime)}
		}
		return nil, notRun(err, problems.String())
	}
	var results []fleet.FlowTest
	if err := json.Unmarshal(out.Bytes(), &results); err != nil {
		return nil, fmt.Errorf("read the results of the flow's tests: %w", err)
	}
	return results, nil
}

// notRun says why the tests came to no end, from how their process ended and what it said. A process that may have no
// more memory ends itself with a text of Go's runtime, and is killed where the machine has none left.
func notRun(err error, said string) *fleet.Error {
	message := "the tests of the flow could not be run; `outfeed-agent flow test` shows them on your machine"
	var exit *exec.ExitError
	killed := errors.As(err, &exit) && !exit.Exited()
	if killed || strings.Contains(said, "out of memory") || strings.Contains(said, "cannot allocate memory") {
		message = "the tests of the flow needed more memory than they may have and were ended; give them fewer rows and shorter texts"
	}
	first, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	return &fleet.Error{Code: fleet.Invalid, Message: message, Err: fmt.Errorf("%w: %s", err, first)}
}

// limited refuses what goes beyond a number of bytes.
type limited struct {
	io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, errors.New("too much output")
	}
	l.left -= len(p)
	return l.Writer.Write(p) //nolint:wrapcheck // a buffer's, which has none
}
