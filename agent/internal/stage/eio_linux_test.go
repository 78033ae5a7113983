package stage_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

// allowTracing lets strace join the process where only parents may.
func allowTracing() { _ = unix.Prctl(unix.PR_SET_PTRACER, ^uintptr(0), 0, 0, 0) }

// failing is a strace that makes system calls of a running process fail.
type failing struct {
	cmd  *exec.Cmd
	path string
	log  sync.WaitGroup
}

// makeFail lets system calls of the process fail from now on, as strace's expression for injections says; where paths are given
// only those on them.
func makeFail(t *testing.T, pid int, inject string, paths ...string) *failing {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("this test needs strace; install it with: apt-get install strace")
	}
	calls, _, _ := strings.Cut(inject, ":")
	f := &failing{path: filepath.Join(t.TempDir(), "calls")}
	args := []string{"-f", "-o", f.path, "-e", "trace=" + calls, "-e", "inject=" + inject, "-p", strconv.Itoa(pid)}
	for _, path := range paths {
		args = append(args, "-P", path)
	}
	f.cmd = exec.CommandContext(t.Context(), strace, args...) //nolint:gosec // fixed words and a number
	f.begin(t)
	return f
}

// begin starts strace and waits until it has the process.
func (f *failing) begin(t *testing.T) {
	t.Helper()
	said, err := f.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	attached := make(chan string, 1)
	f.log.Go(func() {
		for scan := bufio.NewScanner(said); scan.Scan(); {
			select {
			case attached <- scan.Text():
			default:
			}
		}
	})
	first, timer := "", time.NewTimer(time.Minute)
	defer timer.Stop()
	select {
	case first = <-attached:
	case <-timer.C:
	}
	if !strings.Contains(first, "attached") {
		t.Fatalf("strace says %q", first)
	}
	t.Cleanup(func() { f.stop(t) })
}

// stop lets the calls succeed again.
func (f *failing) stop(t *testing.T) {
	t.Helper()
	if f.cmd.ProcessState != nil {
		return
	}
	_ = f.cmd.Process.Signal(unix.SIGINT)
	f.log.Wait()
	_ = f.cmd.Wait() // it ends by the signal
}

// injected counts the calls that have failed.
func (f *failing) injected(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "(INJECTED)")
}

// processorTime is what a process has used so far.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text)[strings.LastIndex(string(text), ")"):])
	user, _ := strconv.Atoi(fields[12])
	system, _ := strconv.Atoi(fields[13])
	return time.Duration(user+system) * 10 * time.Millisecond // in the clock ticks of /proc, of which a second has 100
}

// TestOneFailedCallLosesAndDoublesNothing lets one call of each thread of a process fail, now and then; the process must
// go on by itself.
func TestOneFailedCallLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	rounds := 1
	if *long {
		rounds = 25
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // it picks moments, not secrets
	for _, call := range []string{"fdatasync:error=EIO", "pwrite64:error=EIO", "fdatasync,fsync:error=EIO", "pwrite64:error=ENOSPC"} {
		t.Run(strings.ReplaceAll(call, ":", " "), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "stage")
			injected, refused, done := 0, 0, 0
			for range rounds {
				c := startFaultChild(t, dir)
				c.begin(t)
				c.commits(t, 5)
				// Threads count their calls apart, and not every one makes as many.
				for tries := 0; tries < 3 || c.refused == 0 && tries < 20; tries++ {
					f := makeFail(t, c.cmd.Process.Pid, fmt.Sprintf("%s:when=%d", call, 1+random.IntN(4)))
					// What it has said before that is read first.
					c.stats(t)
					c.commits(t, 20)
					f.stop(t)
					injected += f.injected(t)
				}
				// It may have failed last just before strace left it.
				c.statsUntil(t, func(st stage.Stats) bool { return st.Degraded == "" })
				c.commits(t, 5)
				c.send("drain")
				c.await(t, "drained")
				c.end(t, random.IntN(2) == 0)
				c.checkAfter(t, dir)
				refused += c.refused
				for _, n := range c.done {
					done += n
				}
				if t.Failed() {
					return
				}
				dir = filepath.Join(t.TempDir(), "stage")
			}
			if refused == 0 {
				t.Error("no commit was refused, so nothing was tried")
			}
			t.Logf("%d calls failed, %d commits were refused, %d insights acknowledged, 0 lost, 0 doubled", injected, refused, done)
		})
	}
}

