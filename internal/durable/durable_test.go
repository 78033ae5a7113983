package durable_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/outfeed/outfeed/internal/durable"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// names are those in a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func onlyFile(t *testing.T, dir string) {
	t.Helper()
	if got := names(t, dir); len(got) != 1 || got[0] != "file" {
		t.Errorf("the directory holds %q, want the file alone", got)
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, content := range []string{"first, and longer", "second", ""} {
		if err := durable.Replace(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != content {
			t.Errorf("it holds %q, want %q", got, content)
		}
		onlyFile(t, dir)
	}
}

// TestReplaceAfterAKill has what a process leaves that was killed in the middle: a part under the other name, which may
// have been made a link in between.
func TestReplaceAfterAKill(t *testing.T) {
	t.Parallel()
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "elsewhere")
	if err := os.WriteFile(elsewhere, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "file")
	for name, leave := range map[string]func(string) error{
		"a part": func(p string) error { return os.WriteFile(p, []byte("half of a longer content"), 0o400) },
		"a link": func(p string) error { return os.Symlink(elsewhere, p) },
	} {
		if err := leave(path + durable.NewSuffix); err != nil {
			t.Fatal(err)
		}
		if err := durable.Replace(path, []byte("whole"), 0o600); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
		if got := read(t, path); got != "whole" {
			t.Errorf("after %s it holds %q", name, got)
		}
		onlyFile(t, dir)
	}
	if got := read(t, elsewhere); got != "untouched" {
		t.Errorf("what a link pointed to was changed to %q", got)
	}
}

// TestAFailureLeavesNothing has a name that cannot be had, because a directory has it.
func TestAFailureLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.Replace(path, []byte("x"), 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	onlyFile(t, dir)
	if err := durable.Create(path, []byte("x"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating what a directory is: %v", err)
	}
	onlyFile(t, dir)
	gone := filepath.Join(dir, "no", "file")
	for name, err := range map[string]error{
		"Replace": durable.Replace(gone, nil, 0o600), "Create": durable.Create(gone, nil, 0o600), "Write": durable.Write(gone, nil, 0o600),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s in a directory that is not there: %v", name, err)
		}
	}
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := durable.Create(path, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.Create(path, []byte("second"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	if got := read(t, path); got != "first" {
		t.Errorf("it holds %q", got)
	}
	onlyFile(t, dir)
}

// TestManyCreateOne has all of them begin at once: one wins, and nobody ever sees a part.
func TestManyCreateOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	var wg sync.WaitGroup
	errs := make([]error, 16)
	begin := make(chan struct{})
	content := func(i int) []byte { return bytes.Repeat([]byte(strconv.Itoa(i%10)), 10_000) }
	for i := range errs {
		wg.Go(func() {
			<-begin
			errs[i] = durable.Create(path, content(i), 0o600)
			if got, err := os.ReadFile(path); err != nil || len(got) != 10_000 {
				t.Errorf("after a Create the file has %d bytes, %v", len(got), err)
			}
		})
	}
	close(begin)
	wg.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won >= 0:
			t.Errorf("both %d and %d made the file", won, i)
		case err == nil:
			won = i
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("%d: %v", i, err)
		}
	}
	if won < 0 || read(t, path) != string(content(won)) {
		t.Errorf("the file is not that of %d, who made it", won)
	}
	onlyFile(t, dir)
}
