//go:build unix

package keyfile_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/outfeed/outfeed/internal/keyfile"
)

func advice() keyfile.Advice {
	return keyfile.Advice{What: "the key", Distrust: "make another one", Lost: "restore it from a backup"}
}

// nobody is a user that runs nothing here.
const nobody = 65534

func keyFile(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mended runs the command in a refusal, and checks that it is all that was needed.
func mended(t *testing.T, refused error, again func() error) {
	t.Helper()
	if refused == nil {
		t.Error("nothing was refused")
		return
	}
	text := refused.Error()
	_, command, _ := strings.Cut(text, "mend it with: ")
	if command == "" {
		_, command, _ = strings.Cut(text, "there: ")
	}
	command, _, _ = strings.Cut(command, "; otherwise")
	out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput() //nolint:gosec // what the product says
	if err != nil {
		t.Errorf("%s: %v: %s", command, err, out)
	}
	if err := again(); err != nil {
		t.Errorf("after %q: %v", command, err)
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	for mode := fs.FileMode(0o400); mode <= 0o777; mode++ {
		if mode&0o400 == 0 {
			continue
		}
		path := keyFile(t, "it's a key; $HOME")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		err := advice().Check(path)
		if others := mode&0o077 != 0; others != (err != nil) {
			t.Errorf("mode %o: %v", mode, err)
		}
		if mode == 0o640 || mode == 0o602 {
			if !strings.Contains(err.Error(), "otherwise make another one") {
				t.Errorf("mode %o: %v, want what to do without trust", mode, err)
			}
			mended(t, err, func() error { return advice().Check(path) })
		}
	}
}

func TestOwners(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // Only root can give a file away.
	}
	path := keyFile(t, "key")
	for _, what := range []string{path, filepath.Dir(path)} {
		if err := os.Chown(what, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	mended(t, advice().Check(path), func() error { return advice().Check(path) })
	if err := os.Chown(path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	mended(t, advice().CheckDir(filepath.Dir(path)), func() error {
		return errors.Join(advice().CheckDir(filepath.Dir(path)), advice().Check(path))
	})
}

func TestOwnersBehindALink(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // Only root can give a file away.
	}
	path := keyFile(t, "key")
	link := filepath.Join(t.TempDir(), "a link")
	if err := os.Symlink(filepath.Dir(path), link); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{path, filepath.Dir(path)} {
		if err := os.Chown(what, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	mended(t, advice().CheckDir(link), func() error {
		return errors.Join(advice().CheckDir(link), advice().Check(filepath.Join(link, "key")))
	})
}

// TestAsNobody is what reader runs as nobody.
func TestAsNobody(t *testing.T) {
	t.Parallel()
	if path := os.Getenv("KEYFILE_NAMED"); path != "" {
		_, err := advice().ReadNamed(path)
		if err != nil {
			t.Log(err)
			t.FailNow()
		}
	}
}

// reader gives a directory of root's that everybody may enter, and a function that reads a file as nobody does and gives
// what is said. Only root can do so.
func reader(t *testing.T) (dir string, read func(path string) (said string, err error)) {
	t.Helper()
	dir, err := os.MkdirTemp("", "keyfile") //nolint:usetesting // nobody must be able to enter it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // see above
		t.Fatal(err)
	}
	program := filepath.Join(dir, "test")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o755); err != nil { //nolint:gosec // see above
		t.Fatal(err)
	}
	return dir, func(path string) (string, error) {
		child := exec.CommandContext(t.Context(), program, "-test.run", "^TestAsNobody$", "-test.v")
		child.Dir = dir
		child.Env = append(os.Environ(), "KEYFILE_NAMED="+path)
		child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := child.CombinedOutput()
		return string(out), err
	}
}

// TestRootsFileForAnother lets nobody read root's file through a group and not otherwise.
func TestRootsFileForAnother(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // Only root can give a file away.
	}
	dir, read := reader(t)
	path := filepath.Join(dir, "key")
	for _, c := range []struct {
		mode  fs.FileMode
		group int
		want  string
	}{
		{0o440, nobody, ""},
		{0o640, nobody, ""},
		{0o440, 1, "may be read or changed by others"},
		{0o444, nobody, "may be read or changed by others"},
		{0o660, nobody, "may be read or changed by others"},
		{0o400, nobody, "chown 65534"},
	} {
		if err := errors.Join(os.WriteFile(path, []byte("key"), 0o600), os.Chown(path, 0, c.group), os.Chmod(path, c.mode)); err != nil {
			t.Fatal(err)
		}
		said, err := read(path)
		if (err == nil) != (c.want == "") || !strings.Contains(said, c.want) {
			t.Errorf("mode %o, group %d: %v, want %q in:\n%s", c.mode, c.group, err, c.want, said)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestWhatKeepsTheOwnerOut takes rights from who owns a file or a folder on the way to it.
func TestWhatKeepsTheOwnerOut(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // Only root can give a file away.
	}
	dir, read := reader(t)
	folder := filepath.Join(dir, "it's a folder")
	path := filepath.Join(folder, "inner", "key")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("key"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what  string
		mode  fs.FileMode
		owner int
		want  string
	}{
		{path, 0, nobody, "chmod 600"},
		{path, 0o200, nobody, "chmod 600"},
		{filepath.Dir(path), 0o600, nobody, "chmod 700"},
		{folder, 0o640, nobody, "chmod 700"},
		{folder, 0o700, 0, "chmod a+x"},
	} {
		for _, each := range []string{folder, filepath.Dir(path), path} {
			if err := errors.Join(os.Chown(each, nobody, nobody), os.Chmod(each, 0o700)); err != nil { //nolint:gosec // folders are entered
				t.Fatal(err)
			}
		}
		if err := errors.Join(os.Chmod(path, 0o600), os.Chown(c.what, c.owner, nobody), os.Chmod(c.what, c.mode)); err != nil {
			t.Fatal(err)
		}
		said, err := read(path)
		if err == nil || !strings.Contains(said, c.want) {
			t.Errorf("%s with mode %o: %v, want %q in:\n%s", c.what, c.mode, err, c.want, said)
			continue
		}
		line, _, _ := strings.Cut(said, "\n--- ")
		line, _, _ = strings.Cut(line[strings.Index(line, "read the key"):], "\n")
		mended(t, errors.New(line), func() error {
			again, err := read(path)
			if err != nil {
				return errors.New(again)
			}
			return nil
		})
	}
}

func TestLinksAndOthers(t *testing.T) {
	t.Parallel()
	path := keyFile(t, "key")
	link := filepath.Join(filepath.Dir(path), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if got, err := advice().ReadNamed(link); err != nil || string(got) != "key" {
		t.Errorf("a link that the operator has named: %q, %v", got, err)
	}
	if err := os.Chmod(path, 0o644); err != nil { //nolint:gosec // what the test is about
		t.Fatal(err)
	}
	_, err := advice().ReadNamed(link)
	mended(t, err, func() error { _, err := advice().ReadNamed(link); return err })
	mended(t, advice().Check(link), func() error { return advice().Check(link) })

	pipe := filepath.Join(filepath.Dir(path), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{pipe, filepath.Dir(path)} {
		if err := advice().Check(other); err == nil || !strings.Contains(err.Error(), "is no file; restore it") {
			t.Errorf("%s: %v", other, err)
		}
		if _, err := advice().ReadNamed(other); err == nil || !strings.Contains(err.Error(), "is no file; restore it") {
			t.Errorf("%s, named: %v", other, err)
		}
	}
	if err := advice().Check(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if err := advice().CheckDir(path); err == nil || !strings.Contains(err.Error(), "no directory") {
		t.Errorf("a file in the place of a directory: %v", err)
	}
}

func TestDirectories(t *testing.T) {
	t.Parallel()
	for mode, want := range map[fs.FileMode]bool{0o700: true, 0o711: true, 0o755: true, 0o770: false, 0o720: false, 0o702: false, 0o777: false} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		err := advice().CheckDir(dir)
		if (err == nil) != want {
			t.Errorf("mode %o: %v", mode, err)
		}
		if !want {
			mended(t, err, func() error { return advice().CheckDir(dir) })
		}
	}
}
