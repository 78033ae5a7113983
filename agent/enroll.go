package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/outfeed/outfeed/agent/internal/identity"
	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/agent/internal/tunnel"
	"github.com/outfeed/outfeed/internal/address"
	"github.com/outfeed/outfeed/internal/buildinfo"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

// enrolTimeout bounds an enrolment: over a link of 4 s there and back that loses every fifth packet it takes a minute now
// and then. Where nothing answers it ends after half a minute by itself.
const enrolTimeout = 3 * time.Minute

// Enrollment is what makes a machine an agent.
type Enrollment struct {
	// URL is the control plane's address.
	URL    string
	Token  secret.String
	Labels map[string]string
}

// Enroll makes this machine an agent and gives its id. It talks only to the control plane that the token names. When it
// fails, nothing is left behind.
func Enroll(ctx context.Context, c Config, e Enrollment) (agentID string, err error) {
	token, err := seal.ParseToken(e.Token.Reveal())
	if err != nil {
		return "", fmt.Errorf("the enrolment token: %w", err)
	}
	if _, err = address.ControlPlane(e.URL); err != nil {
		return "", err
	}
	// A token that is used up on a disk that cannot hold an agent would help nobody.
	if err := stage.CheckRoom(c.DataDir, uint64(c.Staging.MinFree)); err != nil { //nolint:gosec // Validate has seen it
		return "", err
	}
	draft, err := identity.Create(c.DataDir)
	if err != nil {
		return "", stage.Advise(c.DataDir, err)
	}
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	enrolled, err := tunnel.Enroll(ctx, tunnel.Enrolment{
		Link: link(c, e.URL), Key: draft.Key(), ReceiveKey: draft.ReceiveKey(), Host: host(), Labels: e.Labels, Log: c.Logger(os.Stderr),
	}, token)
	if err != nil {
		return "", errors.Join(fmt.Errorf("enrol at %s: %w", e.URL, err), draft.Discard())
	}
	keys := make([]ed25519.PublicKey, len(enrolled.GetBundleKeys()))
	for i, k := range enrolled.GetBundleKeys() {
		keys[i] = slices.Clone(k)
	}
	_, err = draft.Complete(identity.Profile{
		Agent: enrolled.GetAgentId(), Tenant: enrolled.GetTenantId(), Workspace: enrolled.GetWorkspaceId(),
		URL: strings.TrimRight(e.URL, "/"), Fingerprint: token.Fingerprint, BundleKeys: keys,
	})
	if err != nil {
		err = fmt.Errorf("keep the identity of agent %s (the token is used up; make another): %w", enrolled.GetAgentId(), err)
		return "", errors.Join(stage.Advise(c.DataDir, err), draft.Discard())
	}
	return enrolled.GetAgentId(), nil
}

// link is how to reach the control plane at a URL.
func link(c Config, url string) tunnel.Link {
	return tunnel.Link{URL: url, Proxy: c.Proxy, CAFile: c.CAFile}
}

// host is what the agent says of its machine.
func host() *wire.Host {
	return &wire.Host{Hostname: hostname(), Os: runtime.GOOS, Arch: runtime.GOARCH, AgentVersion: buildinfo.Version()}
}
