package stage_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/stage"
)

func names(tb testing.TB, dir string) int {
	tb.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return len(entries)
}

func TestScratchFilesGoAtTheLatestAtTheNextStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), stage.ScratchName)
	first, err := stage.OpenScratch(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	a, err := first.Create()
	if err != nil {
		t.Fatal(err)
	}
	b, err := first.Create()
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"one ", "two"} {
		if _, err := a.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, 7)
	if _, err := a.ReadAt(got, 0); err != nil || !bytes.Equal(got, []byte("one two")) {
		t.Errorf("got %q, %v", got, err)
	}
	if n := names(t, dir); n != 2 {
		t.Errorf("there are %d files, want 2", n)
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Error(err)
	}
	if n := names(t, dir); n != 1 {
		t.Errorf("there are %d files after one was closed, want 1", n)
	}
	// A process that is killed closes nothing.
	second, err := stage.OpenScratch(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	if n := names(t, dir); n != 0 {
		t.Errorf("there are %d files after a start, want none", n)
	}
	if err := errors.Join(b.Close(), first.Close(), second.Close(), second.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	if _, err := second.Create(); !errors.Is(err, stage.ErrClosed) {
		t.Errorf("a closed scratch folder gives %v", err)
	}
}

func TestAFullDiskIsSaidBeforeItIsFull(t *testing.T) {
	t.Parallel()
	s, err := stage.OpenScratch(filepath.Join(t.TempDir(), "s"), math.MaxUint64)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(); !errors.Is(err, stage.ErrNoSpace) {
		t.Errorf("got %v, want ErrNoSpace", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestATemporaryScratchLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	s := stage.TemporaryScratch(1)
	if n := names(t, dir); n != 0 {
		t.Errorf("there are %d files before the first is made", n)
	}
	f, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if err := errors.Join(s.Close(), f.Close()); err != nil {
		t.Error(err)
	}
	if n := names(t, dir); n != 0 {
		t.Errorf("there are %d files after the end", n)
	}
}

// TestATemporaryScratchRemovesWhatDeadProcessesLeft has an empty folder of a killed process among folders that must stay.
func TestATemporaryScratchRemovesWhatDeadProcessesLeft(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // its folders cannot be told apart, so they stay
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	living := stage.TemporaryScratch(1)
	held, err := living.Create()
	if err != nil {
		t.Fatal(err)
	}
	inUse, err := os.ReadDir(dir)
	if err != nil || len(inUse) != 1 {
		t.Fatalf("%v, %v", inUse, err)
	}
	for _, name := range []string{"outfeed-spill-123", "outfeed-spill-456/1.spill", "outfeed-spill-mine", "outfeed-spill-", "other-789"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.FromSlash(name)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "outfeed-spill-77"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("other-789", filepath.Join(dir, "outfeed-spill-88")); err != nil {
		t.Fatal(err)
	}
	second := stage.TemporaryScratch(1)
	if _, err := second.Create(); err != nil {
		t.Fatal(err)
	}
	for name, stays := range map[string]bool{
		"outfeed-spill-123": false, "outfeed-spill-456": true, "outfeed-spill-mine": true, "outfeed-spill-": true, "other-789": true,
		"outfeed-spill-77": true, "outfeed-spill-88": true, inUse[0].Name(): true,
	} {
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != stays {
			t.Errorf("%s: %v, want that it stays: %t", name, err, stays)
		}
	}
	// A cleaner of the system may take the folder all the same.
	if err := os.Remove(filepath.Join(dir, inUse[0].Name())); err != nil {
		t.Fatal(err)
	}
	if _, err := living.Create(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(held.Close(), living.Close(), second.Close()); err != nil {
		t.Error(err)
	}
}

// spillUntilKilled is a process that has a temporary folder with an open file.
func spillUntilKilled() error {
	f, err := stage.TemporaryScratch(1).Create()
	if err != nil {
		return err
	}
	if _, err = f.Write([]byte("x")); err != nil {
		return err
	}
	fmt.Println("spilled")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// TestTheFolderOfAKilledProcessGoesAtTheNextStart kills a process that spills. While it lives its folder stays.
func TestTheFolderOfAKilledProcessGoesAtTheNextStart(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // as above
	}
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=none") //nolint:gosec // it is this test itself
	cmd.Env = append(os.Environ(), childEnv+"=spill")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "spilled\n" {
		t.Fatalf("the process says %q, %v", line, err)
	}
	start := func(want int) {
		t.Helper()
		s := stage.TemporaryScratch(1)
		if _, err := s.Create(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := names(t, dir); n != want {
			t.Errorf("%d folders are there, want %d", n, want)
		}
	}
	start(1)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	start(0)
}
