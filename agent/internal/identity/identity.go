// Package identity keeps who this agent is: its two private keys, what the control plane told it at enrolment, and the
// counter that rises with every connect.
//
// Everything lies in the directory "identity" of the data directory, which appears whole by one rename or not at all.
// The package opens no connection and logs nothing. An Identity is safe for concurrent use; one process uses a data
// directory at a time.
package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	dirName     = "identity"
	pendingName = "identity.new"
	signName    = "ed25519.pem"
	receiveName = "x25519.pem"
	profileName = "identity.json"
	counterName = "counter"
	pemType     = "PRIVATE KEY"

	profileVersion = 1
)

// ErrNotEnrolled is when the data directory holds no identity.
var ErrNotEnrolled = errors.New("this agent is not enrolled")

// ErrEnrolled is when it holds one already.
var ErrEnrolled = errors.New("this agent is enrolled already")

// ErrOtherAgent is for a bundle that is for another agent.
var ErrOtherAgent = errors.New("another agent's bundle")

// Profile is what enrolment told the agent. None of it is secret.
type Profile struct {
	// Agent, Tenant and Workspace are ids (UUIDs as text).
	Agent, Tenant, Workspace string
	// URL is the control plane's address, as given at enrolment.
	URL string
	// Fingerprint is that of the control plane's Ed25519 key, from the enrolment token.
	Fingerprint string
	// BundleKeys sign the bundles that this agent accepts.
	BundleKeys []ed25519.PublicKey
}

// Identity is an enrolled agent.
type Identity struct {
	dir     string
	profile Profile
	sign    ed25519.PrivateKey
	receive *ecdh.PrivateKey

	mu      sync.Mutex
	counter uint64
}

// Load reads the identity of a data directory. The error is ErrNotEnrolled when there is none.
func Load(dataDir string) (*Identity, error) {
	dir := filepath.Join(dataDir, dirName)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no directory %q: %w; enrol it with: outfeed-agent enroll --url URL --token TOKEN", dataDir, dirName, ErrNotEnrolled)
	}
	id := &Identity{dir: dir}
	if err := id.readKeys(); err != nil {
		return nil, err
	}
	raw, err := readPrivate(filepath.Join(dir, profileName))
	if err != nil {
		return nil, err
	}
	if id.profile, err = decodeProfile(raw); err != nil {
		return nil, fmt.Errorf("%s: %w; restore it from a backup, or remove %s and enrol again", filepath.Join(dir, profileName), err, dir)
	}
	if id.counter, err = readCounter(filepath.Join(dir, counterName)); err != nil {
		return nil, err
	}
	return id, nil
}

// Profile is what enrolment told the agent.
func (id *Identity) Profile() Profile { return id.profile }

// Key is the agent's Ed25519 key, for the inner TLS session.
func (id *Identity) Key() ed25519.PrivateKey { return id.sign }

// Fingerprint is that of the agent's own key.
func (id *Identity) Fingerprint() string { return fingerprintOf(id.sign) }

// Sign signs a message with the agent's Ed25519 key.
func (id *Identity) Sign(message []byte) []byte { return ed25519.Sign(id.sign, message) }

// NextCounter gives a number greater than every one before, which is on disk before it is returned. It is never used
// twice: after a crash, or an error, the next one may skip some.
func (id *Identity) NextCounter() (uint64, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	next := id.counter + 1
	if next > math.MaxInt64 {
		return 0, errors.New("the connect counter has reached its end; enrol this agent again")
	}
	path := filepath.Join(id.dir, counterName)
	if err := replaceFile(path, encodeCounter(next)); err != nil {
		return 0, fmt.Errorf("keep the connect counter in %s, without which this agent cannot connect safely: %w", path, err)
	}
	id.counter = next
	return next, nil
}

// OpenSecret decrypts the credential of one option (field) of a connection, named by its id.
func (id *Identity) OpenSecret(connection, field string, sealed []byte) (secret.String, error) {
	context := seal.SecretContext{Tenant: id.profile.Tenant, Agent: id.profile.Agent, Connection: connection, Field: field}
	plain, err := seal.OpenSealed(id.receive, context, sealed)
	if err != nil {
		return secret.String{}, fmt.Errorf("connection %s: %w", connection, err)
	}
	return secret.New(string(plain)), nil
}

// OpenBundle checks that a trusted key signed the bundle and that it is for this agent, and decodes it. Whether its
// serial is newer than what the agent has is for the caller, who keeps the high-water mark.
func (id *Identity) OpenBundle(envelope []byte) (*wire.Bundle, error) {
	payload, err := seal.Open(envelope, id.profile.BundleKeys, seal.BundlePayload)
	if err != nil {
		return nil, err
	}
	bundle := &wire.Bundle{}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(payload, bundle); err != nil {
		return nil, fmt.Errorf("it cannot be decoded: %w", err)
	}
	if bundle.GetTenantId() != id.profile.Tenant || bundle.GetAgentId() != id.profile.Agent {
		return nil, fmt.Errorf("it is for agent %s of tenant %s, and this is agent %s of tenant %s: %w",
			bundle.GetAgentId(), bundle.GetTenantId(), id.profile.Agent, id.profile.Tenant, ErrOtherAgent)
	}
	return bundle, nil
}

