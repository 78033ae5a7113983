package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
	"github.com/outfeed/outfeed/protocol/seal"
	"github.com/outfeed/outfeed/protocol/wire"
)

// longestTTL is how long an enrolment token may wait for its machine.
const longestTTL = time.Hour

// CreateToken makes an enrolment token.
func (s *Service) CreateToken(ctx context.Context, a Actor, labels map[string]string, ttl time.Duration) (EnrollToken, secret.String, error) {
	if err := require(a, Owner); err != nil {
		return EnrollToken{}, secret.String{}, err
	}
	if err := checkLabels(labels); err != nil {
		return EnrollToken{}, secret.String{}, err
	}
	if ttl == 0 {
		ttl = longestTTL
	}
	if ttl < time.Second || ttl > longestTTL {
		return EnrollToken{}, secret.String{}, fail(Invalid, "a token is valid from a second to an hour, not %s", ttl)
	}
	id, err := newID()
	if err != nil {
		return EnrollToken{}, secret.String{}, public(err)
	}
	tok, err := seal.NewToken(string(id), string(a.Tenant), s.fingerprint)
	if err != nil {
		return EnrollToken{}, secret.String{}, public(err)
	}
	text, err := seal.EncodeToken(tok)
	if err != nil {
		return EnrollToken{}, secret.String{}, public(err)
	}
	var t EnrollToken
	err = s.write(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		if t, err = tx.CreateToken(ctx, a.Workspace, EnrollToken{ID: id, Labels: labels}, hashOf(tok.SecretText()), ttl); err != nil {
			return err
		}
		return audit(ctx, tx, a, object{kind: "token", id: id}, what{"create", map[string]any{"labels": labels, "expires": t.Expires}})
	})
	if err != nil {
		return EnrollToken{}, secret.String{}, err
	}
	return t, secret.New(text), nil
}

// Tokens lists enrolment tokens, newest first.
func (s *Service) Tokens(ctx context.Context, a Actor) (out []EnrollToken, err error) {
	if err := require(a, Owner); err != nil {
		return nil, err
	}
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		out, err = tx.Tokens(ctx, a.Workspace)
		return err
	})
	return out, err
}

// Agent finds an agent by id or name.
func (s *Service) Agent(ctx context.Context, a Actor, ref string) (out Agent, err error) {
	if err := require(a, Viewer); err != nil {
		return Agent{}, err
	}
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) (err error) {
		if out, err = tx.AgentByRef(ctx, a.Workspace, ref); err != nil {
			return found(err, "agent", ref)
		}
		return noteTooLarge(ctx, tx, a.Workspace, &out)
	})
	return out, err
}

// RevokeAgent ends an agent's right to connect, for good. Its insights and runs stay; those under way are told as stopped.
func (s *Service) RevokeAgent(ctx context.Context, a Actor, ref string) error {
	if err := require(a, Owner); err != nil {
		return err
	}
	return s.write(ctx, a.Tenant, func(ctx context.Context, tx Tx) error {
		if err := tx.LockWorkspace(ctx, a.Workspace); err != nil {
			return err
		}
		g, err := tx.AgentByRef(ctx, a.Workspace, ref)
		if err != nil {
			return found(err, "agent", ref)
		}
		if !g.Revoked.IsZero() {
			return nil
		}
		if err := tx.RevokeAgent(ctx, g.ID); err != nil {
			return err
		}
		if err := endRuns(ctx, tx, AgentIdentity{Tenant: a.Tenant, Workspace: a.Workspace, Agent: g.ID}, Ending{At: time.Now(), Why: revokedInRun}); err != nil {
			return err
		}
		if err := notifyAgents(ctx, tx, a.Workspace, []ID{g.ID}); err != nil {
			return err
		}
		return audit(ctx, tx, a, object{"agent", g.ID, g.Name}, what{"revoke", nil})
	})
}

