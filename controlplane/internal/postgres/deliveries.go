package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/outfeed/outfeed/controlplane/internal/fleet"
)

// keptRefused is how many refused insights of an agent are kept, and how many ranges of missing ones.
const keptRefused = 1000

func (t *tx) StoreInsights(ctx context.Context, d fleet.Delivery) error {
	if err := t.insertInsights(ctx, d); err != nil {
		return err
	}
	if err := t.insertRefused(ctx, d); err != nil {
		return err
	}
	if err := t.addReceipts(ctx, d); err != nil {
		return err
	}
	return t.must(ctx, `
		UPDATE agents SET stored_seq = @last, refused_insights = refused_insights + @refused
		WHERE tenant_id = @tenant AND id = @agent`,
		args{"agent": d.Agent, "last": d.Last, "refused": len(d.Refused)})
}

func (t *tx) addReceipts(ctx context.Context, d fleet.Delivery) error {
	if len(d.Receipts) == 0 {
		return nil
	}
	reasons := slices.Sorted(maps.Keys(d.Receipts))
	counts := make([]int64, len(reasons))
	for i, reason := range reasons {
		counts[i] = d.Receipts[reason]
	}
	if err := t.insertMissing(ctx, d); err != nil {
		return err
	}
	return t.do(ctx, `
		INSERT INTO insight_receipts (tenant_id, agent_id, reason, insights)
		SELECT @tenant, @agent, u.reason, u.insights FROM unnest(@reasons::text[], @counts::bigint[]) AS u (reason, insights)
		ON CONFLICT (tenant_id, agent_id, reason) DO UPDATE SET insights = insight_receipts.insights + excluded.insights`,
		args{"agent": d.Agent, "reasons": reasons, "counts": counts})
}

// insertMissing keeps which sequences are missing, and removes the agent's oldest ranges beyond keptRefused. A range that
// goes on where the newest ended, for the same reason, makes that one longer; its transaction may have begun before that one's.
func (t *tx) insertMissing(ctx context.Context, d fleet.Delivery) error {
	missing := d.Missing[max(0, len(d.Missing)-keptRefused):]
	n := len(missing)
	firsts, lasts, reasons := make([]int64, n), make([]int64, n), make([]string, n)
	for i := range missing {
		firsts[i], lasts[i], reasons[i] = missing[i].First, missing[i].Last, missing[i].Reason
	}
	a := args{"agent": d.Agent, "firsts": firsts, "lasts": lasts, "reasons": reasons, "kept": keptRefused}
	if err := t.do(ctx, `
		WITH new AS (
			SELECT u.first_seq, u.last_seq, u.reason
			FROM unnest(@firsts::bigint[], @lasts::bigint[], @reasons::text[]) AS u (first_seq, last_seq, reason)
		), longer AS (
			UPDATE missing_insights m SET last_seq = new.last_seq, last_at = greatest(m.last_at, now()) FROM new
			WHERE m.tenant_id = @tenant AND m.agent_id = @agent AND m.reason = new.reason AND m.last_seq = new.first_seq - 1
				AND m.first_seq = (SELECT max(o.first_seq) FROM missing_insights o WHERE o.tenant_id = @tenant AND o.agent_id = @agent)
			RETURNING new.first_seq
		)
		INSERT INTO missing_insights (tenant_id, agent_id, first_seq, last_seq, reason)
		SELECT @tenant, @agent, new.first_seq, new.last_seq, new.reason FROM new
		WHERE new.first_seq NOT IN (SELECT longer.first_seq FROM longer)`, a); err != nil {
		return err
	}
	return t.do(ctx, `
		DELETE FROM missing_insights WHERE tenant_id = @tenant AND agent_id = @agent AND first_seq < (
			SELECT min(newest.first_seq) FROM (
				SELECT m.first_seq FROM missing_insights m WHERE m.tenant_id = @tenant AND m.agent_id = @agent
				ORDER BY m.first_seq DESC LIMIT @kept) AS newest)`, a)
}

func (t *tx) MissingInsights(ctx context.Context, workspace fleet.ID, f fleet.RefusedFilter, after *fleet.InsightCursor) ([]fleet.MissingInsights, error) {
	below, agent, seq := beginning(after)
	return many(ctx, t, `
		SELECT m.agent_id, m.first_at, m.last_at, m.first_seq, m.last_seq, m.reason
		FROM missing_insights m
		JOIN agents a ON a.tenant_id = m.tenant_id AND a.id = m.agent_id
		WHERE m.tenant_id = @tenant AND a.workspace_id = @workspace
			AND (@of_agent = '' OR m.agent_id = nullif(@of_agent, '')::uuid)
			AND (m.last_at, m.agent_id, m.first_seq) < (@below::timestamptz, @below_agent::uuid, @below_seq::bigint)
		ORDER BY m.last_at DESC, m.agent_id DESC, m.first_seq DESC
		LIMIT @limit`,
		args{
			"workspace": workspace, "of_agent": string(f.Agent), "below": below, "below_agent": agent, "below_seq": seq, "limit": f.Limit,
		},
		func(row pgx.CollectableRow) (m fleet.MissingInsights, err error) {
			return scanned(row, &m, &m.Agent, &m.FirstAt, &m.LastAt, &m.First, &m.Last, &m.Reason)
		})
}

