// Finding agents among thousands. Pure.

import type { Agent } from "../api/types";
import { isFailing } from "./attention";
import { parseTime } from "./format";
import { identityTroubles } from "./identity";
import { isBehind, troubles } from "./outbox";

/** Which agents a list shows. */
export const agentStates = ["connected", "away", "trouble", "revoked"] as const;
export type AgentStateFilter = (typeof agentStates)[number];

/** The agents that are in a state and match each word of a text: by name, host, label, version or system. */
export function findAgents(agents: readonly Agent[], text: string, state: AgentStateFilter | undefined): Agent[] {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return agents.filter((agent) => isIn(agent, state) && words.every((word) => describe(agent).includes(word)));
}

function isIn(agent: Agent, state: AgentStateFilter | undefined): boolean {
  const revoked = parseTime(agent.revoked_at) !== undefined;
  switch (state) {
    case undefined:
      return true;
    case "connected":
      return agent.connected;
    case "away":
      return !agent.connected && !revoked;
    case "trouble":
      return !revoked && hasTrouble(agent);
    case "revoked":
      return revoked;
  }
}

/** Whether something of a connected agent, or of what it has told, needs a person. That it is away is its state. */
export function hasTrouble(agent: Agent): boolean {
  return (
    agent.lock !== undefined ||
    !!agent.status?.bundle_error ||
    (agent.status?.flows ?? []).some(isFailing) ||
    troubles(agent).length > 0 ||
    isBehind(agent) ||
    identityTroubles(agent).length > 0
  );
}

function describe(agent: Agent): string {
  const labels = Object.entries(agent.labels).map(([name, value]) => `${name}=${value}`);
  return [agent.name, agent.hostname, agent.version, `${agent.os}/${agent.arch}`, ...labels].join("\n").toLowerCase();
}
