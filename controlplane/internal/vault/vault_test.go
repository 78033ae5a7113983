package vault_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/vault"
)

func newVault(t *testing.T, fill byte) *vault.Vault {
	t.Helper()
	v, err := vault.New(bytes.Repeat([]byte{fill}, vault.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestASecretOpensOnlyWhereItBelongs(t *testing.T) {
	t.Parallel()
	v := newVault(t, 1)
	ref := fleet.SecretRef{Tenant: "t1", Connection: "c1", Field: "password", Version: 3}
	s, err := v.Seal(ref, []byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(s.Ciphertext, []byte("hunter2")) {
		t.Fatal("the ciphertext shows the secret")
	}
	got, err := v.Open(ref, s)
	if err != nil || string(got) != "hunter2" {
		t.Fatalf("got %q, %v", got, err)
	}
	for name, moved := range map[string]fleet.SecretRef{
		"another tenant":     {Tenant: "t2", Connection: "c1", Field: "password", Version: 3},
		"another connection": {Tenant: "t1", Connection: "c2", Field: "password", Version: 3},
		"another field":      {Tenant: "t1", Connection: "c1", Field: "token", Version: 3},
		"an older version":   {Tenant: "t1", Connection: "c1", Field: "password", Version: 2},
		"shifted parts":      {Tenant: "t1c1", Connection: "", Field: "password", Version: 3},
	} {
		if _, err := v.Open(moved, s); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("%s: got %v, want ErrSealed", name, err)
		}
	}
	if _, err := newVault(t, 2).Open(ref, s); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("another master key: got %v", err)
	}
}

// The two ciphertexts of a row are bound to the place each for itself: neither can be exchanged alone.
func TestRowsCannotBeMixed(t *testing.T) {
	t.Parallel()
	v := newVault(t, 1)
	a := fleet.SecretRef{Tenant: "t1", Connection: "c1", Field: "password", Version: 1}
	b := fleet.SecretRef{Tenant: "t2", Connection: "c1", Field: "password", Version: 1}
	sa, err := v.Seal(a, []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	sb, err := v.Seal(b, []byte("b"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []fleet.SealedSecret{sb, {WrappedKey: sa.WrappedKey, Ciphertext: sb.Ciphertext}, {WrappedKey: sb.WrappedKey, Ciphertext: sa.Ciphertext}, {}} {
		if _, err := v.Open(a, s); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("got %v, want ErrSealed", err)
		}
	}
}

func TestEveryAlteredByteIsNoticed(t *testing.T) {
	t.Parallel()
	v := newVault(t, 1)
	ref := fleet.SecretRef{Tenant: "t", Connection: "c", Field: "f", Version: 1}
	s, err := v.Seal(ref, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range [][]byte{s.WrappedKey, s.Ciphertext} {
		for i := range part {
			part[i] ^= 1
			if _, err := v.Open(ref, s); !errors.Is(err, vault.ErrSealed) {
				t.Fatalf("byte %d: got %v", i, err)
			}
			part[i] ^= 1
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte("key"), []byte("text"))
	v, err := vault.New(make([]byte, vault.KeySize))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, key, text []byte) {
		if _, err := v.Open(fleet.SecretRef{}, fleet.SealedSecret{WrappedKey: key, Ciphertext: text}); !errors.Is(err, vault.ErrSealed) {
			t.Fatalf("opened: %v", err)
		}
	})
}

func TestKeysStayTheSame(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	first, err := vault.LoadOrCreateKeys(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	again, err := vault.LoadOrCreateKeys(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	if !first.Identity.Equal(again.Identity) || !first.Bundle.Equal(again.Bundle) || first.Identity.Equal(first.Bundle) {
		t.Error("the keys changed, or are one key")
	}
	entries, err := os.ReadDir(dir)
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
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
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
	dir := t.TempDir()
	var wg sync.WaitGroup
	keys, errs := make([]*vault.Keys, 16), make([]error, 16)
	for i := range keys {
		wg.Go(func() { keys[i], errs[i] = vault.LoadOrCreateKeys(dir, "") })
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

func TestAMasterKeyIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := vault.LoadOrCreateKeys(dir, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "master.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.LoadOrCreateKeys(dir, ""); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("got %v", err)
	}
	other := filepath.Join(t.TempDir(), "other.key")
	if _, err := vault.LoadOrCreateKeys(dir, other); err == nil {
		t.Error("a configured master key that is missing was accepted")
	}
	if err := os.WriteFile(other, []byte(base64.StdEncoding.EncodeToString(make([]byte, 32))), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.LoadOrCreateKeys(dir, other); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("another master key: got %v", err)
	}
	if err := os.WriteFile(other, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := vault.LoadOrCreateKeys(t.TempDir(), other); err == nil || !strings.Contains(err.Error(), "base64") {
		t.Errorf("a short master key: got %v", err)
	}
}
