package durable_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/internal/durable"
)

// childEnv says what the process of TestChild shall do, and where.
const childEnv = "DURABLE_CHILD"

// TestChild is what the tests below run in a process of its own. By itself it does nothing.
func TestChild(t *testing.T) {
	what, path, found := strings.Cut(os.Getenv(childEnv), ":")
	if !found {
		return
	}
	write := map[string]func(string, []byte, os.FileMode) error{"replace": durable.Replace, "create": durable.Create}[what]
	if err := write(path, []byte("new and whole"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// most bounds how often a process makes a call of one kind. Some are the runtime's own, which only means that the writer
// is killed earlier or later.
const most = 30

// run has strace do something to the nth call of a kind in a process that writes the file, and says whether that came
// through.
func run(t *testing.T, what, path, inject string) (out string, err error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-f", "-qq", "-o", filepath.Join(t.TempDir(), "trace"), "-e", "inject=" + inject}
	c := exec.CommandContext(t.Context(), "strace", append(args, self, "-test.run", "^TestChild$")...) //nolint:gosec // this test's own program
	c.Env = append(os.Environ(), childEnv+"="+what+":"+path)
	text, err := c.CombinedOutput()
	if err != nil && errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("%v: install it with: apt-get install strace", err)
	}
	return string(text), err
}

// TestKilledAtEveryStep kills the writer before each of its calls: the file has the old content or the new one, and the
// next write succeeds.
func TestKilledAtEveryStep(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"replace", "create"} {
		killed := 0
		for _, call := range []string{"openat", "write", "fsync", "renameat", "linkat", "unlinkat"} {
			for n := 1; n <= most; n++ {
				dir := t.TempDir()
				path := filepath.Join(dir, "file")
				if what == "replace" {
					if err := durable.Replace(path, []byte("old"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				_, err := run(t, what, path, fmt.Sprintf("%s:signal=KILL:when=%d", call, n))
				if err == nil {
					break // there is no such call any more
				}
				killed++
				got, err := os.ReadFile(path)
				old := what == "replace" && string(got) == "old" || (what == "create" && errors.Is(err, os.ErrNotExist))
				if !old && string(got) != "new and whole" {
					t.Errorf("%s killed at %s %d: it holds %q, %v", what, call, n, got, err)
				}
				if err := durable.Replace(path, []byte("after"), 0o600); err != nil || read(t, path) != "after" {
					t.Errorf("%s killed at %s %d: the next write: %v", what, call, n, err)
				}
			}
		}
		t.Logf("%s: killed %d times", what, killed)
		if killed < 5 {
			t.Errorf("%s was killed %d times only: the test does not hit its calls", what, killed)
		}
	}
}

// TestAFullOrBrokenDiskLeavesNothing has calls that change something fail.
func TestAFullOrBrokenDiskLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ what, fault string }{
		{"replace", "write:error=ENOSPC:when=1"},
		{"replace", "write:error=ENOSPC:when=2"},
		{"replace", "fsync:error=EIO:when=1"},
		{"replace", "renameat:error=EROFS:when=1"},
		{"create", "write:error=ENOSPC:when=1"},
		{"create", "write:error=ENOSPC:when=2"},
		{"create", "fsync:error=EIO:when=1"},
		{"create", "linkat:error=EPERM:when=1"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "file")
		out, err := run(t, c.what, path, c.fault)
		write := strings.HasPrefix(c.fault, "write")
		if _, there := os.Stat(path); there == nil && write {
			continue // the call was one of the runtime's or of the test's own
		}
		if err == nil {
			t.Errorf("%s with %s succeeded", c.what, c.fault)
		}
		if got := names(t, dir); len(got) > 0 {
			t.Errorf("%s with %s left %q: %s", c.what, c.fault, got, out)
		}
	}
}
