package agent

import (
	"time"

	"github.com/outfeed/outfeed/agent/internal/stage"
	"github.com/outfeed/outfeed/protocol/wire"
)

// OutboxStatus is the account of the outbox. Counters only rise, and all but Sent survive a restart. Each sequence up to
// Produced is acknowledged, waits, or was dropped by a rule that the control plane has not been told of yet.
type OutboxStatus struct {
	// Produced, Sent and Acknowledged are the last sequences that were staged, sent at least once, and are accounted for by
	// the control plane. After a restart Sent begins at Acknowledged.
	Produced     uint64 `json:"produced"`
	Sent         uint64 `json:"sent"`
	Acknowledged uint64 `json:"acknowledged"`
	// WaitingRecords and WaitingBytes are what is not acknowledged.
	WaitingRecords uint64 `json:"waiting_records"`
	WaitingBytes   uint64 `json:"waiting_bytes"`
	// RoomBytes is how many more bytes may wait before flows have to, and RunwaySeconds how long that lasts at the present
	// rate; -1 when nothing comes or the outbox shrinks.
	RoomBytes     uint64 `json:"room_bytes"`
	RunwaySeconds int64  `json:"runway_seconds"`
	// Late counts the rows that came too late for their window.
	Late uint64 `json:"late"`
	// Expired counts the insights that a rule of the plant has dropped, by the rule: expired_age, expired_bytes. Both are
	// always there.
	Expired map[string]uint64 `json:"expired"`
	// Lost are those that were damaged on this machine's disk or could never be sent, LostRemotely those that the control
	// plane lost after it had acknowledged them.
	Lost         uint64 `json:"lost"`
	LostRemotely uint64 `json:"lost_remotely"`
	// Degraded says why nothing can be written at present.
	Degraded string `json:"degraded,omitempty"`
	// Blocked is how many commits wait for room, and BlockedBy why.
	Blocked   int    `json:"blocked"`
	BlockedBy string `json:"blocked_by,omitempty"`
	// SetAside are the staging directories of agents that this machine was before.
	SetAside []SetAsideStaging `json:"set_aside"`
}

// SetAsideStaging is a staging directory of another agent, which is kept and never sent.
type SetAsideStaging struct {
	Dir     string `json:"dir"`
	AgentID string `json:"agent_id"`
	// Waiting is how many insights had waited in it, -1 when that is not known.
	Waiting int64 `json:"waiting"`
}

// outboxStatus is the account from what the stage counts and the last sequence that the tunnel has sent.
func outboxStatus(o *stage.Stats, sent uint64) OutboxStatus {
	out := OutboxStatus{
		Produced: o.Produced, Sent: min(max(sent, o.Acknowledged), o.Produced), Acknowledged: o.Acknowledged,
		WaitingRecords: o.WaitingRecords, WaitingBytes: o.WaitingBytes,
		RoomBytes: o.RoomBytes, RunwaySeconds: -1,
		Late: o.Late, Expired: map[string]uint64{},
		Lost: o.Lost, LostRemotely: o.LostRemotely,
		Degraded: o.Degraded, Blocked: o.Blocked, BlockedBy: o.BlockedBy, SetAside: []SetAsideStaging{},
	}
	if o.Runway != stage.RunwayUnknown {
		out.RunwaySeconds = int64(o.Runway / time.Second)
	}
	for _, rule := range []string{stage.GoneExpiredAge, stage.GoneExpiredBytes} {
		out.Expired[rule] = o.Expired[rule]
	}
	for _, f := range o.Formers {
		out.SetAside = append(out.SetAside, SetAsideStaging{Dir: f.Dir, AgentID: f.Owner, Waiting: f.Waiting})
	}
	return out
}

// wire is the account for the control plane.
func (o *OutboxStatus) wire() *wire.Outbox {
	return &wire.Outbox{
		Produced: o.Produced, Sent: o.Sent, Acknowledged: o.Acknowledged, WaitingRecords: o.WaitingRecords, WaitingBytes: o.WaitingBytes,
		RoomBytes: o.RoomBytes, RunwaySeconds: o.RunwaySeconds, Late: o.Late, Expired: o.Expired, Lost: o.Lost, LostRemotely: o.LostRemotely,
		Degraded: o.Degraded, Blocked: uint64(max(o.Blocked, 0)), BlockedBy: o.BlockedBy,
	}
}
