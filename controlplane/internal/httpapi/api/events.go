package api

// The names of the server-sent events of GET /events.
const (
	EventInsights   = "insights"
	EventRun        = "run"
	EventAgent      = "agent"
	EventFlow       = "flow"
	EventConnection = "connection"
)

// InsightsEvent is the data of an "insights" event: new insights of one agent, in the order of their sequence.
type InsightsEvent struct {
	AgentID string    `json:"agent_id"`
	Items   []Insight `json:"items"`
}

// RunEvent is the data of a "run" event.
type RunEvent struct {
	ID  string `json:"id"`
	Run *Run   `json:"run,omitempty" doc:"Absent when it is gone."`
}

// AgentEvent is the data of an "agent" event.
type AgentEvent struct {
	ID    string `json:"id"`
	Agent *Agent `json:"agent,omitempty" doc:"Absent when it is gone."`
}

// FlowEvent is the data of a "flow" event.
type FlowEvent struct {
	ID   string `json:"id"`
	Flow *Flow  `json:"flow,omitempty" doc:"Absent when it is gone."`
}

// ConnectionEvent is the data of a "connection" event.
type ConnectionEvent struct {
	ID         string      `json:"id"`
	Connection *Connection `json:"connection,omitempty" doc:"Absent when it is gone."`
}
