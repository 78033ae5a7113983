// Package api has the request and response types of the HTTP API, shared by the server and the outfeed command.
//
// The types are the wire format and nothing else: no rules, no I/O, and no import of the domain, so that a client stays
// small. Times are RFC 3339; a time that has not happened is left out. Values are safe for concurrent reading.
package api

import (
	"encoding/json"
	"time"

	"github.com/outfeed/outfeed/protocol/flowdef"
)

// List is an answer with several of something.
type List[T any] struct {
	Items []T `json:"items"`
}

// SignIn asks for a dashboard session.
type SignIn struct {
	APIKey string `json:"api_key" minLength:"1" maxLength:"512" doc:"An API key (ofk_…)."`
}

// Me is who is asking.
type Me struct {
	TenantID    string `json:"tenant_id"`
	WorkspaceID string `json:"workspace_id"`
	Kind        string `json:"kind" doc:"How the caller was authenticated, for example api_key."`
	ID          string `json:"id"`
	Name        string `json:"name"`
	Role        string `json:"role" enum:"owner,editor,operator,viewer"`
}

// APIKey is a key of this API, without its text.
type APIKey struct { //nolint:revive // an API key is what everybody calls it
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Role       string    `json:"role" enum:"owner,editor,operator,viewer"`
	CreatedAt  time.Time `json:"created_at"`
	LastUsedAt time.Time `json:"last_used_at,omitzero"`
}

// APIKeyCreate asks for an API key.
type APIKeyCreate struct { //nolint:revive // an API key is what everybody calls it
	Name string `json:"name" minLength:"1" maxLength:"100" example:"nightly report"`
	Role string `json:"role" enum:"owner,editor,operator,viewer"`
}

// APIKeyCreated is a new key with its text, which is shown this once.
type APIKeyCreated struct { //nolint:revive // an API key is what everybody calls it
	APIKey APIKey `json:"api_key"`
	Key    string `json:"key" doc:"The text of the key. It is shown this once."`
}

// AgentToken is an enrolment token, without its text.
type AgentToken struct {
	ID        string            `json:"id"`
	Labels    map[string]string `json:"labels"`
	CreatedAt time.Time         `json:"created_at"`
	ExpiresAt time.Time         `json:"expires_at"`
	UsedAt    time.Time         `json:"used_at,omitzero"`
	AgentID   string            `json:"agent_id,omitempty" doc:"The agent that used it."`
}

// AgentTokenCreate asks for an enrolment token.
type AgentTokenCreate struct {
	Labels     map[string]string `json:"labels,omitempty" doc:"Labels of the agent that will use it." example:"{\"site\":\"berlin\"}"`
	TTLSeconds int               `json:"ttl_seconds,omitempty" minimum:"0" maximum:"3600" doc:"How long it is valid; 0 means an hour, which is the most."`
}

// AgentTokenCreated is a new token with its text, which is shown this once.
type AgentTokenCreated struct {
	AgentToken AgentToken `json:"agent_token"`
	Token      string     `json:"token" doc:"The text for outfeed-agent enroll --token. It is shown this once."`
	URL        string     `json:"url,omitempty" doc:"The address for outfeed-agent enroll --url. Absent when the control plane does not know its own: then it is the one of this request." example:"https://outfeed.example.com"`
}

// Agent is one installed outfeed-agent.
type Agent struct {
	ID              string            `json:"id"`
	WorkspaceID     string            `json:"workspace_id"`
	Name            string            `json:"name"`
	Labels          map[string]string `json:"labels"`
	Hostname        string            `json:"hostname"`
	OS              string            `json:"os"`
	Arch            string            `json:"arch"`
	Version         string            `json:"version"`
	Fingerprint     string            `json:"fingerprint" doc:"SHA-256 of its Ed25519 public key, in hex."`
	CreatedAt       time.Time         `json:"created_at"`
	RevokedAt       time.Time         `json:"revoked_at,omitzero"`
	Connected       bool              `json:"connected"`
	LastSeenAt      time.Time         `json:"last_seen_at,omitzero"`
	Lock            *AgentLock        `json:"lock,omitempty" doc:"Present while the agent is locked because a copy of its data directory has connected. Neither copy may connect until an owner decides."`
	ClockSkew       int64             `json:"clock_skew_seconds" doc:"How many seconds its clock was ahead of the control plane's when it connected last, or in its newest status if it was set since; negative when behind."`
	RotationAskedAt time.Time         `json:"rotation_asked_at,omitzero" doc:"Since when it shall change its keys; absent when it need not."`
	RotatedAt       time.Time         `json:"rotated_at,omitzero" doc:"When its keys changed last; absent when they never did."`
	DesiredSerial   int64             `json:"desired_serial" doc:"The serial of what it shall run."`
	AppliedSerial   int64             `json:"applied_serial" doc:"The serial of what it runs. Equal to desired_serial when it is up to date."`
	Outbox          Outbox            `json:"outbox"`
	Status          *AgentStatus      `json:"status,omitempty" doc:"Its newest report; absent before the first."`
	ConnectorKinds  []string          `json:"connector_kinds"`
}