func (id *Identity) readKeys() error {
	signing, err := readKey(filepath.Join(id.dir, signName))
	if err != nil {
		return err
	}
	receiving, err := readKey(filepath.Join(id.dir, receiveName))
	if err != nil {
		return err
	}
	var ok bool
	if id.sign, ok = signing.(ed25519.PrivateKey); !ok {
		return fmt.Errorf("%s holds no Ed25519 key; restore it from a backup, or enrol again", filepath.Join(id.dir, signName))
	}
	if id.receive, ok = receiving.(*ecdh.PrivateKey); !ok || id.receive.Curve() != ecdh.X25519() {
		return fmt.Errorf("%s holds no X25519 key; restore it from a backup, or enrol again", filepath.Join(id.dir, receiveName))
	}
	return nil
}

func fingerprintOf(key ed25519.PrivateKey) string {
	return seal.Fingerprint(ed25519.PublicKey(key[ed25519.SeedSize:]))
}

func readKey(path string) (any, error) {
	raw, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(raw)
	if block == nil || block.Type != pemType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("%s is damaged: it is not one PEM block %q; restore it from a backup, or enrol again", path, pemType)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; restore it from a backup, or enrol again", path, err)
	}
	return key, nil
}

func encodeKey(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// profileFile is identity.json.
type profileFile struct {
	Version     int      `json:"version"`
	Agent       string   `json:"agent_id"`
	Tenant      string   `json:"tenant_id"`
	Workspace   string   `json:"workspace_id"`
	URL         string   `json:"url"`
	Fingerprint string   `json:"control_plane_fingerprint"`
	BundleKeys  []string `json:"bundle_keys"`
}

func encodeProfile(p Profile) ([]byte, error) {
	file := profileFile{
		Version: profileVersion, Agent: p.Agent, Tenant: p.Tenant, Workspace: p.Workspace, URL: p.URL, Fingerprint: p.Fingerprint,
	}
	for _, key := range p.BundleKeys {
		file.BundleKeys = append(file.BundleKeys, hex.EncodeToString(key))
	}
	out, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the identity: %w", err)
	}
	out = append(out, '\n')
	// What is written must be readable: a control plane that sent nonsense must not leave an identity of nonsense.
	if _, err = decodeProfile(out); err != nil {
		return nil, fmt.Errorf("the control plane's answer to the enrolment is not usable: %w", err)
	}
	return out, nil
}

func decodeProfile(raw []byte) (Profile, error) {
	var file profileFile
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		return Profile{}, fmt.Errorf("the identity is not readable: %w", err)
	}
	if file.Version != profileVersion {
		return Profile{}, fmt.Errorf("the identity has version %d and this program knows %d; use the newer program", file.Version, profileVersion)
	}
	p := Profile{Agent: file.Agent, Tenant: file.Tenant, Workspace: file.Workspace, URL: file.URL, Fingerprint: file.Fingerprint}
	for name, value := range map[string]string{"agent_id": p.Agent, "tenant_id": p.Tenant, "url": p.URL, "control_plane_fingerprint": p.Fingerprint} {
		if value == "" {
			return Profile{}, fmt.Errorf("the identity has no %s", name)
		}
	}
	for _, text := range file.BundleKeys {
		key, err := hex.DecodeString(text)
		if err != nil || len(key) != ed25519.PublicKeySize {
			return Profile{}, fmt.Errorf("the bundle key %.70q is not an Ed25519 key of %d bytes in hex", text, ed25519.PublicKeySize)
		}
		p.BundleKeys = append(p.BundleKeys, key)
	}
	if len(p.BundleKeys) == 0 {
		return Profile{}, errors.New("the identity trusts no key to sign bundles")
	}
	return p, nil
}

func encodeCounter(n uint64) []byte { return []byte(strconv.FormatUint(n, 10) + "\n") }

func readCounter(path string) (uint64, error) {
	raw, err := readPrivate(path)
	if err != nil {
		return 0, err
	}
	text, complete := strings.CutSuffix(string(raw), "\n")
	// 63 bits, for the control plane keeps it in a signed column.
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || !complete {
		// Starting over would look like a copied agent to the control plane, so it is not guessed.
		return 0, fmt.Errorf("%s is damaged: it must hold one number; restore it from a backup, or remove %s and enrol again", path, filepath.Dir(path))
	}
	return n, nil
}