// TestADiskThatFailsForGood lets every sync of a process fail: it says so, acknowledges nothing, does not spin, gives the
// outbox away, and goes on when the disk can be written again.
func TestADiskThatFailsForGood(t *testing.T) {
	t.Parallel()
	for _, how := range []struct {
		name, inject string
		kill         bool
	}{
		{"syncs, then it works again", "fdatasync,fsync:error=EIO", false},
		{"syncs, then it is killed", "fdatasync,fsync:error=EIO", true},
		{"writes, as on a file system that was made read-only", "pwrite64,fdatasync,fsync:error=EROFS", false},
	} {
		t.Run(how.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "stage")
			c := startFaultChild(t, dir)
			c.begin(t)
			c.commits(t, 20)
			f := makeFail(t, c.cmd.Process.Pid, how.inject)
			before := c.statsUntil(t, func(st stage.Stats) bool { return st.Degraded != "" && st.Blocked == faultFlows })
			if before.BlockedBy != before.Degraded {
				t.Errorf("it is degraded by %q and blocked by %q", before.Degraded, before.BlockedBy)
			}
			c.send("drain")
			if end := c.await(t, "drained "); end != strconv.FormatUint(before.Produced, 10) {
				t.Errorf("the outbox is read up to %s of %d", end, before.Produced)
			}
			tries, used := f.injected(t), processorTime(t, c.cmd.Process.Pid)
			c.quiet(t, 3*time.Second)
			after := c.stats(t)
			tries, used = f.injected(t)-tries, processorTime(t, c.cmd.Process.Pid)-used
			if after.Degraded == "" || after.Produced != before.Produced || after.Acknowledged != before.Produced || after.WaitingRecords != 0 {
				t.Errorf("stats: %+v, and before %+v", after, before)
			}
			if tries > 15 || used > time.Second {
				t.Errorf("it tried %d calls and used %s of the processor in 3 s", tries, used)
			}
			t.Logf("in 3 s of a dead disk: %d calls, %s of the processor", tries, used)
			if how.kill {
				c.end(t, true)
				c.checkAfter(t, dir)
				return
			}
			f.stop(t)
			healed := time.Now()
			c.commits(t, 20)
			t.Logf("it commits again %s after the disk works", time.Since(healed).Round(time.Millisecond))
			c.statsUntil(t, func(st stage.Stats) bool { return st.Degraded == "" && st.Blocked == 0 })
			c.end(t, false)
			c.checkAfter(t, dir)
			log, err := os.ReadFile(c.log)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(log), "level=ERROR"); n != 1 {
				t.Errorf("the log tells %d errors, want 1:\n%s", n, log)
			}
		})
	}
}

// TestADiskThatCannotBeReadAgain lets a commit fail and the files not be opened behind it: what waits is told as before, although no file is open.
func TestADiskThatCannotBeReadAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "stage")
	c := startFaultChild(t, dir)
	c.begin(t)
	c.commits(t, 20)
	f := makeFail(t, c.cmd.Process.Pid, "openat,fdatasync:error=EIO", filepath.Join(dir, "JOURNAL"), filepath.Join(dir, "state.db"))
	got := c.statsUntil(t, func(st stage.Stats) bool { return strings.Contains(st.Degraded, "cannot be read again") })
	if got.Unknown || got.WaitingRecords == 0 || got.WaitingRecords != got.Produced-got.Acknowledged || got.WaitingBytes < 8*got.WaitingRecords || got.RoomBytes == 0 {
		t.Errorf("stats: %+v", got)
	}
	f.stop(t)
	c.statsUntil(t, func(st stage.Stats) bool { return st.Degraded == "" && st.Blocked == 0 })
	c.end(t, false)
	c.checkAfter(t, dir)
}

// TestACommitOfAHundredCostsFewSyncs counts the system calls of a process with strace.
func TestACommitOfAHundredCostsFewSyncs(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("this test needs strace; install it with: apt-get install strace")
	}
	c := startFaultChild(t, filepath.Join(t.TempDir(), "stage"))
	for _, flows := range []int{1, 2, 8, 16} {
		const commits = 320
		path := filepath.Join(t.TempDir(), "counts")
		f := &failing{path: path}
		f.cmd = exec.CommandContext(t.Context(), strace, "-f", "-c", "-o", path, "-e", "trace=fdatasync,fsync", "-p", strconv.Itoa(c.cmd.Process.Pid)) //nolint:gosec // fixed words and a number
		f.begin(t)
		c.send(fmt.Sprint("bench ", flows, " ", commits/flows))
		took := c.await(t, "benched ")
		f.stop(t)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		syncs := 0
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if n := len(fields); n > 4 && (fields[n-1] == "fsync" || fields[n-1] == "fdatasync") {
				calls, err := strconv.Atoi(fields[3])
				if err != nil {
					t.Fatalf("strace says %q", line)
				}
				syncs += calls
			}
		}
		per := float64(syncs) * 1000 / (commits * 100)
		t.Logf("%d flows: %.1f syncs per 1,000 records in commits of a hundred (%s under strace)", flows, per, took)
		if per > 12 || syncs == 0 {
			t.Errorf("%d flows take %.1f syncs per 1,000 records, and 12 is the most", flows, per)
		}
	}
	c.end(t, false)
}
