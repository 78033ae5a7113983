-- What lists show of agents, so that a list does not read all that each of thousands of agents says.

-- +goose Up

ALTER TABLE agents
    -- The status with its texts cut, as lists show it. NULL where the newest status came before there was this column.
    ADD COLUMN brief json,
    -- The kinds in connectors. NULL where the agent connected last before there was this column.
    ADD COLUMN connector_kinds text[];
-- The order of the list, of which a page is read at a time.
CREATE INDEX agents_in_list ON agents (tenant_id, workspace_id, (revoked_at IS NOT NULL), name, id);
