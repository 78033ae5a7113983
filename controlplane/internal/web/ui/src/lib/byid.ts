// An index of agents, for pages that look up many of them. Pure but for its memory.

import type { Agent } from "../api/types";

const indexes = new WeakMap<readonly Agent[], ReadonlyMap<string, Agent>>();

/** The agents of a list by id. The index is made once for each list. */
export function byId(agents: readonly Agent[]): ReadonlyMap<string, Agent> {
  let index = indexes.get(agents);
  if (!index) {
    index = new Map(agents.map((agent) => [agent.id, agent]));
    indexes.set(agents, index);
  }
  return index;
}
