// The dashboard's one live stream: it puts what changes into the caches that the pages read.

import type { QueryClient } from "@tanstack/react-query";
import { useEffect, useSyncExternalStore } from "react";
import type { InsightList, InsightSelection } from "../api/queries";
import type { Agent, Events, Insight } from "../api/types";
import { addInsights } from "./insights";
import { browser, type LiveState, LiveStream } from "./stream";

const kinds = ["insights", "run", "agent", "flow", "connection"] as const;

/** Run reports come in bursts; the lists of runs are loaded anew this often at most. */
const runsPauseMs = 1500;

/** So are events of agents. */
const agentsPauseMs = 250;

/** The state of the stream, for the mark in the header. One store, because there is one stream in a page. */
export class LiveStore {
  private state: LiveState = "connecting";
  private readonly listeners = new Set<() => void>();

  readonly read = (): LiveState => this.state;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  set(state: LiveState): void {
    this.state = state;
    for (const listener of this.listeners) listener();
  }
}

export const liveStore = new LiveStore();

export function useLiveState(): LiveState {
  return useSyncExternalStore(liveStore.subscribe, liveStore.read);
}

/** Follows events while the caller is on the page. */
export function useLiveUpdates(client: QueryClient): void {
  useEffect(() => {
    const updates = new Updates(client);
    const stream = new LiveStream("/api/v1/events", kinds, updates, browser);
    const online = () => stream.retryNow();
    window.addEventListener("online", online);
    return () => {
      window.removeEventListener("online", online);
      stream.close();
      updates.close();
    };
  }, [client]);
}

class Updates {
  private runsTimer: ReturnType<typeof setTimeout> | undefined;
  private agentsTimer: ReturnType<typeof setTimeout> | undefined;
  private agents = new Map<string, Agent | undefined>();

  constructor(private readonly client: QueryClient) {}

  state(state: LiveState, again: boolean): void {
    liveStore.set(state);
    // Events of the time in between are not sent again, and a session may have ended meanwhile.
    if (again) void this.client.invalidateQueries();
    if (state === "reconnecting") void this.client.invalidateQueries({ queryKey: ["me"] });
  }

  event(kind: string, data: unknown): void {
    if (typeof data !== "object" || data === null) {
      void this.client.invalidateQueries();
      return;
    }
    switch (kind as keyof Events) {
      case "insights":
        this.insights((data as Events["insights"]).items);
        break;
      case "run": {
        const { id, run } = data as Events["run"];
        this.client.setQueryData(["run", id], run);
        this.runsSoon();
        break;
      }
      case "agent": {
        const { id, agent } = data as Events["agent"];
        this.agentSoon(id, agent);
        break;
      }
      case "flow": {
        const { id, flow } = data as Events["flow"];
        this.upsert("flows", "flow", id, flow);
        void this.client.invalidateQueries({ queryKey: ["flow-versions"] });
        break;
      }
      case "connection": {
        const { id, connection } = data as Events["connection"];
        this.upsert("connections", "connection", id, connection);
        break;
      }
    }
  }

  close(): void {
    clearTimeout(this.runsTimer);
    clearTimeout(this.agentsTimer);
  }

  /** Thousands of agents tell of themselves hundreds of times a second: what came meanwhile is shown at once. */
  private agentSoon(id: string, agent: Agent | undefined): void {
    this.agents.set(id, agent);
    if (this.agentsTimer !== undefined) return;
    this.agentsTimer = setTimeout(() => {
      this.agentsTimer = undefined;
      const came = this.agents;
      this.agents = new Map();
      this.agentsCame(came);
    }, agentsPauseMs);
  }

  private agentsCame(came: ReadonlyMap<string, Agent | undefined>): void {
    const known = new Set(this.client.getQueryData<Agent[]>(["agents"])?.map(({ id }) => id));
    if ([...came].every(([id, agent]) => agent !== undefined && known.has(id))) {
      this.client.setQueryData<Agent[]>(["agents"], (all) => all?.map((agent) => came.get(agent.id) ?? agent));
    } else void this.client.invalidateQueries({ queryKey: ["agents"] }, { cancelRefetch: false });
    for (const [id, agent] of came) {
      for (const ref of agent ? [id, agent.name] : [id]) {
        // An event has the agent in brief; its page shows the whole.
        void this.client.invalidateQueries({ queryKey: ["agent", ref], exact: true });
      }
    }
  }

  private insights(came: Insight[]): void {
    const now = Date.now();
    for (const query of this.client.getQueryCache().findAll({ queryKey: ["insights"] })) {
      const selection = query.queryKey[1] as InsightSelection;
      this.client.setQueryData<InsightList>(query.queryKey, (list) => list && addInsights(list, selection, came, now));
    }
    const known = this.client.getQueryData<{ name: string }[]>(["insight-names"]);
    if (known && came.some((insight) => !known.some(({ name }) => name === insight.name))) {
      void this.client.invalidateQueries({ queryKey: ["insight-names"] });
    }
  }

  private upsert<T extends { id: string; name: string }>(list: string, one: string, id: string, thing: T | undefined) {
    const known = this.client.getQueryData<T[]>([list]);
    const place = known?.findIndex((other) => other.id === id) ?? -1;
    if (thing === undefined || place < 0) void this.client.invalidateQueries({ queryKey: [list] });
    else this.client.setQueryData<T[]>([list], (all) => all?.map((other) => (other.id === id ? thing : other)));
    for (const ref of thing ? [id, thing.name] : [id]) {
      if (this.client.getQueryData([one, ref])) this.client.setQueryData([one, ref], thing);
    }
  }

  private runsSoon(): void {
    if (this.runsTimer !== undefined) return;
    this.runsTimer = setTimeout(() => {
      this.runsTimer = undefined;
      void this.client.invalidateQueries({ queryKey: ["runs"] });
    }, runsPauseMs);
  }
}
