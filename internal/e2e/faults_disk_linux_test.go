package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallDisk is a tmpfs in a mount namespace of its own.
type smallDisk struct {
	t *testing.T
	// dir is where this process finds it, pid the process that keeps its namespace, and mount where it lies in there.
	dir, mount string
	pid        int
}

func newSmallDisk(t *testing.T, options string) *smallDisk {
	t.Helper()
	d := &smallDisk{t: t, mount: t.TempDir()}
	args := []string{"unshare", "--mount"}
	if os.Getuid() != 0 {
		args = append(args, "--user", "--map-root-user")
	}
	args = append(args, "sh", "-c", `mount -t tmpfs -o "$1" none "$0" && echo mounted && exec cat`, d.mount, options)
	c := exec.CommandContext(t.Context(), args[0], args[1:]...)
	c.Stderr = t.Output()
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = c.Wait()
	})
	if _, err := fmt.Fscanln(out, new(string)); err != nil {
		t.Fatalf("no disk can be mounted here (%v): run the test as root, or allow user namespaces with: sysctl kernel.unprivileged_userns_clone=1", err)
	}
	d.pid = c.Process.Pid
	d.dir = filepath.Join("/proc", strconv.Itoa(d.pid), "root", d.mount)
	return d
}

// crowd makes files until the disk takes no more of them.
func (d *smallDisk) crowd() {
	d.t.Helper()
	dir := filepath.Join(d.dir, "crowd")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		d.t.Fatal(err)
	}
	for n := 0; ; n++ {
		err := os.WriteFile(filepath.Join(dir, strconv.Itoa(n)), nil, 0o600)
		if errors.Is(err, syscall.ENOSPC) {
			return
		}
		if err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *smallDisk) disperse() {
	d.t.Helper()
	if err := os.RemoveAll(filepath.Join(d.dir, "crowd")); err != nil {
		d.t.Fatal(err)
	}
}

// fill writes until the disk takes no more.
func (d *smallDisk) fill() {
	d.t.Helper()
	f, err := os.OpenFile(filepath.Join(d.dir, "fill"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // what it holds does not matter
	for size := 1 << 20; size > 0; size /= 16 {
		for err == nil {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			d.t.Fatal(err)
		}
		err = nil
	}
}

func (d *smallDisk) empty() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.dir, "fill")); err != nil {
		d.t.Fatal(err)
	}
}

