package vault_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/vault"
)

// made are the keys of a first start.
func made(t *testing.T) (vault.Files, *vault.Keys) {
	t.Helper()
	f := vault.Files{Dir: filepath.Join(t.TempDir(), "data")}
	keys, err := f.LoadOrCreate()
	if err != nil {
		t.Fatal(err)
	}
	return f, keys
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestKeysStayTheSame(t *testing.T) {
	t.Parallel()
	f, first := made(t)
	again, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	if !first.Identity.Equal(again.Identity) || !first.Bundle.Equal(again.Bundle) || first.Identity.Equal(first.Bundle) {
		t.Error("the keys changed, or are one key")
	}
	entries, err := os.ReadDir(f.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
		text, err := os.ReadFile(filepath.Join(f.Dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(base64.StdEncoding.EncodeToString(first.Identity.Seed()))) {
			t.Errorf("%s shows the identity key", e.Name())
		}
	}
	if len(entries) != 3 {
		t.Errorf("there are %d files: something was left behind", len(entries))
	}
}

func TestParallelStartsGetTheSameKeys(t *testing.T) {
	t.Parallel()
	f := vault.Files{Dir: t.TempDir()}
	var wg sync.WaitGroup
	keys, errs := make([]*vault.Keys, 16), make([]error, 16)
	for i := range keys {
		wg.Go(func() { keys[i], errs[i] = f.LoadOrCreate() })
	}
	wg.Wait()
	for i := range keys {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if !keys[i].Identity.Equal(keys[0].Identity) || !keys[i].Bundle.Equal(keys[0].Bundle) {
			t.Fatal("two starts made different keys")
		}
	}
}

// TestNoKeyIsMadeAnew has every set of keys missing at a start that is not the first.
func TestNoKeyIsMadeAnew(t *testing.T) {
	t.Parallel()
	for set := 1; set < 8; set++ {
		f, _ := made(t)
		var want []string
		for i, name := range vault.KeyNames() {
			if set&(1<<i) != 0 {
				want = append(want, string(name))
				remove(t, f.Path(name))
			}
		}
		_, err := f.Load()
		missing, ok := errors.AsType[*vault.MissingError](err)
		if !ok {
			t.Errorf("without %v: %v", want, err)
			continue
		}
		var got []string
		for _, k := range missing.Keys {
			got = append(got, string(k.Name))
			if k.Path != f.Path(k.Name) || !strings.Contains(err.Error(), k.Path) {
				t.Errorf("%s is said to be missing at %s: %v", k.Name, k.Path, err)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("without %v it says that %v are missing", want, got)
		}
		for _, name := range want {
			if _, err := os.Stat(filepath.Join(f.Dir, name+".key")); err == nil {
				t.Errorf("without %v it made %s anew", want, name)
			}
		}
	}
}

func TestAMasterKeyIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	f, _ := made(t)
	remove(t, f.Path(vault.MasterKey))
	if _, err := f.LoadOrCreate(); err == nil || !strings.Contains(err.Error(), "master.key") {
		t.Errorf("got %v", err)
	}
	f.Master = filepath.Join(t.TempDir(), "other.key")
	if _, err := f.LoadOrCreate(); err == nil {
		t.Error("a configured master key that is missing was accepted")
	}
	if err := os.WriteFile(f.Master, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.LoadOrCreate(); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("another master key: got %v", err)
	}
	if err := os.WriteFile(f.Master, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.LoadOrCreate(); err == nil || !strings.Contains(err.Error(), "base64") {
		t.Errorf("a short master key: got %v", err)
	}
}

func TestFingerprints(t *testing.T) {
	t.Parallel()
	_, a := made(t)
	f, b := made(t)
	again, err := f.Load()
	if err != nil {
		t.Fatal(err)
	}
	for name, fingerprint := range b.Fingerprints() {
		if fingerprint != again.Fingerprints()[name] {
			t.Errorf("%s: %s and %s", name, fingerprint, again.Fingerprints()[name])
		}
		if fingerprint == a.Fingerprints()[name] || len(fingerprint) != 64 {
			t.Errorf("%s: %s, and another installation's is %s", name, fingerprint, a.Fingerprints()[name])
		}
	}
}

// TestReplacing replaces each set of keys, which are there or have been lost. The others stay, and what was there is kept.
func TestReplacing(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		for set := 1; set < 8; set++ {
			f, before := made(t)
			var names []vault.KeyName
			for i, name := range vault.KeyNames() {
				if set&(1<<i) != 0 {
					names = append(names, name)
					if lost {
						remove(t, f.Path(name))
					}
				}
			}
			what := fmt.Sprintf("%v, lost: %v", names, lost)
			after, err := f.Replace(names, time.Unix(0, 0))
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			for _, name := range vault.KeyNames() {
				replaced := slices.Contains(names, name) || slices.Contains(names, vault.MasterKey)
				if same := before.Fingerprints()[name] == after.Fingerprints()[name]; same == replaced {
					t.Errorf("%s: %s is the same: %v", what, name, same)
				}
				_, err := os.Stat(f.Path(name) + ".replaced-19700101T000000Z")
				if kept := err == nil; kept != (replaced && (!lost || !slices.Contains(names, name))) {
					t.Errorf("%s: the old %s is kept: %v", what, name, kept)
				}
			}
			if again, err := f.Load(); err != nil || !again.Identity.Equal(after.Identity) {
				t.Errorf("%s: the next start: %v", what, err)
			}
		}
	}
}

// TestReplacingTouchesNothingWhenTheRestIsNotWhole loses two keys and asks for one.
func TestReplacingTouchesNothingWhenTheRestIsNotWhole(t *testing.T) {
	t.Parallel()
	for _, lost := range []vault.KeyName{vault.MasterKey, vault.BundleKey} {
		f, _ := made(t)
		remove(t, f.Path(lost))
		if _, err := f.Replace([]vault.KeyName{vault.IdentityKey}, time.Now()); err == nil || !strings.Contains(err.Error(), string(lost)+".key") {
			t.Errorf("without %s: %v", lost, err)
		}
		entries, err := os.ReadDir(f.Dir)
		if err != nil || len(entries) != 2 {
			t.Errorf("without %s there are %d files now: %v", lost, len(entries), err)
		}
	}
}
