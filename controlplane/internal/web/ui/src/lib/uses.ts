// Where a connection is used, from what the agents report.

import type { Agent } from "../api/types";

export interface Use {
  agent: Agent;
  flowId: string;
  flowName: string;
  step: string;
  state: string;
  error: string;
}

/** The sources that read a connection, failing ones first. */
export function usesOf(connection: string, agents: readonly Agent[]): Use[] {
  return agents
    .flatMap((agent) =>
      (agent.status?.flows ?? []).flatMap((flow) =>
        flow.sources
          .filter((source) => source.connection === connection)
          .map((source) => ({
            agent,
            flowId: flow.flow_id,
            flowName: flow.name,
            step: source.step,
            state: source.state,
            error: source.error ?? "",
          })),
      ),
    )
    .sort((a, b) => Number(b.state === "failing") - Number(a.state === "failing"));
}
