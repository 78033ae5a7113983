package identity_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/identity"
)

// TestFullDisk fills the file system of an agent to the last byte: it connects all the same, while new keys cannot be made and
// leave nothing half-made. It runs again in a mount namespace of its own, with a file system to fill.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv("IDENTITY_DISK"); dir != "" {
		onFullDisk(t, dir)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	arguments := []string{"-m"}
	if os.Geteuid() != 0 {
		arguments = []string{"-r", "-m"}
	}
	disk := t.TempDir()
	arguments = append(arguments, "sh", "-c", `mount -t tmpfs -o size=256k tmpfs "$1" && exec "$0" -test.run '^TestFullDisk$' -test.v`, self, disk)
	c := exec.CommandContext(t.Context(), "unshare", arguments...)
	c.Env = append(os.Environ(), "IDENTITY_DISK="+disk)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v (this test needs root, or user namespaces and util-linux):\n%s", err, out)
	}
}

func onFullDisk(t *testing.T, disk string) {
	t.Helper()
	dir := filepath.Join(disk, "data")
	draft, err := identity.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	id, err := draft.Complete(profile(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	fill(t, filepath.Join(disk, "filler"))
	for n := range uint64(5) {
		if got := next(t, id); got != n+1 {
			t.Errorf("the counter is %d, want %d", got, n+1)
		}
		keep(t, id, "value")
	}
	if _, err = id.PrepareKeys(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("making keys: %v", err)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "identity")); err != nil || len(entries) != 3 {
		t.Errorf("the identity holds %v, %v", entries, err)
	}
	id = load(t, dir)
	if _, begun := id.PreparedKeys(); begun || string(id.Session()) != "value" {
		t.Error("something half-made was left")
	}
	if err = os.Remove(filepath.Join(disk, "filler")); err != nil { //nolint:gosec // a path of this test
		t.Fatal(err)
	}
	if _, err = id.PrepareKeys(); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// fill writes until nothing more goes in.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path) //nolint:gosec // a path of this test
	if err != nil {
		t.Fatal(err)
	}
	for size := 4096; size > 0; {
		if _, err = f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filling ended with %v", err)
	}
	if err = f.Close(); err != nil {
		t.Fatal(err)
	}
}
