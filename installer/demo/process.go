package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// command prepares one of Outfeed's programs. Its environment is this one's without any OUTFEED_ variable of the person's own.
func (d *demo) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(d.bin, name), args...) //nolint:gosec // the programs that make build made
	c.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "OUTFEED_") })
	c.Stderr = os.Stderr
	// Ctrl-C goes to this program alone, which then stops the others in order; if it is killed, they stop by themselves.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	// Each holds the lock on the folder, which is free again only when the last of them has ended.
	c.ExtraFiles = []*os.File{d.lock}
	return c
}

func (d *demo) client(ctx context.Context, args ...string) *exec.Cmd {
	c := d.command(ctx, "outfeed", args...)
	c.Env = append(c.Env, "OUTFEED_CONFIG="+d.path("client.json"))
	return c
}

func (d *demo) agent(ctx context.Context, args ...string) *exec.Cmd {
	c := d.command(ctx, "outfeed-agent", args...)
	c.Env = append(c.Env, "OUTFEED_AGENT_DATA_DIR="+d.path("agent"), "OUTFEED_AGENT_CA_FILE="+d.path("controlplane", "tls", "cert.pem"))
	return c
}

// quietly runs a command and shows what it said only when it fails.
func quietly(c *exec.Cmd) error {
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(c.Path), err, said.String())
	}
	return nil
}

// outputJSON runs a command and reads the JSON that it prints.
func outputJSON(c *exec.Cmd, into any) error {
	var out, said bytes.Buffer
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(c.Path), err, said.String())
	}
	return decode(filepath.Base(c.Path), out.Bytes(), into)
}

func getOK(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing of it is read
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s says %s", url, resp.Status)
	}
	return nil
}

// group is the parts that run, in the order of their start.
type group struct {
	out   io.Writer
	parts []part
	// ended says which part ended by itself.
	ended chan error
}

type part struct {
	name string
	// end asks the part to stop and waits until it has.
	end func() error
}

func newGroup(out io.Writer) *group { return &group{out: out, ended: make(chan error, 16)} }

// grace is how long a part may take to stop before it is killed.
const grace = 40 * time.Second

// start runs a program in the background with its output in a file.
func (g *group) start(c *exec.Cmd, logFile string) error {
	name := filepath.Base(c.Path)
	if err := os.MkdirAll(filepath.Dir(logFile), 0o750); err != nil {
		return fmt.Errorf("make the folder of the logs: %w", err)
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // in the demo's own folder
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer log.Close() //nolint:errcheck // the child has its own handle
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	gone := make(chan struct{})
	go func() {
		// What Wait says is in the state too, which is there for a success as well.
		_ = c.Wait()
		close(gone)
		g.ended <- fmt.Errorf("%s ended by itself (%s); its log is %s", name, c.ProcessState, logFile)
	}()
	g.parts = append(g.parts, part{name: name, end: func() error { return endProcess(c, name, gone) }})
	return nil
}

// endProcess asks a process to stop and waits for it.
func endProcess(c *exec.Cmd, name string, gone <-chan struct{}) error {
	if err := c.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-gone:
		return nil
	case <-t.C:
		err := c.Process.Kill()
		<-gone
		return errors.Join(fmt.Errorf("%s did not stop within %v and was killed", name, grace), err)
	}
}

// foreground runs a command whose output the person sees, until ctx ends or a part does.
func (g *group) foreground(ctx context.Context, c *exec.Cmd) error {
	c.Stdout = g.out
	if err := c.Start(); err != nil {
		return fmt.Errorf("start %s: %w", filepath.Base(c.Path), err)
	}
	gone := make(chan struct{})
	var ended error
	go func() {
		defer close(gone)
		ended = c.Wait()
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(g.out, "\n  stopping ...")
		return endProcess(c, filepath.Base(c.Path), gone)
	case err := <-g.ended:
		return errors.Join(err, endProcess(c, filepath.Base(c.Path), gone))
	case <-gone:
		return fmt.Errorf("%s ended: %w", filepath.Base(c.Path), ended)
	}
}

// stop ends the parts, the last started first.
func (g *group) stop() error {
	var errs []error
	for _, p := range slices.Backward(g.parts) {
		errs = append(errs, p.end())
	}
	return errors.Join(errs...)
}
