package fleet

import (
	"context"
	"errors"
	"time"

	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
	"github.com/outfeed/outfeed/protocol/wire"
)

// API is what the HTTP API needs of the domain. *Service is one. Errors are *Error.
type API interface {
	// CreateTenant makes a tenant with a first workspace and an owner's API key, whose text is shown this once.
	CreateTenant(ctx context.Context, name, ownerEmail string) (Tenant, secret.String, error)
	// Authenticate finds who an API key belongs to.
	Authenticate(ctx context.Context, key secret.String) (Actor, error)
	APIKeys(ctx context.Context, a Actor) ([]APIKey, error)
	CreateAPIKey(ctx context.Context, a Actor, name string, role Role) (APIKey, secret.String, error)
	RevokeAPIKey(ctx context.Context, a Actor, id ID) error

	// CreateToken makes an enrolment token; ttl is at most an hour, which 0 means. The text carries the control
	// plane's fingerprint.
	CreateToken(ctx context.Context, a Actor, labels map[string]string, ttl time.Duration) (EnrollToken, secret.String, error)
	Tokens(ctx context.Context, a Actor) ([]EnrollToken, error)
	// Agents lists them in brief, page by page: those that are not revoked by name, then the revoked ones.
	Agents(ctx context.Context, a Actor, f AgentFilter) (AgentPage, error)
	// BriefAgent finds one as Agents lists it.
	BriefAgent(ctx context.Context, a Actor, ref string) (Agent, error)
	// Agent finds one by id or by name.
	Agent(ctx context.Context, a Actor, ref string) (Agent, error)
	RevokeAgent(ctx context.Context, a Actor, ref string) error
	// UnlockAgent ends the lock of an agent whose data directory was copied: the copy that is kept goes on, the other one
	// is refused for good.
	UnlockAgent(ctx context.Context, a Actor, ref string, keep Keep) (Agent, error)
	// RotateAgent asks an agent for new keys, at once or when it connects.
	RotateAgent(ctx context.Context, a Actor, ref string) (Agent, error)

	Connections(ctx context.Context, a Actor) ([]Connection, error)
	Connection(ctx context.Context, a Actor, ref string) (Connection, error)
	// ApplyConnection makes or changes the connection of that name. Secrets that are left out stay as they are.
	ApplyConnection(ctx context.Context, a Actor, c Connection) (Connection, error)
	DeleteConnection(ctx context.Context, a Actor, ref string) error
	// Connectors are the kinds that the workspace's agents offer.
	Connectors(ctx context.Context, a Actor) ([]flowdef.ConnectorSpec, error)

	// CheckFlow checks a definition against the workspace's connections. What is wrong with the text is in the
	// problems, not in the error, and so is each of its tests that fails.
	CheckFlow(ctx context.Context, a Actor, definition string) (FlowCheck, error)
	// ApplyFlow saves a definition as a new draft version of the flow it names; the same text again changes nothing.
	// A definition with problems is refused with an *Error around flowdef.Problems.
	ApplyFlow(ctx context.Context, a Actor, definition string) (Flow, FlowVersion, error)
	// Publish makes a version ready to deploy; 0 means the latest.
	Publish(ctx context.Context, a Actor, flow string, version int) (FlowVersion, error)
	Flows(ctx context.Context, a Actor) ([]Flow, error)
	Flow(ctx context.Context, a Actor, ref string) (Flow, error)
	FlowVersions(ctx context.Context, a Actor, ref string) ([]FlowVersion, error)
	// Deploy runs a published version (0: the latest published) on agents, named by id, name or label ("site=berlin").
	Deploy(ctx context.Context, a Actor, flow string, version int, agents []string) ([]Deployment, error)
	// Undeploy stops a flow on those agents; no agents means on all.
	Undeploy(ctx context.Context, a Actor, flow string, agents []string) error

	Runs(ctx context.Context, a Actor, f RunFilter) ([]Run, error)
	Run(ctx context.Context, a Actor, id ID) (Run, error)
	Insights(ctx context.Context, a Actor, f InsightFilter) (InsightPage, error)
	// InsightNames lists the insights that exist, for choosing one.
	InsightNames(ctx context.Context, a Actor) ([]InsightName, error)
	// InsightsBySeq reads the insights of an event.
	InsightsBySeq(ctx context.Context, a Actor, agent ID, from, to int64) ([]Insight, error)
	// RefusedInsights lists what agents sent and what could never be stored, newest first.
	RefusedInsights(ctx context.Context, a Actor, f RefusedFilter) (RefusedPage, error)
	// MissingInsights lists which insights never came, and why, newest first.
	MissingInsights(ctx context.Context, a Actor, f RefusedFilter) (MissingPage, error)
	// Subscribe gives the tenant's events until ctx ends. A listener that is too slow gets its channel closed.
	Subscribe(ctx context.Context, a Actor) (<-chan Event, error)
	// Ready says why the control plane cannot serve, or nil.
	Ready(ctx context.Context) error
}

