// Package apitest has an in-memory stand-in for the domain, for the tests of the HTTP API and of the outfeed command.
//
// It keeps the promises of fleet.API that those two rely on and no rule beyond them. Shipped code never imports it. A
// Fleet is safe for concurrent use.
package apitest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// The API keys that every Fleet knows, by role.
const (
	OwnerKey  = "ofk_owner"
	ViewerKey = "ofk_viewer"
)

// Clock is when everything in a Fleet happens.
func Clock() time.Time { return time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC) }

// Fleet is a fleet.API and fleet.Sessions in memory. Set its fields before serving.
type Fleet struct {
	// NotReady is what Ready gives.
	NotReady error
	// AgentList, RunList, InsightList and ConnectorList are what is there; insights are oldest first.
	AgentList     []fleet.Agent
	RunList       []fleet.Run
	InsightList   []fleet.Insight
	ConnectorList []flowdef.ConnectorSpec
	// RefusedList is what was refused, newest first.
	RefusedList []fleet.RefusedInsight
	// MissingList is what never came, newest first.
	MissingList []fleet.MissingInsights

	mu          sync.Mutex
	ids         int
	keys        map[string]fleet.Actor
	apiKeys     []fleet.APIKey
	sessions    map[string]fleet.Actor
	tokens      []fleet.EnrollToken
	connections map[string]fleet.Connection
	secrets     map[string]map[string]secret.String
	flows       map[string]fleet.Flow
	versions    map[string][]fleet.FlowVersion
	listeners   []chan fleet.Event
	changed     chan struct{}
	lastRuns    fleet.RunFilter
	lastQuery   fleet.InsightFilter
}

var (
	_ fleet.API      = (*Fleet)(nil)
	_ fleet.Sessions = (*Fleet)(nil)
)

// New makes a Fleet with one tenant and the two keys.
func New() *Fleet {
	actor := func(id int, name string, role fleet.Role) fleet.Actor {
		return fleet.Actor{
			Tenant: ID(1), Workspace: ID(2), Kind: "api_key", Ref: ID(id), Name: name, Role: role,
		}
	}
	return &Fleet{
		ids:         100,
		keys:        map[string]fleet.Actor{OwnerKey: actor(3, "owner", fleet.Owner), ViewerKey: actor(4, "viewer", fleet.Viewer)},
		sessions:    map[string]fleet.Actor{},
		connections: map[string]fleet.Connection{},
		secrets:     map[string]map[string]secret.String{},
		flows:       map[string]fleet.Flow{},
		versions:    map[string][]fleet.FlowVersion{},
		changed:     make(chan struct{}),
	}
}

// ID is the n-th id.
func ID(n int) fleet.ID { return fleet.ID(fmt.Sprintf("01950000-0000-7000-8000-%012d", n)) }

func (f *Fleet) newID() fleet.ID {
	f.ids++
	return ID(f.ids)
}

// Tell tells listeners of an event. A full listener is dropped.
func (f *Fleet) Tell(e fleet.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listeners = slices.DeleteFunc(f.listeners, func(l chan fleet.Event) bool {
		select {
		case l <- e:
			return false
		default:
			close(l)
			return true
		}
	})
}

// Listeners is how many follow.
func (f *Fleet) Listeners() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.listeners)
}

// Changed closes when somebody next begins or ends to follow.
func (f *Fleet) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// listenersChanged is called with the lock held.
func (f *Fleet) listenersChanged() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// Cut ends every listener, as for being too slow.
func (f *Fleet) Cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.listeners {
		close(l)
	}
	f.listeners = nil
	f.listenersChanged()
}

// AddInsight stores an insight and tells listeners.
func (f *Fleet) AddInsight(i fleet.Insight) {
	f.mu.Lock()
	f.InsightList = append(f.InsightList, i)
	f.mu.Unlock()
	f.Tell(fleet.Event{Tenant: ID(1), Kind: "insights", ID: i.Agent, FromSeq: i.Seq, ToSeq: i.Seq})
}

// Secret is the stored secret of a connection.
func (f *Fleet) Secret(connection, option string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.secrets[connection][option].Reveal()
}

// LastRuns is the filter of the newest listing of runs.
func (f *Fleet) LastRuns() fleet.RunFilter {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lastRuns
}

// LastQuery is the filter of the newest listing of insights.
func (f *Fleet) LastQuery() fleet.InsightFilter {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lastQuery
}

