package stage_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// faultChild is the process whose disk fails, seen from the test.
type faultChild struct {
	cmd   *exec.Cmd
	lines chan string
	send  func(string)
	log   string

	// done is the last insight that was acknowledged to each flow, received what was drained of it.
	done, received map[string]int
	refused        int
	ended          bool
}

// startFaultChild starts it on a directory.
func startFaultChild(t *testing.T, dir string) *faultChild {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &faultChild{
		cmd:   exec.CommandContext(t.Context(), exe, "-test.run=none"), //nolint:gosec // it is this test itself
		lines: make(chan string), done: map[string]int{}, received: map[string]int{},
		log: filepath.Join(t.TempDir(), "log"),
	}
	c.cmd.Env = append(os.Environ(), faultDirEnv+"="+dir)
	log, err := os.Create(c.log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	c.cmd.Stderr = log
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(c.lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			c.lines <- scan.Text()
		}
	})
	c.send = func(line string) {
		if line == "" {
			_ = in.Close()
			return
		}
		if _, err := fmt.Fprintln(in, line); err != nil {
			t.Errorf("tell the process %s: %v", line, err)
		}
	}
	t.Cleanup(func() {
		if !c.ended {
			_ = c.cmd.Process.Kill()
			for range c.lines {
			}
			_ = c.cmd.Wait()
		}
		reading.Wait()
		if t.Failed() {
			text, _ := os.ReadFile(c.log)
			t.Logf("the process said:\n%s", text)
		}
	})
	c.await(t, "open")
	return c
}

// await reads what the process says until a line begins with the prefix, and gives the rest of it.
func (c *faultChild) await(t *testing.T, prefix string) string {
	t.Helper()
	return c.until(t, time.Minute, func(line string) bool { return strings.HasPrefix(line, prefix) })[len(prefix):]
}

// until reads what the process says until fn gives true.
func (c *faultChild) until(t *testing.T, limit time.Duration, fn func(line string) bool) string {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-c.lines:
			if !ok {
				t.Fatal("the process has ended")
			}
			c.note(t, line)
			if fn(line) {
				return line
			}
		case <-timer.C:
			t.Fatalf("the process does not say what is expected within %s", limit)
		}
	}
}

// note keeps the account of what the process says.
func (c *faultChild) note(t *testing.T, line string) {
	t.Helper()
	word, rest, _ := strings.Cut(line, " ")
	flow, number, _ := strings.Cut(rest, " ")
	n, _ := strconv.Atoi(number)
	switch word {
	case "done":
		c.done[flow] = n
	case "sent":
		if n != c.received[flow]+1 {
			t.Errorf("insight %d of %s follows %d", n, flow, c.received[flow])
		}
		c.received[flow] = n
	case "refused":
		c.refused++
	case "failed":
		t.Errorf("the process: %s", rest)
	}
}

// begin lets the flows go, and waits until each of them has committed.
func (c *faultChild) begin(t *testing.T) {
	t.Helper()
	c.send("go")
	begun := map[string]bool{}
	c.until(t, time.Minute, func(line string) bool {
		if rest, ok := strings.CutPrefix(line, "done "); ok {
			flow, _, _ := strings.Cut(rest, " ")
			begun[flow] = true
		}
		return len(begun) == faultFlows
	})
}

// commits waits for that many more acknowledged commits.
func (c *faultChild) commits(t *testing.T, n int) {
	t.Helper()
	c.until(t, time.Minute, func(line string) bool {
		if strings.HasPrefix(line, "done ") {
			n--
		}
		return n <= 0
	})
}

func (c *faultChild) stats(t *testing.T) stage.Stats {
	t.Helper()
	c.send("stats")
	var st stage.Stats
	if err := json.Unmarshal([]byte(c.await(t, "stats ")), &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// statsUntil asks for the stats until fn gives true, which must be within 30 s.
func (c *faultChild) statsUntil(t *testing.T, fn func(stage.Stats) bool) stage.Stats {
	t.Helper()
	const limit = 30 * time.Second
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(limit)
	for {
		st := c.stats(t)
		if fn(st) {
			return st
		}
		if time.Now().After(end) {
			t.Fatalf("within %s the stats only come to %+v", limit, st)
		}
		<-tick.C
	}
}

// quiet fails when the process says anything more than refusals for so long.
func (c *faultChild) quiet(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-c.lines:
			if !ok {
				t.Fatal("the process has ended")
			}
			c.note(t, line)
			if strings.HasPrefix(line, "done ") {
				t.Errorf("something is acknowledged that cannot be on the disk: %s", line)
			}
		case <-timer.C:
			return
		}
	}
}

// end lets the process stop by itself, or kills it.
func (c *faultChild) end(t *testing.T, kill bool) { //revive:disable-line:flag-parameter
	t.Helper()
	if kill {
		_ = c.cmd.Process.Kill()
	} else {
		c.send("")
	}
	for line := range c.lines {
		c.note(t, line)
	}
	c.ended = true
	if err := c.cmd.Wait(); (err != nil) != kill {
		t.Errorf("the process ended with %v", err)
	}
}

// checkAfter opens the directory and finds every insight that was acknowledged, and each once.
func (c *faultChild) checkAfter(t *testing.T, dir string) {
	t.Helper()
	st, err := stage.Open(t.Context(), faultSettings(dir, nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range readAll(t, st, st.Stats().Acknowledged) {
		text, _, _ := strings.Cut(string(r.Payload), " x")
		flow, _, _ := strings.Cut(text, " ")
		if number, _ := strconv.Atoi(strings.TrimPrefix(text, flow+" ")); number <= c.received[flow] && number > 0 {
			// It was drained before the process was killed, and the acknowledgement was not on the disk.
			continue
		}
		c.note(t, "sent "+text+r.Gone)
	}
	for flow, n := range c.done {
		if c.received[flow] < n {
			t.Errorf("insight %d of %s was acknowledged and %d is the last that is there", n, flow, c.received[flow])
		}
		state, err := st.LoadFlow(t.Context(), flow)
		if err != nil {
			t.Fatal(err)
		}
		if cursor := string(state.Cursors["source"]); cursor != strconv.Itoa(c.received[flow]) {
			t.Errorf("the cursor of %s is at %s, and insight %d is the last that is there", flow, cursor, c.received[flow])
		}
	}
	if got := st.Stats(); got.Lost != 0 || got.SetAside != 0 {
		t.Errorf("stats: %+v", got)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	checkFiles(t, dir)
}