func (t *tx) insertInsights(ctx context.Context, d fleet.Delivery) error {
	n := len(d.Insights)
	if n == 0 {
		return nil
	}
	seqs, flows, versions, names := make([]int64, n), make([]string, n), make([]int32, n), make([]string, n)
	times, keys, values := make([]time.Time, n), make([]string, n), make([]string, n)
	for i := range d.Insights {
		in := &d.Insights[i]
		seqs[i], flows[i], versions[i], names[i] = in.Seq, string(in.Flow), int32(in.Version), in.Name //nolint:gosec // the domain has bounded it
		times[i], keys[i], values[i] = in.Time, string(in.Key), string(in.Values)
	}
	a := args{
		"agent": d.Agent, "workspace": d.Workspace, "seqs": seqs, "flows": flows, "versions": versions,
		"names": names, "times": times, "keys": keys, "values": values,
	}
	// unnest and not COPY, which is refused under row-level security.
	if err := t.do(ctx, `
		INSERT INTO insights (tenant_id, workspace_id, agent_id, seq, flow_id, flow_version, name, insight_time, key_json, values_json)
		SELECT @tenant, @workspace, @agent, u.seq, u.flow, u.version, u.name, u.at, u.key::json, u.value::json
		FROM unnest(@seqs::bigint[], @flows::uuid[], @versions::int[], @names::text[], @times::timestamptz[], @keys::text[], @values::text[])
			AS u (seq, flow, version, name, at, key, value)`, a); err != nil {
		return err
	}
	// In one order, so that two agents with the same new names do not wait for each other.
	return t.do(ctx, `
		INSERT INTO insight_names (tenant_id, workspace_id, flow_id, name)
		SELECT DISTINCT @tenant::uuid, @workspace::uuid, u.flow, u.name FROM unnest(@flows::uuid[], @names::text[]) AS u (flow, name)
		ORDER BY 3, 4
		ON CONFLICT DO NOTHING`, a)
}

// insertRefused keeps what was refused, and removes the agent's oldest beyond keptRefused.
func (t *tx) insertRefused(ctx context.Context, d fleet.Delivery) error {
	refused := d.Refused[max(0, len(d.Refused)-keptRefused):]
	n := len(refused)
	if n == 0 {
		return nil
	}
	seqs, reasons, records := make([]int64, n), make([]string, n), make([][]byte, n)
	for i := range refused {
		seqs[i], reasons[i], records[i] = refused[i].Seq, refused[i].Reason, refused[i].Record
	}
	a := args{"agent": d.Agent, "seqs": seqs, "reasons": reasons, "records": records, "kept": keptRefused}
	if err := t.do(ctx, `
		INSERT INTO refused_insights (tenant_id, agent_id, seq, reason, record)
		SELECT @tenant, @agent, u.seq, u.reason, u.record
		FROM unnest(@seqs::bigint[], @reasons::text[], @records::bytea[]) AS u (seq, reason, record)`, a); err != nil {
		return err
	}
	return t.do(ctx, `
		DELETE FROM refused_insights WHERE tenant_id = @tenant AND agent_id = @agent AND seq < (
			SELECT min(newest.seq) FROM (
				SELECT r.seq FROM refused_insights r WHERE r.tenant_id = @tenant AND r.agent_id = @agent
				ORDER BY r.seq DESC LIMIT @kept) AS newest)`, a)
}

func (t *tx) RefusedInsights(ctx context.Context, workspace fleet.ID, f fleet.RefusedFilter, after *fleet.InsightCursor) ([]fleet.RefusedInsight, error) {
	below, agent, seq := beginning(after)
	return many(ctx, t, `
		SELECT r.agent_id, r.received_at, r.seq, r.reason, r.record
		FROM refused_insights r
		JOIN agents a ON a.tenant_id = r.tenant_id AND a.id = r.agent_id
		WHERE r.tenant_id = @tenant AND a.workspace_id = @workspace
			AND (@of_agent = '' OR r.agent_id = nullif(@of_agent, '')::uuid)
			AND (r.received_at, r.agent_id, r.seq) < (@below::timestamptz, @below_agent::uuid, @below_seq::bigint)
		ORDER BY r.received_at DESC, r.agent_id DESC, r.seq DESC
		LIMIT @limit`,
		args{
			"workspace": workspace, "of_agent": string(f.Agent), "below": below, "below_agent": agent, "below_seq": seq, "limit": f.Limit,
		},
		func(row pgx.CollectableRow) (r fleet.RefusedInsight, err error) {
			return scanned(row, &r, &r.Agent, &r.Received, &r.Seq, &r.Reason, &r.Record)
		})
}

