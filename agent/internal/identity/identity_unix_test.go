//go:build unix

package identity_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/identity"
)

func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	dir, _, _, _ := enrolled(t)
	for _, name := range []string{"keys.pem", "identity.json", "connect.state"} {
		info, err := os.Stat(filepath.Join(dir, "identity", name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", name, info.Mode().Perm())
		}
	}
}

func TestWrongModeIsRefusedWithTheRemedy(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o644} {
		dir, _, _, _ := enrolled(t)
		path := filepath.Join(dir, "identity", "keys.pem")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := identity.Load(dir)
		if err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %o: error %v, want the command that mends it", mode, err)
		}
		mended(t, dir, err)
	}
}

func TestWrongOwnerIsRefused(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // Only root can give a file away.
	}
	dir, _, _, _ := enrolled(t)
	path := filepath.Join(dir, "identity", "keys.pem")
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	_, err := identity.Load(dir)
	if err == nil || !strings.Contains(err.Error(), "chown") {
		t.Errorf("error %v, want the command that mends it", err)
	}
	mended(t, dir, err)
}

func TestSymbolicLinkIsRefused(t *testing.T) {
	t.Parallel()
	dir, _, _, _ := enrolled(t)
	path := filepath.Join(dir, "identity", "keys.pem")
	if err := os.Rename(path, filepath.Join(dir, "elsewhere.pem")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "elsewhere.pem"), path); err != nil {
		t.Fatal(err)
	}
	_, err := identity.Load(dir)
	mended(t, dir, err)
}

func TestDirectoryOfOthersIsRefused(t *testing.T) {
	t.Parallel()
	for _, mode := range []os.FileMode{0o770, 0o777, 0o720, 0o702} {
		for _, sub := range []string{"", "identity"} {
			dir, _, _, _ := enrolled(t)
			path := filepath.Join(dir, sub)
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			_, err := identity.Load(dir)
			if err == nil || !strings.Contains(err.Error(), "chmod go-w "+path) {
				t.Errorf("mode %o of %q: error %v", mode, sub, err)
			}
			mended(t, dir, err)
		}
	}
}

// mended runs the command that an error ends with, and checks that it is all that was needed.
func mended(t *testing.T, dir string, refused error) {
	t.Helper()
	if refused == nil {
		t.Error("nothing was refused")
		return
	}
	_, command, found := strings.Cut(refused.Error(), ": ")
	for rest := command; found; _, rest, found = strings.Cut(rest, ": ") {
		command = rest
	}
	command, _, _ = strings.Cut(command, "; ")
	out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput() //nolint:gosec // what the product says
	if err != nil {
		t.Errorf("%s: %v: %s", command, err, out)
	}
	if _, err := identity.Load(dir); err != nil {
		t.Errorf("after %s: %v", command, err)
	}
}

// TestPathsForTheShell has a data directory whose name a shell would take apart.
func TestPathsForTheShell(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "Bob's data; $HOME")
	draft, err := identity.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = draft.Complete(profile(make([]byte, 32))); err != nil {
		t.Fatal(err)
	}
	if err = os.Chmod(dir, 0o777); err != nil { //nolint:gosec // what the test is about
		t.Fatal(err)
	}
	_, err = identity.Load(dir)
	if err == nil {
		t.Fatal("nothing was refused")
	}
	_, command, _ := strings.Cut(err.Error(), "mend it with: ")
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil { //nolint:gosec // as above
		t.Errorf("%s: %v: %s", command, err, out)
	}
	if _, err := identity.Load(dir); err != nil {
		t.Error(err)
	}
}
