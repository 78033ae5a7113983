//go:build unix

package identity_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/identity"
)

func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	dir, _, _, _ := enrolled(t)
	for _, name := range []string{"ed25519.pem", "x25519.pem", "identity.json", "counter"} {
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
		path := filepath.Join(dir, "identity", "ed25519.pem")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := identity.Load(dir)
		if err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %o: error %v, want the command that mends it", mode, err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := identity.Load(dir); err != nil {
			t.Errorf("after mending: %v", err)
		}
	}
}

func TestWrongOwnerIsRefused(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // Only root can give a file away.
	}
	dir, _, _, _ := enrolled(t)
	path := filepath.Join(dir, "identity", "x25519.pem")
	if err := os.Chown(path, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.Load(dir); err == nil || !strings.Contains(err.Error(), "chown") {
		t.Errorf("error %v, want the command that mends it", err)
	}
}