// AgentPage is one page of agents in brief, by name, the revoked ones last.
type AgentPage struct {
	Items []Agent `json:"items"`
	Next  string  `json:"next,omitempty" doc:"Give it as ?after= for the next page; absent on the last."`
}

// AgentLock is what is known of two copies of one agent.
type AgentLock struct {
	Since     time.Time `json:"since"`
	Reason    string    `json:"reason" enum:"counter,session,retired_key" doc:"How the copy showed itself: by a connect counter that was used before, by the value of a session that another has followed, or by a key that was given up in a rotation."`
	Connected LockSide  `json:"connected" doc:"The copy that had connected before."`
	Other     LockSide  `json:"other" doc:"The copy whose connection made the lock."`
}

// LockSide is one of the two copies, as it showed itself last.
type LockSide struct {
	Hostname string    `json:"hostname"`
	Address  string    `json:"address" doc:"Where its connection came from; it may be that of a proxy."`
	Seen     time.Time `json:"seen_at,omitzero"`
	Counter  int64     `json:"counter" doc:"Its connect counter."`
}

// AgentUnlock decides between two copies.
type AgentUnlock struct {
	Keep string `json:"keep" enum:"connected,other" doc:"The copy that goes on."`
}

// AgentStatus is what an agent says of itself.
type AgentStatus struct {
	Time        time.Time    `json:"time"`
	BundleError string       `json:"bundle_error,omitempty" doc:"Why it refused the newest desired state."`
	Flows       []FlowStatus `json:"flows"`
	// Only of an agent in brief.
	FlowsLeftOut int `json:"flows_left_out,omitempty" doc:"How many flows are left out of a list because the others say too much; get-agent has them all."`
}

// FlowStatus is how one deployed flow is doing on one agent.
type FlowStatus struct {
	DeploymentID string         `json:"deployment_id"`
	FlowID       string         `json:"flow_id"`
	Name         string         `json:"name"`
	Version      int            `json:"version"`
	SetBackFrom  int            `json:"set_back_from,omitempty" doc:"The version that failed on this agent and was set back to this one, which runs in its place."`
	State        string         `json:"state"`
	Error        string         `json:"error,omitempty"`
	Since        time.Time      `json:"since"`
	Sources      []SourceStatus `json:"sources"`
}

// SourceStatus is how one read step is doing.
type SourceStatus struct {
	Step       string    `json:"step"`
	Connection string    `json:"connection"`
	State      string    `json:"state"`
	Error      string    `json:"error,omitempty"`
	LastRecord time.Time `json:"last_record,omitzero"`
}

