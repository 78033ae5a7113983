package vault_test

import (
	"bytes"
	"errors"
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