// Sessions is what sign-in to the dashboard needs of the domain. *Service is one. Errors are *Error. Session secrets
// are stored as SHA-256, so that every replica can check them and none can leak them.
type Sessions interface {
	// CreateSession begins a session of an actor who was authenticated by an API key. It ends after ttl, or with the key.
	CreateSession(ctx context.Context, a Actor, ttl time.Duration) (secret.String, error)
	// AuthenticateSession finds whose a session is. One that ended, expired or never was is Unauthorized.
	AuthenticateSession(ctx context.Context, session secret.String) (Actor, error)
	// EndSession ends a session; one that is not there is no error.
	EndSession(ctx context.Context, session secret.String) error
}

// FlowCheck is what checking a definition found.
type FlowCheck struct {
	Name     string
	Problems flowdef.Problems
	Egress   flowdef.Manifest
	// Writes is what it would write into the plant's systems.
	Writes []flowdef.PlannedWrite
	// Tests are the results of the definition's own tests; none where it has problems of another kind.
	Tests []FlowTest
}

// RunFilter selects runs; a zero field selects all. Newest first, at most Limit (0: 100, at most 1000).
type RunFilter struct {
	Flow, Agent ID
	Status      string
	Limit       int
}

// InsightPage is one page of a listing, newest first.
type InsightPage struct {
	Insights []Insight
	// Next is the InsightFilter.After of the next page; empty when there is none.
	Next string
}

// InsightName is an insight that some flow has produced.
type InsightName struct {
	Name string
	Flow ID
	Last time.Time
}

// Gateway is what the gateway needs of the domain. *Service is one. Errors are *Error.
type Gateway interface {
	// Enroll uses a token and makes an agent; of parallel uses of one token exactly one succeeds.
	Enroll(ctx context.Context, e *wire.Enroll, ed25519PublicKey []byte) (*wire.Enrolled, error)
	// AgentByKey finds the agent with that Ed25519 public key.
	AgentByKey(ctx context.Context, ed25519PublicKey []byte) (AgentIdentity, error)
	// Connect records a session. A hello that only a copy of the agent's data directory can have sent locks the agent, which
	// is AgentLocked: around ErrCloneNoticed this once, and then until an owner has decided.
	Connect(ctx context.Context, id AgentIdentity, from Caller, h *wire.Hello) (Session, error)
	// Keep records that the agent has kept the value of its session, from which on no other value is good. It fails when
	// another session has begun.
	Keep(ctx context.Context, id AgentIdentity) error
	// Disconnect records the end of the session that Connect began with that counter.
	Disconnect(ctx context.Context, id AgentIdentity, counter uint64) error
	// Bundle gives the agent's signed desired state as a DSSE envelope, and its serial.
	Bundle(ctx context.Context, id AgentIdentity) (envelope []byte, serial uint64, err error)
	// StoreInsights inserts the insights after the last stored sequence, counts the receipts before them, and advances the
	// sequence, in one transaction. What is accounted for already is dropped, and a gap is an error. A record that can
	// never be stored takes its place in the sequence, is set aside and counted, so that it holds up nothing; so does one
	// at which the database fails again and again while it takes others. It gives the last stored sequence.
	StoreInsights(ctx context.Context, id AgentIdentity, up *wire.InsightsUp) (stored uint64, err error)
	StoreStatus(ctx context.Context, id AgentIdentity, s *wire.Status) error
	// StoreRun stores a run report; again with the same run id replaces it.
	StoreRun(ctx context.Context, id AgentIdentity, r *wire.RunReport) error
	// RotationWanted says whether the agent shall make new keys.
	RotationWanted(ctx context.Context, id AgentIdentity) (bool, error)
	// Rotate stores the agent's next keys beside the present ones; until it connects with the next Ed25519 key either is
	// good. The session must be of the present key, and have proved the next one.
	Rotate(ctx context.Context, id AgentIdentity, present, next Keys) error
	// Changes tells whenever the desired state of an agent may have changed or the agent was revoked, until ctx ends.
	Changes(ctx context.Context, id AgentIdentity) (<-chan struct{}, error)
}

// AgentIdentity is an authenticated agent.
type AgentIdentity struct {
	Tenant, Workspace, Agent ID
	// Session is the connect counter of its session; 0 outside of one.
	Session int64
}

// Caller is who says hello.
type Caller struct {
	// Key is the Ed25519 public key that the connection has proved.
	Key []byte
	// Address is where the connection comes from, for people.
	Address string
	// Alive says whether the caller is still there, after a round trip; nil when it surely is. It is asked before an agent
	// is locked: a hello that was held up on its way, and given up by an agent that has connected again since, is no copy's.
	Alive func() bool
}

// Session is a session as it begins.
type Session struct {
	// Stored is the last stored insight sequence.
	Stored uint64
	// Lost is for how many of the sequences up to there the agent has sent a receipt that the insight is lost on its machine.
	Lost uint64
	// Value is what the agent keeps and shows in its next hello.
	Value []byte
	// Rotate says that the agent shall make new keys.
	Rotate bool
}

// Keys are an agent's public keys, 32 bytes each.
type Keys struct{ Ed25519, X25519 []byte }

// ErrCloneNoticed is the cause of an AgentLocked that has just locked the agent.
var ErrCloneNoticed = errors.New("a copy of an agent has connected")
