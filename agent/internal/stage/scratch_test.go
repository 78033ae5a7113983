package stage_test

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
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