// Outbox is the account of an agent's insights. Each has a place in the agent's sequence, which starts at 1 and has no gap.
type Outbox struct {
	ReportedAt time.Time `json:"reported_at,omitzero" doc:"When the agent reported the members from produced to blocked_by; absent before its first report. While it is not connected they are as old as this."`

	Produced       uint64            `json:"produced" doc:"The last place in the sequence: how many insights the agent has staged."`
	Sent           uint64            `json:"sent" doc:"The last place that was sent at least once."`
	Acknowledged   uint64            `json:"acknowledged" doc:"The last place that the control plane has accounted for, as far as the agent knows."`
	WaitingRecords uint64            `json:"waiting_records" doc:"Insights on the agent that are not acknowledged."`
	WaitingBytes   uint64            `json:"waiting_bytes" doc:"Their size in bytes."`
	RoomBytes      uint64            `json:"room_bytes" doc:"How many more bytes may wait before the agent's flows have to."`
	RunwaySeconds  int64             `json:"runway_seconds" doc:"How many seconds that room lasts at the present rate; -1 when it does not fill."`
	Late           uint64            `json:"late" doc:"Rows that came too late for the window that they belong to."`
	Expired        map[string]uint64 `json:"expired" doc:"Insights that a rule of the plant has dropped, by the rule: expired_age, expired_bytes. The control plane may not have been told of all of them yet."`
	Lost           uint64            `json:"lost" doc:"Insights that were damaged on the agent's disk, or that no message can hold. The control plane may not have been told of all of them yet."`
	LostRemotely   uint64            `json:"lost_remotely" doc:"Insights that the control plane acknowledged and lost afterwards, because its database went back to an earlier state."`
	DamagedFiles   uint64            `json:"damaged_files" doc:"Files of the agent's staging that were ever found damaged and set aside."`
	Salvaged       uint64            `json:"salvaged" doc:"Insights that were taken whole out of damaged files; they are sent like any other."`
	Damage         []DamagedFile     `json:"damage" doc:"What happened to the damaged files that the agent still keeps, the newest first."`
	SetAside       []SetAside        `json:"set_aside" doc:"The staging directories of agents that the machine was before. They are kept on it and never sent."`
	Degraded       string            `json:"degraded,omitempty" doc:"Why the agent can write nothing to its disk at present."`
	Blocked        uint64            `json:"blocked" doc:"Commits of flows that wait for room."`
	BlockedBy      string            `json:"blocked_by,omitempty" doc:"What they wait for."`

	Accounted int64            `json:"accounted" doc:"The last place that the control plane has accounted for: stored, refused and receipts together."`
	Stored    int64            `json:"stored" doc:"Insights that the control plane has stored."`
	Refused   int64            `json:"refused" doc:"Insights that came and could never be stored; list-refused-insights lists the newest."`
	Receipts  map[string]int64 `json:"receipts" doc:"Insights that did not come, by the agent's reason: damaged, restored (lost_remotely), expired_age, expired_bytes, unsendable, other."`
}

// SetAside is a staging directory of an agent that a machine was before.
type SetAside struct {
	Dir     string `json:"dir" doc:"Its name in the agent's data directory."`
	AgentID string `json:"agent_id,omitempty" doc:"Whose it is; absent when that cannot be read."`
	Waiting int64  `json:"waiting" doc:"How many insights had waited in it, at most: after a kill the control plane may have some of them. -1 when that is not known."`
}

// DamagedFile is a file of an agent's staging that was found damaged and set aside.
type DamagedFile struct {
	File        string    `json:"file" doc:"Its name in the staging directory on the agent's machine."`
	At          time.Time `json:"at" doc:"When it was set aside, by the agent's clock."`
	Reason      string    `json:"reason" doc:"What was wrong with it."`
	Salvaged    uint64    `json:"salvaged" doc:"Insights that were taken out of it whole."`
	Lost        uint64    `json:"lost" doc:"Insights that could not be; lost counts them too."`
	StartedAnew []string  `json:"started_anew" doc:"The ids of the deployments whose flows start from nothing because of it, so that they read everything again."`
	SetBack     []string  `json:"set_back" doc:"The ids of the deployments whose flows go on from an earlier commit, so that they repeat what they had read since."`
}

// Connection is how to reach one plant system. Secrets are write-only: only their names are shown.
type Connection struct {
	ID          string         `json:"id"`
	Name        string         `json:"name"`
	Kind        string         `json:"kind"`
	Options     map[string]any `json:"options"`
	SecretNames []string       `json:"secret_names"`
	CreatedAt   time.Time      `json:"created_at"`
	UpdatedAt   time.Time      `json:"updated_at"`
}

// ConnectionApply is what a connection shall be.
type ConnectionApply struct {
	Kind    string            `json:"kind" minLength:"1" maxLength:"64" example:"mqtt"`
	Options map[string]any    `json:"options,omitempty" doc:"The options of the connector, without the secret ones."`
	Secrets map[string]string `json:"secrets,omitempty" writeOnly:"true" doc:"The secret options. One that is left out stays as it is."`
}

