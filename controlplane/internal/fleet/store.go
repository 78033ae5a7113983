package fleet

import (
	"context"
	"errors"
	"time"
)

// ErrNoRow is what a Tx gives when the thing asked for is not there, for this tenant and workspace.
var ErrNoRow = errors.New("no such row")

// ErrUnreachable is what a Store gives when the database cannot be reached, so that a later try can do.
var ErrUnreachable = errors.New("the database cannot be reached")

// Store is where the domain lives. It is safe for concurrent use.
type Store interface {
	// InTenant runs fn in one transaction that sees that tenant's rows and no others, and commits when fn gives nil.
	// After a deadlock or a serialization failure it runs fn again, so fn must start from nothing each time.
	InTenant(ctx context.Context, tenant ID, fn func(ctx context.Context, tx Tx) error) error
	// Snapshot is InTenant for reading: everything that fn reads is of one moment.
	Snapshot(ctx context.Context, tenant ID, fn func(ctx context.Context, tx Tx) error) error

	// FindAPIKey finds a key that is not revoked by the SHA-256 of its text; ErrNoRow when there is none.
	FindAPIKey(ctx context.Context, hash []byte) (FoundAPIKey, error)
	// FindSession finds a session of the dashboard by the SHA-256 of its text; ErrNoRow when there is none, it ended or
	// expired, or its API key was revoked.
	FindSession(ctx context.Context, hash []byte) (FoundSession, error)
	// FindAgent finds an agent by the fingerprint of an Ed25519 key that it has, will have or had, a living one before a
	// revoked one; or ErrNoRow.
	FindAgent(ctx context.Context, fingerprint string) (FoundAgent, error)
	// FindToken finds the tenant of an enrolment token; or ErrNoRow.
	FindToken(ctx context.Context, token ID) (tenant ID, err error)

	// Watch gives every event of the workspace from when it returns until ctx ends. The channel is closed when the
	// listener is too slow, or when events may have been missed: then read everything anew and watch again.
	Watch(ctx context.Context, tenant, workspace ID) (<-chan Event, error)
	// WatchDesired tells when the desired state of the agent may have changed, once for any number of changes.
	WatchDesired(ctx context.Context, tenant, agent ID) (<-chan struct{}, error)
	// Ready says why the store cannot serve, or nil.
	Ready(ctx context.Context) error
}

// FoundAPIKey is whom an API key belongs to.
type FoundAPIKey struct {
	Actor    Actor
	LastUsed time.Time
}

// FoundSession is whose a session of the dashboard is.
type FoundSession struct {
	Actor    Actor
	LastUsed time.Time
}

// FoundAgent is whom an agent's key belongs to.
type FoundAgent struct {
	AgentIdentity
	Revoked  bool
	Standing KeyStanding
}

// KeyStanding is what a key is to its agent.
type KeyStanding string

// The standings of a key.
const (
	KeyPresent KeyStanding = "present"
	KeyNext    KeyStanding = "next"
	KeyRetired KeyStanding = "retired"
)

// Notice travels between the replicas of the control plane. It holds ids only.
type Notice struct {
	Event
	// Workspace is where the thing belongs.
	Workspace ID
}

// DesiredChanged is the Event.Kind of a notice that an agent's desired state changed or that it was revoked; ID is the
// agent's. Only WatchDesired tells it.
const DesiredChanged = "desired"

// Tx is one tenant's data in one transaction. It belongs to one goroutine and ends with the function it was given to.
// Where a method takes a workspace it sees that workspace only.
type Tx interface {
	TenantTx
	AgentTx
	ConnectionTx
	FlowTx
	DeliveryTx

	// LockWorkspace makes changes of the workspace's configuration take turns, until the transaction ends.
	LockWorkspace(ctx context.Context, workspace ID) error
	// Audit writes an entry to the tenant's chain. It takes a lock on the tenant, so it comes last.
	Audit(ctx context.Context, e AuditEntry) error
	// AuditHead is the sequence and the hash of the newest entry.
	AuditHead(ctx context.Context) (seq int64, hash []byte, err error)
	// AuditEntries reads entries in their order, from the one after a sequence, at most limit.
	AuditEntries(ctx context.Context, after int64, limit int) ([]AuditEntry, error)
	// Notify tells every replica, once the transaction has committed.
	Notify(ctx context.Context, n Notice) error
}

