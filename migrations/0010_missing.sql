-- Which insights of an agent never came, and why: the ranges that its receipts stand for. insight_receipts counts them all;
-- of these the newest of each agent are kept.

-- +goose Up

CREATE TABLE missing_insights (
    tenant_id uuid NOT NULL,
    agent_id  uuid NOT NULL,
    first_seq bigint NOT NULL CHECK (first_seq > 0),
    last_seq  bigint NOT NULL CHECK (last_seq >= first_seq),
    -- As in insight_receipts.
    reason    text NOT NULL CHECK (reason <> '' AND octet_length(reason) <= 50),
    -- When the agent told of the first and of the last of them.
    first_at  timestamptz NOT NULL DEFAULT now(),
    last_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, agent_id, first_seq),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents
);
GRANT SELECT, INSERT, UPDATE (last_seq, last_at), DELETE ON missing_insights TO outfeed_app;
CREATE INDEX missing_insights_newest ON missing_insights (tenant_id, last_at DESC, agent_id DESC, first_seq DESC);

ALTER TABLE missing_insights ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON missing_insights
    USING (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid);
