//go:build unix

package vault_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/vault"
)

// TestKeysOfOthersAreRefused breaks each file and the directory in each way, and runs the command that mends it.
func TestKeysOfOthersAreRefused(t *testing.T) {
	t.Parallel()
	ways := map[string]func(path string) error{
		"others may read it":   func(path string) error { return os.Chmod(path, 0o644) }, //nolint:gosec // what the test is about
		"others may change it": func(path string) error { return os.Chmod(path, 0o620) }, //nolint:gosec // as above
		"a link": func(path string) error {
			return errors.Join(os.Rename(path, path+".elsewhere"), os.Symlink(path+".elsewhere", path))
		},
		"another's": func(path string) error { return os.Chown(path, 65534, 65534) },
	}
	for way, broken := range ways {
		if way == "another's" && os.Geteuid() != 0 {
			continue // Only root can give a file away.
		}
		for _, name := range vault.KeyNames() {
			f, _ := made(t)
			if err := broken(f.Path(name)); err != nil {
				t.Fatal(err)
			}
			_, err := f.Load()
			if err == nil || !strings.Contains(err.Error(), f.Path(name)) {
				t.Errorf("%s, %s: it is used: %v", name, way, err)
			}
			mended(t, f, f.Check())
		}
	}
	f, _ := made(t)
	if err := os.Chmod(f.Dir, 0o777); err != nil { //nolint:gosec // as above
		t.Fatal(err)
	}
	mended(t, f, f.Check())
}

// mended runs the command of a refusal, after which nothing may be wrong.
func mended(t *testing.T, f vault.Files, refused error) {
	t.Helper()
	if refused == nil {
		t.Error("nothing was refused")
		return
	}
	_, command, found := strings.Cut(refused.Error(), "mend it with: ")
	if !found {
		_, command, _ = strings.Cut(refused.Error(), "put the file itself there: ")
	}
	command, _, _ = strings.Cut(command, "; otherwise")
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil { //nolint:gosec // what the product says
		t.Errorf("%s: %v: %s", command, err, out)
	}
	if err := f.Check(); err != nil {
		t.Errorf("after %s: %v", command, err)
	}
	if _, err := f.Load(); err != nil {
		t.Errorf("after %s: %v", command, err)
	}
}

// TestANamedMasterKeyMayBeALink is how secrets are mounted.
func TestANamedMasterKeyMayBeALink(t *testing.T) {
	t.Parallel()
	f, _ := made(t)
	secrets := t.TempDir()
	file := filepath.Join(secrets, "..data")
	f.Master = filepath.Join(secrets, "master")
	if err := errors.Join(os.Rename(filepath.Join(f.Dir, "master.key"), file), os.Symlink(file, f.Master)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(file, 0o644); err != nil { //nolint:gosec // what the test is about
		t.Fatal(err)
	}
	mended(t, f, f.Check())
}