// beginning is the place above which a page begins; without a cursor that is above everything.
func beginning(after *fleet.InsightCursor) (below pgtype.Timestamptz, agent string, seq int64) {
	if after == nil {
		return pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}, "ffffffff-ffff-ffff-ffff-ffffffffffff", 0
	}
	return pgtype.Timestamptz{Time: after.Time, Valid: true}, string(after.Agent), after.Seq
}

func scanInsight(row pgx.CollectableRow) (i fleet.Insight, err error) {
	return scanned(row, &i, &i.Agent, &i.Seq, &i.Flow, &i.FlowName, &i.Version, &i.Name, &i.Time, &i.Received, &i.Key, &i.Values)
}

func (t *tx) Insights(ctx context.Context, workspace fleet.ID, f fleet.InsightFilter, after *fleet.InsightCursor) ([]fleet.Insight, error) {
	below, agent, seq := beginning(after)
	key := f.Key
	if key == nil {
		key = map[string]string{}
	}
	return many(ctx, t, `
		SELECT i.agent_id, i.seq, i.flow_id, coalesce(w.name, ''), i.flow_version, i.name, i.insight_time, i.received_at, i.key_json, i.values_json
		FROM insights i
		LEFT JOIN flows w ON w.tenant_id = i.tenant_id AND w.id = i.flow_id AND w.workspace_id = i.workspace_id
		WHERE i.tenant_id = @tenant AND i.workspace_id = @workspace
			AND (@name = '' OR i.name = @name)
			AND (@flow = '' OR i.flow_id = nullif(@flow, '')::uuid)
			AND (@of_agent = '' OR i.agent_id = nullif(@of_agent, '')::uuid)
			AND (@from::timestamptz IS NULL OR i.insight_time >= @from)
			AND (@to::timestamptz IS NULL OR i.insight_time < @to)
			AND (i.insight_time, i.agent_id, i.seq) < (@below::timestamptz, @below_agent::uuid, @below_seq::bigint)
			AND (@key::jsonb = '{}' OR NOT EXISTS (
				SELECT FROM jsonb_each_text(@key::jsonb) AS k WHERE i.key_json ->> k.key IS DISTINCT FROM k.value))
		ORDER BY i.insight_time DESC, i.agent_id DESC, i.seq DESC
		LIMIT @limit`,
		args{
			"workspace": workspace, "name": f.Name, "flow": string(f.Flow), "of_agent": string(f.Agent), "from": orNull(f.From), "to": orNull(f.To),
			"below": below, "below_agent": agent, "below_seq": seq, "key": key, "limit": f.Limit,
		}, scanInsight)
}

func (t *tx) InsightsBySeq(ctx context.Context, workspace, agent fleet.ID, from, to int64) ([]fleet.Insight, error) {
	return many(ctx, t, `
		SELECT i.agent_id, i.seq, i.flow_id, coalesce(w.name, ''), i.flow_version, i.name, i.insight_time, i.received_at, i.key_json, i.values_json
		FROM insights i
		LEFT JOIN flows w ON w.tenant_id = i.tenant_id AND w.id = i.flow_id AND w.workspace_id = i.workspace_id
		WHERE i.tenant_id = @tenant AND i.workspace_id = @workspace AND i.agent_id = @agent AND i.seq BETWEEN @from AND @to
		ORDER BY i.seq`,
		args{"workspace": workspace, "agent": agent, "from": from, "to": to}, scanInsight)
}

func (t *tx) InsightNames(ctx context.Context, workspace fleet.ID) ([]fleet.InsightName, error) {
	return many(ctx, t, `
		SELECT n.name, n.flow_id, last.insight_time
		FROM insight_names n
		CROSS JOIN LATERAL (
			SELECT i.insight_time FROM insights i
			WHERE i.tenant_id = @tenant AND i.workspace_id = @workspace AND i.name = n.name AND i.flow_id = n.flow_id
			ORDER BY i.insight_time DESC LIMIT 1) AS last
		WHERE n.tenant_id = @tenant AND n.workspace_id = @workspace
		ORDER BY n.name, n.flow_id`,
		args{"workspace": workspace},
		func(row pgx.CollectableRow) (n fleet.InsightName, err error) {
			return scanned(row, &n, &n.Name, &n.Flow, &n.Last)
		})
}

