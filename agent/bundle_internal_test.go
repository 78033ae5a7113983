package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/agent/internal/connectors/all"
	"github.com/outfeed/outfeed/agent/internal/identity"
	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/agent/internal/supervisor"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

// receiver is an agent's parts that take bundles, with a running supervisor.
type receiver struct {
	*bundles
	t    *testing.T
	key  ed25519.PrivateKey
	root string
	log  bytes.Buffer
}

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{t: t, key: newKey(t), root: t.TempDir()}
	draft, err := identity.Create(r.root)
	if err != nil {
		t.Fatal(err)
	}
	id, err := draft.Complete(identity.Profile{
		Agent: "agent", Tenant: "tenant", Workspace: "workspace", URL: "http://127.0.0.1:1", Fingerprint: strings.Repeat("0", 64),
		BundleKeys: []ed25519.PublicKey{ed25519.PublicKey(r.key[ed25519.SeedSize:])},
	})
	if err != nil {
		t.Fatal(err)
	}
	st, err := stage.Open(t.Context(), stage.Settings{Dir: filepath.Join(r.root, stageDir), Owner: "agent", MinFreeBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	reports, err := newReports(t.Context(), st, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r.bundles = &bundles{identity: id, stage: st, log: slog.New(slog.NewTextHandler(&r.log, nil)), changed: func() {}}
	r.supervisor = supervisor.New(supervisor.Settings{Staging: staging{reports: reports, stage: st}, Connector: all.Find, AgentID: "agent", Reopen: r.reopen})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.supervisor.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run gave %v", err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// bundle is a bundle of one flow, in time.
func (r *receiver) bundle(serial uint64, version uint32) *wire.Bundle {
	definition := fmt.Appendf(nil, "flow: lines\ntrigger: continuous\nsteps:\n  - read: files\n    with: {path: \"*.jsonl\", format: jsonl, follow: true}\n    schema: {n: int}\n  - insight: v%d\n", version)
	sum := sha256.Sum256(definition)
	options, err := json.Marshal(map[string]any{"root": r.root})
	if err != nil {
		r.t.Fatal(err)
	}
	return &wire.Bundle{
		TenantId: "tenant", AgentId: "agent", Serial: serial, Issued: 1_000_000, Expires: 1_000_000 + time.Hour.Microseconds(),
		Flows:       []*wire.BundleFlow{{DeploymentId: "d", FlowId: "f", Name: "lines", Version: version, Definition: definition, Sha256: sum[:]}},
		Connections: []*wire.BundleConnection{{ConnectionId: "c", Name: "files", Kind: "file", OptionsJson: options}},
	}
}

func (r *receiver) sign(key ed25519.PrivateKey, b *wire.Bundle) []byte {
	r.t.Helper()
	payload, err := proto.Marshal(b)
	if err != nil {
		r.t.Fatal(err)
	}
	envelope, err := seal.Sign(key, seal.BundlePayload, payload)
	if err != nil {
		r.t.Fatal(err)
	}
	return envelope
}

// runs waits until that version runs.
func (r *receiver) runs(version uint32) {
	r.t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for {
		if s := r.supervisor.Status(); len(s) == 1 && s[0].GetState() == "running" && s[0].GetVersion() == version {
			return
		}
		select {
		case <-r.supervisor.Changed():
		case <-limit.C:
			r.t.Fatalf("the flows are %v", r.supervisor.Status())
		}
	}
}

// unsigned takes the signatures out of an envelope.
func unsigned(t *testing.T, envelope []byte) []byte {
	t.Helper()
	var e map[string]any
	if err := json.Unmarshal(envelope, &e); err != nil {
		t.Fatal(err)
	}
	e["signatures"] = []any{}
	out, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// oneBit alters one bit of the payload of an envelope.
func oneBit(t *testing.T, envelope []byte, bit int) []byte {
	t.Helper()
	var e map[string]any
	if err := json.Unmarshal(envelope, &e); err != nil {
		t.Fatal(err)
	}
	text, ok := e["payload"].(string)
	payload, err := base64.StdEncoding.DecodeString(text)
	if err != nil || !ok {
		t.Fatal(err)
	}
	payload[bit/8%len(payload)] ^= 1 << (bit % 8)
	e["payload"] = base64.StdEncoding.EncodeToString(payload)
	out, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestBundlesThatAreRefused(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	r.ControlPlaneClock(1_000_000)
	changed := func(change func(*wire.Bundle)) []byte {
		b := r.bundle(8, 2)
		change(b)
		return r.sign(r.key, b)
	}
	first := r.sign(r.key, r.bundle(7, 1))
	if err := r.ApplyBundle(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	r.runs(1)
	since := r.supervisor.Status()[0].GetSince()
	newer := r.sign(r.key, r.bundle(8, 2))
	for name, c := range map[string]struct {
		envelope []byte
		word     string
	}{
		"unsigned":                     {unsigned(t, newer), bundleUnsigned},
		"signed by another key":        {r.sign(newKey(t), r.bundle(8, 2)), bundleUntrusted},
		"altered by one bit":           {oneBit(t, newer, 333), bundleUntrusted},
		"for another agent":            {changed(func(b *wire.Bundle) { b.AgentId = "other" }), bundleOtherAgent},
		"for another tenant":           {changed(func(b *wire.Bundle) { b.TenantId = "other" }), bundleOtherAgent},
		"replayed":                     {r.sign(r.key, r.bundle(6, 1)), bundleOlder},
		"the same serial, another say": {r.sign(r.key, r.bundle(7, 2)), bundleConflicting},
		"expired":                      {changed(func(b *wire.Bundle) { b.Expires = 999_999 }), bundleExpired},
		"another hash":                 {changed(func(b *wire.Bundle) { b.Flows[0].Sha256 = make([]byte, 32) }), bundleHash},
		"no protobuf":                  {mustSign(t, r.key, []byte{0xff, 0xff}), bundleUndecodable},
		"no envelope":                  {[]byte("flows"), bundleUndecodable},
		"options that are no JSON":     {changed(func(b *wire.Bundle) { b.Connections[0].OptionsJson = []byte("{") }), bundleUndecodable},
		"a secret for another key": {changed(func(b *wire.Bundle) {
			b.Connections[0].SealedSecrets = map[string][]byte{"password": []byte("sealed")}
		}), bundleCredential},
		"too large":     {make([]byte, wire.MaxBundle+1), bundleTooLarge},
		"not too large": {make([]byte, wire.MaxBundle), bundleUndecodable},
	} {
		before := r.refusals()[c.word]
		r.log.Reset()
		r.mu.Lock()
		r.refusal = nil // the case before may have had the same reason
		r.mu.Unlock()
		for range 3 { // as after every reconnect
			if err := r.ApplyBundle(t.Context(), c.envelope); err != nil {
				t.Errorf("%s: ApplyBundle gave %v", name, err)
			}
		}
		if got := r.refused(); !strings.Contains(got, "refused ("+c.word+"): ") || len(got) < 40 {
			t.Errorf("%s: refused with %q, want the word %s", name, got, c.word)
		}
		if n := r.refusals()[c.word] - before; n != 3 {
			t.Errorf("%s: counted %d times", name, n)
		}
		if n := strings.Count(r.log.String(), "level=ERROR"); n != 1 {
			t.Errorf("%s: logged %d times: %s", name, n, r.log.String())
		}
		if s := r.supervisor.Status(); len(s) != 1 || s[0].GetVersion() != 1 || s[0].GetSince() != since || r.DesiredSerial() != 7 {
			t.Errorf("%s: the flows are %v", name, s)
		}
	}
	// The same again is no replay of something older, and ends the refusal; so does the next.
	for version, envelope := range map[uint32][]byte{1: first} {
		if err := r.ApplyBundle(t.Context(), envelope); err != nil || r.refused() != "" {
			t.Errorf("version %d again: %v, %s", version, err, r.refused())
		}
	}
	if s := r.supervisor.Status(); s[0].GetSince() != since {
		t.Error("the running flow was started anew")
	}
	if err := r.ApplyBundle(t.Context(), newer); err != nil || r.refused() != "" {
		t.Errorf("the newer one: %v, %s", err, r.refused())
	}
	r.runs(2)
}

// TestEveryBitOfABundleCounts alters each bit of a bundle in turn.
func TestEveryBitOfABundleCounts(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	b := r.bundle(7, 1)
	payload, err := proto.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	envelope := r.sign(r.key, b)
	for bit := range 8 * len(payload) {
		if _, err := r.open(oneBit(t, envelope, bit)); err == nil {
			t.Fatalf("bit %d was altered and nobody noticed", bit)
		}
	}
	t.Logf("%d altered bundles, 0 accepted", 8*len(payload))
}

func mustSign(t *testing.T, key ed25519.PrivateKey, payload []byte) []byte {
	t.Helper()
	envelope, err := seal.Sign(key, seal.BundlePayload, payload)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

// TestAnAcceptedBundleNeverExpires starts from a bundle that has long expired, as after months offline.
func TestAnAcceptedBundleNeverExpires(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	r.ControlPlaneClock(1_000_000)
	if err := r.ApplyBundle(t.Context(), r.sign(r.key, r.bundle(7, 1))); err != nil {
		t.Fatal(err)
	}
	r.ControlPlaneClock(1_000_000 + (90 * 24 * time.Hour).Microseconds())
	r.mu.Lock()
	r.serial = 0
	r.mu.Unlock()
	if err := r.resume(t.Context()); err != nil || r.refused() != "" || r.DesiredSerial() != 7 {
		t.Errorf("resume gave %v, %s, serial %d", err, r.refused(), r.DesiredSerial())
	}
	r.runs(1)
}

// TestAVersionBeforeIsOpenedAgain reads what the supervisor keeps of a version.
func TestAVersionBeforeIsOpenedAgain(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	b := r.bundle(7, 1)
	deployments, err := r.deployments(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.reopen(deployments[0].Origin)
	if err != nil || !again.Same(&deployments[0]) {
		t.Errorf("opened again it is %+v (%v), want %+v", again, err, deployments[0])
	}
	for _, damaged := range [][]byte{nil, []byte("x"), deployments[0].Origin[:10]} {
		if d, err := r.reopen(damaged); err == nil {
			t.Errorf("damaged, it is %+v", d)
		}
	}
}

// FuzzBundle gives anything to what takes bundles.
func FuzzBundle(f *testing.F) {
	f.Add([]byte(`{"payload":"","payloadType":"","signatures":[]}`))
	f.Add([]byte(`{"signatures":null}`))
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, envelope []byte) {
		if word := whyNotOpen(envelope, seal.ErrUntrusted); word != bundleUnsigned && word != bundleUntrusted {
			t.Errorf("the word is %s", word)
		}
	})
}
