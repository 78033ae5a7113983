package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/outfeed/outfeed/agent/internal/supervisor"
)

// What a process leaves behind for the next one, should it die.
//
// What ends the program by a fatal error of Go's runtime, or by a panic that nobody catches, is written to crashName with
// the label of the flow whose goroutine it was: that is a failure of that flow. What ends it from outside (the kernel that
// needs memory, kill -9) leaves no word, but busyName says which flows had been at one piece of work for longer than a look
// of the supervisor. One flow alone, in three such ends in a row on a machine that was not started anew, is blamed;
// anything less is chance.

const (
	crashName    = "crash.txt"
	lastCrash    = "crash-last.txt"
	busyName     = "busy.json"
	crashesToTry = 3
)

// crash is what the last process died of: a flow's deployment and a sentence; none when the process did not die so.
type crash struct{ deployment, reason string }

// marks are the content of busyName.
type marks struct {
	// Boot tells one start of the machine from another, as far as the system does.
	Boot string `json:"boot"`
	// Running is set while the process runs, and so stays set when it dies.
	Running bool `json:"running"`
	// Busy are the deployments that were at work.
	Busy []string `json:"busy,omitempty"`
	// Streaks counts for a deployment how many processes in a row have died while it alone was busy.
	Streaks map[string]int `json:"streaks,omitempty"`
}

// blame gives the deployments that the death of the last process is counted against, and the streaks from here on.
func (m marks) blame(boot string) (blamed []string, streaks map[string]int) {
	streaks = map[string]int{}
	if !m.Running || m.Boot != boot || len(m.Busy) != 1 {
		return nil, streaks
	}
	id := m.Busy[0]
	if streaks[id] = m.Streaks[id] + 1; streaks[id] >= crashesToTry {
		blamed = append(blamed, id)
	}
	return blamed, streaks
}

// bootID tells one start of the machine from another; "" where the system does not say.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

func (h *history) readMarks(ctx context.Context) marks {
	var m marks
	raw, err := os.ReadFile(filepath.Join(h.dir, busyName))
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			h.log.DebugContext(ctx, "the marks of the last process cannot be read", slog.Any("error", err))
		}
		return marks{}
	}
	return m
}

// writeMarks needs no sync: it is about the death of the process, which the system's buffers outlive.
func (h *history) writeMarks(m marks) {
	raw, err := json.Marshal(m)
	path := filepath.Join(h.dir, busyName)
	if err == nil {
		err = os.WriteFile(path+newSuffix, raw, 0o600) //nolint:gosec // in the data directory
	}
	if err == nil {
		err = os.Rename(path+newSuffix, path) //nolint:gosec // in the data directory
	}
	if err != nil {
		h.log.Debug("which flows are at work cannot be noted", slog.Any("error", err))
	}
}

// Crashes is for the supervisor. Marks are written from here on.
func (h *history) Crashes() map[string]string {
	out := map[string]string{}
	blamed, streaks := h.marks.blame(bootID())
	switch {
	case h.crash.deployment != "":
		out[h.crash.deployment] = h.crash.reason
		streaks = map[string]int{}
	case len(blamed) > 0:
		out[blamed[0]] = fmt.Sprintf("the agent was ended from outside %d times in a row while this flow alone was at work, as the system does when memory runs out", crashesToTry)
	}
	h.mu.Lock()
	h.streaks = streaks
	h.mu.Unlock()
	h.MarkBusy(nil)
	return out
}

// MarkBusy is for the supervisor.
func (h *history) MarkBusy(deployments []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writeMarks(marks{Boot: bootID(), Running: true, Busy: deployments, Streaks: maps.Clone(h.streaks)})
}

// close says that the process ends as it should.
func (h *history) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writeMarks(marks{})
	if err := debug.SetCrashOutput(nil, debug.CrashOptions{}); err != nil {
		return fmt.Errorf("end the crash report: %w", err)
	}
	return nil
}

// takeCrash reads the crash report of the last process and lays it aside, where a person finds it.
func (h *history) takeCrash(ctx context.Context) crash {
	path := filepath.Join(h.dir, crashName)
	report, err := os.ReadFile(path) //nolint:gosec // in the data directory
	if err != nil || len(bytes.TrimSpace(report)) == 0 {
		return crash{}
	}
	c := parseCrash(report)
	kept := filepath.Join(h.dir, lastCrash)
	h.log.ErrorContext(ctx, "the agent ended by an internal error the last time, please report it", slog.String("report", kept), slog.String("deployment", c.deployment), slog.String("reason", c.reason))
	if err := os.Rename(path, kept); err != nil {
		h.log.WarnContext(ctx, "the crash report cannot be laid aside", slog.Any("error", err))
	}
	return c
}

var (
	crashLabel     = regexp.MustCompile(`(?m)^goroutine \d+ [^\n]*\[running[^\n]*labels:\{[^\n]*"` + supervisor.FlowLabel + `": "([^"]{1,100})"[^\n]*\}`)
	crashGoroutine = regexp.MustCompile(`(?m)^goroutine \d+ `)
	crashMessage   = regexp.MustCompile(`(?m)^(?:panic|fatal error): ([^\n]{1,200})`)
	crashFrame     = regexp.MustCompile(`(?m)^([\w./()*\[\]-]+)\(`)
)

// parseCrash finds out in which flow's goroutine the process died. Who happens to ask for memory when there is none is no
// more to blame than any other.
func parseCrash(report []byte) crash {
	label := crashLabel.FindSubmatchIndex(report)
	if label == nil || bytes.Contains(report[:min(len(report), label[1]+2000)], []byte("runtime.(*mheap)")) {
		return crash{}
	}
	// Only the first goroutine is the one that died.
	if first := crashGoroutine.FindIndex(report); first != nil && first[0] < label[0] {
		return crash{}
	}
	c := crash{deployment: string(report[label[2]:label[3]]), reason: "the agent ended in it by an internal error, please report it"}
	if m := crashMessage.FindSubmatch(report); m != nil {
		c.reason += ": " + string(m[1])
		return c
	}
	frames := crashFrame.FindAllSubmatch(report[label[1]:min(len(report), label[1]+4000)], 8)
	own := slices.IndexFunc(frames, func(f [][]byte) bool { return bytes.Contains(f[1], []byte("outfeed")) })
	if own >= 0 {
		c.reason += ", in " + string(frames[own][1])
	}
	return c
}

// reportCrashes has Go's runtime write to a file what the process dies of, with the label of the flow.
func (h *history) reportCrashes() error {
	if set := os.Getenv("GODEBUG"); !strings.Contains(set, "tracebacklabels=") {
		if err := os.Setenv("GODEBUG", strings.Trim(set+",tracebacklabels=1", ",")); err != nil {
			return fmt.Errorf("have crash reports name the flow: %w", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(h.dir, crashName), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) //nolint:gosec // in the data directory
	if err != nil {
		return fmt.Errorf("make the crash report: %w", err)
	}
	err = debug.SetCrashOutput(f, debug.CrashOptions{})
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set the crash report: %w", err)
	}
	return nil
}