// notifyAgents tells that the desired state of agents changed, and that listings of agents did.
func notifyAgents(ctx context.Context, tx Tx, workspace ID, agents []ID) error {
	for _, id := range agents {
		for _, kind := range []string{DesiredChanged, "agent"} {
			if err := tx.Notify(ctx, Notice{Event: Event{Kind: kind, ID: id}, Workspace: workspace}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Connectors gives one spec for each kind that an agent of the workspace offers: the agent heard of last is asked.
func (s *Service) Connectors(ctx context.Context, a Actor) (out []flowdef.ConnectorSpec, err error) {
	if err := require(a, Viewer); err != nil {
		return nil, err
	}
	err = s.read(ctx, a.Tenant, func(ctx context.Context, tx Tx) error {
		specs, err := connectors(ctx, tx, a.Workspace)
		out = slices.SortedFunc(maps.Values(specs), func(x, y flowdef.ConnectorSpec) int { return cmp.Compare(x.Kind, y.Kind) })
		return err
	})
	return out, err
}

func connectors(ctx context.Context, tx Tx, workspace ID) (map[string]flowdef.ConnectorSpec, error) {
	offered, err := tx.Connectors(ctx, workspace)
	if err != nil {
		return nil, err
	}
	specs := map[string]flowdef.ConnectorSpec{}
	for _, text := range offered {
		var of []flowdef.ConnectorSpec
		if err := json.Unmarshal(text, &of); err != nil {
			return nil, fmt.Errorf("read the connectors of an agent: %w", err)
		}
		for _, c := range of {
			specs[c.Kind] = c
		}
	}
	return specs, nil
}

// Enroll uses a token and makes an agent.
func (s *Service) Enroll(ctx context.Context, e *wire.Enroll, ed25519PublicKey []byte) (*wire.Enrolled, error) {
	id := ID(e.GetTokenId())
	if !isID(id) {
		return nil, tokenUnknown()
	}
	if len(ed25519PublicKey) != 32 || len(e.GetX25519PublicKey()) != 32 {
		return nil, fail(Invalid, "the agent sent keys of a wrong size: update outfeed-agent")
	}
	if err := checkLabels(e.GetLabels()); err != nil {
		return nil, err
	}
	tenant, err := s.tenantOf(ctx, id, e.GetTokenTenant())
	if err != nil {
		return nil, err
	}
	fingerprint := seal.Fingerprint(ed25519PublicKey)
	known, err := s.store.FindAgent(ctx, fingerprint)
	if err != nil && !errors.Is(err, ErrNoRow) {
		return nil, public(err)
	}
	if err == nil && !known.Revoked && known.Tenant != tenant {
		return nil, keyTaken()
	}
	n := NewAgent{Host: hostInfo(e.GetHost()), PublicKey: ed25519PublicKey, SealingKey: e.GetX25519PublicKey(), Fingerprint: fingerprint}
	err = s.write(ctx, tenant, func(ctx context.Context, tx Tx) (err error) {
		hash := hashOf(e.GetTokenSecret())
		var labels map[string]string
		if n.Workspace, labels, err = tx.UseToken(ctx, id, hash); errors.Is(err, ErrNoRow) {
			return whyRefused(ctx, tx, id, hash)
		} else if err != nil {
			return err
		}
		// What the owner wrote into the token counts for more than what the machine says.
		n.Labels = map[string]string{}
		maps.Copy(n.Labels, e.GetLabels())
		maps.Copy(n.Labels, labels)
		return enroll(ctx, tx, id, &n)
	})
	if err != nil {
		return nil, err
	}
	return &wire.Enrolled{
		AgentId: string(n.ID), TenantId: string(tenant), WorkspaceId: string(n.Workspace),
		BundleKeys: [][]byte{publicKey(s.bundleKey)},
	}, nil
}

// tenantOf finds the tenant of a token. A token that names another one was altered on its way, and is not used up.
func (s *Service) tenantOf(ctx context.Context, token ID, named string) (ID, error) {
	tenant, err := s.store.FindToken(ctx, token)
	if errors.Is(err, ErrNoRow) || err == nil && named != string(tenant) {
		return "", tokenUnknown()
	}
	return tenant, public(err)
}

// enroll makes the agent, or renews the living one with that key: a machine whose answer got lost enrols again with
// another token.
func enroll(ctx context.Context, tx Tx, token ID, n *NewAgent) error {
	if err := tx.LockWorkspace(ctx, n.Workspace); err != nil {
		return err
	}
	old, err := tx.AgentByFingerprint(ctx, n.Fingerprint)
	switch {
	case errors.Is(err, ErrNoRow):
		if n.ID, err = newID(); err != nil {
			return err
		}
		if n.Name, err = freeName(ctx, tx, n.Workspace, n.Host.Hostname); err != nil {
			return err
		}
		err = tx.CreateAgent(ctx, *n)
	case err != nil:
	case old.Workspace != n.Workspace:
		return keyTaken()
	default:
		n.ID, n.Name = old.ID, old.Name
		err = tx.RenewAgent(ctx, *n)
	}
	if err != nil {
		return err
	}
	if err := tx.SetTokenAgent(ctx, token, n.ID); err != nil {
		return err
	}
	if err := notifyAgents(ctx, tx, n.Workspace, []ID{n.ID}); err != nil {
		return err
	}
	return audit(ctx, tx, Actor{Kind: "agent", Ref: n.ID, Name: n.Name}, object{"agent", n.ID, n.Name}, what{"enroll", map[string]any{"token": token, "fingerprint": n.Fingerprint, "labels": n.Labels}})
}

// freeName is the host's name, with a number where that is taken.
func freeName(ctx context.Context, tx Tx, workspace ID, hostname string) (string, error) {
	names, err := tx.AgentNames(ctx, workspace, hostname)
	if err != nil {
		return "", err
	}
	name := hostname
	for i := 2; slices.Contains(names, name); i++ {
		name = hostname + "-" + strconv.Itoa(i)
	}
	return name, nil
}

func tokenUnknown() *Error {
	return fail(TokenUnknown, "the control plane does not know this enrolment token; `outfeed agent token` makes a new one")
}

func keyTaken() *Error {
	return fail(Conflict, "this machine's key is enrolled elsewhere on this control plane: revoke that agent, or enrol with an empty --data-dir")
}

// whyRefused says why a token did not work. Only who knows the secret learns more than that it is unknown.
func whyRefused(ctx context.Context, tx Tx, id ID, hash []byte) error {
	t, err := tx.TokenByHash(ctx, id, hash)
	switch {
	case errors.Is(err, ErrNoRow):
		return tokenUnknown()
	case err != nil:
		return err
	case !t.Used.IsZero():
		return fail(TokenUsed, "this enrolment token was used at %s, and a token works once; `outfeed agent token` makes a new one", t.Used.Format(time.RFC3339))
	default:
		return fail(TokenExpired, "this enrolment token expired at %s; `outfeed agent token` makes a new one", t.Expires.Format(time.RFC3339))
	}
}

func hostInfo(h *wire.Host) HostInfo {
	const longest = 100
	// The agent gets its name from here, which is shown in many places: nothing in it may be invisible.
	visible := func(text string) string {
		return strings.Map(func(r rune) rune {
			if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
				return '\ufffd'
			}
			return r
		}, clean(text, longest))
	}
	info := HostInfo{
		Hostname: visible(h.GetHostname()), OS: visible(h.GetOs()), Arch: visible(h.GetArch()), Version: visible(h.GetAgentVersion()),
	}
	if info.Hostname == "" {
		info.Hostname = "agent"
	}
	return info
}

// AgentByKey finds the agent with that key.
func (s *Service) AgentByKey(ctx context.Context, ed25519PublicKey []byte) (AgentIdentity, error) {
	f, err := s.store.FindAgent(ctx, seal.Fingerprint(ed25519PublicKey))
	switch {
	case errors.Is(err, ErrNoRow):
		return AgentIdentity{}, agentUnknown()
	case err != nil:
		return AgentIdentity{}, public(err)
	case f.Revoked:
		return AgentIdentity{}, agentRevoked()
	}
	return f.AgentIdentity, nil
}

func agentUnknown() *Error {
	return fail(AgentUnknown, "the control plane does not know this agent; enrol it with `outfeed-agent enroll` and a new token")
}

func agentRevoked() *Error {
	return fail(AgentRevoked, "this agent was revoked; if that was a mistake, enrol it with `outfeed-agent enroll` and a new token (what still waits on it then stays in its data directory and is not sent)")
}

// agentState checks that an agent may still act, and reads its state.
func agentState(st AgentState, err error) (AgentState, error) {
	switch {
	case errors.Is(err, ErrNoRow):
		return st, agentUnknown()
	case err != nil:
		return st, err
	case st.Revoked:
		return st, agentRevoked()
	case st.Lock != nil:
		return st, agentLocked(st, "")
	}
	return st, nil
}

// connectorSpecs reads what an agent offers, writes it as one JSON array, and gives the kinds.
func connectorSpecs(raw [][]byte) (out []byte, kinds []string, err error) {
	const most = 200
	if len(raw) > most {
		return nil, nil, fail(Invalid, "the agent offers %d kinds of connection; at most %d are allowed", len(raw), most)
	}
	specs := make([]flowdef.ConnectorSpec, len(raw))
	for i := range raw {
		if err := json.Unmarshal(raw[i], &specs[i]); err != nil {
			return nil, nil, &Error{Code: Invalid, Message: "the agent describes its connectors in a form that cannot be read: update outfeed-agent", Err: err}
		}
		if err := checkName("the kind of a connector", specs[i].Kind); err != nil {
			return nil, nil, err
		}
		kinds = append(kinds, specs[i].Kind)
	}
	out, err = json.Marshal(specs)
	if err != nil {
		return nil, nil, public(fmt.Errorf("write connector specs: %w", err))
	}
	return out, kinds, nil
}

// Disconnect records the end of a session.
func (s *Service) Disconnect(ctx context.Context, id AgentIdentity, counter uint64) error {
	if counter > math.MaxInt64 {
		return fail(Invalid, "there is no session %d", counter)
	}
	return s.write(ctx, id.Tenant, func(ctx context.Context, tx Tx) error {
		if err := tx.EndSession(ctx, id.Agent, int64(counter)); err != nil { //nolint:gosec // bounded above
			return err
		}
		return tx.Notify(ctx, Notice{Event: Event{Kind: "agent", ID: id.Agent}, Workspace: id.Workspace})
	})
}

// Changes tells of changes of an agent's desired state.
func (s *Service) Changes(ctx context.Context, id AgentIdentity) (<-chan struct{}, error) {
	c, err := s.store.WatchDesired(ctx, id.Tenant, id.Agent)
	return c, public(err)
}