// TenantTx holds tenants, workspaces, API keys and the sessions of the dashboard.
type TenantTx interface {
	CreateTenant(ctx context.Context, t Tenant, ownerEmail string) (Tenant, error)
	// OtherTenants says whether there is a tenant besides the transaction's own. Until the transaction ends no other one
	// gets an answer.
	OtherTenants(ctx context.Context) (bool, error)
	CreateWorkspace(ctx context.Context, id ID, name string) error
	// APIKeys gives the keys that are not revoked, oldest first.
	APIKeys(ctx context.Context, workspace ID) ([]APIKey, error)
	CreateAPIKey(ctx context.Context, workspace ID, k APIKey, hash []byte) (APIKey, error)
	RevokeAPIKey(ctx context.Context, workspace, id ID) error
	TouchAPIKey(ctx context.Context, id ID) error

	// CreateSignIn begins a session of the dashboard and says when it expires; ErrNoRow when its API key is not in the
	// workspace or was revoked.
	CreateSignIn(ctx context.Context, s NewSignIn, hash []byte) (expires time.Time, err error)
	TouchSignIn(ctx context.Context, id ID) error
	// EndSignIn ends a session of the dashboard; ErrNoRow when it has ended already.
	EndSignIn(ctx context.Context, id ID) error
}

// NewSignIn is a session of the dashboard as it begins.
type NewSignIn struct {
	ID, Workspace ID
	// APIKey is the key with which the session ends.
	APIKey ID
	TTL    time.Duration
}