func (t *tx) StoreRun(ctx context.Context, workspace fleet.ID, r fleet.Run) error {
	steps, err := json.Marshal(r.Steps)
	if err != nil {
		return fmt.Errorf("write the steps of a run: %w", err)
	}
	sample, err := json.Marshal(r.Sample)
	if err != nil {
		return fmt.Errorf("write the sample of a run: %w", err)
	}
	// Another agent's run of that id stays as it is; ids are random, so only a hostile agent gets there.
	return t.do(ctx, `
		INSERT INTO runs (tenant_id, id, workspace_id, agent_id, flow_id, version, status, started_at, ended_at, records_read, bytes_read,
			records_failed, records_late, insights, error, steps, sample)
		VALUES (@tenant, @id, @workspace, @agent, @flow, @version, @status, @started, @ended, @read, @bytes,
			@failed, @late, @insights, @error, @steps::json, @sample::json)
		ON CONFLICT (tenant_id, id) DO UPDATE SET status = excluded.status, started_at = excluded.started_at, ended_at = excluded.ended_at,
			records_read = excluded.records_read, bytes_read = excluded.bytes_read, records_failed = excluded.records_failed,
			records_late = excluded.records_late, insights = excluded.insights, error = excluded.error, steps = excluded.steps,
			sample = excluded.sample
		WHERE runs.agent_id = excluded.agent_id AND NOT (excluded.status = 'running' AND runs.status IN ('ok', 'failed'))`,
		args{
			"id": r.ID, "workspace": workspace, "agent": r.Agent, "flow": r.Flow, "version": r.Version, "status": r.Status, "started": r.Started,
			"ended": orNull(r.Ended), "read": r.RecordsRead, "bytes": r.BytesRead, "failed": r.Failed, "late": r.Late, "insights": r.Insights,
			"error": r.Error, "steps": string(steps), "sample": string(sample),
		})
}

func (t *tx) EndRuns(ctx context.Context, agent fleet.ID, e fleet.Ending) ([]fleet.ID, error) {
	return many(ctx, t, `
		UPDATE runs SET status = 'stopped', ended_at = greatest(started_at, @ended), error = @why
		WHERE tenant_id = @tenant AND agent_id = @agent AND status = 'running' AND id <> ALL (@open::uuid[])
		RETURNING id`,
		args{"agent": agent, "open": texts(e.Open), "ended": e.At, "why": e.Why}, pgx.RowTo[fleet.ID])
}

const selectRuns = `
	SELECT r.id, r.agent_id, r.flow_id, coalesce(f.name, ''), r.version, r.status, r.started_at, r.ended_at, r.records_read, r.bytes_read,
		r.records_failed, r.records_late, r.insights, r.error, r.steps, r.sample
	FROM runs r
	LEFT JOIN flows f ON f.tenant_id = r.tenant_id AND f.id = r.flow_id AND f.workspace_id = r.workspace_id
	WHERE r.tenant_id = @tenant AND r.workspace_id = @workspace
		AND (@id = '' OR r.id = nullif(@id, '')::uuid)
		AND (@flow = '' OR r.flow_id = nullif(@flow, '')::uuid)
		AND (@agent = '' OR r.agent_id = nullif(@agent, '')::uuid)
		AND (@status = '' OR r.status = @status)
	ORDER BY r.started_at DESC, r.id DESC
	LIMIT @limit`

func scanRun(row pgx.CollectableRow) (r fleet.Run, err error) {
	var steps, sample []byte
	err = row.Scan(&r.ID, &r.Agent, &r.Flow, &r.FlowName, &r.Version, &r.Status, &r.Started, maybe(&r.Ended), &r.RecordsRead, &r.BytesRead,
		&r.Failed, &r.Late, &r.Insights, &r.Error, &steps, &sample)
	if err != nil {
		return r, fmt.Errorf("read a run: %w", err)
	}
	if err := json.Unmarshal(steps, &r.Steps); err != nil {
		return r, fmt.Errorf("read the steps of the run %s: %w", r.ID, err)
	}
	if err := json.Unmarshal(sample, &r.Sample); err != nil {
		return r, fmt.Errorf("read the sample of the run %s: %w", r.ID, err)
	}
	return r, nil
}

func (t *tx) Runs(ctx context.Context, workspace fleet.ID, f fleet.RunFilter) ([]fleet.Run, error) {
	return many(ctx, t, selectRuns, args{
		"workspace": workspace, "id": "", "flow": string(f.Flow), "agent": string(f.Agent), "status": f.Status, "limit": f.Limit,
	}, scanRun)
}

func (t *tx) RunByID(ctx context.Context, workspace, id fleet.ID) (fleet.Run, error) {
	return one(ctx, t, selectRuns, args{"workspace": workspace, "id": string(id), "flow": "", "agent": "", "status": "", "limit": 1}, scanRun)
}
