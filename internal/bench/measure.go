package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Usage is what one child process used, from its start to its end.
type Usage struct {
	// CPU is its processor time in user and system mode, of all threads.
	CPU time.Duration `json:"cpu_ns"`
	// Wall is the time from its start to its end.
	Wall time.Duration `json:"wall_ns"`
	// PeakBytes is the most memory that was resident, shared libraries and mapped files included.
	PeakBytes int64 `json:"peak_bytes"`
}

// Launch starts a program with its output in a file, waits for its end and writes its Usage to the report as JSON.
//
// A process of its own does this, because the kernel counts the memory of the process that starts another one into the
// peak of the one started: the launcher must be smaller than anything that it measures.
func Launch(ctx context.Context, report, stdout string, command []string) error {
	out, err := os.Create(stdout) //nolint:gosec // the bench itself names it
	if err != nil {
		return fmt.Errorf("keep the output of %s: %w", command[0], err)
	}
	c := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // the bench itself makes the command
	c.Stdout, c.Stderr = out, os.Stderr
	started := time.Now()
	err = c.Run()
	wall := time.Since(started)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("run %s: %w", strings.Join(command, " "), err)
	}
	peak, err := peakBytes(c.ProcessState)
	if err != nil {
		return err
	}
	text, err := json.Marshal(Usage{CPU: c.ProcessState.UserTime() + c.ProcessState.SystemTime(), Wall: wall, PeakBytes: peak})
	if err != nil {
		return fmt.Errorf("report what %s used: %w", command[0], err)
	}
	if err = os.WriteFile(report, text, 0o600); err != nil {
		return fmt.Errorf("report what %s used: %w", command[0], err)
	}
	return nil
}

// measure runs a command through the launcher.
func (b *Bench) measure(ctx context.Context, stdout string, command []string) (Usage, error) {
	report := b.scratch("usage.json")
	args := append([]string{"-launch", report, "-stdout", stdout}, command...)
	c := exec.CommandContext(ctx, b.set.Self, args...) //nolint:gosec // this program itself
	var trouble bytes.Buffer
	c.Stderr = &trouble
	if err := c.Run(); err != nil {
		return Usage{}, fmt.Errorf("%w: %s", err, bytes.TrimSpace(trouble.Bytes()))
	}
	text, err := os.ReadFile(report) //nolint:gosec // the bench itself names it
	if err != nil {
		return Usage{}, fmt.Errorf("read what the program used: %w", err)
	}
	var u Usage
	if err := json.Unmarshal(text, &u); err != nil {
		return Usage{}, fmt.Errorf("read what the program used: %w", err)
	}
	return u, nil
}
