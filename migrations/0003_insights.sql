-- Insights, in partitions by month of their arrival.
--
-- By arrival and not by the insight's own time: arrival only moves on, so the partition that takes the rows is always
-- there ahead, a retention is the dropping of whole partitions, and a flow that reads ten years of files does not
-- scatter its rows over a hundred and twenty partitions that nobody has made.
--
-- A primary key of a partitioned table must hold the partition's column, so (tenant_id, agent_id, seq, received_at)
-- alone would let the same sequence in twice at two moments. What keeps it out is agents.stored_seq: a batch is
-- inserted and the sequence advanced in one transaction that holds the agent's row, and what is not above the sequence
-- is dropped before it gets here. The key then says that a transaction cannot hold a sequence twice (received_at is
-- the transaction's time), and finds insights by sequence.
--
-- No foreign keys: the locked agent row proves the agent, and a flow may be unknown here.

-- +goose Up

CREATE TABLE insights (
    tenant_id    uuid NOT NULL,
    workspace_id uuid NOT NULL,
    agent_id     uuid NOT NULL,
    seq          bigint NOT NULL,
    flow_id      uuid NOT NULL,
    flow_version int NOT NULL,
    name         text NOT NULL,
    insight_time timestamptz NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now(),
    -- JSON objects as they came; json and not jsonb, which would order members and rewrite numbers.
    key_json     json NOT NULL,
    values_json  json NOT NULL,
    PRIMARY KEY (tenant_id, agent_id, seq, received_at)
) PARTITION BY RANGE (received_at);

CREATE INDEX insights_newest ON insights (tenant_id, workspace_id, insight_time DESC, agent_id DESC, seq DESC);
CREATE INDEX insights_by_name ON insights (tenant_id, workspace_id, name, insight_time DESC, agent_id DESC, seq DESC);
CREATE INDEX insights_by_flow ON insights (tenant_id, flow_id, insight_time DESC, agent_id DESC, seq DESC);
CREATE INDEX insights_by_agent ON insights (tenant_id, agent_id, insight_time DESC, seq DESC);
-- The privileges of the whole; a partition by its own name is nobody's.
GRANT SELECT, INSERT ON insights TO outfeed_app;

ALTER TABLE insights ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON insights
    USING (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid);

-- Takes what no partition takes, so that nothing is refused when nobody made partitions for a while.
CREATE TABLE insights_default PARTITION OF insights DEFAULT;
ALTER TABLE insights_default ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON insights_default
    USING (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid)
    WITH CHECK (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid);

-- Makes the partitions of this month and of some months ahead, and says how many it made. It runs as the owner, which
-- the making of tables needs, and does nothing else. Rows of those months that the default partition took are moved;
-- for that moment, with the table locked, the owner must see them.
-- +goose StatementBegin
CREATE FUNCTION outfeed_make_partitions(ahead int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp
SET timezone = 'UTC'
AS $$
DECLARE
    made int := 0;
    low  timestamptz;
    high timestamptz;
    part text;
BEGIN
    IF ahead IS NULL OR ahead < 0 OR ahead > 24 THEN
        RAISE EXCEPTION 'partitions can be made 0 to 24 months ahead, not %', ahead;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('outfeed_make_partitions', 0));
    FOR month IN 0..ahead LOOP
        low := date_trunc('month', now()) + make_interval(months => month);
        high := low + interval '1 month';
        part := 'insights_' || to_char(low, '"y"YYYY"m"MM');
        CONTINUE WHEN to_regclass(format('public.%I', part)) IS NOT NULL;
        EXECUTE format('CREATE TABLE public.%I (LIKE public.insights INCLUDING ALL)', part);
        EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', part);
        EXECUTE format($policy$CREATE POLICY tenant ON public.%I
            USING (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid)
            WITH CHECK (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid)$policy$, part);
        ALTER TABLE public.insights_default NO FORCE ROW LEVEL SECURITY;
        EXECUTE format('WITH moved AS (DELETE FROM public.insights_default WHERE received_at >= $1 AND received_at < $2 RETURNING *)
            INSERT INTO public.%I SELECT * FROM moved', part) USING low, high;
        ALTER TABLE public.insights_default FORCE ROW LEVEL SECURITY;
        EXECUTE format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', part);
        EXECUTE format('ALTER TABLE public.insights ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)', part, low, high);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION outfeed_make_partitions(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION outfeed_make_partitions(int) TO outfeed_app;

SELECT outfeed_make_partitions(3);
