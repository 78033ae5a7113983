// Short names for the API's types, which schema.d.ts holds as generated from the OpenAPI document.

export interface Me {
  tenant_id: string;
  workspace_id: string;
  kind: string;
  id: string;
  name: string;
  role: string;
}
export interface AgentTokenCreated {
  agent_token: { id: string; labels: Record<string, string>; created_at: string; expires_at: string };
  token: string;
}
export interface SourceStatus {
  step: string;
  connection: string;
  state: string;
  error?: string;
  last_record?: string;
}
export interface FlowStatus {
  deployment_id: string;
  flow_id: string;
  name: string;
  version: number;
  state: string;
  error?: string;
  since: string;
  sources: SourceStatus[] | null;
}
export interface Agent {
  id: string;
  workspace_id: string;
  name: string;
  labels: Record<string, string>;
  hostname: string;
  os: string;
  arch: string;
  version: string;
  fingerprint: string;
  created_at: string;
  revoked_at?: string;
  connected: boolean;
  last_seen_at?: string;
  desired_serial: number;
  applied_serial: number;
  status?: {
    time: string;
    bundle_error?: string;
    flows: FlowStatus[] | null;
    outbox: { produced: number; acknowledged: number; waiting_records: number; waiting_bytes: number };
  };
  connector_kinds: string[] | null;
}
export interface Connection {
  id: string;
  name: string;
  kind: string;
  options: Record<string, unknown>;
  secret_names: string[] | null;
  created_at: string;
  updated_at: string;
}
export interface Deployment {
  id: string;
  flow_id: string;
  flow_name: string;
  version: number;
  agent_id: string;
  created_at: string;
}
export interface Flow {
  id: string;
  name: string;
  description: string;
  created_at: string;
  updated_at: string;
  latest_version: number;
  published_version: number;
  deployments: Deployment[] | null;
}
export interface EgressColumn {
  insight: string;
  column: string;
  type: string;
  sources: string[] | null;
  aggregated: boolean;
}
export interface FlowVersion {
  flow_id: string;
  version: number;
  definition: string;
  sha256: string;
  created_at: string;
  created_by: string;
  published_at?: string;
  egress: { columns: EgressColumn[] | null };
}
export interface Run {
  id: string;
  agent_id: string;
  flow_id: string;
  flow_name: string;
  version: number;
  status: string;
  started_at: string;
  ended_at?: string;
  records_read: number;
  bytes_read: number;
  failed: number;
  late: number;
  insights: number;
  error?: string;
  steps: { step: string; rows_in: number; rows_out: number }[] | null;
  sample: { step: string; where: string; reason: string; record: string }[] | null;
}
export interface InsightName {
  name: string;
  flow_id: string;
  last_at?: string;
}
export interface Insight {
  agent_id: string;
  seq: number;
  flow_id: string;
  flow_name: string;
  version: number;
  name: string;
  time: string;
  received_at: string;
  key: Record<string, unknown>;
  values: Record<string, unknown>;
}