// FlowDefinition carries the text of a flow.
type FlowDefinition struct {
	Definition string `json:"definition" minLength:"1" maxLength:"1048576" doc:"The flow as YAML or JSON."`
}

// FlowCheck is what checking a definition found.
type FlowCheck struct {
	OK       bool             `json:"ok" doc:"True when there are no problems."`
	Name     string           `json:"name"`
	Problems []FlowProblem    `json:"problems"`
	Egress   flowdef.Manifest `json:"egress" doc:"Every column that would leave the plant."`
	Writes   []FlowWrite      `json:"writes" doc:"What would be written into the plant's systems."`
	Tests    []FlowTest       `json:"tests" doc:"The results of the definition's own tests. Each that failed is among the problems, too."`
}

// FlowWrite is one place in the plant that a flow writes to. What is written stays in the plant.
type FlowWrite struct {
	Step       string         `json:"step"`
	Connection string         `json:"connection"`
	With       map[string]any `json:"with" doc:"The options of the write, as in the definition."`
	Columns    []string       `json:"columns"`
}

// FlowTest is the result of one test of a definition.
type FlowTest struct {
	Name       string `json:"name"`
	Passed     bool   `json:"passed"`
	Difference string `json:"difference,omitempty" doc:"What was expected and what came."`
}

// Flow is a named definition.
type Flow struct {
	ID               string       `json:"id"`
	Name             string       `json:"name"`
	Description      string       `json:"description"`
	CreatedAt        time.Time    `json:"created_at"`
	UpdatedAt        time.Time    `json:"updated_at"`
	LatestVersion    int          `json:"latest_version"`
	PublishedVersion int          `json:"published_version" doc:"The highest published version; 0 for none."`
	Deployments      []Deployment `json:"deployments" doc:"Where it runs."`
}

// FlowVersion is one immutable text of a flow.
type FlowVersion struct {
	FlowID      string           `json:"flow_id"`
	Version     int              `json:"version"`
	Definition  string           `json:"definition"`
	SHA256      string           `json:"sha256"`
	CreatedAt   time.Time        `json:"created_at"`
	CreatedBy   string           `json:"created_by"`
	PublishedAt time.Time        `json:"published_at,omitzero" doc:"Absent for a draft."`
	Egress      flowdef.Manifest `json:"egress"`
	Writes      []FlowWrite      `json:"writes" doc:"What it writes into the plant's systems."`
}

// FlowApplied is a flow after its definition was applied, and the version that holds the text.
type FlowApplied struct {
	Flow    Flow        `json:"flow"`
	Version FlowVersion `json:"version"`
}

// FlowPublish says which version to publish.
type FlowPublish struct {
	Version int `json:"version,omitempty" minimum:"0" doc:"0 means the latest."`
}

// FlowDeploy says what to deploy where.
type FlowDeploy struct {
	Version int      `json:"version,omitempty" minimum:"0" doc:"0 means the latest published one."`
	Agents  []string `json:"agents" minItems:"1" maxItems:"1000" doc:"Agents by id, by name, or by label as key=value." example:"[\"site=berlin\"]"`
}

// FlowUndeploy says where to stop a flow.
type FlowUndeploy struct {
	Agents []string `json:"agents,omitempty" maxItems:"1000" doc:"Agents by id, by name, or by label; none means all."`
}

// Deployment says that a version of a flow runs on an agent.
type Deployment struct {
	ID        string    `json:"id"`
	FlowID    string    `json:"flow_id"`
	FlowName  string    `json:"flow_name"`
	Version   int       `json:"version"`
	AgentID   string    `json:"agent_id"`
	CreatedAt time.Time `json:"created_at"`
}

// Run is an execution insight: one execution of a batch flow, or one interval of a continuous one.
type Run struct {
	ID          string         `json:"id"`
	AgentID     string         `json:"agent_id"`
	FlowID      string         `json:"flow_id"`
	FlowName    string         `json:"flow_name"`
	Version     int            `json:"version"`
	Status      string         `json:"status"`
	StartedAt   time.Time      `json:"started_at"`
	EndedAt     time.Time      `json:"ended_at,omitzero"`
	RecordsRead int64          `json:"records_read"`
	BytesRead   int64          `json:"bytes_read"`
	Failed      int64          `json:"failed"`
	Late        int64          `json:"late"`
	Insights    int64          `json:"insights"`
	Error       string         `json:"error,omitempty"`
	Steps       []StepCount    `json:"steps"`
	Sample      []FailedRecord `json:"sample" doc:"Some of the records that failed, and notes on the records, such as differences from the schema."`
}

