import { createRootRoute, createRoute, createRouter, lazyRouteComponent } from "@tanstack/react-router";
import { NotFound, Shell } from "./components/shell";
import { ErrorNote, Loading } from "./components/ui";
import { type AgentStateFilter, agentStates } from "./lib/agents";

const text = (value: unknown): string | undefined => (typeof value === "string" && value !== "" ? value : undefined);

const root = createRootRoute({ component: Shell, notFoundComponent: NotFound });

const overview = createRoute({
  getParentRoute: () => root,
  path: "/",
  component: lazyRouteComponent(() => import("./pages/overview"), "Overview"),
});

interface AgentSearch {
  find?: string | undefined;
  state?: AgentStateFilter | undefined;
}

const agents = createRoute({
  getParentRoute: () => root,
  path: "/agents",
  validateSearch: (search: Record<string, unknown>): AgentSearch => ({
    find: text(search.find),
    state: agentStates.find((state) => state === search.state),
  }),
  component: lazyRouteComponent(() => import("./pages/agents"), "Agents"),
});

const agent = createRoute({
  getParentRoute: () => root,
  path: "/agents/$agent",
  component: lazyRouteComponent(() => import("./pages/agent"), "AgentDetail"),
});

const flows = createRoute({
  getParentRoute: () => root,
  path: "/flows",
  component: lazyRouteComponent(() => import("./pages/flows"), "Flows"),
});

const flow = createRoute({
  getParentRoute: () => root,
  path: "/flows/$flow",
  component: lazyRouteComponent(() => import("./pages/flow"), "FlowDetail"),
});

interface RunSearch {
  flow?: string | undefined;
  agent?: string | undefined;
  status?: string | undefined;
}

const runs = createRoute({
  getParentRoute: () => root,
  path: "/runs",
  validateSearch: (search: Record<string, unknown>): RunSearch => ({
    flow: text(search.flow),
    agent: text(search.agent),
    status: text(search.status),
  }),
  component: lazyRouteComponent(() => import("./pages/runs"), "Runs"),
});

const run = createRoute({
  getParentRoute: () => root,
  path: "/runs/$run",
  component: lazyRouteComponent(() => import("./pages/run"), "RunDetail"),
});

const ranges = ["15m", "1h", "6h", "24h"] as const;
export type Range = (typeof ranges)[number];

interface InsightSearch {
  name?: string | undefined;
  value?: string | undefined;
  range?: Range | undefined;
}

const insights = createRoute({
  getParentRoute: () => root,
  path: "/insights",
  validateSearch: (search: Record<string, unknown>): InsightSearch => ({
    name: text(search.name),
    value: text(search.value),
    range: ranges.find((range) => range === search.range),
  }),
  component: lazyRouteComponent(() => import("./pages/insights"), "Insights"),
});

const connections = createRoute({
  getParentRoute: () => root,
  path: "/connections",
  component: lazyRouteComponent(() => import("./pages/connections"), "Connections"),
});

export const router = createRouter({
  routeTree: root.addChildren([overview, agents, agent, flows, flow, runs, run, insights, connections]),
  defaultPreload: "intent",
  defaultPendingComponent: Loading,
  defaultErrorComponent: ({ error }) => <ErrorNote error={error} />,
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
