-- What a version of a flow writes into the plant's systems is kept beside its egress manifest.

-- +goose Up

ALTER TABLE flow_versions ADD COLUMN writes json NOT NULL DEFAULT '[]';
GRANT UPDATE (writes) ON flow_versions TO outfeed_app;
