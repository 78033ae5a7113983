package httpapi

import (
	"encoding/json"
	"maps"
	"math"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
	"github.com/outfeed/outfeed/controlplane/internal/httpapi/api"
	"github.com/outfeed/outfeed/internal/secret"
	"github.com/outfeed/outfeed/protocol/flowdef"
)

// list converts each; its result is never nil, so that JSON has a list and not null.
func list[F, T any](from []F, convert func(F) T) []T {
	to := make([]T, len(from))
	for i, f := range from {
		to[i] = convert(f)
	}
	return to
}

func listOf[F, T any](from []F, convert func(F) T) *body[api.List[T]] {
	return answer(api.List[T]{Items: list(from, convert)})
}

func same[T any](v T) T { return v }

// labels are never null.
func labels(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func toMe(a fleet.Actor) api.Me {
	return api.Me{
		TenantID: string(a.Tenant), WorkspaceID: string(a.Workspace),
		Kind: a.Kind, ID: string(a.Ref), Name: a.Name, Role: string(a.Role),
	}
}

func toAPIKey(k fleet.APIKey) api.APIKey {
	return api.APIKey{
		ID: string(k.ID), Name: k.Name, Role: string(k.Role), CreatedAt: k.Created, LastUsedAt: k.LastUsed,
	}
}

func toAgentToken(t fleet.EnrollToken) api.AgentToken {
	return api.AgentToken{
		ID: string(t.ID), Labels: labels(t.Labels), CreatedAt: t.Created, ExpiresAt: t.Expires,
		UsedAt: t.Used, AgentID: string(t.Agent),
	}
}

func toAgent(a fleet.Agent) api.Agent {
	out := api.Agent{
		ID: string(a.ID), WorkspaceID: string(a.Workspace), Name: a.Name, Labels: labels(a.Labels),
		Hostname: a.Hostname, OS: a.OS, Arch: a.Arch, Version: a.Version, Fingerprint: a.Fingerprint,
		CreatedAt: a.Created, RevokedAt: a.Revoked, Connected: a.Connected, LastSeenAt: a.LastSeen,
		ClockSkew: a.ClockSkew, RotationAskedAt: a.RotationAsked, RotatedAt: a.Rotated,
		DesiredSerial: a.Desired, AppliedSerial: a.Applied, Outbox: toOutbox(&a),
		ConnectorKinds: list(a.Connectors, func(s flowdef.ConnectorSpec) string { return s.Kind }),
	}
	if a.Lock != nil {
		out.Lock = &api.AgentLock{
			Since: a.Lock.Since, Reason: string(a.Lock.Reason), Connected: api.LockSide(a.Lock.Connected), Other: api.LockSide(a.Lock.Other),
		}
	}
	if a.Status != nil {
		status := toAgentStatus(*a.Status)
		out.Status = &status
	}
	return out
}

func toAgentStatus(s fleet.AgentStatus) api.AgentStatus {
	return api.AgentStatus{Time: s.Time, BundleError: s.BundleError, Flows: list(s.Flows, toFlowStatus), FlowsLeftOut: s.FlowsLeftOut}
}

// toOutbox puts together what the agent says and what is known here.
func toOutbox(a *fleet.Agent) api.Outbox {
	out := api.Outbox{
		RunwaySeconds: -1, Expired: map[string]uint64{}, Damage: []api.DamagedFile{}, SetAside: []api.SetAside{},
		Accounted: a.StoredSeq, Stored: a.StoredInsights(), Refused: a.RefusedInsights, Receipts: map[string]int64{},
	}
	maps.Copy(out.Receipts, a.Receipts)
	if a.Status == nil {
		return out
	}
	o := &a.Status.Outbox
	if out.ReportedAt = a.Status.Time; o.Unknown {
		// The numbers are older than the rest.
		out.ReportedAt = o.CountedAt
	}
	out.Produced, out.Sent, out.Acknowledged = o.Produced, o.Sent, o.Acknowledged
	out.WaitingRecords, out.WaitingBytes = o.WaitingRecords, o.WaitingBytes
	out.RoomBytes, out.RunwaySeconds = o.RoomBytes, o.RunwaySeconds
	out.Late, out.Lost, out.LostRemotely = o.Late, o.Lost, o.LostRemotely
	out.DamagedFiles, out.Salvaged, out.Damage = o.DamagedFiles, o.Salvaged, list(o.Damage, toDamagedFile)
	out.Degraded, out.Blocked, out.BlockedBy = o.Degraded, o.Blocked, o.BlockedBy
	out.SetAside = list(o.SetAside, func(s fleet.SetAside) api.SetAside {
		return api.SetAside{Dir: s.Dir, AgentID: string(s.Agent), Waiting: s.Waiting}
	})
	maps.Copy(out.Expired, o.Expired)
	return out
}

func toDamagedFile(d fleet.DamagedFile) api.DamagedFile {
	text := func(id fleet.ID) string { return string(id) }
	return api.DamagedFile{
		File: d.File, At: d.At, Reason: d.Reason, Salvaged: d.Salvaged, Lost: d.Lost,
		StartedAnew: list(d.StartedAnew, text), SetBack: list(d.SetBack, text),
	}
}

func toFlowStatus(f fleet.FlowStatus) api.FlowStatus {
	return api.FlowStatus{
		DeploymentID: string(f.Deployment), FlowID: string(f.Flow), Name: f.Name, Version: f.Version, SetBackFrom: f.SetBackFrom,
		State: f.State, Error: f.Error, Since: f.Since,
		Sources: list(f.Sources, func(s fleet.SourceStatus) api.SourceStatus { return api.SourceStatus(s) }),
	}
}

func toConnection(c fleet.Connection) api.Connection {
	options := c.Options
	if options == nil {
		options = map[string]any{}
	}
	return api.Connection{
		ID: string(c.ID), Name: c.Name, Kind: c.Kind, Options: options,
		SecretNames: list(c.SecretNames, same[string]), CreatedAt: c.Created, UpdatedAt: c.Updated,
	}
}

// fromConnection is the connection of that name as somebody wants it.
func fromConnection(name string, c api.ConnectionApply) fleet.Connection {
	out := fleet.Connection{
		Name: name, Kind: c.Kind, Options: make(map[string]any, len(c.Options)),
		Secrets: make(map[string]secret.String, len(c.Secrets)),
	}
	for option, value := range c.Options {
		out.Options[option] = wholeNumbers(value)
	}
	for option, value := range c.Secrets {
		out.Secrets[option] = secret.New(value)
	}
	return out
}

// wholeNumbers gives back the int64 that JSON decoding made a float64 of, in lists and objects too.
func wholeNumbers(v any) any {
	const exact = 1 << 53 // the greatest float64 up to which every whole number is one
	switch v := v.(type) {
	case float64:
		if v == math.Trunc(v) && math.Abs(v) <= exact {
			return int64(v)
		}
	case []any:
		for i := range v {
			v[i] = wholeNumbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = wholeNumbers(v[k])
		}
	}
	return v
}

func toConnector(s flowdef.ConnectorSpec) flowdef.ConnectorSpec {
	s.Options = list(s.Options, same[flowdef.Option])
	s.ReadOptions = list(s.ReadOptions, same[flowdef.Option])
	return s
}

func flowProblems(problems flowdef.Problems) []api.FlowProblem {
	return list(problems, func(p flowdef.Problem) api.FlowProblem {
		return api.FlowProblem{Line: p.Line, Column: p.Column, Step: p.Step, Message: p.Message}
	})
}

func toManifest(m flowdef.Manifest) flowdef.Manifest {
	return flowdef.Manifest{Columns: list(m.Columns, func(c flowdef.EgressColumn) flowdef.EgressColumn {
		c.Sources = list(c.Sources, same[string])
		return c
	})}
}

func toFlowWrite(w flowdef.PlannedWrite) api.FlowWrite {
	to := api.FlowWrite{Step: w.Step, Connection: w.Connection, With: w.With, Columns: list(w.Columns, same[string])}
	if to.With == nil {
		to.With = map[string]any{}
	}
	return to
}

func toFlow(f fleet.Flow) api.Flow {
	return api.Flow{
		ID: string(f.ID), Name: f.Name, Description: f.Description, CreatedAt: f.Created, UpdatedAt: f.Updated,
		LatestVersion: f.Latest, PublishedVersion: f.Published, Deployments: list(f.Deployments, toDeployment),
	}
}

func toFlowVersion(v fleet.FlowVersion) api.FlowVersion {
	return api.FlowVersion{
		FlowID: string(v.Flow), Version: v.Version, Definition: v.Definition, SHA256: v.SHA256,
		CreatedAt: v.Created, CreatedBy: v.CreatedBy, PublishedAt: v.Published, Egress: toManifest(v.Egress),
		Writes: list(v.Writes, toFlowWrite),
	}
}

func toDeployment(d fleet.Deployment) api.Deployment {
	return api.Deployment{
		ID: string(d.ID), FlowID: string(d.Flow), FlowName: d.Name, Version: d.Version,
		AgentID: string(d.Agent), CreatedAt: d.Created,
	}
}

func toRun(r fleet.Run) api.Run {
	return api.Run{
		ID: string(r.ID), AgentID: string(r.Agent), FlowID: string(r.Flow), FlowName: r.FlowName, Version: r.Version,
		Status: r.Status, StartedAt: r.Started, EndedAt: r.Ended, RecordsRead: r.RecordsRead, BytesRead: r.BytesRead,
		Failed: r.Failed, Late: r.Late, Insights: r.Insights, Error: r.Error,
		Steps: list(r.Steps, func(s fleet.StepCount) api.StepCount {
			return api.StepCount{
				Step: s.Step, RowsIn: s.In, RowsOut: s.Out, RowsFailed: s.Failed, RowsLate: s.Late, RowsOutside: s.Outside,
			}
		}),
		Sample: list(r.Sample, func(f fleet.FailedRecord) api.FailedRecord { return api.FailedRecord(f) }),
	}
}

func toInsight(i fleet.Insight) api.Insight {
	return api.Insight{
		AgentID: string(i.Agent), Seq: i.Seq, FlowID: string(i.Flow), FlowName: i.FlowName, Version: i.Version,
		Name: i.Name, Time: i.Time, ReceivedAt: i.Received, Key: object(i.Key), Values: object(i.Values),
	}
}

func toRefusedInsight(r fleet.RefusedInsight) api.RefusedInsight {
	in := r.Read()
	return api.RefusedInsight{
		AgentID: string(r.Agent), Seq: r.Seq, ReceivedAt: r.Received, Reason: r.Reason,
		Name: in.Name, FlowID: string(in.Flow), Version: in.Version, Time: in.Time, Record: r.Record,
	}
}

func toMissingInsights(m fleet.MissingInsights) api.MissingInsights {
	return api.MissingInsights{
		AgentID: string(m.Agent), FirstSeq: m.First, LastSeq: m.Last, Insights: m.Last - m.First + 1, Reason: m.Reason,
		FirstAt: m.FirstAt, LastAt: m.LastAt,
	}
}

// object is a JSON object as it is stored; none is an empty one.
func object(text []byte) json.RawMessage {
	if len(text) == 0 {
		return json.RawMessage("{}")
	}
	return text
}

func toInsightName(n fleet.InsightName) api.InsightName {
	return api.InsightName{Name: n.Name, FlowID: string(n.Flow), LastAt: n.Last}
}
