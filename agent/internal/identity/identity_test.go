package identity_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/agent/internal/identity"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func bundleKey(t *testing.T) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return public, private
}

func profile(keys ...ed25519.PublicKey) identity.Profile {
	return identity.Profile{
		Agent: "agent-1", Tenant: "tenant-1", Workspace: "workspace-1",
		URL: "https://control.example", Fingerprint: strings.Repeat("ab", 32), BundleKeys: keys,
	}
}

func enrolled(t *testing.T) (dir string, id *identity.Identity, draft *identity.Draft, signer ed25519.PrivateKey) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	draft, err := identity.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	public, signer := bundleKey(t)
	id, err = draft.Complete(profile(public))
	if err != nil {
		t.Fatal(err)
	}
	return dir, id, draft, signer
}

func TestCreateAndLoad(t *testing.T) {
	t.Parallel()
	dir, id, draft, _ := enrolled(t)
	again, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Key().Equal(draft.Key()) || again.Fingerprint() != id.Fingerprint() {
		t.Error("the loaded key is another one")
	}
	if p := again.Profile(); p.Agent != "agent-1" || p.Fingerprint != strings.Repeat("ab", 32) || len(p.BundleKeys) != 1 {
		t.Errorf("the loaded profile is %+v", p)
	}
	public, ok := draft.Key().Public().(ed25519.PublicKey)
	if !ok || !ed25519.Verify(public, []byte("m"), again.Sign([]byte("m"))) {
		t.Error("the signature does not verify")
	}
	if _, err := identity.Create(dir); !errors.Is(err, identity.ErrEnrolled) {
		t.Errorf("a second Create: %v, want ErrEnrolled", err)
	}
}

func TestHalfFinishedEnrolment(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	if _, err := identity.Load(dir); !errors.Is(err, identity.ErrNotEnrolled) || !strings.Contains(err.Error(), "outfeed-agent enroll") {
		t.Errorf("an empty directory: %v", err)
	}
	first, err := identity.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	// The process dies here: there is no identity, and the next enrolment starts afresh.
	if _, err = identity.Load(dir); !errors.Is(err, identity.ErrNotEnrolled) {
		t.Errorf("half an enrolment: %v", err)
	}
	second, err := identity.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if first.Key().Equal(second.Key()) {
		t.Error("the keys of the enrolment that failed were used again")
	}
	if _, err = second.Complete(profile()); err == nil {
		t.Error("an identity that trusts no bundle key was made")
	}
	if _, err = identity.Load(dir); !errors.Is(err, identity.ErrNotEnrolled) {
		t.Errorf("after a refused Complete: %v", err)
	}
	if err = second.Discard(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("Discard left %v, %v", entries, err)
	}
}

func TestCreateOnUnusableDisk(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.Create(filepath.Join(file, "data")); err == nil {
		t.Error("keys were made where nothing can be kept")
	}
}

func TestCounter(t *testing.T) {
	t.Parallel()
	dir, id, _, _ := enrolled(t)
	const workers, each = 4, 10
	var mu sync.Mutex
	seen := map[uint64]bool{}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				n, err := id.NextCounter()
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[n] {
					t.Errorf("%d was given twice", n)
				}
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	again, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := again.NextCounter(); err != nil || n != workers*each+1 {
		t.Errorf("after loading again: %d, %v", n, err)
	}
}

func TestCounterThatCannotBeKept(t *testing.T) {
	t.Parallel()
	dir, id, _, _ := enrolled(t)
	before, err := id.NextCounter()
	if err != nil {
		t.Fatal(err)
	}
	// A directory in the way makes the write fail for root as well.
	path := filepath.Join(dir, "identity", "connect.state")
	if err = os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	if err = os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if n, nextErr := id.NextCounter(); nextErr == nil {
		t.Fatalf("the counter %d was given without being kept", n)
	}
	if err = errors.Join(os.Remove(path), os.Rename(path+".away", path)); err != nil {
		t.Fatal(err)
	}
	if n, nextErr := id.NextCounter(); nextErr != nil || n <= before {
		t.Errorf("afterwards: %d, %v, want more than %d", n, nextErr, before)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file, content string
		says          string
	}{
		"damaged keys":        {"keys.pem", "nonsense", "damaged"},
		"truncated key":       {"keys.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "damaged"},
		"no keys":             {"keys.pem", "", "damaged"},
		"damaged next keys":   {"keys.next.pem", "nonsense", "rm "},
		"empty memory":        {"connect.state", "", "damaged"},
		"zeroed memory":       {"connect.state", strings.Repeat("\x00", 8192), "damaged"},
		"cut memory":          {"connect.state", strings.Repeat("\x00", 4096), "damaged"},
		"damaged profile":     {"identity.json", "{", "not readable"},
		"newer profile":       {"identity.json", `{"version": 2}`, "newer program"},
		"profile of nobody":   {"identity.json", `{"version": 1, "tenant_id": "t", "url": "u", "control_plane_fingerprint": "f"}`, "agent_id"},
		"profile without key": {"identity.json", `{"version": 1, "agent_id": "a", "tenant_id": "t", "url": "u", "control_plane_fingerprint": "f"}`, "no key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, _, _, _ := enrolled(t)
			if err := os.WriteFile(filepath.Join(dir, "identity", c.file), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := identity.Load(dir)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one that says %q", err, c.says)
			}
			if errors.Is(err, identity.ErrNotEnrolled) {
				t.Error("a damaged identity looks like none")
			}
		})
	}
}

