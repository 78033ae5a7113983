-- Why insights of an agent never came: its receipts, counted by their reason. They are added in the transaction that
-- advances agents.stored_seq, so that each sequence up to it is one of: an insight, a refused one, or one of these.

-- +goose Up

CREATE TABLE insight_receipts (
    tenant_id uuid NOT NULL,
    agent_id  uuid NOT NULL,
    -- damaged, restored, expired_age, expired_bytes, unsendable; other for what is none of these.
    reason    text NOT NULL CHECK (reason <> '' AND octet_length(reason) <= 50),
    insights  bigint NOT NULL CHECK (insights > 0),
    PRIMARY KEY (tenant_id, agent_id, reason),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents
);
GRANT SELECT, INSERT, UPDATE (insights) ON insight_receipts TO outfeed_app;

ALTER TABLE insight_receipts ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON insight_receipts
    USING (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid);

-- What was lost so far has no reason. It is moved for all tenants, so for that moment the owner must see the rows.
ALTER TABLE agents NO FORCE ROW LEVEL SECURITY;
INSERT INTO insight_receipts (tenant_id, agent_id, reason, insights)
SELECT tenant_id, id, 'other', lost_insights FROM agents WHERE lost_insights > 0;
ALTER TABLE agents FORCE ROW LEVEL SECURITY;
ALTER TABLE insight_receipts FORCE ROW LEVEL SECURITY;

ALTER TABLE agents DROP COLUMN lost_insights;

CREATE INDEX refused_insights_newest ON refused_insights (tenant_id, received_at DESC, agent_id DESC, seq DESC);
