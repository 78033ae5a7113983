// Package fleettest makes a control plane's real domain on a real database, with tenants and agents in it, for the tests
// of the domain and of what stands on it.
//
// Only tests use it. What it starts ends with the test that it was started for.
package fleettest

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"testing"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/postgres"
	"github.com/outfeed/outfeed/controlplane/internal/vault"
	"github.com/outfeed/outfeed/internal/pgtest"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/migrations"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

// Main runs the tests of a package with a PostgreSQL whose databases have the schema. TestMain calls it.
func Main(m *testing.M) {
	pgtest.Main(m, func(ctx context.Context, url string) error { return postgres.Migrate(ctx, secret.New(url), "") })
}

// Start starts a domain on a database, with the settings given: the store and the keys are filled in. Several share a
// database as the replicas of a control plane do, and have the same keys.
func Start(t *testing.T, db *pgtest.DB, s fleet.Settings) *fleet.Service {
	t.Helper()
	store, err := postgres.Open(t.Context(), postgres.Settings{
		URL: secret.New(db.URLFor(migrations.Application)), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- store.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		store.Close()
	})
	keeper, err := vault.New(bytes.Repeat([]byte{7}, vault.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	s.Store, s.Secrets, s.Identity, s.BundleKey = store, keeper, PublicKey(t), key()
	return fleet.New(s)
}

// key is what every domain here is known by and signs bundles with.
func key() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
}

// PublicKey is the domain's identity, and what its bundles are signed with.
func PublicKey(t *testing.T) ed25519.PublicKey {
	t.Helper()
	public, ok := key().Public().(ed25519.PublicKey)
	if !ok {
		t.Fatal("the key has no public half")
	}
	return public
}

// Tenant makes a tenant, and gives its owner with an API key.
func Tenant(t *testing.T, s *fleet.Service, name string) (fleet.Actor, secret.String) {
	t.Helper()
	_, text, err := s.CreateTenant(t.Context(), name, "owner@"+name+".example")
	if err != nil {
		t.Fatal(err)
	}
	owner, err := s.Authenticate(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	return owner, text
}

// Token makes a token for an agent with these labels.
func Token(t *testing.T, s *fleet.Service, owner fleet.Actor, labels map[string]string) seal.Token {
	t.Helper()
	_, text, err := s.CreateToken(t.Context(), owner, labels, 0)
	if err != nil {
		t.Fatal(err)
	}
	token, err := seal.ParseToken(text.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Machine is the keys of an agent.
type Machine struct {
	Public  ed25519.PublicKey
	Sealing *ecdh.PrivateKey
}

// NewMachine makes the keys of an agent that nobody knows.
func NewMachine(t *testing.T) Machine {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sealing, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return Machine{Public: public, Sealing: sealing}
}

// Request is what the machine asks to be enrolled with: as press-pc, with labels of its own.
func (m *Machine) Request(token seal.Token) *wire.Enroll {
	return &wire.Enroll{
		TokenId: token.ID, TokenSecret: token.SecretText(), TokenTenant: token.Tenant, X25519PublicKey: m.Sealing.PublicKey().Bytes(),
		Host: &wire.Host{Hostname: "press-pc", Os: "linux", Arch: "amd64", AgentVersion: "v1"}, Labels: map[string]string{"line": "3", "site": "nowhere"},
	}
}

// Enroll makes the machine an agent.
func (m *Machine) Enroll(t *testing.T, s *fleet.Service, token seal.Token) fleet.AgentIdentity {
	t.Helper()
	if _, err := s.Enroll(t.Context(), m.Request(token), m.Public); err != nil {
		t.Fatal(err)
	}
	id, err := s.AgentByKey(t.Context(), m.Public)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