// StepCount is the rows in and out of a step during a run, and what became of others.
type StepCount struct {
	Step        string `json:"step"`
	RowsIn      int64  `json:"rows_in"`
	RowsOut     int64  `json:"rows_out"`
	RowsFailed  int64  `json:"rows_failed"`
	RowsLate    int64  `json:"rows_late" doc:"Rows that came too late for their window."`
	RowsOutside int64  `json:"rows_outside" doc:"Rows outside of every shift."`
}

// FailedRecord is one record that could not be used, or a note such as a difference from the schema.
type FailedRecord struct {
	Step   string `json:"step"`
	Where  string `json:"where"`
	Reason string `json:"reason"`
	Record string `json:"record"`
}

// Insight is one record that a flow produced. AgentID and Seq name it.
type Insight struct {
	AgentID    string          `json:"agent_id"`
	Seq        int64           `json:"seq" doc:"Its place in the agent's gap-free sequence."`
	FlowID     string          `json:"flow_id"`
	FlowName   string          `json:"flow_name"`
	Version    int             `json:"version"`
	Name       string          `json:"name"`
	Time       time.Time       `json:"time"`
	ReceivedAt time.Time       `json:"received_at"`
	Key        json.RawMessage `json:"key"`
	Values     json.RawMessage `json:"values"`
}

// InsightPage is one page of insights, newest first.
type InsightPage struct {
	Items []Insight `json:"items"`
	Next  string    `json:"next,omitempty" doc:"Give it as ?after= for the next page; absent on the last."`
}

// RefusedInsight is a record that an agent sent and that can never be stored.
type RefusedInsight struct {
	AgentID    string    `json:"agent_id"`
	Seq        int64     `json:"seq" doc:"Its place in the agent's sequence."`
	ReceivedAt time.Time `json:"received_at"`
	Reason     string    `json:"reason" doc:"Why it cannot be stored, as a sentence."`
	Name       string    `json:"name,omitempty" doc:"The insight's name, if it can be read."`
	FlowID     string    `json:"flow_id,omitempty" doc:"The flow that produced it, if that can be read."`
	Version    int       `json:"version,omitempty" doc:"The flow's version, if that can be read."`
	Time       time.Time `json:"time,omitzero" doc:"The insight's time, if that can be read."`
	Record     []byte    `json:"record" doc:"The beginning of the record as it came, at most 64 KiB of an InsightRecord of the tunnel's protocol in base64."`
}

// RefusedInsightPage is one page of refused insights, newest first.
type RefusedInsightPage struct {
	Items []RefusedInsight `json:"items"`
	Next  string           `json:"next,omitempty" doc:"Give it as ?after= for the next page; absent on the last."`
}

// MissingInsights are consecutive insights of an agent that never came, for one reason.
type MissingInsights struct {
	AgentID  string    `json:"agent_id"`
	FirstSeq int64     `json:"first_seq" doc:"The place of the first in the agent's sequence."`
	LastSeq  int64     `json:"last_seq" doc:"The place of the last."`
	Insights int64     `json:"insights" doc:"How many they are."`
	Reason   string    `json:"reason" doc:"Why they never came, as in the receipts of the agent's outbox: damaged, restored, expired_age, expired_bytes, unsendable, other."`
	FirstAt  time.Time `json:"first_at" doc:"When the agent told of the first of them."`
	LastAt   time.Time `json:"last_at" doc:"When it told of the last of them."`
}

// MissingInsightsPage is one page of missing insights, newest first.
type MissingInsightsPage struct {
	Items []MissingInsights `json:"items"`
	Next  string            `json:"next,omitempty" doc:"Give it as ?after= for the next page; absent on the last."`
}

// InsightName is an insight that some flow has produced.
type InsightName struct {
	Name   string    `json:"name"`
	FlowID string    `json:"flow_id"`
	LastAt time.Time `json:"last_at,omitzero"`
}