func problem(code fleet.Code, format string, args ...any) error {
	return &fleet.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func mayChange(a fleet.Actor) error {
	if a.Role == fleet.Viewer {
		return problem(fleet.Forbidden, "A viewer may not change anything. Ask an owner for another role.")
	}
	return nil
}

// CreateTenant makes a tenant with an owner's key.
func (f *Fleet) CreateTenant(_ context.Context, name, _ string) (fleet.Tenant, secret.String, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	tenant := fleet.Tenant{ID: f.newID(), Name: name, Created: Clock()}
	text := "ofk_" + string(tenant.ID)
	f.keys[text] = fleet.Actor{Tenant: tenant.ID, Workspace: f.newID(), Kind: "api_key", Ref: f.newID(), Role: fleet.Owner}
	return tenant, secret.New(text), nil
}

// Authenticate finds a key's actor.
func (f *Fleet) Authenticate(_ context.Context, key secret.String) (fleet.Actor, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.keys[key.Reveal()]
	if !ok {
		return fleet.Actor{}, problem(fleet.Unauthorized, "This API key is unknown or revoked.")
	}
	return a, nil
}

// CreateSession begins a session.
func (f *Fleet) CreateSession(_ context.Context, a fleet.Actor, _ time.Duration) (secret.String, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	text := "session-" + string(f.newID())
	f.sessions[text] = a
	return secret.New(text), nil
}

// AuthenticateSession finds a session's actor.
func (f *Fleet) AuthenticateSession(_ context.Context, session secret.String) (fleet.Actor, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.sessions[session.Reveal()]
	if !ok {
		return fleet.Actor{}, problem(fleet.Unauthorized, "The session has ended. Sign in again.")
	}
	return a, nil
}

// EndSession ends a session.
func (f *Fleet) EndSession(_ context.Context, session secret.String) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.sessions, session.Reveal())
	return nil
}

// APIKeys lists the keys that were made.
func (f *Fleet) APIKeys(context.Context, fleet.Actor) ([]fleet.APIKey, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.apiKeys), nil
}

