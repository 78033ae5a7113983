// States of agents, flows, sources and runs as dots and badges, the same everywhere.

import type { Agent, FlowStatus } from "../api/types";
import { type FlowHealth, flowStateText, isFailing, stateText } from "../lib/attention";
import { parseTime } from "../lib/format";
import { Badge, Dot, type Tone } from "./ui";

export function AgentState({ agent }: { agent: Agent }) {
  if (parseTime(agent.revoked_at)) return <Dot tone="plain">Revoked</Dot>;
  if (agent.lock) return <Dot tone="bad">Locked</Dot>;
  return agent.connected ? <Dot tone="ok">Connected</Dot> : <Dot tone="bad">Not connected</Dot>;
}

const healthTexts: Record<FlowHealth, [Tone, string]> = {
  running: ["ok", "Running"],
  waiting: ["accent", "Waiting"],
  failing: ["bad", "Failing"],
  unknown: ["warn", "Not reporting"],
  idle: ["plain", "Not deployed"],
};

/** The health of a flow; undefined while the agents are not known yet. */
export function HealthDot({ health }: { health: FlowHealth | undefined }) {
  if (health === undefined) return <span className="text-muted">…</span>;
  const [tone, text] = healthTexts[health];
  return <Dot tone={tone}>{text}</Dot>;
}

export function FlowStateBadge({ status }: { status: FlowStatus }) {
  return <Badge tone={flowTone(status)}>{flowStateText(status)}</Badge>;
}

function flowTone(status: FlowStatus): Tone {
  if (isFailing(status)) return "bad";
  return status.state === "running" || status.state === "completed" ? "ok" : "accent";
}

const sourceTones: Record<string, Tone> = { reading: "ok", ended: "ok", connecting: "accent", failing: "bad" };

export function SourceState({ state }: { state: string }) {
  return <Dot tone={sourceTones[state] ?? "plain"}>{stateText(state)}</Dot>;
}

const runTones: Record<string, Tone> = { ok: "ok", running: "accent", failed: "bad", stopped: "warn" };

export function RunStatus({ status }: { status: string }) {
  return <Badge tone={runTones[status] ?? "plain"}>{status === "ok" ? "OK" : stateText(status)}</Badge>;
}