// AgentTx holds enrolment tokens, agents and their sessions.
type AgentTx interface {
	CreateToken(ctx context.Context, workspace ID, t EnrollToken, hash []byte, ttl time.Duration) (EnrollToken, error)
	Tokens(ctx context.Context, workspace ID) ([]EnrollToken, error)
	// UseToken takes a token that is unused, unexpired and has that hash, in one statement; or ErrNoRow.
	UseToken(ctx context.Context, id ID, hash []byte) (workspace ID, labels map[string]string, err error)
	// TokenByHash finds a token, used or not; or ErrNoRow.
	TokenByHash(ctx context.Context, id ID, hash []byte) (EnrollToken, error)
	// SetTokenAgent notes whom the token made.
	SetTokenAgent(ctx context.Context, id, agent ID) error

	// AgentNames gives the names in use that begin with the prefix.
	AgentNames(ctx context.Context, workspace ID, prefix string) ([]string, error)
	CreateAgent(ctx context.Context, a NewAgent) error
	// RenewAgent gives an agent that enrols again its new sealing key, host and labels.
	RenewAgent(ctx context.Context, a NewAgent) error
	// Agents gives a page of at most limit agents behind the cursor (nil: from the first): those that are not revoked by name,
	// then the revoked ones. Their statuses are in brief, and their connectors have nothing but their kind. The page has
	// fewer where they say much; more says whether any are behind it.
	Agents(ctx context.Context, workspace ID, after *AgentCursor, limit int) (page []Agent, more bool, err error)
	// AgentNamesAndLabels gives the ID, Name and Labels of those that are not revoked, by name.
	AgentNamesAndLabels(ctx context.Context, workspace ID) ([]Agent, error)
	// Connectors gives what agents offer that are not revoked, each a JSON array of flowdef.ConnectorSpec; of agents that
	// offer the same kinds only that of one. The agent heard of last comes last.
	Connectors(ctx context.Context, workspace ID) ([][]byte, error)
	// AgentByRef finds by id or by the name of an agent that is not revoked; or ErrNoRow.
	AgentByRef(ctx context.Context, workspace ID, ref string) (Agent, error)
	// BriefAgent is AgentByRef, with as much as Agents gives.
	BriefAgent(ctx context.Context, workspace ID, ref string) (Agent, error)
	// AgentByFingerprint finds the agent with that key that is not revoked: its ID, Workspace and Name; or ErrNoRow.
	AgentByFingerprint(ctx context.Context, fingerprint string) (NewAgent, error)
	// RevokeAgent revokes an agent, ends its sessions and removes its deployments.
	RevokeAgent(ctx context.Context, agent ID) error
	// BumpDesired gives the agents, which are not revoked, their next serial.
	BumpDesired(ctx context.Context, agents []ID) error
	// LockAgent reads an agent's own state and keeps others from changing it until the transaction ends; or ErrNoRow.
	LockAgent(ctx context.Context, agent ID) (AgentState, error)
	// AgentState is LockAgent without the lock.
	AgentState(ctx context.Context, agent ID) (AgentState, error)
	// LockConnect is LockAgent for a connect, an unlock or a rotation.
	LockConnect(ctx context.Context, agent ID) (ConnectState, error)
	// LastSession is the newest session as a side of a lock; ErrNoRow when there was none.
	LastSession(ctx context.Context, agent ID) (LockSide, error)
	// SetLock locks an agent, or renews what is known, with what the other copy showed last: the hash of its session's
	// value and its counter. It ends the agent's sessions.
	SetLock(ctx context.Context, agent ID, l AgentLock, session []byte) error
	// MarkKept notes that the newest session's value was kept.
	MarkKept(ctx context.Context, agent ID) error
	// Unlock ends a lock and sets what the next hello is held against.
	Unlock(ctx context.Context, agent ID, m ConnectMemory) error
	// AskRotation notes that new keys are wanted.
	AskRotation(ctx context.Context, agent ID) error
	// SetNextKeys keeps the next keys beside the present ones; AdoptKeys makes them the present ones, retires those, and
	// gives the agent its next serial.
	SetNextKeys(ctx context.Context, agent ID, next Keys, fingerprint string) error
	AdoptKeys(ctx context.Context, agent ID) error
	// BeginSession ends the agent's other sessions and begins one, with what the agent said of itself. It gives how many receipts
	// say that an insight is lost on the agent.
	BeginSession(ctx context.Context, s NewSession) (lost int64, err error)
	EndSession(ctx context.Context, agent ID, counter int64) error
	// SaveStatus keeps the newest report and what it says was applied, refreshes the agent's session, and says whether the
	// report is of the newest session and runs of the agent are told as running, which an index knows that has no others; ErrNoRow when
	// the agent is revoked or locked. A report of the newest session proves that its value was kept. skew is by how many seconds
	// the report is before this clock, nil when it does not say. What the session's begin has shown is nearer the truth,
	// since a report may wait on a slow link: so only a difference of a minute counts, which is that of a clock that was set.
	SaveStatus(ctx context.Context, id AgentIdentity, applied int64, skew *int64, s AgentStatus) (running bool, err error)
}

// NewAgent is an agent as it enrols.
type NewAgent struct {
	ID, Workspace         ID
	Name                  string
	Labels                map[string]string
	Host                  HostInfo
	PublicKey, SealingKey []byte
	Fingerprint           string
}

// HostInfo is what an agent says of its machine and build.
type HostInfo struct{ Hostname, OS, Arch, Version string }

// AgentState is the part of an agent that its connects and deliveries turn on.
type AgentState struct {
	Workspace  ID
	Name       string
	Revoked    bool
	Lock       *AgentLock
	StoredSeq  int64
	Desired    int64
	SealingKey []byte
	// RotationAsked is whether new keys are wanted.
	RotationAsked bool
}

