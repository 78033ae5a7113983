package fleet

import (
	"time"

	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// ID is a UUID as text. Version 7, so that ids sort by their making.
type ID string

// Role is what a member of a workspace may do: each role may also do what those after it may.
type Role string

// The roles, from most to least.
const (
	Owner    Role = "owner"
	Editor   Role = "editor"
	Operator Role = "operator"
	Viewer   Role = "viewer"
)

// Actor is who is asking, as authenticated.
type Actor struct {
	Tenant ID
	// Workspace is the one that the actor works in.
	Workspace ID
	// Kind is "api_key", "session", "agent" or "admin"; Ref and Name say which one, for the audit and for people. A
	// session has the role and the name of the API key that began it.
	Kind string
	Ref  ID
	Name string
	Role Role
}

// Tenant is a customer organization.
type Tenant struct {
	ID      ID
	Name    string
	Created time.Time
}

// APIKey is a key of the HTTP API. Its text is shown once, when it is made, and stored as SHA-256.
type APIKey struct {
	ID       ID
	Name     string
	Role     Role
	Created  time.Time
	LastUsed time.Time
}

// EnrollToken lets one machine become an agent, once.
type EnrollToken struct {
	ID      ID
	Labels  map[string]string
	Created time.Time
	Expires time.Time
	// Used is when, and Agent by whom; both zero while it is unused.
	Used  time.Time
	Agent ID
}

// Agent is one installed outfeed-agent.
type Agent struct {
	ID        ID
	Workspace ID
	Name      string
	Labels    map[string]string
	Hostname  string
	OS, Arch  string
	// Version is the agent's build.
	Version string
	// Fingerprint is the SHA-256 of its Ed25519 public key, in hex.
	Fingerprint string
	Created     time.Time
	Revoked     time.Time
	Connected   bool
	LastSeen    time.Time
	// Lock is set while both copies of an agent whose data directory was copied are kept out.
	Lock *AgentLock
	// ClockSkew is how many seconds the agent's clock was before the control plane's when it connected last, or in its newest
	// status if its clock was set since.
	ClockSkew int64
	// RotationAsked is since when new keys are asked for; zero when they are not. Rotated is when they changed last.
	RotationAsked, Rotated time.Time
	// Desired is the serial of the desired state, Applied the one that the agent reported.
	Desired, Applied int64
	// StoredSeq is the last sequence that is accounted for here: each is a stored insight, a refused one, or one that a
	// receipt of the agent stands for.
	StoredSeq int64
	// RefusedInsights counts those that came and could never be stored, Receipts those that did not come, by the reason
	// that the agent gave.
	RefusedInsights int64
	Receipts        map[string]int64
	// Status is the agent's newest report; nil before the first.
	Status *AgentStatus
	// Connectors are the kinds that the agent offers.
	Connectors []flowdef.ConnectorSpec
}

// StoredInsights is how many insights of the agent have been stored here.
func (a *Agent) StoredInsights() int64 {
	n := a.StoredSeq - a.RefusedInsights
	for _, count := range a.Receipts {
		n -= count
	}
	return n
}

// LockReason is how a copy of an agent's data directory showed itself.
type LockReason string

// The reasons of a lock.
const (
	// LockCounter is a connect counter that was used before.
	LockCounter LockReason = "counter"
	// LockSession is the value of a session that another session has followed already.
	LockSession LockReason = "session"
	// LockKey is a key that the agent has given up in a rotation.
	LockKey LockReason = "retired_key"
)

// AgentLock is what is known of two copies that are kept out until an owner decides. It is stored as JSON.
type AgentLock struct {
	Since  time.Time  `json:"since"`
	Reason LockReason `json:"reason"`
	// Connected is the copy that had connected before, Other the one whose hello made the lock.
	Connected LockSide `json:"connected"`
	Other     LockSide `json:"other"`
}

// LockSide is one of two copies, as it showed itself last.
type LockSide struct {
	Hostname string `json:"hostname"`
	// Address is where its newest connection came from: of the machine, or of a proxy in between.
	Address string    `json:"address"`
	Seen    time.Time `json:"seen,omitzero"`
	Counter int64     `json:"counter"`
}

// Keep is which of two copies an owner decides for.
type Keep string

// The copies of an AgentLock.
const (
	KeepConnected Keep = "connected"
	KeepOther     Keep = "other"
)

// AgentStatus is what an agent says of itself. It is stored and served as JSON.
type AgentStatus struct {
	Time        time.Time    `json:"time"`
	BundleError string       `json:"bundle_error,omitempty"`
	Flows       []FlowStatus `json:"flows"`
	// FlowsLeftOut is how many flows Brief has left out because the others say too much.
	FlowsLeftOut int          `json:"flows_left_out,omitempty"`
	Outbox       OutboxStatus `json:"outbox"`
}

// FlowStatus is how one deployed flow is doing on one agent.
type FlowStatus struct {
	Deployment ID     `json:"deployment_id"`
	Flow       ID     `json:"flow_id"`
	Name       string `json:"name"`
	Version    int    `json:"version"`
	// SetBackFrom is the version that failed and was set back to this one; 0 when none was.
	SetBackFrom int            `json:"set_back_from,omitempty"`
	State       string         `json:"state"`
	Error       string         `json:"error,omitempty"`
	Since       time.Time      `json:"since"`
	Sources     []SourceStatus `json:"sources"`
}

// SourceStatus is how one read step is doing.
type SourceStatus struct {
	Step       string    `json:"step"`
	Connection string    `json:"connection"`
	State      string    `json:"state"`
	Error      string    `json:"error,omitempty"`
	LastRecord time.Time `json:"last_record,omitzero"`
}

// OutboxStatus is the account of an agent's outbox, as the agent gives it.
type OutboxStatus struct {
	// Produced, Sent and Acknowledged are the last sequences of each.
	Produced     uint64 `json:"produced"`
	Sent         uint64 `json:"sent"`
	Acknowledged uint64 `json:"acknowledged"`
	// WaitingRecords and WaitingBytes are what is to be sent, or sent and not acknowledged.
	WaitingRecords uint64 `json:"waiting_records"`
	WaitingBytes   uint64 `json:"waiting_bytes"`
	// RoomBytes is how much more may wait, and RunwaySeconds how long that lasts at the present rate; -1 when it lasts for
	// good.
	RoomBytes     uint64 `json:"room_bytes"`
	RunwaySeconds int64  `json:"runway_seconds"`
	// Late counts rows that came too late for their window, Expired the insights that a rule of the plant has dropped.
	Late    uint64            `json:"late"`
	Expired map[string]uint64 `json:"expired,omitempty"`
	// Lost counts those that were damaged or could never be sent, LostRemotely those that the control plane once
	// acknowledged and then lost.
	Lost         uint64 `json:"lost"`
	LostRemotely uint64 `json:"lost_remotely"`
	// DamagedFiles counts the files of the staging that were ever found damaged, Salvaged the insights that were taken out
	// of them whole. Damage are those files that the agent still keeps, the newest first.
	DamagedFiles uint64        `json:"damaged_files"`
	Salvaged     uint64        `json:"salvaged"`
	Damage       []DamagedFile `json:"damage,omitempty"`
	// Unknown says that the agent cannot read its numbers now: those here, but for room, Degraded, Blocked and SetAside, are of
	// CountedAt, zero where it never told any.
	Unknown   bool      `json:"unknown,omitempty"`
	CountedAt time.Time `json:"counted_at,omitzero"`
	// Degraded says why staging does not work now.
	Degraded string `json:"degraded,omitempty"`
	// SetAside are the staging directories of agents that the machine was before.
	SetAside []SetAside `json:"set_aside,omitempty"`
	// Blocked is how many commits wait for room, and BlockedBy why.
	Blocked   uint64 `json:"blocked"`
	BlockedBy string `json:"blocked_by,omitempty"`
}

// SetAside is a staging directory of an agent that the machine was before. It is kept and never sent.
type SetAside struct {
	// Dir is its name beside the staging directory, Agent whose it is; empty when that cannot be read.
	Dir   string `json:"dir"`
	Agent ID     `json:"agent_id"`
	// Waiting is how many insights had waited in it; -1 when that is not known.
	Waiting int64 `json:"waiting"`
}

// DamagedFile is a file of an agent's staging that was found damaged and set aside.
type DamagedFile struct {
	File string `json:"file"`
	// At is when that was, by the agent's clock.
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
	// Salvaged is how many insights were taken out of it whole, Lost how many could not be.
	Salvaged uint64 `json:"salvaged"`
	Lost     uint64 `json:"lost"`
	// StartedAnew are the deployments whose flows start from nothing because of it, SetBack those whose flows go on from an
	// earlier commit.
	StartedAnew []ID `json:"started_anew,omitempty"`
	SetBack     []ID `json:"set_back,omitempty"`
}

// Connection is how to reach one plant system. Secrets are write-only: reading one gives their names in SecretNames.
type Connection struct {
	ID          ID
	Name        string
	Kind        string
	Options     map[string]any
	Secrets     map[string]secret.String
	SecretNames []string
	Created     time.Time
	Updated     time.Time
}

// Flow is a named definition with its versions.
type Flow struct {
	ID          ID
	Name        string
	Description string
	Created     time.Time
	Updated     time.Time
	// Latest is the highest version, Published the highest published one, 0 for none.
	Latest, Published int
	// Deployments are where it runs now.
	Deployments []Deployment
}

// FlowVersion is one immutable text of a flow.
type FlowVersion struct {
	Flow       ID
	Version    int
	Definition string
	SHA256     string
	Created    time.Time
	CreatedBy  string
	// Published is zero for a draft.
	Published time.Time
	Egress    flowdef.Manifest
	// Writes is what it writes into the plant's systems.
	Writes []flowdef.PlannedWrite
}

// Deployment says that a version of a flow runs on an agent. There is at most one for each flow and agent.
type Deployment struct {
	ID      ID
	Flow    ID
	Name    string
	Version int
	Agent   ID
	Created time.Time
}

// Run is an execution insight.
type Run struct {
	ID          ID
	Agent       ID
	Flow        ID
	FlowName    string
	Version     int
	Status      string
	Started     time.Time
	Ended       time.Time
	RecordsRead int64
	BytesRead   int64
	Failed      int64
	Late        int64
	Insights    int64
	Error       string
	Steps       []StepCount
	Sample      []FailedRecord
}

// StepCount is the rows in and out of a step during a run, and those of them that failed, that were too late for their
// window, and that were outside of every shift.
type StepCount struct {
	Step    string `json:"step"`
	In      int64  `json:"rows_in"`
	Out     int64  `json:"rows_out"`
	Failed  int64  `json:"rows_failed,omitempty"`
	Late    int64  `json:"rows_late,omitempty"`
	Outside int64  `json:"rows_outside,omitempty"`
}

// FailedRecord is one record of the sample of failing records, or a note such as a difference from the schema.
type FailedRecord struct {
	Step   string `json:"step"`
	Where  string `json:"where"`
	Reason string `json:"reason"`
	Record string `json:"record"`
}

// Insight is one record that a flow produced. Agent and Seq name it.
type Insight struct {
	Agent    ID
	Seq      int64
	Flow     ID
	FlowName string
	Version  int
	Name     string
	Time     time.Time
	Received time.Time
	// Key and Values are JSON objects.
	Key, Values []byte
}

// InsightFilter selects insights; a zero field selects all.
type InsightFilter struct {
	Name  string
	Flow  ID
	Agent ID
	// Key selects insights whose key holds these members.
	Key      map[string]string
	From, To time.Time
	// Limit is at most 10000; 0 means 500.
	Limit int
	// After continues a listing: the Cursor of the last one. Listings are newest first.
	After string
}

// Event tells listeners that something of a tenant changed. It carries ids only; who may see it reads the thing itself.
type Event struct {
	Tenant ID
	// Kind is "insights", "run", "agent", "flow" or "connection".
	Kind string
	// ID is the agent's for "insights" and "agent", the run's, the flow's or the connection's otherwise.
	ID ID
	// FromSeq and ToSeq are the new insights' sequences.
	FromSeq, ToSeq int64
}
