// Package identity keeps who this agent is: its private keys and those that it rotates to, what the control plane told it
// at enrolment, and what it remembers from connect to connect: the counter that rises, and the value of the last session.
//
// Everything lies in the directory "identity" of the data directory, which appears whole by one rename or not at all.
// The package opens no connection and logs nothing. An Identity is safe for concurrent use; one process uses a data
// directory at a time.
package identity

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

const (
	dirName     = "identity"
	pendingName = "identity.new"
	keysName    = "keys.pem"
	nextName    = "keys.next.pem"
	profileName = "identity.json"
	memoryName  = "connect.state"
	pemType     = "PRIVATE KEY"

	profileVersion = 1
)

// ErrNotEnrolled is when the data directory holds no identity.
var ErrNotEnrolled = errors.New("this agent is not enrolled")

// ErrLost is when a file of the identity is missing.
var ErrLost = errors.New("a part of this agent's identity is lost")

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

	mu     sync.Mutex
	keys   keyring
	next   *keyring
	memory memory
	// settled is whether the keys in use are known to be on the disk under their name.
	settled bool
}

// Load reads the identity of a data directory. The error is ErrNotEnrolled when there is none, and ErrLost when a part of it
// is missing.
func Load(dataDir string) (*Identity, error) {
	dir := filepath.Join(dataDir, dirName)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no directory %q: %w; enrol it with: outfeed-agent enroll --url URL --token-file FILE", dataDir, dirName, ErrNotEnrolled)
	}
	if err := errors.Join(checkDir(dataDir), checkDir(dir)); err != nil {
		return nil, err
	}
	id := &Identity{dir: dir}
	if err := id.readKeys(); err != nil {
		return nil, missing(err, dataDir, keysName, "the agent's private keys, with which it proves who it is")
	}
	raw, err := readPrivate(filepath.Join(dir, profileName))
	if err != nil {
		return nil, missing(err, dataDir, profileName, "which agent this is, of which control plane")
	}
	if id.profile, err = decodeProfile(raw); err != nil {
		return nil, fmt.Errorf("%s: %w; restore it from a backup, or remove %s and enrol again", filepath.Join(dir, profileName), err, dir)
	}
	if id.memory, err = readMemory(filepath.Join(dir, memoryName)); err != nil {
		return nil, missing(err, dataDir, memoryName, "how often the agent has connected, without which it looks like a copy of itself")
	}
	return id, nil
}

// Profile is what enrolment told the agent.
func (id *Identity) Profile() Profile { return id.profile }

// Key is the agent's present Ed25519 key, for the inner TLS session. It changes with SwapKeys.
func (id *Identity) Key() ed25519.PrivateKey {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.keys.sign
}

// Fingerprint is that of the agent's own key.
func (id *Identity) Fingerprint() string { return fingerprintOf(id.Key()) }

// Sign signs a message with the agent's Ed25519 key.
func (id *Identity) Sign(message []byte) []byte { return ed25519.Sign(id.Key(), message) }

// OpenSecret decrypts the credential of one option (field) of a connection, named by its id. During a rotation, and
// until the next one, it opens what was sealed to the key before too.
func (id *Identity) OpenSecret(connection, field string, sealed []byte) (secret.String, error) {
	context := seal.SecretContext{Tenant: id.profile.Tenant, Agent: id.profile.Agent, Connection: connection, Field: field}
	id.mu.Lock()
	keys := id.receivers()
	id.mu.Unlock()
	var first error
	for _, key := range keys {
		plain, err := seal.OpenSealed(key, context, sealed)
		if err == nil {
			return secret.New(string(plain)), nil
		}
		first = cmp.Or(first, err)
	}
	return secret.String{}, fmt.Errorf("connection %s: %w", connection, first)
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

func fingerprintOf(key ed25519.PrivateKey) string {
	return seal.Fingerprint(ed25519.PublicKey(key[ed25519.SeedSize:]))
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
