//go:build e2e

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// insightsWithin is what make demo promises.
const insightsWithin = time.Minute

// TestTheDemo runs what make demo runs, twice in a row: insights of every flow arrive, the dashboard shows them, and
// Ctrl-C leaves nothing behind.
func TestTheDemo(t *testing.T) {
	dir := filepath.Join(enterable(t), "demo")
	d := startDemo(t, dir)
	if took := d.waitLine(`lathe_cycle|press_health`); took > insightsWithin {
		t.Errorf("the first insight took %v, want at most %v", took, insightsWithin)
	}
	d.waitLine(`press_health`)
	d.waitLine(`scrap_per_order`)
	d.waitLine(`lathe_cycle`)
	walkDashboard(t, d.dashboard, d.key)
	d.interrupt()
	noProcessMentions(t, dir)

	again := startDemo(t, dir)
	again.waitLine(`lathe_cycle|press_health`)
	again.interrupt()
	noProcessMentions(t, dir)
}

// demo is a running outfeed-demo, with the lines that it has printed.
type demo struct {
	t              *testing.T
	cmd            *exec.Cmd
	lines          chan string
	seen           []string
	dashboard, key string
}

func startDemo(t *testing.T, dir string) *demo {
	t.Helper()
	programs, err := filepath.Abs(filepath.Join("..", "..", "bin")) // make e2e builds them all, with the plant
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(filepath.Join(programs, "outfeed-demo"), "-bin", programs, "-dir", dir, "-dashboard", freeAddress(t), "-speed", "2") //nolint:gosec,noctx // interrupt ends it
	c.Env = cleanEnv()
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	d := &demo{t: t, cmd: c, lines: make(chan string, 10000)}
	go func() {
		defer close(d.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			d.lines <- s.Text()
		}
	}()
	t.Cleanup(func() { c.Process.Kill() }) //nolint:errcheck // it has ended already when all went well
	d.waitLine(`Dashboard `)
	d.dashboard = strings.Fields(d.seen[len(d.seen)-1])[1]
	d.waitLine(`API key `)
	d.key = strings.Fields(d.seen[len(d.seen)-1])[2]
	return d
}

// waitLine waits until a line matches and says how long that took. Lines seen before count too.
func (d *demo) waitLine(pattern string) time.Duration {
	d.t.Helper()
	p := regexp.MustCompile(pattern)
	if slices.ContainsFunc(d.seen, p.MatchString) {
		return 0
	}
	started := time.Now()
	limit := time.NewTimer(deadline)
	defer limit.Stop()
	for {
		select {
		case line, ok := <-d.lines:
			if !ok {
				d.t.Fatalf("the demo ended before it printed %s:\n%s", pattern, strings.Join(d.seen, "\n"))
			}
			if d.seen = append(d.seen, line); p.MatchString(line) {
				return time.Since(started)
			}
		case <-limit.C:
			d.t.Fatalf("the demo did not print %s within %v:\n%s", pattern, deadline, strings.Join(d.seen, "\n"))
		}
	}
}

// interrupt is Ctrl-C, after which the demo ends without an error.
func (d *demo) interrupt() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGINT); err != nil {
		d.t.Fatal(err)
	}
	for line := range d.lines {
		d.seen = append(d.seen, line)
	}
	if err := d.cmd.Wait(); err != nil {
		d.t.Errorf("Ctrl-C ended the demo with %v:\n%s", err, strings.Join(d.seen[max(0, len(d.seen)-20):], "\n"))
	}
}

// noProcessMentions wants no process left that was started with the folder.
func noProcessMentions(t *testing.T, dir string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		text, err := os.ReadFile(name)
		if err == nil && bytes.Contains(text, []byte(dir)) {
			t.Errorf("%s still runs: %s", name, bytes.ReplaceAll(text, []byte{0}, []byte(" ")))
		}
	}
}

// walkDashboard has a real browser sign in and look at every page.
func walkDashboard(t *testing.T, url, key string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*deadline)
	defer cancel()
	shots := t.ArtifactDir()
	c := exec.CommandContext(ctx, "npm", "run", "--silent", "e2e", "--", shots) //nolint:gosec // a folder of this test
	c.Dir = filepath.Join("..", "..", "controlplane", "internal", "web", "ui")
	c.Env = append(cleanEnv(), "OUTFEED_URL="+url, "OUTFEED_API_KEY="+key)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("the walk through the dashboard: %v\n%s", err, out)
	}
}
