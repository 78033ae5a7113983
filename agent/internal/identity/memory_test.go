package identity_test

import (
	"bytes"
	"crypto/ed25519"
	"os"
	"path/filepath"
	"testing"

	"github.com/outfeed/outfeed/agent/internal/identity"
	"github.com/outfeed/outfeed/protocol/seal"
)

func load(t *testing.T, dir string) *identity.Identity {
	t.Helper()
	id, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func next(t *testing.T, id *identity.Identity) uint64 {
	t.Helper()
	n, err := id.NextCounter()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func keep(t *testing.T, id *identity.Identity, value string) {
	t.Helper()
	if err := id.KeepSession([]byte(value)); err != nil {
		t.Fatal(err)
	}
}

func TestSessionIsKept(t *testing.T) {
	t.Parallel()
	dir, id, _, _ := enrolled(t)
	if len(id.Session()) != 0 {
		t.Error("a new agent has a session's value")
	}
	next(t, id)
	keep(t, id, "first")
	next(t, id)
	id = load(t, dir)
	if got := string(id.Session()); got != "first" {
		t.Errorf("the value is %q", got)
	}
	keep(t, id, "second")
	id = load(t, dir)
	if got := string(id.Session()); got != "second" {
		t.Errorf("the value is %q", got)
	}
	if n := next(t, id); n != 3 {
		t.Errorf("the counter is %d", n)
	}
	for _, wrong := range [][]byte{nil, make([]byte, 65)} {
		if err := id.KeepSession(wrong); err == nil {
			t.Errorf("a value of %d bytes was kept", len(wrong))
		}
	}
}

// TestTornWrites cuts every write of the memory at many places: what counted before it counts after it, and no
// counter comes twice.
func TestTornWrites(t *testing.T) {
	t.Parallel()
	dir, id, _, _ := enrolled(t)
	path := filepath.Join(dir, "identity", "connect.state")
	for round := range 4 {
		before := load(t, dir).Session()
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		used := next(t, id)
		if round > 0 {
			keep(t, id, string(bytes.Repeat([]byte{byte('a' + round)}, 32)))
		}
		written, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, cut := range cuts(len(old)) {
			torn := append(bytes.Clone(written[:cut]), old[cut:]...)
			if err = os.WriteFile(path, torn, 0o600); err != nil { //nolint:gosec // a path of this test
				t.Fatal(err)
			}
			got := load(t, dir)
			if s := got.Session(); !bytes.Equal(s, before) && !bytes.Equal(s, id.Session()) {
				t.Fatalf("round %d, cut at %d: the value is %q", round, cut, s)
			}
			if cut == len(old) && next(t, got) <= used {
				t.Fatalf("round %d: a counter came twice", round)
			}
		}
		if err = os.WriteFile(path, written, 0o600); err != nil { //nolint:gosec // as above
			t.Fatal(err)
		}
	}
}

// cuts are the places to cut a write at: every eight bytes of what a slot uses, and its ends.
func cuts(size int) []int {
	var out []int
	for slot := 0; slot < size; slot += size / 2 {
		for at := 0; at < 128; at += 8 {
			out = append(out, slot+at)
		}
	}
	return append(out, size)
}

func TestRotation(t *testing.T) {
	t.Parallel()
	dir, id, draft, _ := enrolled(t)
	context := seal.SecretContext{Tenant: "tenant-1", Agent: "agent-1", Connection: "c1", Field: "password"}
	sealedTo := func(key []byte) []byte {
		t.Helper()
		sealed, err := seal.SealTo(key, context, []byte("hunter2"))
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	opens := func(id *identity.Identity, sealed []byte) {
		t.Helper()
		if got, err := id.OpenSecret("c1", "password", sealed); err != nil || got.Reveal() != "hunter2" {
			t.Errorf("a secret: %v", err)
		}
	}
	if _, begun := id.PreparedKeys(); begun {
		t.Error("a new agent rotates")
	}
	prepared, err := id.PrepareKeys()
	if err != nil {
		t.Fatal(err)
	}
	// The process dies here.
	id = load(t, dir)
	again, begun := id.PreparedKeys()
	if !begun || !again.Key.Equal(prepared.Key) || !bytes.Equal(again.ReceiveKey, prepared.ReceiveKey) {
		t.Fatal("the prepared keys are gone")
	}
	if same, err := id.PrepareKeys(); err != nil || !same.Key.Equal(prepared.Key) {
		t.Fatalf("asked again: other keys, %v", err)
	}
	if !id.Key().Equal(draft.Key()) {
		t.Fatal("the key changed before it was swapped")
	}
	opens(id, sealedTo(draft.ReceiveKey()))
	opens(id, sealedTo(prepared.ReceiveKey))
	if err := id.SwapKeys(make([]byte, 32)); err == nil {
		t.Fatal("strange keys were swapped in")
	}
	public := ed25519.PublicKey(prepared.Key[32:])
	if err := id.SwapKeys(public); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !id.Key().Equal(prepared.Key) {
			t.Fatal("the key is not the next one")
		}
		opens(id, sealedTo(draft.ReceiveKey()))
		opens(id, sealedTo(prepared.ReceiveKey))
		id = load(t, dir)
	}
	if _, begun := id.PreparedKeys(); begun {
		t.Error("the rotation goes on after its end")
	}
}