// remount changes how it is mounted: ro or rw.
func (d *smallDisk) remount(how string) {
	d.t.Helper()
	args := []string{"nsenter", "--target", strconv.Itoa(d.pid), "--mount"}
	if os.Getuid() != 0 {
		args = append(args, "--user", "--preserve-credentials")
	}
	args = append(args, "mount", "-o", "remount,"+how, d.mount)
	out, err := exec.CommandContext(d.t.Context(), args[0], args[1:]...).CombinedOutput() //nolint:gosec // fixed words, and a folder of the test
	if err != nil {
		d.t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// newSiteOn is a control plane and the address of a data directory for an agent on the disk.
func newSiteOn(t *testing.T, d *smallDisk) *site {
	t.Helper()
	s := newControlPlane(t)
	if err := os.Symlink(filepath.Join(d.dir, "agent"), s.path("agent")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(d.dir, "agent"), 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

const diskFlow = `
flow: presses
trigger: continuous
steps:
  - read: press
    with: {topic: plant/press/+/state, format: json}
    schema: {n: int}
  - insight: press
    key: [n]
`

// outboxOf is what the agent on this machine says of its outbox.
func (s *site) outboxOf() (waiting, produced uint64, err error) {
	out, said, err := s.try(s.agentEnv(), nil, bin(s.t, "outfeed-agent"), "status", "--json")
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %s", err, said)
	}
	var st struct {
		Outbox struct {
			Produced uint64 `json:"produced"`
			Waiting  uint64 `json:"waiting_records"`
		} `json:"outbox"`
	}
	err = json.Unmarshal(out, &st)
	return st.Outbox.Waiting, st.Outbox.Produced, err
}

// TestFaultAnAgentOnAFullDisk fills the disk while insights wait: they leave, over a connection that is made anew, the sources
// wait, the agent can be killed and started, and with room it goes on by itself. Nothing is lost or doubled.
func TestFaultAnAgentOnAFullDisk(t *testing.T) {
	t.Parallel()
	d := newSmallDisk(t, "size=160m")
	b := newBroker(t)
	s := newSiteOn(t, d)
	s.enrol(s.link.address)
	s.startAgent()
	s.waitConnected()
	s.connections(b.connection())
	s.apply(diskFlow)
	p, sent := b.publisher(), 0
	publish := func(n int) {
		for range n {
			p.send(fmt.Sprintf("plant/press/P%d/state", sent%2), fmt.Sprintf(`{"n":%d}`, sent))
			sent++
		}
	}
	arrived := func(want int) func() error {
		return func() error {
			all, err := s.insights("press")
			if err == nil && len(all) != want {
				err = fmt.Errorf("%d of %d", len(all), want)
			}
			return err
		}
	}
	s.eventually("the flow runs", func() error {
		publish(1)
		all, err := s.insights("press")
		if err == nil && len(all) == 0 {
			err = errors.New("nothing has arrived")
		}
		return err
	})
	publish(100)
	first := 0
	s.eventually("everything has arrived", func() error {
		waiting, produced, err := s.outboxOf()
		if first = int(produced); err == nil && waiting != 0 { //nolint:gosec // a few hundred
			err = fmt.Errorf("%d wait of %d", waiting, produced)
		}
		if err != nil {
			return err
		}
		// What was published before the flow has read for the first time never comes; what was published last comes last.
		all, err := s.insights("press")
		if err == nil && (len(all) != first || first == 0 || string(all[first-1].Key) != fmt.Sprintf(`{"n":%d}`, sent-1)) {
			err = fmt.Errorf("%d have, and not yet number %d", len(all), sent-1)
		}
		return err
	})

	s.link.setCut(true)
	publish(100)
	s.eventually("a hundred wait", func() error {
		waiting, _, err := s.outboxOf()
		if err == nil && waiting != 100 {
			err = fmt.Errorf("%d wait", waiting)
		}
		return err
	})
	d.fill()
	s.link.setCut(false)
	s.eventually("what waited has left the full disk", arrived(first+100))
	d.fill()
	publish(100)
	s.agent.mustLive()
	s.agent.kill()
	d.fill()
	s.startAgent()
	s.eventually("it is connected again, on a full disk", func() error {
		s.agent.mustLive()
		if n := strings.Count(tail(s.path("agent.log"), 1<<20), "the tunnel is up"); n < 3 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
	if err := arrived(first + 100)(); err != nil {
		t.Errorf("on a full disk something is staged: %v", err)
	}
	d.empty()
	room := time.Now()
	s.eventually("the sources go on", arrived(first+200))
	if took := time.Since(room); took > goal(30*time.Second) {
		t.Errorf("that takes %s", took)
	} else {
		t.Logf("everything has arrived %s after there was room", took.Round(100*time.Millisecond))
	}
	all, err := s.insights("press")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i, in := range all {
		if in.Seq != int64(i)+1 || seen[string(in.Key)] {
			t.Fatalf("insight %d has the sequence %d and the key %s", i, in.Seq, in.Key)
		}
		seen[string(in.Key)] = true
	}
}

// left are the files below a folder.
func left(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != dir {
			names = append(names, strings.TrimPrefix(path, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestFaultAFirstStartOnADiskThatTakesNothing enrols and runs on full and read-only disks.
func TestFaultAFirstStartOnADiskThatTakesNothing(t *testing.T) {
	t.Parallel()
	d := newSmallDisk(t, "size=96m,nr_inodes=400")
	s := newSiteOn(t, d)
	file := s.path("token")
	if err := os.WriteFile(file, []byte(s.token()), 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(d.dir, "agent")
	refused := func(what, want string, args ...string) {
		t.Helper()
		_, said, err := s.try(s.agentEnv(), nil, bin(t, "outfeed-agent"), args...)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() <= 0 || !strings.Contains(said, want) || !strings.Contains(said, "--data-dir") || strings.Contains(said, "goroutine ") {
			t.Errorf("%s: it ends with %v and says %q, which should be about %q", what, err, said, want)
		}
	}
	enroll := []string{"enroll", "--url", "https://" + s.link.address, "--token-file", file}
	d.fill()
	refused("enroll on a full disk", "make room", enroll...)
	d.empty()
	d.crowd()
	refused("enroll on a disk without inodes", "make room", enroll...)
	d.disperse()
	d.remount("ro")
	refused("enroll on a read-only disk", "read-only", enroll...)
	d.remount("rw")
	if names := left(t, data); len(names) > 0 {
		t.Errorf("a refused enrolment leaves %v", names)
	}
	// The token is not used up.
	s.command(s.agentEnv(), nil, bin(t, "outfeed-agent"), enroll...)
	before := left(t, data)
	d.fill()
	refused("run on a full disk", "make room", "run")
	d.empty()
	d.crowd()
	refused("run on a disk without inodes", "make room", "run")
	d.disperse()
	d.remount("ro")
	refused("run on a read-only disk", "read-only", "run")
	d.remount("rw")
	if after := left(t, data); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("a refused start leaves %v, and before there was %v", after, before)
	}
	// A flow that is tried out, in a folder that is not there yet.
	if err := errors.Join(os.WriteFile(s.path("try.yaml"), []byte("flow: try\nsteps:\n  - read: here\n    with: {path: \"*.csv\", format: csv}\n    schema: {n: int}\n  - insight: all\n"), 0o600),
		os.WriteFile(s.path("conn.yaml"), fmt.Appendf(nil, "here: {kind: file, root: %q}\n", s.path()), 0o600)); err != nil {
		t.Fatal(err)
	}
	try := []string{"flow", "run", s.path("try.yaml"), "--connections", s.path("conn.yaml"), "--data-dir", filepath.Join(d.dir, "try", "data")}
	d.fill()
	refused("flow run on a full disk", "make room", try...)
	d.empty()
	d.crowd()
	refused("flow run on a disk without inodes", "make room", try...)
	d.disperse()
	d.remount("ro")
	refused("flow run on a read-only disk", "read-only", try...)
	d.remount("rw")
	if _, err := os.Lstat(filepath.Join(d.dir, "try")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused flow run leaves %v", left(t, d.dir))
	}
	s.startAgent()
	s.waitConnected()
}

// TestFaultOneAgentPerDirectoryAndNoNewerOne starts a second agent, and an agent on the directory of a newer one.
func TestFaultOneAgentPerDirectoryAndNoNewerOne(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	began := time.Now()
	_, said, err := s.try(s.agentEnv(), nil, bin(t, "outfeed-agent"), "run")
	if took := time.Since(began); err == nil || took > goal(5*time.Second) ||
		!strings.Contains(said, fmt.Sprint("process ", s.agent.cmd.Process.Pid)) || !strings.Contains(said, "--data-dir") {
		t.Errorf("after %s the second agent ends with %v and says %q", took, err, said)
	}
	t.Logf("the second agent ended after %s", time.Since(began).Round(100*time.Millisecond))
	s.agent.mustLive()
	s.agent.stop()

	format := s.path("agent", "stage", "FORMAT")
	if err := os.WriteFile(format, []byte("outfeed-stage 99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := hashes(t, s.path("agent"))
	began = time.Now()
	_, said, err = s.try(s.agentEnv(), nil, bin(t, "outfeed-agent"), "run")
	if took := time.Since(began); err == nil || took > goal(5*time.Second) || !strings.Contains(said, "newer outfeed-agent") {
		t.Errorf("after %s the older agent ends with %v and says %q", took, err, said)
	}
	if after := hashes(t, s.path("agent")); after != before {
		t.Errorf("the older agent has changed the directory:\n%s\nbefore:\n%s", after, before)
	}
}

// hashes is a line per file below a folder: its name, its time, and the hash of what it holds.
func hashes(t *testing.T, dir string) string {
	t.Helper()
	var lines strings.Builder
	for _, name := range left(t, dir) {
		path := filepath.Join(dir, name)
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		var content []byte
		if info.Mode().IsRegular() {
			if content, err = os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Fprintf(&lines, "%s %s %s %x\n", name, info.Mode(), info.ModTime(), sha256.Sum256(content))
	}
	return lines.String()
}