// ConnectMemory is what the next hello is held against.
type ConnectMemory struct {
	// Counter is the greatest connect counter seen.
	Counter int64
	// Session is the SHA-256 of the newest session's value, Before of the one that its hello showed, and Kept whether the
	// agent has proved that it kept the newest. Without a session both are nil.
	Session, Before []byte
	Kept            bool
	// Refused are those of copies that an owner decided against, the oldest first.
	Refused [][]byte
}

// ConnectState is the part of an agent that its connects turn on.
type ConnectState struct {
	AgentState
	ConnectMemory
	// Serial rises with every session value that was made.
	Serial int64
	// Fingerprint is that of the present key, NextFingerprint that of the next one; empty when there is none.
	Fingerprint, NextFingerprint string
	// OtherSession is what the other copy of a locked agent showed.
	OtherSession []byte
}

// NewSession is a session as it begins.
type NewSession struct {
	Agent   ID
	Counter int64
	// Serial is that of the session's value, Session its SHA-256, and Before that of the value that the hello showed.
	Serial          int64
	Session, Before []byte
	// Address is where the connection comes from, Skew how many seconds the agent's clock is before this one.
	Address string
	Skew    int64
	Replica string
	Host    HostInfo
	Applied int64
	// Connectors is a JSON array of flowdef.ConnectorSpec, Kinds are their kinds.
	Connectors []byte
	Kinds      []string
}

// ConnectionTx holds connections and their secrets.
type ConnectionTx interface {
	// Connections gives them by name, with the names of their secrets.
	Connections(ctx context.Context, workspace ID) ([]Connection, error)
	// ConnectionByRef finds by id or name; or ErrNoRow.
	ConnectionByRef(ctx context.Context, workspace ID, ref string) (Connection, error)
	CreateConnection(ctx context.Context, workspace ID, c Connection) error
	UpdateConnection(ctx context.Context, c Connection) error
	DeleteConnection(ctx context.Context, id ID) error
	// Secrets gives a connection's secrets as stored, by field.
	Secrets(ctx context.Context, connection ID) ([]StoredSecret, error)
	PutSecret(ctx context.Context, connection ID, s StoredSecret) error
	DeleteSecret(ctx context.Context, connection ID, field string) error
	// ConnectionUses says which deployed flows use the connection of that name, and where.
	ConnectionUses(ctx context.Context, workspace ID, name string) ([]ConnectionUse, error)
}

// StoredSecret is one encrypted secret of a connection.
type StoredSecret struct {
	Field   string
	Version int64
	SealedSecret
}

// ConnectionUse is a deployed flow that uses a connection.
type ConnectionUse struct {
	FlowName string
	Agent    ID
}

// FlowTx holds flows, versions and deployments.
type FlowTx interface {
	// Flows gives them by name, without deployments.
	Flows(ctx context.Context, workspace ID) ([]Flow, error)
	// FlowByRef finds by id or name, without deployments; or ErrNoRow.
	FlowByRef(ctx context.Context, workspace ID, ref string) (Flow, error)
	CreateFlow(ctx context.Context, workspace ID, id ID, name string) error
	// AddVersion adds an immutable text and makes it the flow's latest.
	AddVersion(ctx context.Context, v NewVersion) error
	// FlowVersions gives them newest first.
	FlowVersions(ctx context.Context, flow ID) ([]FlowVersion, error)
	FlowVersion(ctx context.Context, flow ID, version int) (FlowVersion, error)
	PublishVersion(ctx context.Context, v FlowVersion) error

	// Deployments gives those of the workspace, by flow name and agent.
	Deployments(ctx context.Context, workspace ID) ([]Deployment, error)
	// PutDeployment makes the deployment of the flow on the agent, or changes its version; its id stays.
	PutDeployment(ctx context.Context, d Deployment) error
	DeleteDeployment(ctx context.Context, id ID) error
	// AgentFlows gives what is deployed on an agent, by flow name.
	AgentFlows(ctx context.Context, agent ID) ([]AgentFlow, error)
	// BundleContents gives how much agents of the workspace are to run, by name, without reading it.
	BundleContents(ctx context.Context, workspace ID, agents []ID) ([]BundleContent, error)
}

