// What the pages ask for, each with its cache key. The live stream keeps these caches fresh; the slow refetch is for
// what a stream cannot tell, such as time passing on the server.

import { infiniteQueryOptions, keepPreviousData, QueryClient, queryOptions } from "@tanstack/react-query";
import { answer, api } from "./client";
import { ApiError } from "./problem";
import type { Agent, Insight } from "./types";

const refetchInterval = 30_000;
/** A list of very many agents is megabytes, so it is loaded anew less often; the live stream keeps it fresh all the same. */
const manyAgents = 500;
const manyRefetchInterval = 300_000;

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 10_000,
      // What the control plane refused stays refused; what it could not answer may pass.
      retry: (failures, error) =>
        failures < 2 && !(error instanceof ApiError && error.status >= 400 && error.status < 500),
      retryDelay: (attempt) => 500 * 2 ** attempt,
    },
  },
});

export const meQuery = queryOptions({
  queryKey: ["me"],
  queryFn: ({ signal }) => answer(api.GET("/api/v1/me", { signal })),
  staleTime: 60_000,
  refetchInterval: (query) => (query.state.status === "error" ? 5000 : false),
});

const agentsPerPage = 500;
const mostAgentPages = 1000;

/** Each agent in brief, page by page: the texts are cut. */
async function allAgents(signal: AbortSignal): Promise<Agent[]> {
  const items: Agent[] = [];
  let after: string | undefined;
  for (let page = 0; page < mostAgentPages; page += 1) {
    const query = { limit: agentsPerPage, ...(after ? { after } : {}) };
    const answered = await answer(api.GET("/api/v1/agents", { params: { query }, signal }));
    items.push(...answered.items);
    after = answered.next;
    if (!after) break;
  }
  return items;
}

/** Loads, and gives up the load before if that still goes on. */
function latestOnly<T>(load: (signal: AbortSignal) => Promise<T>): () => Promise<T> {
  let before: AbortController | undefined;
  return () => {
    before?.abort();
    before = new AbortController();
    return load(before.signal);
  };
}

const loadAgents = latestOnly(allAgents);

export const agentsQuery = queryOptions({
  queryKey: ["agents"],
  // Without the query's signal, so that it goes on while somebody turns from one page to the next: all of them want it.
  queryFn: loadAgents,
  refetchInterval: (query) => ((query.state.data?.length ?? 0) > manyAgents ? manyRefetchInterval : refetchInterval),
});

/** One agent, with all that it says. */
export const agentQuery = (agent: string) =>
  queryOptions({
    queryKey: ["agent", agent],
    queryFn: ({ signal }) => answer(api.GET("/api/v1/agents/{agent}", { params: { path: { agent } }, signal })),
    refetchInterval,
  });

export const connectionsQuery = queryOptions({
  queryKey: ["connections"],
  queryFn: async ({ signal }) => (await answer(api.GET("/api/v1/connections", { signal }))).items,
  refetchInterval,
});

export const connectorsQuery = queryOptions({
  queryKey: ["connectors"],
  queryFn: async ({ signal }) => (await answer(api.GET("/api/v1/connectors", { signal }))).items,
  staleTime: 300_000,
});

export const flowsQuery = queryOptions({
  queryKey: ["flows"],
  queryFn: async ({ signal }) => (await answer(api.GET("/api/v1/flows", { signal }))).items,
  refetchInterval,
});

export const flowQuery = (flow: string) =>
  queryOptions({
    queryKey: ["flow", flow],
    queryFn: ({ signal }) => answer(api.GET("/api/v1/flows/{flow}", { params: { path: { flow } }, signal })),
    refetchInterval,
  });

export const flowVersionsQuery = (flow: string) =>
  queryOptions({
    queryKey: ["flow-versions", flow],
    queryFn: async ({ signal }) =>
      (await answer(api.GET("/api/v1/flows/{flow}/versions", { params: { path: { flow } }, signal }))).items,
  });

export interface RunFilter {
  flow?: string | undefined;
  agent?: string | undefined;
  status?: string | undefined;
}

export const runsQuery = (filter: RunFilter, limit = 100) => {
  const set = Object.fromEntries(Object.entries(filter).filter(([, value]) => value)) as Record<string, string>;
  return queryOptions({
    queryKey: ["runs", set, limit],
    queryFn: async ({ signal }) =>
      (await answer(api.GET("/api/v1/runs", { params: { query: { ...set, limit } }, signal }))).items,
    refetchInterval,
    placeholderData: keepPreviousData,
  });
};

export const runQuery = (id: string) =>
  queryOptions({
    queryKey: ["run", id],
    queryFn: ({ signal }) => answer(api.GET("/api/v1/runs/{id}", { params: { path: { id } }, signal })),
  });

export const insightNamesQuery = queryOptions({
  queryKey: ["insight-names"],
  queryFn: async ({ signal }) => (await answer(api.GET("/api/v1/insights/names", { signal }))).items,
  refetchInterval,
});

/** The insights of an agent that could never be stored, page by page, newest first. */
export const refusedQuery = (agent: string) =>
  infiniteQueryOptions({
    queryKey: ["refused", agent],
    queryFn: ({ signal, pageParam }) => {
      const query = { agent, ...(pageParam ? { after: pageParam } : {}) };
      return answer(api.GET("/api/v1/insights/refused", { params: { query }, signal }));
    },
    initialPageParam: "",
    getNextPageParam: (page) => page.next,
    refetchInterval,
  });

/** Which insights of an agent never came, page by page, newest first. */
export const missingQuery = (agent: string) =>
  infiniteQueryOptions({
    queryKey: ["missing", agent],
    queryFn: ({ signal, pageParam }) => {
      const query = { agent, ...(pageParam ? { after: pageParam } : {}) };
      return answer(api.GET("/api/v1/insights/missing", { params: { query }, signal }));
    },
    initialPageParam: "",
    getNextPageParam: (page) => page.next,
    refetchInterval,
  });

/** Which insights a page shows: of one name over the last minutes, or the newest of all names. */
export interface InsightSelection {
  name: string | undefined;
  minutes: number | undefined;
}

export interface InsightList {
  /** Newest first. */
  items: Insight[];
  /** True when the range holds more than was loaded. */
  truncated: boolean;
}

const pageSize = 10_000;
const mostPages = 3;
/** How many insights a list keeps while live ones come in. */
export const mostInsights = pageSize * mostPages;
const newestOfAll = 500;

export const insightsQuery = (selection: InsightSelection) =>
  queryOptions({
    queryKey: ["insights", selection],
    queryFn: ({ signal }) => loadInsights(selection, signal),
    staleTime: 60_000,
    enabled: selection.name !== "",
  });

async function loadInsights(selection: InsightSelection, signal: AbortSignal): Promise<InsightList> {
  const { name, minutes } = selection;
  const from = minutes === undefined ? undefined : new Date(Date.now() - minutes * 60_000).toISOString();
  const limit = minutes === undefined ? newestOfAll : pageSize;
  const items: Insight[] = [];
  let after: string | undefined;
  for (let page = 0; page < (minutes === undefined ? 1 : mostPages); page += 1) {
    const query = { limit, ...(name ? { name } : {}), ...(from ? { from } : {}), ...(after ? { after } : {}) };
    const answered = await answer(api.GET("/api/v1/insights", { params: { query }, signal }));
    items.push(...answered.items);
    after = answered.next;
    if (!after) break;
  }
  return { items, truncated: after !== undefined };
}
