package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// movable are the project's programs, unchanged, with a standard library whose time.Now is ahead of the machine's clock by
// what a test sets. The machine's own clock belongs to others too, and Go reads it without a call that could be caught. The
// monotonic clock, timers and the kernel stay true, as they do when an administrator sets the clock.
var movable folder

// movableBin is the path of one of those programs.
func movableBin(t *testing.T, name string) string {
	t.Helper()
	movable.once.Do(func() { movable.error = buildMovable() })
	if movable.error != nil {
		t.Fatal(movable.error)
	}
	return filepath.Join(movable.dir, name)
}

// The programs that are told the time by a test read it where time.Now does, before anything else is done with it.
const (
	readsClock = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	movesClock = readsClock + "\tsec += wall.Load()\n"
)

// buildMovable builds the programs with an overlay that is made from the installed Go's own text.
func buildMovable() error {
	movable.dir = filepath.Join(programs.dir, "movable")
	if err := os.MkdirAll(movable.dir, 0o750); err != nil {
		return err
	}
	out, err := exec.Command("go", "env", "GOROOT").Output() //nolint:noctx // it answers at once
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	library := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	original := filepath.Join(library, "time.go")
	text, err := os.ReadFile(original)
	if err != nil {
		return err
	}
	if strings.Count(string(text), readsClock) != 1 {
		return fmt.Errorf("%s does not begin its func Now as this test knows it; change readsClock to what this Go says:\n%s", original, readsClock)
	}
	changed := filepath.Join(movable.dir, "time.go")
	if err = os.WriteFile(changed, []byte(strings.Replace(string(text), readsClock, movesClock, 1)), 0o600); err != nil { //nolint:gosec // in a folder of this test's own
		return err
	}
	added, err := filepath.Abs(filepath.Join("testdata", "wallclock", "wall.go"))
	if err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: changed, filepath.Join(library, "wall.go"): added}})
	if err != nil {
		return err
	}
	file := filepath.Join(movable.dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		return err
	}
	return buildPrograms(movable.dir, "-overlay="+file)
}

// wallClock is the wall clock of programs that movableBin gives.
type wallClock struct {
	file  string
	ahead *atomic.Int64
}

// newWallClock is a clock that is right.
func newWallClock(t *testing.T) *wallClock {
	t.Helper()
	const size = 8
	c := &wallClock{file: filepath.Join(t.TempDir(), "clock")}
	f, err := os.OpenFile(c.file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // it stays mapped
	if err = f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	memory, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(memory); err != nil {
			t.Error(err)
		}
	})
	c.ahead = (*atomic.Int64)(unsafe.Pointer(unsafe.SliceData(memory))) //nolint:gosec // as the programs read it
	return c
}

// env tells a program to go by this clock.
func (c *wallClock) env() string { return "WALL_CLOCK_FILE=" + c.file }

// put sets the clock ahead of the machine's, or behind it.
func (c *wallClock) put(ahead time.Duration) { c.ahead.Store(int64(ahead / time.Second)) }

// show sets the clock to a time, from which it goes on.
func (c *wallClock) show(at time.Time) { c.ahead.Store(at.Unix() - time.Now().Unix()) }

// skew is how many seconds it is ahead.
func (c *wallClock) skew() int64 { return c.ahead.Load() }