// CreateAPIKey makes a key.
func (f *Fleet) CreateAPIKey(_ context.Context, a fleet.Actor, name string, role fleet.Role) (fleet.APIKey, secret.String, error) {
	if err := mayChange(a); err != nil {
		return fleet.APIKey{}, secret.String{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	key := fleet.APIKey{ID: f.newID(), Name: name, Role: role, Created: Clock()}
	f.apiKeys = append(f.apiKeys, key)
	text := "ofk_" + string(key.ID)
	a.Ref, a.Name, a.Role = key.ID, name, role
	f.keys[text] = a
	return key, secret.New(text), nil
}

// RevokeAPIKey takes a key away.
func (f *Fleet) RevokeAPIKey(_ context.Context, a fleet.Actor, id fleet.ID) error {
	if err := mayChange(a); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.keys)
	maps.DeleteFunc(f.keys, func(_ string, a fleet.Actor) bool { return a.Ref == id })
	if len(f.keys) == before {
		return problem(fleet.NotFound, "There is no API key %s.", id)
	}
	f.apiKeys = slices.DeleteFunc(f.apiKeys, func(k fleet.APIKey) bool { return k.ID == id })
	return nil
}

// CreateToken makes an enrolment token.
func (f *Fleet) CreateToken(
	_ context.Context, a fleet.Actor, labels map[string]string, ttl time.Duration,
) (fleet.EnrollToken, secret.String, error) {
	if err := mayChange(a); err != nil {
		return fleet.EnrollToken{}, secret.String{}, err
	}
	if ttl == 0 {
		ttl = time.Hour
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	token := fleet.EnrollToken{ID: f.newID(), Labels: labels, Created: Clock(), Expires: Clock().Add(ttl)}
	f.tokens = append(f.tokens, token)
	return token, secret.New("oft_" + string(token.ID)), nil
}

// Tokens lists the tokens.
func (f *Fleet) Tokens(context.Context, fleet.Actor) ([]fleet.EnrollToken, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.tokens), nil
}

// Agents lists the agents, in brief and by pages.
func (f *Fleet) Agents(_ context.Context, _ fleet.Actor, filter fleet.AgentFilter) (fleet.AgentPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := f.AgentList
	if filter.After != "" {
		at := slices.IndexFunc(rest, func(a fleet.Agent) bool { return a.Cursor() == filter.After })
		rest = rest[at+1:]
	}
	page := fleet.AgentPage{}
	for i := range rest {
		if filter.Limit > 0 && len(page.Agents) == filter.Limit {
			page.Next = rest[i-1].Cursor()
			break
		}
		page.Agents = append(page.Agents, brief(rest[i]))
	}
	return page, nil
}

func brief(a fleet.Agent) fleet.Agent {
	if a.Status != nil {
		s := a.Status.Brief()
		a.Status = &s
	}
	return a
}

// BriefAgent finds an agent, in brief.
func (f *Fleet) BriefAgent(ctx context.Context, actor fleet.Actor, ref string) (fleet.Agent, error) {
	a, err := f.Agent(ctx, actor, ref)
	return brief(a), err
}

// Agent finds an agent.
func (f *Fleet) Agent(_ context.Context, _ fleet.Actor, ref string) (fleet.Agent, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.AgentList {
		if a.Name == ref || string(a.ID) == ref {
			return a, nil
		}
	}
	return fleet.Agent{}, problem(fleet.NotFound, "There is no agent %q.", ref)
}

// RevokeAgent revokes an agent.
func (f *Fleet) RevokeAgent(_ context.Context, a fleet.Actor, ref string) error {
	if err := mayChange(a); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.AgentList {
		if agent := &f.AgentList[i]; agent.Name == ref || string(agent.ID) == ref {
			agent.Revoked, agent.Connected = Clock(), false
			return nil
		}
	}
	return problem(fleet.NotFound, "There is no agent %q.", ref)
}

// UnlockAgent ends an agent's lock.
func (f *Fleet) UnlockAgent(_ context.Context, a fleet.Actor, ref string, keep fleet.Keep) (fleet.Agent, error) {
	return f.changeAgent(a, ref, func(agent *fleet.Agent) error {
		if agent.Lock == nil {
			return problem(fleet.Conflict, "The agent %q is not locked.", ref)
		}
		if agent.Lock = nil; keep == fleet.KeepOther {
			agent.Hostname = "other"
		}
		return nil
	})
}

// RotateAgent asks an agent for new keys.
func (f *Fleet) RotateAgent(_ context.Context, a fleet.Actor, ref string) (fleet.Agent, error) {
	return f.changeAgent(a, ref, func(agent *fleet.Agent) error {
		agent.RotationAsked = Clock()
		return nil
	})
}

func (f *Fleet) changeAgent(a fleet.Actor, ref string, change func(*fleet.Agent) error) (fleet.Agent, error) {
	if err := mayChange(a); err != nil {
		return fleet.Agent{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.AgentList {
		if agent := &f.AgentList[i]; agent.Name == ref || string(agent.ID) == ref {
			err := change(agent)
			return *agent, err
		}
	}
	return fleet.Agent{}, problem(fleet.NotFound, "There is no agent %q.", ref)
}

// Ready gives NotReady.
func (f *Fleet) Ready(context.Context) error { return f.NotReady }

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// check finds a definition's name, and a problem wherever the text says "bogus".
func check(definition string) fleet.FlowCheck {
	var out fleet.FlowCheck
	for i, line := range strings.Split(definition, "\n") {
		if name, ok := strings.CutPrefix(line, "flow: "); ok {
			out.Name = strings.TrimSpace(name)
		}
		if column := strings.Index(line, "bogus"); column >= 0 {
			out.Problems = append(out.Problems, flowdef.Problem{
				Pos: flowdef.Pos{Line: i + 1, Column: column + 1}, Step: "running",
				Message: `there is no column "bogus"; the nearest is "count"`,
			})
		}
	}
	if out.Name == "" {
		out.Problems = append(out.Problems, flowdef.Problem{Message: "the flow has no name: begin with flow: NAME"})
	}
	out.Egress.Columns = []flowdef.EgressColumn{
		{Insight: "press_health", Column: "temp_avg", Type: "float", Sources: []string{"press-plc.temp"}, Aggregated: true},
		{Insight: "press_health", Column: "machine", Type: "string", Sources: []string{"press-plc.machine"}},
	}
	out.Writes = []flowdef.PlannedWrite{{
		Step: "results", Connection: "mes", With: map[string]any{"table": "mes.results", "key": []any{"machine"}}, Columns: []string{"machine", "temp_avg"},
	}}
	for name := range strings.SplitSeq(definition, "\n") {
		if name, ok := strings.CutPrefix(name, "  - name: "); ok {
			out.Tests = append(out.Tests, fleet.FlowTest{Name: name, Passed: true})
		}
	}
	return out
}
