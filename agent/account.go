package agent

import (
	"path/filepath"
	"strings"
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
	// LostUnsure are more that were damaged on this machine's disk, of which the control plane may have stored what was sent
	// before. A session tells how many of them are lost.
	LostUnsure uint64 `json:"lost_unsure,omitempty"`
	// DamagedFiles counts the files of the staging that were ever found damaged and set aside, Salvaged the insights that
	// were taken out of them whole. Damage says what happened to those that are still kept, the newest first.
	DamagedFiles uint64        `json:"damaged_files"`
	Salvaged     uint64        `json:"salvaged"`
	Damage       []DamagedFile `json:"damage"`
	// Unknown says that the staging waits for room and cannot be read before, so that the numbers of insights and of files are not
	// known, and are 0 here.
	Unknown bool `json:"unknown,omitempty"`
	// Degraded says why nothing can be written at present.
	Degraded string `json:"degraded,omitempty"`
	// Blocked is how many commits wait for room, and BlockedBy why.
	Blocked   int    `json:"blocked"`
	BlockedBy string `json:"blocked_by,omitempty"`
	// SetAside are the staging directories of agents that this machine was before.
	SetAside []SetAsideStaging `json:"set_aside"`
}

// DamagedFile is a file of the staging that was found damaged and set aside.
type DamagedFile struct {
	// File is its name in the staging directory now, At when that was by this machine's clock, Reason what was wrong.
	File   string    `json:"file"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
	// Salvaged is how many insights were taken out of it whole, Lost how many could not be.
	Salvaged uint64 `json:"salvaged"`
	Lost     uint64 `json:"lost"`
	// StartedAnew are the ids of the deployments whose flows start from nothing because of it, SetBack of those whose flows
	// go on from an earlier commit. Either repeats what it had read since, so its insights may come twice.
	StartedAnew []string `json:"started_anew"`
	SetBack     []string `json:"set_back"`
}

// wentBackName begins the name of what stands for an older copy of the staging among the damaged files (docs/staging.md).
const wentBackName = "outbox.corrupt-"

// WentBack says whether no file was damaged, but an older copy of the staging put in its place.
func (d *DamagedFile) WentBack() bool { return strings.HasPrefix(d.File, wentBackName) }

// SetAsideStaging is a staging directory of another agent, which is kept and never sent.
type SetAsideStaging struct {
	Dir     string `json:"dir"`
	AgentID string `json:"agent_id"`
	// Waiting is how many insights had waited in it, -1 when that is not known. AtMost says that it can be fewer, because the agent
	// was killed.
	Waiting int64 `json:"waiting"`
	AtMost  bool  `json:"at_most"`
}

// outboxStatus is the account from what the stage counts and the last sequence that the tunnel has sent.
func outboxStatus(o *stage.Stats, sent uint64) OutboxStatus {
	out := OutboxStatus{
		Produced: o.Produced, Sent: min(max(sent, o.Acknowledged), o.Produced), Acknowledged: o.Acknowledged,
		WaitingRecords: o.WaitingRecords, WaitingBytes: o.WaitingBytes,
		RoomBytes: o.RoomBytes, RunwaySeconds: -1,
		Late: o.Late, Expired: map[string]uint64{},
		Lost: o.Lost - min(o.Lost, o.LostUnsure), LostRemotely: o.LostRemotely, LostUnsure: o.LostUnsure,
		DamagedFiles: o.SetAside, Salvaged: o.Salvaged, Damage: []DamagedFile{},
		Unknown: o.Unknown, Degraded: o.Degraded, Blocked: o.Blocked, BlockedBy: o.BlockedBy, SetAside: []SetAsideStaging{},
	}
	if o.Runway != stage.RunwayUnknown {
		out.RunwaySeconds = int64(o.Runway / time.Second)
	}
	for _, rule := range []string{stage.GoneExpiredAge, stage.GoneExpiredBytes} {
		out.Expired[rule] = o.Expired[rule]
	}
	for i := range o.Damaged {
		d := &o.Damaged[i]
		out.Damage = append(out.Damage, DamagedFile{
			File: d.File, At: d.At, Reason: plainReason(d.Reason), Salvaged: d.Salvaged, Lost: d.Lost,
			StartedAnew: append([]string{}, d.StartedAnew...), SetBack: append([]string{}, d.SetBack...),
		})
	}
	for _, f := range o.Formers {
		out.SetAside = append(out.SetAside, SetAsideStaging{Dir: f.Dir, AgentID: f.Owner, Waiting: f.Waiting, AtMost: f.AtMost})
	}
	return out
}

// plainReason leaves out of the reason for damage by which ways it was found: whoever reads it knows what it is about.
func plainReason(reason string) string {
	const said = ": "
	if i := strings.LastIndex(reason, stage.ErrDamaged.Error()+said); i >= 0 {
		return reason[i+len(stage.ErrDamaged.Error()+said):]
	}
	return reason
}

// wire is the account for the control plane.
func (o *OutboxStatus) wire() *wire.Outbox {
	out := &wire.Outbox{
		Produced: o.Produced, Sent: o.Sent, Acknowledged: o.Acknowledged, WaitingRecords: o.WaitingRecords, WaitingBytes: o.WaitingBytes,
		RoomBytes: o.RoomBytes, RunwaySeconds: o.RunwaySeconds, Late: o.Late, Expired: o.Expired, Lost: o.Lost, LostRemotely: o.LostRemotely,
		Unknown: o.Unknown, Degraded: o.Degraded, Blocked: uint64(max(o.Blocked, 0)), BlockedBy: o.BlockedBy,
		DamagedFiles: o.DamagedFiles, Salvaged: o.Salvaged,
	}
	valid := func(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }
	for i := range o.Damage {
		d := &o.Damage[i]
		out.Damage = append(out.Damage, &wire.DamagedFile{
			File: valid(d.File), At: d.At.UnixMicro(), Reason: valid(d.Reason), Salvaged: d.Salvaged, Lost: d.Lost,
			StartedAnew: d.StartedAnew, SetBack: d.SetBack,
		})
	}
	for _, a := range o.SetAside {
		out.SetAside = append(out.SetAside, &wire.SetAside{Dir: valid(filepath.Base(a.Dir)), AgentId: valid(a.AgentID), Waiting: a.Waiting})
	}
	return out
}