// NewVersion is a version as it is saved.
type NewVersion struct {
	FlowVersion
	Description string
	// Connections are the names that the text uses, sorted.
	Connections []string
}

// AgentFlow is a flow as an agent gets it.
type AgentFlow struct {
	Deployment  Deployment
	Definition  string
	SHA256      string
	Connections []string
}

// DeliveryTx holds what agents deliver: insights and runs.
type DeliveryTx interface {
	// StoreInsights stores a delivery and advances the agent's sequence to its last. Of what was refused, and of the ranges
	// that are missing, the agent's newest 1,000 are kept. The caller holds the agent's lock.
	StoreInsights(ctx context.Context, d Delivery) error
	// Insights gives a page, newest first, of those after the cursor (none: from the newest).
	Insights(ctx context.Context, workspace ID, f InsightFilter, after *InsightCursor) ([]Insight, error)
	InsightsBySeq(ctx context.Context, workspace, agent ID, from, to int64) ([]Insight, error)
	InsightNames(ctx context.Context, workspace ID) ([]InsightName, error)
	// RefusedInsights gives a page, newest first, of those after the cursor (none: from the newest).
	RefusedInsights(ctx context.Context, workspace ID, f RefusedFilter, after *InsightCursor) ([]RefusedInsight, error)
	// MissingInsights gives a page, newest first, of those after the cursor (none: from the newest).
	MissingInsights(ctx context.Context, workspace ID, f RefusedFilter, after *InsightCursor) ([]MissingInsights, error)

	// StoreRun stores a report, replacing that of the same run and agent. One that says running replaces none of an end, which
	// the agent has told since.
	StoreRun(ctx context.Context, workspace ID, r Run) error
	// EndRuns ends the runs of the agent that are told as running and are not open, as stopped, and gives their ids. A run that
	// began later than they end, by a clock that was set back, ends as it began.
	EndRuns(ctx context.Context, agent ID, e Ending) ([]ID, error)
	Runs(ctx context.Context, workspace ID, f RunFilter) ([]Run, error)
	RunByID(ctx context.Context, workspace, id ID) (Run, error)
}

// Ending ends runs other than the open ones, at a time, for a reason that people read.
type Ending struct {
	Open []ID
	At   time.Time
	Why  string
}

// Delivery is what an agent delivered, sorted into what is stored and what cannot be.
type Delivery struct {
	Agent, Workspace ID
	// Insights have their Seq, which rises.
	Insights []Insight
	Refused  []RefusedInsight
	// Receipts is how many sequences hold nothing because the agent did not send them, by its reason.
	Receipts map[string]int64
	// Missing are the sequences that Receipts counts, in their order, without the agent.
	Missing []MissingInsights
	// Last is the sequence up to which everything is accounted for.
	Last int64
}

// RefusedInsight is a record that can never be stored as an insight.
type RefusedInsight struct {
	// Agent and Received are set when it is read.
	Agent    ID
	Received time.Time
	Seq      int64
	Reason   string
	// Record is the beginning of the wire.InsightRecord, at most 64 KiB.
	Record []byte
}

// InsightCursor is a place in a listing of insights.
type InsightCursor struct {
	Time  time.Time
	Agent ID
	Seq   int64
}

// SecretRef is what the encryption of a secret binds: moved to any other place it does not open.
type SecretRef struct {
	Tenant, Connection ID
	Field              string
	Version            int64
}

// SealedSecret is a secret under a data key of its own, and that key under the master key.
type SealedSecret struct{ WrappedKey, Ciphertext []byte }

// SecretKeeper encrypts what is stored. It is safe for concurrent use.
type SecretKeeper interface {
	Seal(ref SecretRef, plaintext []byte) (SealedSecret, error)
	Open(ref SecretRef, s SealedSecret) ([]byte, error)
}