func TestALostFileIsToldWithWhatToDo(t *testing.T) {
	t.Parallel()
	for name, held := range map[string]string{
		"keys.pem": "the agent's private keys", "identity.json": "which agent this is", "connect.state": "how often the agent has connected",
	} {
		dir, _, _, _ := enrolled(t)
		if err := os.Remove(filepath.Join(dir, "identity", name)); err != nil {
			t.Fatal(err)
		}
		_, err := identity.Load(dir)
		if !errors.Is(err, identity.ErrLost) || errors.Is(err, identity.ErrNotEnrolled) {
			t.Fatalf("without %s: %v", name, err)
		}
		for _, says := range []string{
			name + " is not there", held, "from a backup", "outfeed agent token", "rm -r " + filepath.Join(dir, "identity"),
			"outfeed-agent enroll --url URL --token-file FILE --data-dir " + dir, "never sent",
		} {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("without %s it does not say %q: %v", name, says, err)
			}
		}
		if strings.Contains(err.Error(), "lstat") {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestSwappedKeysAreRefused(t *testing.T) {
	t.Parallel()
	dir, _, _, _ := enrolled(t)
	path := filepath.Join(dir, "identity", "keys.pem")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const end = "-----END PRIVATE KEY-----\n"
	first, second, _ := strings.Cut(string(raw), end)
	if err = os.WriteFile(path, []byte(second+first+end), 0o600); err != nil { //nolint:gosec // a path of this test
		t.Fatal(err)
	}
	if _, err = identity.Load(dir); err == nil || !strings.Contains(err.Error(), "no Ed25519 key") {
		t.Errorf("error %v", err)
	}
}

func TestOpenSecret(t *testing.T) {
	t.Parallel()
	_, id, draft, _ := enrolled(t)
	context := seal.SecretContext{Tenant: "tenant-1", Agent: "agent-1", Connection: "c1", Field: "password"}
	sealed, err := seal.SealTo(draft.ReceiveKey(), context, []byte("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := id.OpenSecret("c1", "password", sealed)
	if err != nil || got.Reveal() != "hunter2" {
		t.Errorf("OpenSecret = %q, %v", got.Reveal(), err)
	}
	for _, wrong := range [][2]string{{"c2", "password"}, {"c1", "user"}} {
		if _, err = id.OpenSecret(wrong[0], wrong[1], sealed); err == nil {
			t.Errorf("opened as %v", wrong)
		}
	}
}

func TestOpenBundle(t *testing.T) {
	t.Parallel()
	_, id, _, signer := enrolled(t)
	_, stranger := bundleKey(t)
	for name, c := range map[string]struct {
		key    ed25519.PrivateKey
		bundle *wire.Bundle
		says   string
	}{
		"good":           {signer, &wire.Bundle{TenantId: "tenant-1", AgentId: "agent-1", Serial: 3}, ""},
		"another agent":  {signer, &wire.Bundle{TenantId: "tenant-1", AgentId: "agent-2"}, "it is for agent agent-2"},
		"another tenant": {signer, &wire.Bundle{TenantId: "tenant-2", AgentId: "agent-1"}, "tenant-2"},
		"another signer": {stranger, &wire.Bundle{TenantId: "tenant-1", AgentId: "agent-1"}, "no trusted key"},
	} {
		payload, err := proto.Marshal(c.bundle)
		if err != nil {
			t.Fatal(err)
		}
		envelope, err := seal.Sign(c.key, seal.BundlePayload, payload)
		if err != nil {
			t.Fatal(err)
		}
		got, err := id.OpenBundle(envelope)
		switch {
		case c.says == "" && (err != nil || !proto.Equal(got, c.bundle)):
			t.Errorf("%s: %v, %v", name, got, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: error %v, want one that says %q", name, err, c.says)
		}
	}
}

// FuzzLoad reads anything as the identity's files: it errors or loads, and a loaded counter goes on rising.
func FuzzLoad(f *testing.F) {
	base := f.TempDir()
	draft, err := identity.Create(base)
	if err != nil {
		f.Fatal(err)
	}
	id, err := draft.Complete(profile(bytes.Repeat([]byte{1}, 32)))
	if err != nil {
		f.Fatal(err)
	}
	good := map[string][]byte{}
	files := []string{"identity.json", "connect.state", "keys.pem"}
	read := func() {
		for _, name := range files {
			if good[name], err = os.ReadFile(filepath.Join(base, "identity", name)); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(good["identity.json"], good["connect.state"], good["keys.pem"])
	}
	read()
	if _, err = id.NextCounter(); err != nil {
		f.Fatal(err)
	}
	if err = id.KeepSession([]byte("value")); err != nil {
		f.Fatal(err)
	}
	read()
	f.Add([]byte(`{"version":1}`), []byte("1\n"), []byte("-----BEGIN"))
	f.Fuzz(func(t *testing.T, profileFile, memory, keys []byte) {
		for i, content := range [][]byte{profileFile, memory, keys} {
			if err := os.WriteFile(filepath.Join(base, "identity", files[i]), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		id, err := identity.Load(base)
		if err != nil {
			return
		}
		first, err := id.NextCounter()
		if err != nil {
			return
		}
		if second, err := id.NextCounter(); err == nil && second <= first {
			t.Fatalf("the counter went from %d to %d", first, second)
		}
		if err := id.KeepSession([]byte("next")); err != nil {
			t.Fatal(err)
		}
		again, err := identity.Load(base)
		if err != nil || string(again.Session()) != "next" {
			t.Fatalf("loaded again: %q, %v", again.Session(), err)
		}
	})
}
