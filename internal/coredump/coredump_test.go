//go:build linux

package coredump_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/outfeed/outfeed/internal/coredump"
)

// TestMain is a process that aborts when a test asks for it, with a secret in its memory.
func TestMain(m *testing.M) {
	if os.Getenv("COREDUMP_CHILD") == "" {
		os.Exit(m.Run())
	}
	if err := coredump.Disable(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		fmt.Println("dumpable:", dumpable, err)
		os.Exit(1)
	}
	if err := unix.Kill(os.Getpid(), unix.SIGABRT); err != nil {
		fmt.Println(err)
	}
	select {}
}

// TestNoCore aborts a process that may write cores as large as it likes: none comes.
func TestNoCore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "sh", "-c", "ulimit -c unlimited 2>/dev/null; exec \"$0\"", self) //nolint:gosec // this same program
	c.Dir = dir
	c.Env = append(os.Environ(), "COREDUMP_CHILD=1", "GOTRACEBACK=crash")
	out, err := c.CombinedOutput()
	if err == nil {
		t.Fatal("it did not abort")
	}
	if strings.Contains(string(out), "dumpable:") || strings.Contains(err.Error(), "core dumped") {
		t.Errorf("%v: %s", err, out)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("it left %v, %v", entries, err)
	}
}
